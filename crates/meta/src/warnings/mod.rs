//! What is allowed but probably not meant: texts for `Warning` headers, in upstream's words, a row a kind.

mod core;
mod pods;

use crate::gvk::Gvk;
use crate::validate::Node;
use crate::{Object, names};

/// What is said of a new object, or of a changed one and the one before.
type Check = fn(&Node<'_>, Option<&Node<'_>>, &mut Vec<String>);

/// Kinds whose pods are made of a template, and where that is.
const TEMPLATES: &[(&str, &str, &[&str])] = &[
    ("", "PodTemplate", &["template"]),
    ("", "ReplicationController", &["spec", "template"]),
    ("apps", "DaemonSet", &["spec", "template"]),
    ("apps", "Deployment", &["spec", "template"]),
    ("apps", "ReplicaSet", &["spec", "template"]),
    ("apps", "StatefulSet", &["spec", "template"]),
    ("batch", "CronJob", &["spec", "jobTemplate", "spec", "template"]),
    ("batch", "Job", &["spec", "template"]),
];

/// Kinds whose names become parts of names of pods.
const NAME_GIVERS: &[(&str, &str)] = &[
    ("", "ReplicationController"),
    ("apps", "Deployment"),
    ("apps", "ReplicaSet"),
    ("batch", "CronJob"),
    ("batch", "Job"),
];

const KINDS: &[(&str, &str, Check)] = &[
    ("", "Endpoints", core::endpoints),
    ("", "Node", core::node),
    ("", "PersistentVolume", core::volume),
    ("", "PersistentVolumeClaim", core::claim),
    ("", "Pod", |pod, old, out| {
        // Nobody writes to pods by hand once they are there.
        if old.is_none() {
            recommend_label(pod, "the Pod's hostname", out);
            pods::pod(pod, out);
        }
    }),
    ("", "Service", core::service),
    ("", "ServiceAccount", core::service_account),
    ("apps", "StatefulSet", core::stateful_set),
    ("batch", "CronJob", |cron, _, out| {
        if cron.at(&["spec", "schedule"]).text().contains("TZ") {
            out.push("CRON_TZ or TZ used in spec.schedule is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details".to_owned());
        }
    }),
    ("batch", "Job", core::job),
    ("discovery.k8s.io", "EndpointSlice", core::slice),
];

/// Warnings for a write through an object's main door.
pub fn of(gvk: &Gvk, new: &Object, old: Option<&Object>) -> Vec<String> {
    let mut out = Vec::new();
    let is = |group: &str, kind: &str| group == gvk.group && kind == gvk.kind;
    let (new_node, old_node) = (Node::root(new), old.map(Node::root));
    if old.is_none() && NAME_GIVERS.iter().any(|(group, kind)| is(group, kind)) {
        recommend_label(&new_node, "Pod names and hostnames", &mut out);
    }
    if let Some((_, _, check)) = KINDS.iter().find(|(group, kind, _)| is(group, kind)) {
        check(&new_node, old_node.as_ref(), &mut out);
    }
    if let Some((_, _, path)) = TEMPLATES.iter().find(|(group, kind, _)| is(group, kind))
        && old.is_none_or(|old| old.generation() != new.generation())
    {
        pods::template(&new_node.at(path), &mut out);
    }
    out
}

fn recommend_label(object: &Node<'_>, used: &str, out: &mut Vec<String>) {
    let messages = names::dns1123_label(object.at(&["metadata", "name"]).text());
    if !messages.is_empty() {
        let messages = messages.join(" ");
        out.push(format!(
            "metadata.name: this is used in {used}, which can result in surprising behavior; a DNS label is recommended: [{messages}]"
        ));
    }
}

/// Node labels of old: the release since which they are, and what they are called now.
const RENAMED_NODE_LABELS: [(&str, (&str, &str)); 5] = [
    ("beta.kubernetes.io/arch", ("v1.14", "kubernetes.io/arch")),
    ("beta.kubernetes.io/os", ("v1.14", "kubernetes.io/os")),
    ("failure-domain.beta.kubernetes.io/region", ("v1.17", "topology.kubernetes.io/region")),
    ("failure-domain.beta.kubernetes.io/zone", ("v1.17", "topology.kubernetes.io/zone")),
    ("beta.kubernetes.io/instance-type", ("v1.17", "node.kubernetes.io/instance-type")),
];

/// Since when a node label is deprecated, and its name of today.
pub(crate) fn renamed_node_label(key: &str) -> Option<(&'static str, &'static str)> {
    RENAMED_NODE_LABELS.iter().find(|(old, _)| *old == key).map(|(_, renamed)| *renamed)
}

/// What to use instead of a node label that is deprecated, if it is.
pub fn deprecated_node_label(key: &str) -> Option<String> {
    let (since, instead) = renamed_node_label(key)?;
    Some(format!("deprecated since {since}; use \"{instead}\" instead"))
}

fn node_selector_term(term: &Node<'_>, out: &mut Vec<String>) {
    for expression in term.child("matchExpressions").items() {
        let key = expression.child("key");
        if let Some(message) = deprecated_node_label(key.text()) {
            out.push(format!("{}: {} is {message}", key.path, key.text()));
        }
    }
}

#[cfg(test)]
mod tests;
