//! kind's `kind.x-k8s.io/v1alpha4`: what means something here is used, what does not is refused with the reason.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_yaml::Value;

use super::{Declared, containerd, path};

pub(super) const API_VERSION: &str = "kind.x-k8s.io/v1alpha4";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Cluster {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    nodes: Vec<Node>,
    #[serde(default)]
    networking: Networking,
    #[serde(default)]
    feature_gates: BTreeMap<String, bool>,
    #[serde(default)]
    runtime_config: BTreeMap<String, String>,
    #[serde(default)]
    kubeadm_config_patches: Vec<Value>,
    #[serde(default, rename = "kubeadmConfigPatchesJSON6902")]
    kubeadm_config_patches_json6902: Vec<Value>,
    #[serde(default)]
    containerd_config_patches: Vec<String>,
    #[serde(default, rename = "containerdConfigPatchesJSON6902")]
    containerd_config_patches_json6902: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Node {
    #[serde(default)]
    role: Role,
    #[serde(default)]
    image: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    extra_mounts: Vec<Mount>,
    #[serde(default)]
    extra_port_mappings: Vec<PortMapping>,
    #[serde(default)]
    kubeadm_config_patches: Vec<Value>,
    #[serde(default, rename = "kubeadmConfigPatchesJSON6902")]
    kubeadm_config_patches_json6902: Vec<Value>,
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Role {
    #[default]
    ControlPlane,
    Worker,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Mount {
    host_path: String,
    container_path: String,
    #[serde(default)]
    read_only: bool,
    #[serde(default)]
    selinux_relabel: bool,
    #[serde(default)]
    propagation: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PortMapping {
    container_port: u16,
    /// 0 and -1 are any free one.
    #[serde(default)]
    host_port: i32,
    #[serde(default)]
    listen_address: String,
    #[serde(default)]
    protocol: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Networking {
    #[serde(default)]
    ip_family: String,
    #[serde(default)]
    api_server_address: String,
    #[serde(default)]
    api_server_port: i32,
    #[serde(default)]
    pod_subnet: String,
    #[serde(default)]
    service_subnet: String,
    #[serde(default, rename = "disableDefaultCNI")]
    disable_default_cni: bool,
    #[serde(default)]
    kube_proxy_mode: String,
    dns_search: Option<Vec<String>>,
}

const NO_KUBEADM: &str = "there is no kubeadm in a node; settings of the API server are --extra-config's";

pub(super) fn read(value: &Value, base: &Path) -> Result<Declared, String> {
    let cluster: Cluster = serde_yaml::from_value(value.clone()).map_err(|error| error.to_string())?;
    let mut declared = Declared::default();
    if !cluster.name.is_empty() {
        declared.wish("profile", "name", vec![cluster.name.clone()]);
    }
    nodes(&cluster.nodes, base, &mut declared)?;
    networking(&cluster.networking, &mut declared);
    let no_kubeadm = [
        ("kubeadmConfigPatches", &cluster.kubeadm_config_patches),
        ("kubeadmConfigPatchesJSON6902", &cluster.kubeadm_config_patches_json6902),
    ];
    for (field, patches) in no_kubeadm {
        if !patches.is_empty() {
            declared.refuse(field, NO_KUBEADM);
        }
    }
    if !cluster.feature_gates.is_empty() {
        declared.refuse("featureGates", "features are those of the Kubernetes served, at their defaults");
    }
    if !cluster.runtime_config.is_empty() {
        declared.refuse("runtimeConfig", "the APIs are those that the Kubernetes served has on by default");
    }
    for (i, patch) in cluster.containerd_config_patches.iter().enumerate() {
        containerd::read(patch, &format!("containerdConfigPatches[{i}]"), &mut declared)?;
    }
    if !cluster.containerd_config_patches_json6902.is_empty() {
        declared.refuse("containerdConfigPatchesJSON6902", "there is no containerd in a node");
    }
    Ok(declared)
}

fn nodes(nodes: &[Node], base: &Path, declared: &mut Declared) -> Result<(), String> {
    if nodes.len() > 1 {
        declared.wish("nodes", "nodes", vec![nodes.len().to_string()]);
    }
    let planes = nodes.iter().filter(|node| node.role == Role::ControlPlane).count();
    match planes {
        0 if !nodes.is_empty() => return Err("nodes has none of the role control-plane".to_owned()),
        0 | 1 => {}
        _ => declared.refuse("nodes", "there is one control plane"),
    }
    let mut version: Option<&str> = None;
    for (i, node) in nodes.iter().enumerate() {
        let field = format!("nodes[{i}]");
        if !node.image.is_empty() {
            match kubernetes_version(&node.image) {
                // All nodes are of one version.
                Some(wanted) if version.is_none_or(|known| known == wanted) => {
                    if version.is_none() {
                        declared.wish("kubernetes-version", format!("{field}.image"), vec![wanted.to_owned()]);
                    }
                    version = Some(wanted);
                }
                Some(_) => declared.refuse(&format!("{field}.image"), "all nodes have one version of Kubernetes"),
                None => declared.refuse(
                    &format!("{field}.image"),
                    "only kindest/node:vX.Y.Z can be followed, as a version; a userland of one's own is --base-image's",
                ),
            }
        }
        if !node.labels.is_empty() {
            declared.refuse(&format!("{field}.labels"), "label the node once it is there: kubectl label node");
        }
        if !node.kubeadm_config_patches.is_empty() || !node.kubeadm_config_patches_json6902.is_empty() {
            declared.refuse(&format!("{field}.kubeadmConfigPatches"), NO_KUBEADM);
        }
        if node.role == Role::Worker && !(node.extra_mounts.is_empty() && node.extra_port_mappings.is_empty()) {
            declared.refuse(&field, "mounts and ports are the control plane's only");
            continue;
        }
        let mut mounts = Vec::new();
        for (j, mount) in node.extra_mounts.iter().enumerate() {
            let field = format!("{field}.extraMounts[{j}]");
            match mount.propagation.as_str() {
                "" | "None" => {}
                "HostToContainer" | "Bidirectional" => declared.refuse(
                    &format!("{field}.propagation"),
                    "what is mounted later on one side is not seen on the other",
                ),
                other => return Err(format!("{field}.propagation {other:?} is none of kind's")),
            }
            if mount.selinux_relabel {
                declared.refuse(&format!("{field}.selinuxRelabel"), "nodes go without labels of SELinux");
            }
            mounts.push(mounted(mount, base));
        }
        declared.wish("mount-string", format!("{field}.extraMounts"), mounts);
        let ports = node.extra_port_mappings.iter().map(published).collect();
        declared.wish("ports", format!("{field}.extraPortMappings"), ports);
    }
    Ok(())
}

/// `v1.35.0` of `kindest/node:v1.35.0@sha256:…`.
fn kubernetes_version(image: &str) -> Option<&str> {
    let (name, _) = image.split_once('@').unwrap_or((image, ""));
    let (repository, tag) = name.rsplit_once(':')?;
    let official = repository == "kindest/node" || repository.ends_with("/kindest/node");
    let numbers = tag.strip_prefix('v')?;
    let is_version = numbers.split('.').count() == 3 && numbers.split('.').all(|number| number.parse::<u16>().is_ok());
    (official && is_version).then_some(tag)
}

fn mounted(mount: &Mount, base: &Path) -> String {
    let mode = if mount.read_only { ":ro" } else { "" };
    format!("{}:{}{mode}", path(base, &mount.host_path), mount.container_path)
}

/// As docker's `--publish` has it; on loopback unless another address is given.
fn published(mapping: &PortMapping) -> String {
    let address = if mapping.listen_address.is_empty() { "" } else { &format!("{}:", mapping.listen_address) };
    let host = if mapping.host_port > 0 { mapping.host_port.to_string() } else { String::new() };
    let protocol = if mapping.protocol.is_empty() { "tcp".to_owned() } else { mapping.protocol.to_ascii_lowercase() };
    match (address, host.as_str()) {
        ("", "") => format!("{}/{protocol}", mapping.container_port),
        _ => format!("{address}{host}:{}/{protocol}", mapping.container_port),
    }
}

/// Field, what it says, what is so here anyway, and the flag for something else or the reason that there is none.
type Setting<'a> = (&'static str, &'a str, &'static [&'static str], Result<&'static str, &'static str>);

fn networking(networking: &Networking, declared: &mut Declared) {
    let texts: [Setting<'_>; 5] = [
        ("ipFamily", &networking.ip_family, &["ipv4"], Err("clusters are of IPv4")),
        ("apiServerAddress", &networking.api_server_address, &["127.0.0.1"], Ok("listen-address")),
        ("podSubnet", &networking.pod_subnet, &["10.244.0.0/16"], Err("pods are in 10.244.0.0/16")),
        ("serviceSubnet", &networking.service_subnet, &["10.96.0.0/12"], Ok("service-cluster-ip-range")),
        (
            "kubeProxyMode",
            &networking.kube_proxy_mode,
            &["nftables", "iptables"],
            Err("Services are served by kminik itself, by nftables"),
        ),
    ];
    for (name, value, same, flag) in texts {
        let field = format!("networking.{name}");
        match flag {
            _ if value.is_empty() || same.contains(&value) => {}
            Ok(flag) => declared.wish(flag, field, vec![value.to_owned()]),
            Err(why) => declared.refuse(&field, why),
        }
    }
    if networking.api_server_port > 0 {
        declared.wish("apiserver-port", "networking.apiServerPort", vec![networking.api_server_port.to_string()]);
    }
    if networking.disable_default_cni {
        declared.refuse("networking.disableDefaultCNI", "the network of pods is kminik's own");
    }
    if networking.dns_search.is_some() {
        declared.refuse("networking.dnsSearch", "pods search the cluster's domain");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(rest: &str) -> Result<Declared, String> {
        let text = format!("apiVersion: kind.x-k8s.io/v1alpha4\nkind: Cluster\n{rest}");
        read(&serde_yaml::from_str(&text).unwrap(), Path::new("/base"))
    }

    fn said(rest: &str) -> Vec<String> {
        let declared = declared(rest).unwrap();
        assert!(declared.refused.is_empty(), "{:?}", declared.refused);
        declared.wishes.iter().flat_map(|wish| wish.values.iter().map(|v| format!("{} {v}", wish.flag))).collect()
    }

    #[test]
    fn what_means_something_here_becomes_flags() {
        let rest = r#"
name: dev
nodes:
- role: control-plane
  image: kindest/node:v1.35.0@sha256:00
  extraPortMappings:
  - {containerPort: 30080, hostPort: 8080, listenAddress: "127.0.0.1", protocol: TCP}
  - {containerPort: 30053, protocol: UDP}
  extraMounts:
  - {hostPath: ./data, containerPath: /data, readOnly: true}
- role: worker
networking: {ipFamily: ipv4, apiServerAddress: 127.0.0.1, podSubnet: 10.244.0.0/16, serviceSubnet: 10.0.0.0/16, kubeProxyMode: iptables}
containerdConfigPatches:
- |-
  [plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]
    endpoint = ["https://one.example", "http://two.example:5000"]
  [plugins."io.containerd.grpc.v1.cri".registry.configs."two.example:5000".tls]
    insecure_skip_verify = true
"#;
        assert_eq!(
            said(rest),
            [
                "profile dev",
                "nodes 2",
                "kubernetes-version v1.35.0",
                "mount-string /base/./data:/data:ro",
                "ports 127.0.0.1:8080:30080/tcp",
                "ports 30053/udp",
                "service-cluster-ip-range 10.0.0.0/16",
                "insecure-registry two.example:5000",
                "registry-mirror docker.io=https://one.example",
                "registry-mirror docker.io=http://two.example:5000",
            ]
        );
        assert!(said("").is_empty());
        assert!(said("nodes: [{role: control-plane}]").is_empty());
    }

    #[test]
    fn what_means_nothing_here_is_refused_with_the_reason() {
        for (rest, field) in [
            ("kubeadmConfigPatches: ['kind: ClusterConfiguration']", "kubeadmConfigPatches"),
            ("nodes: [{kubeadmConfigPatches: ['x']}]", "nodes[0].kubeadmConfigPatches"),
            ("nodes: [{labels: {a: b}}]", "nodes[0].labels"),
            ("nodes: [{image: 'example/node:v1'}]", "nodes[0].image"),
            ("nodes: [{}, {}]", "nodes"),
            ("networking: {ipFamily: dual}", "networking.ipFamily"),
            ("networking: {disableDefaultCNI: true}", "networking.disableDefaultCNI"),
            ("networking: {podSubnet: 10.0.0.0/8}", "networking.podSubnet"),
            ("networking: {kubeProxyMode: ipvs}", "networking.kubeProxyMode"),
            ("runtimeConfig: {api/alpha: 'true'}", "runtimeConfig"),
            (
                "nodes: [{extraMounts: [{hostPath: /a, containerPath: /b, propagation: Bidirectional}]}]",
                "nodes[0].extraMounts[0].propagation",
            ),
            (
                "nodes: [{extraMounts: [{hostPath: /a, containerPath: /b, selinuxRelabel: true}]}]",
                "nodes[0].extraMounts[0].selinuxRelabel",
            ),
            ("containerdConfigPatches: ['[debug]']", "containerdConfigPatches[0]"),
            (
                "containerdConfigPatches: [\"[plugins.'io.containerd.grpc.v1.cri'.containerd]\\nx = 1\"]",
                "containerdConfigPatches[0]",
            ),
        ] {
            let refused = declared(rest).unwrap().refused;
            assert!(refused.len() == 1 && refused[0].starts_with(&format!("{field}: ")), "{rest}: {refused:?}");
        }
        let noted = declared(
            "containerdConfigPatches: [\"[plugins.'io.containerd.cri.v1.images'.registry]\\nconfig_path = '/etc/c'\"]",
        );
        assert!(noted.unwrap().notes[0].contains("/etc/c"));
        // What is left of a mount is wished for, so that --force goes on with it.
        let mount = "nodes: [{extraMounts: [{hostPath: /a, containerPath: /b, propagation: HostToContainer}]}]";
        assert_eq!(declared(mount).unwrap().wishes[0].values, ["/a:/b"]);
        assert!(declared(&mount.replace("HostToContainer", "Sideways")).is_err());
        for rest in ["nodez: []", "nodes: [{role: worker}]", "nodes: [{role: boss}]", "containerdConfigPatches: ['[']"]
        {
            assert!(declared(rest).is_err(), "{rest}");
        }
    }
}
