//! Files of a pod that the kubelet writes: hosts, hostname, resolv.conf.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use k8s_openapi::api::core::v1::{HostAlias, PodDNSConfig};

use crate::config::KubeletConfig;
use crate::pods::view::PodView;

/// Upstream's limits for resolv.conf.
const MAX_NAME_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;

/// Host name of a pod and its domain: `metadata.name` cut to a label, or what the spec says.
pub(crate) fn host_name(view: &PodView, cluster_domain: &str) -> (String, Option<String>) {
    let spec = view.spec();
    if let Some(name) = spec.hostname_override.as_deref().filter(|name| !name.is_empty()) {
        return (name.to_string(), None);
    }
    let name = spec.hostname.as_deref().filter(|h| !h.is_empty()).unwrap_or(&view.name);
    let mut label: String = name.chars().take(63).collect();
    label.truncate(label.trim_end_matches(['-', '.']).len());
    let domain = spec
        .subdomain
        .as_deref()
        .filter(|s| !s.is_empty())
        .map(|s| format!("{s}.{}.svc.{cluster_domain}", view.namespace));
    (label, domain)
}

/// The name the pod's UTS namespace gets.
pub(crate) fn uts_name(view: &PodView, cluster_domain: &str) -> String {
    match host_name(view, cluster_domain) {
        (host, Some(domain)) if view.spec().set_hostname_as_fqdn == Some(true) => format!("{host}.{domain}"),
        (host, _) => host,
    }
}

/// /etc/hosts of a pod with a network of its own.
pub(crate) fn hosts(view: &PodView, pod_ips: &[IpAddr], cluster_domain: &str) -> String {
    let (host, domain) = host_name(view, cluster_domain);
    let mut out = format!("# Kubernetes-managed hosts file.\n{LOCALHOST}");
    out.push_str("fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n");
    for ip in pod_ips {
        match &domain {
            Some(domain) => out.push_str(&format!("{ip}\t{host}.{domain}\t{host}\n")),
            None => out.push_str(&format!("{ip}\t{host}\n")),
        }
    }
    out.push_str(&aliases(view.spec().host_aliases.as_deref().unwrap_or_default()));
    out
}

/// The loopback addresses' names.
const LOCALHOST: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";

/// /etc/hosts of a pod in the node's network; `node` is the node's own, which may be empty.
pub(crate) fn node_hosts(view: &PodView, node: &str) -> String {
    let aliases = aliases(view.spec().host_aliases.as_deref().unwrap_or_default());
    let node = if node.trim().is_empty() { LOCALHOST } else { node };
    format!("# Kubernetes-managed hosts file (host network).\n{node}{aliases}")
}

fn aliases(list: &[HostAlias]) -> String {
    if list.is_empty() {
        return String::new();
    }
    let mut out = String::from("\n# Entries added by HostAliases.\n");
    for alias in list {
        out.push_str(&format!("{}\t{}\n", alias.ip, alias.hostnames.as_deref().unwrap_or_default().join("\t")));
    }
    out
}

/// Name servers, search domains and options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resolver {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

impl Resolver {
    /// Reads a resolv.conf.
    pub(crate) fn parse(text: &str) -> Self {
        let mut out = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => out.servers.extend(words.next().map(Into::into)),
                Some("search") => {
                    out.searches =
                        words.map(|s| s.trim_end_matches('.').to_string()).filter(|s| !s.is_empty()).collect()
                }
                Some("options") => out.options.extend(words.map(Into::into)),
                _ => {}
            }
        }
        out
    }

    fn render(&self) -> String {
        let mut out = String::new();
        if !self.searches.is_empty() {
            out.push_str(&format!("search {}\n", self.searches.join(" ")));
        }
        for server in &self.servers {
            out.push_str(&format!("nameserver {server}\n"));
        }
        if !self.options.is_empty() {
            out.push_str(&format!("options {}\n", self.options.join(" ")));
        }
        out
    }
}

/// resolv.conf by the pod's dnsPolicy and dnsConfig; `node` is the node's.
pub(crate) fn resolv_conf(view: &PodView, config: &KubeletConfig, node: &Resolver) -> String {
    let spec = view.spec();
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let cluster = match policy {
        "None" => Some(Resolver::default()),
        "ClusterFirstWithHostNet" => Some(cluster_resolver(view, config, node)),
        "ClusterFirst" if !view.host_network() => Some(cluster_resolver(view, config, node)),
        _ => None,
    };
    // Without cluster DNS a pod uses the node's, but never a resolver that only the node can reach.
    let mut resolver =
        cluster.filter(|r| policy == "None" || !r.servers.is_empty()).unwrap_or_else(|| reachable(view, node));
    if let Some(own) = &spec.dns_config {
        merge(&mut resolver, own);
    }
    resolver.servers = unique(resolver.servers);
    resolver.servers.truncate(MAX_NAME_SERVERS);
    resolver.searches = unique(resolver.searches);
    resolver.searches.truncate(MAX_SEARCHES);
    while resolver.searches.join(" ").len() > MAX_SEARCH_CHARS {
        resolver.searches.pop();
    }
    resolver.render()
}

fn cluster_resolver(view: &PodView, config: &KubeletConfig, node: &Resolver) -> Resolver {
    let domain = &config.cluster_domain;
    let mut searches = vec![format!("{}.svc.{domain}", view.namespace), format!("svc.{domain}"), domain.clone()];
    searches.extend(node.searches.iter().cloned());
    Resolver {
        servers: config.cluster_dns.iter().map(ToString::to_string).collect(),
        searches,
        options: vec!["ndots:5".to_string()],
    }
}

fn reachable(view: &PodView, node: &Resolver) -> Resolver {
    let loopback = |server: &String| server.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let mut resolver = node.clone();
    if !view.host_network() {
        resolver.servers.retain(|server| !loopback(server));
    }
    resolver
}

fn merge(resolver: &mut Resolver, own: &PodDNSConfig) {
    resolver.servers.extend(own.nameservers.iter().flatten().cloned());
    resolver.searches.extend(own.searches.iter().flatten().cloned());
    let mut options: BTreeMap<String, String> = BTreeMap::new();
    let mut order = Vec::new();
    let given = own
        .options
        .iter()
        .flatten()
        .filter_map(|o| o.name.clone().map(|name| (name, o.value.clone().unwrap_or_default())));
    let present = std::mem::take(&mut resolver.options);
    let present =
        present.iter().map(|o| o.split_once(':').map_or((o.clone(), String::new()), |(n, v)| (n.into(), v.into())));
    for (name, value) in present.chain(given) {
        if options.insert(name.clone(), value).is_none() {
            order.push(name);
        }
    }
    resolver.options = order
        .into_iter()
        .map(|name| match options.get(&name) {
            Some(value) if !value.is_empty() => format!("{name}:{value}"),
            _ => name,
        })
        .collect();
}

fn unique(list: Vec<String>) -> Vec<String> {
    let mut out: Vec<String> = Vec::with_capacity(list.len());
    for item in list {
        if !out.contains(&item) {
            out.push(item);
        }
    }
    out
}

/// Replaces a file that is bind-mounted into containers: same inode, so that they see the new content.
pub(crate) fn write_in_place(path: &Path, content: &str) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, content)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn view(spec: serde_json::Value) -> PodView {
        let pod = serde_json::json!({"metadata": {"name": "web-0", "namespace": "ns", "uid": "u"}, "spec": spec});
        PodView::new(Arc::new(serde_json::from_value(pod).unwrap()))
    }

    #[test]
    fn hosts_name_the_pod() {
        let view = view(
            serde_json::json!({"containers": [], "subdomain": "web", "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}),
        );
        let text = hosts(&view, &["10.244.0.3".parse().unwrap()], "cluster.local");
        assert!(text.contains("10.244.0.3\tweb-0.web.ns.svc.cluster.local\tweb-0\n"));
        assert!(text.ends_with("\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"));
    }

    #[test]
    fn long_names_are_cut_to_a_label() {
        let mut pod = view(serde_json::json!({"containers": []}));
        pod.name = format!("{}-{}", "a".repeat(62), "b".repeat(10));
        assert_eq!(host_name(&pod, "cluster.local").0, "a".repeat(62));
    }

    #[test]
    fn a_resolver_parses_and_renders() {
        let resolver = Resolver::parse("nameserver 127.0.0.53\nsearch a.b. c\noptions ndots:2 rotate\n");
        assert_eq!(resolver.render(), "search a.b c\nnameserver 127.0.0.53\noptions ndots:2 rotate\n");
        let pod = view(serde_json::json!({"containers": []}));
        assert!(reachable(&pod, &resolver).servers.is_empty());
    }
}
