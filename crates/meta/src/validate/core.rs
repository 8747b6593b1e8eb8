//! Checks of the core group's other kinds.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::node::Node;
use super::{IMMUTABLE, Kind, mixes_families, required};
use crate::decode::{self, DecodeError};
use crate::field::{ErrorList, FieldError, Path};
use crate::names;

/// Largest sum of all values of a ConfigMap or Secret, in bytes.
const MAX_DATA: usize = 1024 * 1024;
const FROZEN: &str = "field is immutable when `immutable` is set";

pub(super) const KINDS: &[Kind] = &[
    Kind::new("", "ConfigMap", config_map).change(|new, old, errors| frozen(new, old, &["data", "binaryData"], errors)),
    Kind::new("", "Secret", secret).change(secret_change),
    Kind::new("", "Namespace", |namespace, errors| {
        let list = namespace.at(&["spec", "finalizers"]);
        list.items().for_each(|finalizer| super::meta::finalizer(&finalizer, errors));
    })
    .named(names::dns1123_label)
    .status(namespace_phase),
    Kind::new("", "Node", node).change(node_change).status(node_status),
    Kind::new("", "ServiceAccount", |_, _| {}),
    Kind::new("", "Endpoints", endpoints),
    Kind::new("", "Event", event),
    Kind::new("", "Binding", |o, errors| {
        let target = o.child("target");
        if !matches!(target.child("kind").text(), "" | "Node") {
            let kind = target.child("kind");
            errors.push(FieldError::not_supported(&kind.path, kind.text(), &["Node", "<empty>"]));
        }
        required(&target.child("name"), errors);
    }),
];

/// Checks keys; gives the sum of the values' bytes.
fn keys(map: &Node<'_>, base64: bool, errors: &mut ErrorList) -> usize {
    let mut size = 0;
    for (key, value) in map.entries() {
        errors.invalid_each(&value.path, key, names::config_map_key(key));
        let text = value.text();
        size += if base64 { text.trim_end_matches('=').len() * 3 / 4 } else { text.len() };
    }
    size
}

fn too_large(size: usize, path: Path, errors: &mut ErrorList) {
    if size > MAX_DATA {
        let mut error = FieldError::too_long(&path, MAX_DATA);
        error.field = if path == Path::root() { String::new() } else { path.to_string() };
        errors.push(error);
    }
}

fn config_map(map: &Node<'_>, errors: &mut ErrorList) {
    let (data, binary) = (map.child("data"), map.child("binaryData"));
    let size = keys(&data, false, errors) + keys(&binary, true, errors);
    for (key, value) in data.entries() {
        if binary.child(key).is_set() {
            errors.push(FieldError::invalid(&value.path, key.as_str(), "duplicate of key present in binaryData"));
        }
    }
    too_large(size, Path::root(), errors);
}

/// What is declared immutable stays, the declaration included.
fn frozen(new: &Node<'_>, old: &Node<'_>, members: &[&str], errors: &mut ErrorList) {
    if !old.child("immutable").is_true() {
        return;
    }
    if !new.child("immutable").is_true() {
        errors.push(FieldError::forbidden(&new.path.child("immutable"), FROZEN));
    }
    for member in members {
        if new.child(member).value != old.child(member).value {
            errors.push(FieldError::forbidden(&new.path.child(member), FROZEN));
        }
    }
}

fn secret(secret: &Node<'_>, errors: &mut ErrorList) {
    let data = secret.child("data");
    too_large(keys(&data, true, errors), Path::new("data"), errors);
    let needed: &[&str] = match secret.child("type").text() {
        "kubernetes.io/service-account-token" => {
            let annotation = secret.at(&["metadata", "annotations"]);
            const NAME: &str = "kubernetes.io/service-account.name";
            if annotation.child(NAME).text().is_empty() {
                errors.push(FieldError::required(&annotation.path.key(NAME), ""));
            }
            &[]
        }
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/basic-auth" => {
            if !data.child("username").is_set() && !data.child("password").is_set() {
                errors.push(FieldError::required(&data.path.key("username"), ""));
                errors.push(FieldError::required(&data.path.key("password"), ""));
            }
            &[]
        }
        _ => &[],
    };
    for key in needed.iter().filter(|key| !data.child(key).is_set()) {
        errors.push(FieldError::required(&data.path.key(key), ""));
    }
    for key in [".dockercfg", ".dockerconfigjson"].iter().filter(|key| needed.contains(key)) {
        let why = STANDARD.decode(data.child(key).text()).ok().and_then(|bytes| match decode::parse_value(&bytes) {
            Ok((Value::Object(_) | Value::Null, _)) => None,
            Ok((other, _)) => {
                let found = decode::go_type(&other);
                Some(format!("json: cannot unmarshal {found} into Go value of type map[string]interface {{}}"))
            }
            Err(DecodeError::Syntax(why)) => Some(why),
            Err(other) => Some(other.to_string()),
        });
        if let Some(why) = why.filter(|_| data.child(key).is_set()) {
            errors.push(FieldError::invalid(&data.path.key(key), "<secret contents redacted>", why));
        }
    }
}

fn secret_change(new: &Node<'_>, old: &Node<'_>, errors: &mut ErrorList) {
    let (kind, before) = (new.child("type"), old.child("type"));
    if kind.value != before.value {
        errors.push(FieldError::invalid(&kind.path, kind.text(), IMMUTABLE));
    }
    frozen(new, old, &["data"], errors);
}

/// A namespace is on its way out exactly while it is being deleted.
fn namespace_phase(new: &Node<'_>, _: &Node<'_>, errors: &mut ErrorList) {
    let phase = new.at(&["status", "phase"]);
    let deleted = new.at(&["metadata", "deletionTimestamp"]).is_set();
    let (wanted, when) = if deleted { ("Terminating", "is not empty") } else { ("Active", "is empty") };
    if phase.text() != wanted {
        let message = format!("may only be '{wanted}' if `deletionTimestamp` {when}");
        errors.push(FieldError::invalid(&new.path.children(&["status", "Phase"]), phase.text(), message));
    }
}

fn node(node: &Node<'_>, errors: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    // Where upstream's message places them.
    let taints = node.at(&["spec", "taints"]).renamed(&Path::new("metadata").child("taints"));
    for taint in taints.items() {
        let (key, effect) = (taint.child("key"), taint.child("effect"));
        errors.invalid_each(&key.path, key.text(), names::qualified_name(key.text()));
        let (value, messages) = (taint.child("value"), names::label_value(taint.child("value").text()));
        if !messages.is_empty() {
            errors.push(FieldError::invalid(&value.path, value.text(), messages.join(";")));
        }
        required(&effect, errors);
        if !seen.insert((key.text(), effect.text())) {
            let mut error = FieldError::duplicate(&taint.path, taint.value.clone());
            error.detail = "taints must be unique by key and effect pair".to_owned();
            errors.push(error);
        }
    }
    let ranges = node.at(&["spec", "podCIDRs"]);
    let texts: Vec<&str> = ranges.items().map(|range| range.text()).collect();
    for (index, range) in ranges.items().enumerate() {
        super::services::network(&range, errors);
        if texts.iter().take(index).any(|earlier| *earlier == range.text()) {
            errors.push(FieldError::duplicate(&range.path, range.text()));
        }
    }
    if texts.len() > 2 || (texts.len() == 2 && !mixes_families(&texts)) {
        let message = "may specify no more than one CIDR for each IP family";
        errors.push(FieldError::invalid(&ranges.path, ranges.value.clone(), message));
    }
    node_amounts(node, errors);
}

/// What a node has and what of it pods may use.
fn node_amounts(node: &Node<'_>, errors: &mut ErrorList) {
    for list in ["capacity", "allocatable"] {
        let amounts = node.at(&["status", list]);
        for (name, amount) in amounts.entries() {
            let shown = amount.renamed(&amounts.path.child(name));
            super::resources::resource_amount(name, &shown, errors);
        }
    }
}

fn node_status(new: &Node<'_>, _: &Node<'_>, errors: &mut ErrorList) {
    node_amounts(new, errors);
    let mut seen: Vec<&Value> = Vec::new();
    for address in new.at(&["status", "addresses"]).items() {
        if seen.contains(&address.value) {
            errors.push(FieldError::duplicate(&address.path, address.value.clone()));
        }
        seen.push(address.value);
    }
}

fn node_change(new: &Node<'_>, old: &Node<'_>, errors: &mut ErrorList) {
    for member in ["podCIDRs", "providerID"] {
        let (now, before) = (new.at(&["spec", member]), old.at(&["spec", member]));
        if !before.is_empty() && now.value != before.value {
            let named = if member == "podCIDRs" { "podCIDR" } else { member };
            let message = format!("node updates may not change {named} except from \"\" to valid");
            errors.push(FieldError::forbidden(&now.path, message));
        }
    }
}

fn endpoints(endpoints: &Node<'_>, errors: &mut ErrorList) {
    for subset in endpoints.child("subsets").items() {
        if subset.child("addresses").is_empty() && subset.child("notReadyAddresses").is_empty() {
            errors.push(FieldError::required(&subset.path, "must specify `addresses` or `notReadyAddresses`"));
        }
        for list in ["addresses", "notReadyAddresses"] {
            for address in subset.child(list).items() {
                super::services::reachable_address(&address.child("ip"), errors);
                let checks: [(&str, super::NameCheck); 2] =
                    [("hostname", names::dns1123_label), ("nodeName", names::dns1123_subdomain)];
                for (member, check) in checks {
                    let name = address.child(member);
                    if !name.is_empty() {
                        errors.invalid_each(&name.path, name.text(), check(name.text()));
                    }
                }
            }
        }
        let many = subset.child("ports").value.as_array().is_some_and(|p| p.len() > 1);
        for port in subset.child("ports").items() {
            let name = port.child("name");
            if many && name.is_empty() {
                errors.push(FieldError::required(&name.path, ""));
            } else if !name.is_empty() {
                errors.invalid_each(&name.path, name.text(), names::dns1123_label(name.text()));
            }
            let number = port.child("port");
            super::containers::range(&number, names::port_number(number.integer().unwrap_or_default()), errors);
            required(&port.child("protocol"), errors);
            super::services::application(&port.child("appProtocol"), errors);
        }
    }
}

fn event(event: &Node<'_>, errors: &mut ErrorList) {
    let own = event.at(&["metadata", "namespace"]);
    let about = event.at(&["involvedObject", "namespace"]);
    let fits = about.text() == own.text() || (about.is_empty() && matches!(own.text(), "default" | "kube-system"));
    if !fits {
        errors.push(FieldError::invalid(&about.path, about.text(), "does not match event.namespace"));
    }
    if !event.child("eventTime").is_set() {
        return;
    }
    // Who gives a time also says who acted, and how.
    const LONGEST: usize = 128;
    const LONGEST_NOTE: usize = 1024;
    let reporter = event.child("reportingComponent");
    if required(&reporter, errors) {
        errors.invalid_each(&reporter.path, reporter.text(), names::qualified_name(reporter.text()));
    }
    for member in ["reportingInstance", "action", "reason"] {
        let node = event.child(member);
        if required(&node, errors) && node.text().len() > LONGEST {
            let message = format!("can have at most {LONGEST} characters");
            errors.push(FieldError::invalid(&node.path, "", message));
        }
    }
    let message = event.child("message");
    if message.text().len() > LONGEST_NOTE {
        let why = format!("can have at most {LONGEST_NOTE} characters");
        errors.push(FieldError::invalid(&message.path, "", why));
    }
}
