//! Warnings about pods and pod templates.

use std::collections::{BTreeMap, BTreeSet};

use super::{deprecated_node_label, node_selector_term};
use crate::field::{Path, quote};
use crate::pod_annotations::{APP_ARMOR, SECCOMP_CONTAINER, SECCOMP_POD};
use crate::validate::Node;

const ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
];

/// Kinds of volumes that are on their way out or gone.
pub(super) const VOLUMES: [(&str, &str); 9] = [
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

const NO_POD: &str = "a null labelSelector results in matching no pod";

/// A pod.
pub(super) fn pod(pod: &Node<'_>, out: &mut Vec<String>) {
    spec_and_metadata(&pod.child("metadata"), &pod.child("spec"), out);
}

/// A template of pods.
pub(super) fn template(template: &Node<'_>, out: &mut Vec<String>) {
    spec_and_metadata(&template.child("metadata"), &template.child("spec"), out);
}

fn spec_and_metadata(metadata: &Node<'_>, spec: &Node<'_>, out: &mut Vec<String>) {
    placement(spec, out);
    let annotations = metadata.child("annotations");
    for (key, message) in ANNOTATIONS {
        if annotations.child(key).is_set() {
            out.push(format!("{}: {message}", annotations.path.key(key)));
        }
    }
    volumes(&spec.child("volumes"), out);
    duplicates(&spec.child("hostAliases"), "ip", out);
    duplicates(&spec.child("imagePullSecrets"), "name", out);
    for secret in spec.child("imagePullSecrets").items() {
        let name = secret.child("name");
        if name.is_empty() {
            out.push(format!("{}: invalid empty name \"\"", name.path));
        }
    }
    fractions(&spec.child("overhead"), out);
    security(&annotations, spec, out);
    for container in spec.containers() {
        fractions(&container.at(&["resources", "limits"]), out);
        fractions(&container.at(&["resources", "requests"]), out);
        environment(&container.child("env"), out);
    }
    ports(spec, out);
    let grace = spec.child("terminationGracePeriodSeconds");
    if grace.integer().is_some_and(|seconds| seconds < 0) {
        out.push(format!("{}: must be >= 0; negative values are invalid and will be treated as 1", grace.path));
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let affinity = spec.at(&["affinity", kind]);
        let wanted = affinity.child("requiredDuringSchedulingIgnoredDuringExecution");
        wanted.items().for_each(|term| null_selector(&term, out));
        let preferred = affinity.child("preferredDuringSchedulingIgnoredDuringExecution");
        preferred.items().for_each(|term| null_selector(&term.child("podAffinityTerm"), out));
    }
}

fn null_selector(term: &Node<'_>, out: &mut Vec<String>) {
    let selector = term.child("labelSelector");
    if !selector.is_set() {
        out.push(format!("{}: {NO_POD}", selector.path));
    }
}

fn placement(spec: &Node<'_>, out: &mut Vec<String>) {
    for (key, node) in spec.child("nodeSelector").entries() {
        if let Some(message) = deprecated_node_label(key) {
            out.push(format!("{}: {message}", node.path));
        }
    }
    let affinity = spec.at(&["affinity", "nodeAffinity"]);
    let terms = affinity.at(&["requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms"]);
    terms.items().for_each(|term| node_selector_term(&term, out));
    for preferred in affinity.child("preferredDuringSchedulingIgnoredDuringExecution").items() {
        node_selector_term(&preferred.child("preference"), out);
    }
    for constraint in spec.child("topologySpreadConstraints").items() {
        let key = constraint.child("topologyKey");
        if let Some(message) = deprecated_node_label(key.text()) {
            out.push(format!("{}: {} is {message}", key.path, key.text()));
        }
        null_selector(&constraint, out);
    }
}

fn duplicates(list: &Node<'_>, member: &str, out: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for item in list.items() {
        let node = item.child(member);
        if !seen.insert(node.text()) {
            out.push(format!("{}: duplicate {member} {}", node.path, quote(node.text())));
        }
    }
}

/// Parts of a byte, which no memory or disk has.
pub(super) fn fractions(amounts: &Node<'_>, out: &mut Vec<String>) {
    for name in ["memory", "ephemeral-storage", "storage"] {
        let amount = amounts.child(name);
        if let Some(quantity) = amount.quantity()
            && quantity.milli_value() % 1000 != 0
        {
            let shown = quote(&quantity.to_string());
            out.push(format!(
                "{}: fractional byte value {shown} is invalid, must be an integer",
                amounts.path.key(name)
            ));
        }
    }
}

fn security(annotations: &Node<'_>, spec: &Node<'_>, out: &mut Vec<String>) {
    let has = |context: &Node<'_>, profile: &str| context.child(profile).is_set();
    let mut warn = |key: &str, message: &str| {
        if annotations.child(key).is_set() {
            out.push(format!("{}: {message}", annotations.path.key(key)));
        }
    };
    let context = spec.child("securityContext");
    let seccomp = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
    if !has(&context, "seccompProfile") {
        warn(SECCOMP_POD, seccomp);
    }
    for container in spec.containers() {
        let (name, own) = (container.child("name").text(), container.child("securityContext"));
        if !has(&own, "seccompProfile") {
            warn(&format!("{SECCOMP_CONTAINER}{name}"), seccomp);
        }
        if !has(&context, "appArmorProfile") && !has(&own, "appArmorProfile") {
            let message = "deprecated since v1.30; use the \"appArmorProfile\" field instead";
            warn(&format!("{APP_ARMOR}{name}"), message);
        }
    }
}

/// A name that is set twice, unless the second value is made of the first.
fn environment(list: &Node<'_>, out: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for variable in list.items() {
        let (name, value) = (variable.child("name").text(), variable.child("value").text());
        if seen.insert(name) {
            continue;
        }
        let reference = format!("$({name})");
        if variable.child("valueFrom").is_set() || value == reference || !value.contains(&reference) {
            let shown = quote(name);
            out.push(format!(
                "{}: hides previous definition of {shown}, which may be dropped when using apply",
                variable.path
            ));
        }
    }
}

fn ports(spec: &Node<'_>, out: &mut Vec<String>) {
    /// Ports of one number and protocol: path, address and number on the host.
    type Known<'a> = Vec<(Path, &'a str, i64)>;
    let mut known: BTreeMap<(i64, &str), Known<'_>> = BTreeMap::new();
    for container in spec.containers() {
        for port in container.child("ports").items() {
            let number = |member: &str| port.child(member).integer().unwrap_or_default();
            let (own, host) = (number("containerPort"), number("hostPort"));
            let (ip, protocol) = (port.child("hostIP").text(), port.child("protocol").text());
            if !ip.is_empty() && host == 0 {
                let name = port.child("name").text();
                out.push(format!(
                    "{}: hostIP set without hostPort: {{Name:{name} HostPort:{host} ContainerPort:{own} Protocol:{protocol} HostIP:{ip}}}",
                    port.path
                ));
            }
            let others = known.entry((own, protocol)).or_default();
            for (path, other_ip, other_host) in others.iter() {
                let what = if ip == *other_ip && host == *other_host {
                    "duplicate"
                } else if host == 0 || *other_host == 0 {
                    "overlapping"
                } else if host == *other_host && ip.is_empty() != other_ip.is_empty() {
                    "dangerously ambiguous"
                } else {
                    continue;
                };
                out.push(format!("{}: {what} port definition with {path}", port.path));
            }
            others.push((port.path.clone(), ip, host));
        }
    }
}

fn volumes(list: &Node<'_>, out: &mut Vec<String>) {
    for volume in list.items() {
        for (member, message) in VOLUMES {
            let node = volume.child(member);
            if node.is_set() {
                // The path names upstream's own member.
                let member = if member == "storageos" { "storageOS" } else { member };
                out.push(format!("{}: {message}", volume.path.child(member)));
            }
        }
        let claim = volume.at(&["ephemeral", "volumeClaimTemplate", "spec"]);
        fractions(&claim.at(&["resources", "requests"]), out);
    }
    list.items().for_each(|volume| overlaps(&volume, out));
}

/// Files of one volume that cannot both be there.
fn overlaps(volume: &Node<'_>, out: &mut Vec<String>) {
    let name = quote(volume.child("name").text());
    let items = |source: &Node<'_>| -> Vec<String> {
        source.child("items").items().map(|item| item.child("path").text().to_owned()).collect()
    };
    let named = |source: &Node<'_>, member: &str| quote(source.child(member).text());
    let (map, secret, own) = (volume.child("configMap"), volume.child("secret"), volume.child("downwardAPI"));
    collisions(&items(&map), &format!("volume {name} (ConfigMap {})", named(&map, "name")), out);
    collisions(&items(&secret), &format!("volume {name} (Secret {})", named(&secret, "secretName")), out);
    collisions(&items(&own), &format!("volume {name} (DownwardAPI)"), out);
    let mut all: BTreeSet<String> = BTreeSet::new();
    for source in volume.at(&["projected", "sources"]).items() {
        let Some((kind, part)) = source
            .value
            .as_object()
            .and_then(|members| members.keys().next())
            .map(|kind| (kind.as_str(), source.child(kind)))
        else {
            out.push(format!("volume {name} (Projected) has no sources provided"));
            continue;
        };
        let (paths, title) = match kind {
            "configMap" => (items(&part), format!("ConfigMap {}", named(&part, "name"))),
            "secret" => (items(&part), format!("Secret {}", named(&part, "name"))),
            "downwardAPI" => (items(&part), "DownwardAPI".to_owned()),
            "serviceAccountToken" => (vec![part.child("path").text().to_owned()], "ServiceAccountToken".to_owned()),
            "clusterTrustBundle" => {
                let member = if part.child("name").is_set() { "name" } else { "signerName" };
                (vec![part.child("path").text().to_owned()], format!("ClusterTrustBundle {}", named(&part, member)))
            }
            _ => continue,
        };
        let title = format!("volume {name} (Projected {title})");
        collisions(&paths, &title, out);
        let paths: BTreeSet<String> = paths.into_iter().collect();
        let together: Vec<String> = paths.iter().chain(&all).cloned().collect::<BTreeSet<_>>().into_iter().collect();
        let doubled = paths.iter().filter(|path| all.contains(*path));
        out.extend(doubled.map(|path| format!("{title}: overlapping paths: {} with {}", quote(path), quote(path))));
        if !all.is_empty() {
            collisions(&together, &title, out);
        }
        all.extend(paths);
    }
}

fn collisions(paths: &[String], title: &str, out: &mut Vec<String>) {
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for path in paths {
        let path = path.trim_end_matches('/');
        let below = |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'));
        let other = seen.iter().find(|other| **other == path || below(other, path) || below(path, other));
        if let Some(other) = other {
            out.push(format!("{title}: overlapping paths: {} with {}", quote(path), quote(other)));
        }
        seen.insert(path);
    }
}
