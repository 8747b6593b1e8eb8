//! Checks of volumes and claims.

use serde_json::{Map, Value, json};

use super::node::Node;
use super::scheduling::node_selector;
use super::volume_sources::{Holder, given, source};
use super::volumes::{LONG_TARGET, target_is_long};
use super::{IMMUTABLE, Kind, immutable, label_selector, required};
use crate::field::{ErrorList, FieldError, Path};
use crate::names;
use crate::warnings::renamed_node_label;

pub(super) const KINDS: &[Kind] = &[
    Kind::new("", "PersistentVolume", volume).change(volume_change),
    Kind::new("", "PersistentVolumeClaim", |claim, errors| claim_spec(&claim.child("spec"), errors))
        .change(claim_change)
        .status(claim_status),
];

fn volume(volume: &Node<'_>, errors: &mut ErrorList) {
    let spec = volume.child("spec");
    volume_spec(&spec, false, errors);
    let (iscsi, name) = (spec.child("iscsi"), volume.at(&["metadata", "name"]));
    if target_is_long(name.text(), &iscsi) {
        let target = iscsi.child("targetPortal").text();
        errors.push(FieldError::invalid(&iscsi.path.child("targetportal"), target, LONG_TARGET));
    }
}

/// A volume's specification; inside an attachment some of it must not be said.
pub(super) fn volume_spec(spec: &Node<'_>, inline: bool, errors: &mut ErrorList) {
    let (policy, affinity) = (spec.child("persistentVolumeReclaimPolicy"), spec.child("nodeAffinity"));
    if inline {
        inline_spec(spec, errors);
    } else {
        capacity(&spec.child("capacity"), errors);
        if affinity.is_set() && !affinity.child("required").is_set() {
            let message = "must specify required node constraints";
            errors.push(FieldError::required(&affinity.path.child("required"), message));
        }
        node_selector(&affinity.child("required"), errors);
        class_name(&spec.child("storageClassName"), errors);
    }
    access_modes(&spec.child("accessModes"), "", errors);
    source(spec, Holder::PersistentVolume, errors);
    if spec.child("local").is_set() && !affinity.is_set() {
        errors.push(FieldError::required(&affinity.path, "Local volume requires node affinity"));
    }
    let host = spec.at(&["hostPath", "path"]);
    if policy.text() == "Recycle" && !host.is_empty() && host.text().trim_matches('/').is_empty() {
        let message = "may not be 'recycle' for a hostPath mount of '/'";
        errors.push(FieldError::forbidden(&policy.path, message));
    }
    let attributes = spec.child("volumeAttributesClassName");
    if attributes.is_set() {
        if attributes.is_empty() {
            errors.push(FieldError::required(&attributes.path, "an empty string is disallowed"));
        }
        class_name(&attributes, errors);
        let csi = spec.child("csi");
        if !csi.is_set() {
            let message = "has to be specified when using volumeAttributesClassName";
            errors.push(FieldError::required(&csi.path, message));
        }
    }
}

/// What a volume that is described in an attachment has not.
fn inline_spec(spec: &Node<'_>, errors: &mut ErrorList) {
    const INLINE: &str = "in the context of inline volumes";
    for node in ["claimRef", "capacity", "nodeAffinity", "storageClassName"].map(|member| spec.child(member)) {
        if !node.is_empty() {
            errors.push(FieldError::forbidden(&node.path, format!("may not be specified {INLINE}")));
        }
    }
    let csi = spec.child("csi");
    if !csi.is_set() {
        errors.push(FieldError::required(&csi.path, format!("has to be specified {INLINE}")));
    }
    let (policy, mode) = (spec.child("persistentVolumeReclaimPolicy"), spec.child("volumeMode"));
    if !matches!(policy.text(), "" | "Retain") {
        errors.push(FieldError::forbidden(&policy.path, format!("may only be Retain {INLINE}")));
    }
    if !matches!(mode.text(), "" | "Filesystem") {
        let message = format!("may not specify volumeMode other than Filesystem {INLINE}");
        errors.push(FieldError::forbidden(&mode.path, message));
    }
}

fn capacity(capacity: &Node<'_>, errors: &mut ErrorList) {
    if capacity.is_empty() {
        errors.push(FieldError::required(&capacity.path, ""));
    }
    if capacity.entries().count() != 1 || !capacity.child("storage").is_set() {
        let shown = if capacity.is_set() { capacity.value.clone() } else { json!({}) };
        errors.push(FieldError::not_supported(&capacity.path, shown, &["storage"]));
    }
    for (_, amount) in capacity.entries() {
        basic(&amount, errors);
        positive(&amount, errors);
    }
}

/// An amount that is not below nothing.
fn basic(node: &Node<'_>, errors: &mut ErrorList) {
    if let Some(amount) = node.quantity()
        && amount.value() < 0
    {
        errors.push(FieldError::invalid(&node.path, amount.value(), "must be a valid resource quantity"));
    }
}

const MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

fn access_modes(list: &Node<'_>, detail: &str, errors: &mut ErrorList) {
    if list.is_empty() {
        errors.push(FieldError::required(&list.path, detail));
    }
    for mode in list.items().filter(|mode| !MODES.contains(&mode.text())) {
        errors.push(FieldError::not_supported(&list.path, mode.text(), &MODES));
    }
    let has = |mode: &str| list.items().any(|m| m.text() == mode);
    if has("ReadWriteOncePod") && list.items().count() > 1 {
        let message = "may not use ReadWriteOncePod with other access modes";
        errors.push(FieldError::forbidden(&list.path, message));
    }
}

fn positive(node: &Node<'_>, errors: &mut ErrorList) {
    if let Some(quantity) = node.quantity()
        && (quantity.is_zero() || quantity.sign() < 0)
    {
        errors.push(FieldError::invalid(&node.path, quantity.to_string(), "must be greater than zero"));
    }
}

fn class_name(node: &Node<'_>, errors: &mut ErrorList) {
    if !node.is_empty() {
        errors.invalid_each(&node.path, node.text(), names::dns1123_subdomain(node.text()));
    }
}

/// A claim's specification, also inside templates.
pub(super) fn claim_spec(spec: &Node<'_>, errors: &mut ErrorList) {
    access_modes(&spec.child("accessModes"), "at least 1 access mode is required", errors);
    label_selector(&spec.child("selector"), errors);
    let storage = spec.at(&["resources", "requests", "storage"]);
    if storage.is_set() {
        let path = spec.path.child("resources").key("storage");
        positive(&storage.renamed(&path), errors);
    } else {
        errors.push(FieldError::required(&spec.path.child("resources").key("storage"), ""));
    }
    class_name(&spec.child("storageClassName"), errors);
    class_name(&spec.child("volumeAttributesClassName"), errors);
    data_sources(spec, errors);
}

/// What a claim's volume is filled with.
fn data_sources(spec: &Node<'_>, errors: &mut ErrorList) {
    let (plain, reference) = (spec.child("dataSource"), spec.child("dataSourceRef"));
    for source in [&plain, &reference].into_iter().filter(|source| source.is_set()) {
        let (group, kind) = (source.child("apiGroup"), source.child("kind"));
        required(&source.child("name"), errors);
        required(&kind, errors);
        if group.is_empty() && kind.text() != "PersistentVolumeClaim" {
            let message = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            errors.push(FieldError::invalid(&source.path, kind.text(), message));
        }
        if !group.is_empty() {
            errors.invalid_each(&group.path, group.text(), names::dns1123_subdomain(group.text()));
        }
    }
    let namespace = reference.child("namespace");
    if !namespace.is_empty() {
        errors.invalid_each(&namespace.path, namespace.text(), names::dns1123_label(namespace.text()));
    }
    let same = ["apiGroup", "kind", "name"].iter().all(|m| plain.child(m).value == reference.child(m).value);
    let message = match (plain.is_set() && reference.is_set(), namespace.is_empty()) {
        (true, false) => "may not be specified when dataSourceRef.namespace is specified",
        (true, true) if !same => "must match dataSourceRef",
        _ => return,
    };
    errors.push(FieldError::invalid(&spec.path, plain.path.to_string(), message));
}

/// Where upstream's message places these members of a specification.
fn shown<'a>(spec: &Node<'a>, member: &str) -> Node<'a> {
    spec.child(member).renamed(&Path::new(member))
}

fn volume_change(new: &Node<'_>, old: &Node<'_>, errors: &mut ErrorList) {
    let (spec, before) = (new.child("spec"), old.child("spec"));
    let (mut now, was) = (given(&spec), given(&before));
    // That a volume can be grown may be said later.
    let grows = |sources: &Map<String, Value>| sources.get("csi").is_some_and(|csi| csi.get(EXPANDS).is_some());
    if was.contains_key("csi") && !grows(&was) {
        now.get_mut("csi").and_then(Value::as_object_mut).map(|csi| csi.remove(EXPANDS));
    }
    if now != was {
        let path = spec.path.child("persistentvolumesource");
        errors.push(FieldError::forbidden(&path, "spec.persistentvolumesource is immutable after creation"));
    }
    immutable(&shown(&spec, "volumeMode"), &before.child("volumeMode"), errors);
    let (affinity, held) = (shown(&spec, "nodeAffinity"), before.child("nodeAffinity"));
    if held.is_set() && without_old_labels(affinity.value, held.value) != *held.value {
        let message = format!("{IMMUTABLE}, except for updating from beta label to GA");
        errors.push(FieldError::invalid(&affinity.path, affinity.value.clone(), message));
    }
    attributes_class_change(&spec, &before, errors);
}

const EXPANDS: &str = "controllerExpandSecretRef";

/// An affinity with labels of nodes by their old names where `held` has them so: they may be brought up to date.
fn without_old_labels(affinity: &Value, held: &Value) -> Value {
    match (affinity, held) {
        (Value::Object(now), Value::Object(was)) => {
            let back = |(member, value): (&String, &Value)| {
                let before = was.get(member).unwrap_or(&Value::Null);
                let current = before.as_str().and_then(renamed_node_label);
                let renamed = member == "key" && current.is_some_and(|(_, new)| value.as_str() == Some(new));
                (member.clone(), if renamed { before.clone() } else { without_old_labels(value, before) })
            };
            Value::Object(now.iter().map(back).collect())
        }
        (Value::Array(now), Value::Array(was)) => {
            let before = was.iter().chain(std::iter::repeat(&Value::Null));
            now.iter().zip(before).map(|(now, was)| without_old_labels(now, was)).collect()
        }
        (other, _) => other.clone(),
    }
}

/// A class that is given to a volume or claim is not taken away.
fn attributes_class_change(spec: &Node<'_>, before: &Node<'_>, errors: &mut ErrorList) {
    let class = spec.child("volumeAttributesClassName");
    if before.child("volumeAttributesClassName").is_set() && !class.is_set() {
        errors.push(FieldError::forbidden(&class.path, "update from non-nil value to nil is forbidden"));
    }
}

fn claim_change(new: &Node<'_>, old: &Node<'_>, errors: &mut ErrorList) {
    const CLASS: &str = "volume.beta.kubernetes.io/storage-class";
    let (spec, before) = (new.child("spec"), old.child("spec"));
    let annotated = |claim: &Node<'_>| claim.at(&["metadata", "annotations", CLASS]).text().to_owned();
    let (now, was) = (annotated(new), annotated(old));
    let named = spec.child("storageClassName");
    // A claim without a class may be given one, by what it has said so far.
    let names_class =
        named.is_set() && !before.child("storageClassName").is_set() && (was.is_empty() || named.text() == was);
    if now != was && !(names_class && now.is_empty()) {
        let path = new.path.children(&["metadata", "annotations", CLASS]);
        errors.push(FieldError::invalid(&path, now, IMMUTABLE));
    }
    let bound = new.at(&["status", "phase"]).text() == "Bound";
    let fixed = |spec: &Node<'_>| {
        let mut value = spec.value.clone();
        if let Some(map) = value.as_object_mut() {
            // A volume is bound once.
            if before.child("volumeName").is_empty() {
                map.remove("volumeName");
            }
            if names_class {
                map.remove("storageClassName");
            }
            if bound {
                crate::path::remove(map, &["resources", "requests", "storage"]);
            }
        }
        value
    };
    let mut wanted = fixed(&spec);
    if bound && spec.child("volumeAttributesClassName").is_set() {
        match before.child("volumeAttributesClassName").value {
            Value::Null => drop(wanted.as_object_mut().map(|map| map.remove("volumeAttributesClassName"))),
            class => wanted["volumeAttributesClassName"] = class.clone(),
        }
    }
    if wanted != fixed(&before) {
        errors.push(FieldError::forbidden(
            &spec.path,
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        ));
    }
    let storage = |spec: &Node<'_>| spec.at(&["resources", "requests", "storage"]).quantity();
    let held = old.at(&["status", "capacity", "storage"]).quantity();
    if let (Some(wanted), Some(was)) = (storage(&spec), storage(&before))
        && wanted < was
        && held.is_some_and(|held| wanted <= held)
    {
        let path = spec.path.children(&["resources", "requests", "storage"]);
        errors.push(FieldError::forbidden(&path, "field can not be less than status.capacity"));
    }
    immutable(&shown(&spec, "volumeMode"), &before.child("volumeMode"), errors);
    attributes_class_change(&spec, &before, errors);
    let class = spec.child("volumeAttributesClassName");
    if before.child("volumeAttributesClassName").is_set() && class.value.as_str() == Some("") {
        let message = "update from non-nil value to an empty string is forbidden";
        errors.push(FieldError::forbidden(&class.path, message));
    }
}

/// What is said of a claim's volume, and of how it is grown.
fn claim_status(new: &Node<'_>, _: &Node<'_>, errors: &mut ErrorList) {
    const STATES: [&str; 5] = [
        "ControllerResizeInProgress",
        "ControllerResizeInfeasible",
        "NodeResizeInProgress",
        "NodeResizeInfeasible",
        "NodeResizePending",
    ];
    let status = new.child("status");
    status.child("capacity").entries().for_each(|(_, amount)| basic(&amount, errors));
    let states = status.child("allocatedResourceStatuses").renamed(&status.path.child("allocatedResourceStatus"));
    for (name, state) in states.entries() {
        claim_resource(name, &states, errors);
        if !STATES.contains(&state.text()) {
            let mut known = STATES;
            known.sort_unstable();
            errors.push(FieldError::not_supported(&states.path, name.as_str(), &known));
        }
    }
    let allocated = status.child("allocatedResources");
    for (name, amount) in allocated.entries() {
        if claim_resource(name, &allocated, errors) {
            basic(&amount, errors);
        }
    }
}

/// Whether a claim may have a resource of this name.
fn claim_resource(name: &str, list: &Node<'_>, errors: &mut ErrorList) -> bool {
    let messages = names::qualified_name(name);
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    if !messages.is_empty() {
        errors.invalid_each(&list.path, name, messages);
    } else if native && name != "storage" {
        errors.push(FieldError::not_supported(&list.path, name, &["storage"]));
    } else {
        return true;
    }
    false
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::validate::tests::{created, updated};

    fn claim(more: Value) -> Value {
        let mut spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"spec": spec, "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}})
    }

    fn volume(more: Value) -> Value {
        let mut spec = json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"spec": spec})
    }

    fn csi(more: Value) -> Value {
        let mut csi = json!({"driver": "d", "volumeHandle": "h"});
        csi.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        volume(json!({"csi": csi}))
    }

    #[test]
    fn claims() {
        let other = json!({"apiGroup": "x.io", "kind": "K", "name": "n"});
        for (spec, wanted) in [
            (json!({"dataSourceRef": other}), None),
            (
                json!({"dataSource": {"kind": "Snapshot", "name": "n"}}),
                Some(
                    "spec.dataSource: Invalid value: \"Snapshot\": must be 'PersistentVolumeClaim' when referencing the default apiGroup",
                ),
            ),
            (
                json!({"dataSource": {"kind": "PersistentVolumeClaim", "name": "n"}, "dataSourceRef": other}),
                Some("spec: Invalid value: \"spec.dataSource\": must match dataSourceRef"),
            ),
        ] {
            assert_eq!(created("", "PersistentVolumeClaim", claim(spec.clone())), Vec::from_iter(wanted), "{spec}");
        }
        let change = |old: Value, new: Value| updated("", "PersistentVolumeClaim", claim(old), claim(new));
        assert_eq!(change(json!({}), json!({"volumeAttributesClassName": "gold"})), [""; 0]);
        assert_eq!(
            change(json!({"volumeAttributesClassName": "gold"}), json!({})),
            [
                "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
                "spec.volumeAttributesClassName: Forbidden: update from non-nil value to nil is forbidden",
            ]
        );
        let asking = |amount: &str| json!({"resources": {"requests": {"storage": amount}}});
        assert_eq!(change(asking("2Gi"), asking("1536Mi")), [""; 0], "a growth that failed is taken back in part");
        assert_eq!(
            change(asking("2Gi"), asking("1Gi")),
            ["spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"]
        );
    }

    #[test]
    fn volumes() {
        for (spec, wanted) in [
            (json!({"hostPath": {"path": "/a"}}), None),
            (
                json!({"hostPath": {"path": "/a"}, "nodeAffinity": {}}),
                Some("spec.nodeAffinity.required: Required value: must specify required node constraints"),
            ),
            (
                json!({"hostPath": {"path": "/a"}, "volumeAttributesClassName": "gold"}),
                Some("spec.csi: Required value: has to be specified when using volumeAttributesClassName"),
            ),
            (json!({"csi": {"driver": "d", "volumeHandle": ""}}), Some("spec.csi.volumeHandle: Required value")),
            (
                json!({"cinder": {"volumeID": "v", "secretRef": {"name": "n"}}}),
                Some("spec.cinder.secretRef.namespace: Required value"),
            ),
        ] {
            assert_eq!(created("", "PersistentVolume", volume(spec.clone())), Vec::from_iter(wanted), "{spec}");
        }
        let change = |old: Value, new: Value| updated("", "PersistentVolume", old, new);
        let expands = json!({"controllerExpandSecretRef": {"name": "n", "namespace": "s"}});
        assert_eq!(change(csi(json!({})), csi(expands.clone())), [""; 0]);
        assert_eq!(
            change(csi(expands), csi(json!({}))),
            ["spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation"]
        );
        let at = |key: &str| {
            let term = json!({"matchExpressions": [{"key": key, "operator": "In", "values": ["a"]}]});
            volume(json!({"hostPath": {"path": "/a"}, "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}}))
        };
        let (old, new) = (at("beta.kubernetes.io/arch"), at("kubernetes.io/arch"));
        assert_eq!(change(old.clone(), new.clone()), [""; 0]);
        assert_eq!(change(new, old).len(), 1);
    }
}
