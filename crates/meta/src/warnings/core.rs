//! Warnings about the other kinds.

use std::net::{IpAddr, Ipv4Addr};

use super::node_selector_term;
use super::pods::{VOLUMES, fractions};
use crate::field::quote;
use crate::validate::Node;

const STORAGE_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const MOUNT_OPTIONS: &str = "volume.beta.kubernetes.io/mount-options";
/// More indexes than this, by more pods than that, and the list of those that are done may not fit.
const MANY_COMPLETIONS: i64 = 100_000;
const MANY_PODS: i64 = 10_000;

type Old<'a, 'b> = Option<&'a Node<'b>>;

fn annotation(object: &Node<'_>, key: &str, message: &str, out: &mut Vec<String>) {
    let annotations = object.at(&["metadata", "annotations"]);
    if annotations.child(key).is_set() {
        out.push(format!("{}: {message}", annotations.path.key(key)));
    }
}

pub(super) fn volume(volume: &Node<'_>, _: Old<'_, '_>, out: &mut Vec<String>) {
    let spec = volume.child("spec");
    for term in spec.at(&["nodeAffinity", "required", "nodeSelectorTerms"]).items() {
        node_selector_term(&term, out);
    }
    annotation(volume, STORAGE_CLASS, "deprecated since v1.8; use \"storageClassName\" attribute instead", out);
    annotation(volume, MOUNT_OPTIONS, "deprecated since v1.31; use \"mountOptions\" attribute instead", out);
    let policy = spec.child("persistentVolumeReclaimPolicy");
    if policy.text() == "Recycle" {
        out.push(format!(
            "{}: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.",
            policy.path
        ));
    }
    for (member, message) in VOLUMES {
        let node = spec.child(member);
        if node.is_set() {
            out.push(format!("{}: {message}", node.path));
        }
    }
}

pub(super) fn claim(claim: &Node<'_>, _: Old<'_, '_>, out: &mut Vec<String>) {
    annotation(claim, STORAGE_CLASS, "deprecated since v1.8; use \"storageClassName\" attribute instead", out);
    fractions(&claim.at(&["spec", "resources", "requests"]), out);
}

pub(super) fn service_account(account: &Node<'_>, _: Old<'_, '_>, out: &mut Vec<String>) {
    let message = "deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets";
    annotation(account, "kubernetes.io/enforce-mountable-secrets", message, out);
}

pub(super) fn node(node: &Node<'_>, _: Old<'_, '_>, out: &mut Vec<String>) {
    if node.at(&["spec", "configSource"]).is_set() {
        out.push("spec.configSource: the feature is removed".to_owned());
    }
    if !node.at(&["spec", "externalID"]).is_empty() {
        out.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned());
    }
}

pub(super) fn job(job: &Node<'_>, _: Old<'_, '_>, out: &mut Vec<String>) {
    let spec = job.child("spec");
    let above = |member: &str, most: i64| spec.child(member).integer().is_some_and(|number| number > most);
    let indexed = spec.child("completionMode").text() == "Indexed";
    if indexed && above("completions", MANY_COMPLETIONS) && above("parallelism", MANY_PODS) {
        out.push("In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail".to_owned());
    }
}

pub(super) fn stateful_set(set: &Node<'_>, _: Old<'_, '_>, out: &mut Vec<String>) {
    let limit = set.at(&["spec", "revisionHistoryLimit"]);
    if limit.integer().is_some_and(|limit| limit < 0) {
        out.push(format!(
            "{}: a negative value retains all historical revisions; a value >= 0 is recommended",
            limit.path
        ));
    }
    for template in set.at(&["spec", "volumeClaimTemplates"]).items() {
        let amounts = template.at(&["spec", "resources", "requests"]);
        fractions(&amounts.clone().renamed(&template.path.children(&["Spec", "resources", "requests"])), out);
    }
}

pub(super) fn service(service: &Node<'_>, _: Old<'_, '_>, out: &mut Vec<String>) {
    const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
    let spec = service.child("spec");
    if service.at(&["metadata", "annotations"]).child(HINTS).is_set() {
        out.push(format!("annotation {HINTS} is deprecated, please use service.kubernetes.io/topology-mode instead"));
    }
    let headless = spec.child("clusterIP").text() == "None";
    if !headless {
        spec.child("clusterIPs").items().for_each(|ip| address(&ip, out));
    }
    spec.child("externalIPs").items().for_each(|ip| address(&ip, out));
    let balancer = spec.child("loadBalancerIP");
    address(&balancer, out);
    spec.child("loadBalancerSourceRanges").items().for_each(|range| network(&range, out));
    let external = spec.child("type").text() == "ExternalName";
    if external && !spec.child("externalIPs").is_empty() {
        out.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if !external && !spec.child("externalName").is_empty() {
        out.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    if headless && !external {
        let affine = spec.child("sessionAffinity").text() != "None";
        let ignored = [
            (!balancer.is_empty(), "loadBalancerIP"),
            (!spec.child("externalIPs").is_empty(), "externalIPs"),
            (affine, "SessionAffinity"),
        ];
        let given = ignored.iter().filter(|(given, _)| *given);
        out.extend(given.map(|(_, member)| format!("spec.{member} is ignored for headless services")));
    }
}

pub(super) fn endpoints(endpoints: &Node<'_>, _: Old<'_, '_>, out: &mut Vec<String>) {
    for subset in endpoints.child("subsets").items() {
        for list in ["addresses", "notReadyAddresses"] {
            subset.child(list).items().for_each(|entry| address(&entry.child("ip"), out));
        }
    }
}

pub(super) fn slice(slice: &Node<'_>, _: Old<'_, '_>, out: &mut Vec<String>) {
    if slice.child("addressType").text() == "FQDN" {
        out.push("addressType: FQDN endpoints are deprecated".to_owned());
        return;
    }
    for endpoint in slice.child("endpoints").items() {
        endpoint.child("addresses").items().for_each(|ip| address(&ip, out));
    }
}

/// An address that is written otherwise than it should be.
fn address(node: &Node<'_>, out: &mut Vec<String>) {
    if node.text().is_empty() {
        return;
    }
    let (path, shown) = (&node.path, quote(node.text()));
    match node.text().parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => {
            if let Some(plain) = ip.to_ipv4_mapped() {
                out.push(non_standard(node, "IP address", &plain.to_string()));
            } else if ip.to_string() != node.text() {
                let right = quote(&ip.to_string());
                out.push(format!("{path}: IPv6 address {shown} should be in RFC 5952 canonical format ({right})"));
            }
        }
        Ok(IpAddr::V4(_)) => {}
        Err(_) => {
            if let Some(ip) = sloppy(node.text()) {
                out.push(non_standard(node, "IP address", &ip.to_string()));
            }
        }
    }
}

fn network(node: &Node<'_>, out: &mut Vec<String>) {
    let Some((ip, bits)) = node.text().trim().split_once('/') else { return };
    if let (Err(_), Some(ip)) = (ip.parse::<IpAddr>(), sloppy(ip)) {
        out.push(non_standard(node, "CIDR value", &format!("{ip}/{bits}")));
    }
}

fn non_standard(node: &Node<'_>, what: &str, right: &str) -> String {
    let (path, shown, right) = (&node.path, quote(node.text()), quote(right));
    format!(
        "{path}: non-standard {what} {shown} will be considered invalid in a future Kubernetes release: use {right}"
    )
}

/// Four decimal numbers that may begin with zeros, as Go once read them.
fn sloppy(text: &str) -> Option<Ipv4Addr> {
    let mut numbers = text.split('.').map(|part| part.parse::<u8>().ok());
    let mut next = || numbers.next().flatten();
    let ip = Ipv4Addr::new(next()?, next()?, next()?, next()?);
    numbers.next().is_none().then_some(ip)
}
