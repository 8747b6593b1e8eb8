//! Checks of volumes and claims.

use serde_json::Value;

use super::node::Node;
use super::resources::amount_of;
use super::{Kind, immutable, label_selector, required};
use crate::field::{ErrorList, FieldError};
use crate::{Quantity, names};

pub(super) const KINDS: &[Kind] = &[
    Kind::new("", "PersistentVolume", volume).change(volume_change),
    Kind::new("", "PersistentVolumeClaim", |claim, errors| claim_spec(&claim.child("spec"), errors))
        .change(claim_change),
];

/// Members of a volume's specification that are no source.
const NO_SOURCES: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

fn sources(spec: &Value) -> serde_json::Map<String, Value> {
    let members = spec.as_object().into_iter().flatten();
    members.filter(|(m, _)| !NO_SOURCES.contains(&m.as_str())).map(|(m, v)| (m.clone(), v.clone())).collect()
}

fn volume(volume: &Node<'_>, errors: &mut ErrorList) {
    volume_spec(&volume.child("spec"), false, errors);
}

/// A volume's specification; inside an attachment some of it must not be said.
pub(super) fn volume_spec(spec: &Node<'_>, inline: bool, errors: &mut ErrorList) {
    let capacity = spec.child("capacity");
    if inline {
        const INLINE: &str = "in the context of inline volumes";
        for node in [spec.child("claimRef"), capacity.clone(), spec.child("storageClassName")] {
            if !node.is_empty() {
                errors.push(FieldError::forbidden(&node.path, format!("may not be specified {INLINE}")));
            }
        }
        let csi = spec.child("csi");
        if !csi.is_set() {
            errors.push(FieldError::required(&csi.path, format!("has to be specified {INLINE}")));
        }
        let policy = spec.child("persistentVolumeReclaimPolicy");
        if !policy.is_empty() && policy.text() != "Retain" {
            errors.push(FieldError::forbidden(&policy.path, format!("may only be Retain {INLINE}")));
        }
    } else if capacity.is_empty() {
        errors.push(FieldError::required(&capacity.path, ""));
    }
    access_modes(&spec.child("accessModes"), "", errors);
    let only_storage = capacity.entries().count() == 1 && capacity.child("storage").is_set();
    if !capacity.is_empty() && !only_storage {
        errors.push(FieldError::not_supported(&capacity.path, capacity.value.clone(), &["storage"]));
    }
    for (_, amount) in capacity.entries() {
        positive(&amount, errors);
    }
    let sources = sources(spec.value);
    if sources.is_empty() {
        errors.push(FieldError::required(&spec.path, "must specify a volume type"));
    }
    for extra in sources.keys().skip(1) {
        errors.push(FieldError::forbidden(&spec.path.child(extra), "may not specify more than 1 volume type"));
    }
    let host = spec.child("hostPath");
    if host.is_set() && required(&host.child("path"), errors) {
        super::containers::no_backsteps(&host.child("path"), errors);
        if host.child("path").text() == "/" && spec.child("persistentVolumeReclaimPolicy").text() == "Recycle" {
            let message = "may not be 'recycle' for a hostPath mount of '/'";
            errors.push(FieldError::forbidden(&spec.path.child("persistentVolumeReclaimPolicy"), message));
        }
    }
    let local = spec.child("local");
    if local.is_set() {
        required(&local.child("path"), errors);
        if !spec.child("nodeAffinity").is_set() {
            let message = "Local volume requires node affinity";
            errors.push(FieldError::required(&spec.path.child("nodeAffinity"), message));
        }
    }
    for term in spec.at(&["nodeAffinity", "required", "nodeSelectorTerms"]).items() {
        super::pods::node_term(&term, errors);
    }
    class_name(&spec.child("storageClassName"), errors);
}

fn access_modes(list: &Node<'_>, detail: &str, errors: &mut ErrorList) {
    if list.is_empty() {
        errors.push(FieldError::required(&list.path, detail));
    }
    let has = |mode: &str| list.items().any(|m| m.text() == mode);
    if has("ReadWriteOncePod") && list.items().count() > 1 {
        let message = "may not use ReadWriteOncePod with other access modes";
        errors.push(FieldError::forbidden(&list.path, message));
    }
}

fn positive(node: &Node<'_>, errors: &mut ErrorList) {
    amount_of(node, errors);
    if let Some(Ok(quantity)) = Quantity::from_value(node.value)
        && quantity.is_zero()
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
}

fn volume_change(new: &Node<'_>, old: &Node<'_>, errors: &mut ErrorList) {
    let (spec, before) = (new.child("spec"), old.child("spec"));
    if sources(spec.value) != sources(before.value) {
        let path = spec.path.child("persistentvolumesource");
        errors.push(FieldError::forbidden(&path, "spec.persistentvolumesource is immutable after creation"));
    }
    immutable(&spec.child("volumeMode"), &before.child("volumeMode"), errors);
    if before.child("nodeAffinity").is_set() {
        immutable(&spec.child("nodeAffinity"), &before.child("nodeAffinity"), errors);
    }
}

fn claim_change(new: &Node<'_>, old: &Node<'_>, errors: &mut ErrorList) {
    let (spec, before) = (new.child("spec"), old.child("spec"));
    let storage = |spec: &Node<'_>| {
        Quantity::from_value(spec.at(&["resources", "requests", "storage"]).value).and_then(Result::ok)
    };
    let fixed = |spec: &Node<'_>| {
        let mut value = spec.value.clone();
        if let Some(map) = value.as_object_mut() {
            map.remove("volumeAttributesClassName");
            // A volume is bound once; a claim without a class may be given one.
            if before.child("volumeName").is_empty() {
                map.remove("volumeName");
            }
            if !before.child("storageClassName").is_set() {
                map.remove("storageClassName");
            }
            crate::path::remove(map, &["resources", "requests", "storage"]);
        }
        value
    };
    let bound = old.at(&["status", "phase"]).text() == "Bound";
    if fixed(&spec) != fixed(&before) || (!bound && storage(&spec) != storage(&before)) {
        errors.push(FieldError::forbidden(
            &spec.path,
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        ));
    }
    let held = Quantity::from_value(old.at(&["status", "capacity", "storage"]).value).and_then(Result::ok);
    if let (Some(wanted), Some(was)) = (storage(&spec), storage(&before))
        && wanted < was
        && held.is_none_or(|held| wanted <= held)
    {
        let path = spec.path.children(&["resources", "requests", "storage"]);
        errors.push(FieldError::forbidden(&path, "field can not be less than status.capacity"));
    }
}
