//! Checks of storage: classes, and what drivers and nodes say of volumes.

use std::collections::{BTreeMap, BTreeSet};

use super::node::Node;
use super::resources::amount_of;
use super::{Kind, immutable, label_selector, non_negative, required};
use crate::field::{ErrorList, FieldError};
use crate::names;

const GROUP: &str = "storage.k8s.io";
const MAX_DRIVER_NAME: usize = 63;
const MAX_NODE_ID: usize = 256;
const MAX_PARAMETERS: usize = 512;
/// Of all keys and values, in bytes.
const MAX_PARAMETER_BYTES: usize = 256 << 10;
const MAX_ERROR_MESSAGE: usize = 1024;
/// Of a service account's token, in seconds.
const MIN_TOKEN_LIFE: i64 = 600;
const MAX_TOKEN_LIFE: i64 = 1 << 32;
const MIN_ALLOCATABLE_PERIOD: i64 = 10;

pub(super) const KINDS: &[Kind] = &[
    Kind::new(GROUP, "StorageClass", |_, _| {}).created(class).change(class_change),
    Kind::new(GROUP, "VolumeAttributesClass", attributes_class)
        .change(|new, old, errors| forbidden_changes(new, old, &["driverName", "parameters"], errors)),
    Kind::new(GROUP, "CSIDriver", driver).change(|new, old, errors| {
        let (spec, before) = (new.child("spec"), old.child("spec"));
        // Upstream's errors name the field so.
        let attach = spec.child("attachRequired").renamed(&spec.path.child("attachedRequired"));
        immutable(&attach, &before.child("attachRequired"), errors);
        immutable(&spec.child("volumeLifecycleModes"), &before.child("volumeLifecycleModes"), errors);
    }),
    Kind::new(GROUP, "CSINode", node).change(node_change),
    Kind::new(GROUP, "CSIStorageCapacity", |_, _| {}).created(capacity).change(|new, old, errors| {
        for member in ["nodeTopology", "storageClassName"] {
            immutable(&new.child(member), &old.child(member), errors);
        }
    }),
    Kind::new(GROUP, "VolumeAttachment", attachment)
        .change(|new, old, errors| immutable(&new.child("spec"), &old.child("spec"), errors))
        .status(|new, _, errors| attachment_status(&new.child("status"), errors)),
];

fn class(class: &Node<'_>, errors: &mut ErrorList) {
    provisioner(&class.child("provisioner"), errors);
    parameters(&class.child("parameters"), errors);
    let policy = class.child("reclaimPolicy");
    if !matches!(policy.text(), "" | "Delete" | "Retain") {
        errors.push(FieldError::not_supported(&policy.path, policy.text(), &["Delete", "Retain"]));
    }
    required(&class.child("volumeBindingMode"), errors);
    let mut seen = Vec::new();
    for term in class.child("allowedTopologies").items() {
        topology_term(&term, errors);
        let expressions = term.child("matchLabelExpressions");
        let selected = selected(&expressions);
        // A term that selects by nothing is taken for one that was there.
        if selected.is_empty() || seen.contains(&selected) {
            errors.push(FieldError::duplicate(&expressions.path, ""));
        }
        seen.push(selected);
    }
}

/// The values of each key, without order.
fn selected<'a>(expressions: &Node<'a>) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    let values = |expression: &Node<'a>| expression.child("values").items().map(|value| value.text()).collect();
    expressions.items().map(|expression| (expression.child("key").text(), values(&expression))).collect()
}

fn topology_term(term: &Node<'_>, errors: &mut ErrorList) {
    let mut keys = Vec::new();
    for expression in term.child("matchLabelExpressions").items() {
        let (key, values) = (expression.child("key"), expression.child("values"));
        if values.is_empty() {
            errors.push(FieldError::required(&values.path, ""));
        }
        let mut seen = Vec::new();
        for value in values.items() {
            if seen.contains(&value.text()) {
                errors.push(FieldError::duplicate(&value.path, value.text()));
            }
            seen.push(value.text());
        }
        errors.invalid_each(&key.path, key.text(), names::qualified_name(key.text()));
        if keys.contains(&key.text()) {
            errors.push(FieldError::duplicate(&key.path, key.text()));
        }
        keys.push(key.text());
    }
}

fn class_change(new: &Node<'_>, old: &Node<'_>, errors: &mut ErrorList) {
    forbidden_changes(new, old, &["parameters", "provisioner", "reclaimPolicy"], errors);
    immutable(&new.child("volumeBindingMode"), &old.child("volumeBindingMode"), errors);
}

fn forbidden_changes(new: &Node<'_>, old: &Node<'_>, members: &[&str], errors: &mut ErrorList) {
    for member in members {
        if new.child(member).value != old.child(member).value {
            let message = format!("updates to {member} are forbidden.");
            errors.push(FieldError::forbidden(&new.path.child(member), message));
        }
    }
}

fn attributes_class(class: &Node<'_>, errors: &mut ErrorList) {
    provisioner(&class.child("driverName"), errors);
    let given = class.child("parameters");
    if given.is_empty() {
        errors.push(FieldError::required(&given.path, "must contain at least one key/value pair"));
    }
    parameters(&given, errors);
}

fn provisioner(name: &Node<'_>, errors: &mut ErrorList) {
    if required(name, errors) {
        let lower = name.text().to_lowercase();
        errors.invalid_each(&name.path, &lower, names::qualified_name(&lower));
    }
}

fn parameters(map: &Node<'_>, errors: &mut ErrorList) {
    if map.entries().count() > MAX_PARAMETERS {
        errors.push(FieldError::too_long(&map.path, MAX_PARAMETERS));
        return;
    }
    let mut size = 0;
    for (key, value) in map.entries() {
        if key.is_empty() {
            errors.push(FieldError::invalid(&map.path, key.as_str(), "field can not be empty."));
        }
        size += key.len() + value.text().len();
    }
    if size > MAX_PARAMETER_BYTES {
        errors.push(FieldError::too_long(&map.path, MAX_PARAMETER_BYTES));
    }
}

fn driver_name(name: &Node<'_>, errors: &mut ErrorList) {
    if !required(name, errors) {
        return;
    }
    if name.text().len() > MAX_DRIVER_NAME {
        errors.push(FieldError::too_long(&name.path, MAX_DRIVER_NAME));
    }
    errors.invalid_each(&name.path, name.text(), names::dns1123_subdomain(&name.text().to_lowercase()));
}

fn driver(driver: &Node<'_>, errors: &mut ErrorList) {
    let spec = driver.child("spec");
    let policy = spec.child("fsGroupPolicy");
    if !matches!(policy.text(), "ReadWriteOnceWithFSType" | "File" | "None") {
        let supported = ["File", "None", "ReadWriteOnceWithFSType"];
        errors.push(FieldError::not_supported(&policy.path, policy.text(), &supported));
    }
    let tokens = spec.child("tokenRequests");
    let mut audiences = Vec::new();
    for request in tokens.items() {
        let (audience, life) = (request.child("audience"), request.child("expirationSeconds"));
        if audiences.contains(&audience.text()) {
            errors.push(FieldError::duplicate(&audience.path, audience.text()));
            continue;
        }
        audiences.push(audience.text());
        let mut wrong = |seconds: i64, message: &str| errors.push(FieldError::invalid(&life.path, seconds, message));
        match life.integer() {
            Some(seconds) if seconds < MIN_TOKEN_LIFE => {
                wrong(seconds, "may not specify a duration less than 10 minutes");
            }
            Some(seconds) if seconds > MAX_TOKEN_LIFE => {
                wrong(seconds, "may not specify a duration larger than 2^32 seconds");
            }
            _ => {}
        }
    }
    let modes = spec.child("volumeLifecycleModes");
    for mode in modes.items().filter(|mode| !matches!(mode.text(), "Persistent" | "Ephemeral")) {
        errors.push(FieldError::not_supported(&modes.path, mode.text(), &["Persistent", "Ephemeral"]));
    }
    let in_secrets = spec.child("serviceAccountTokenInSecrets");
    if in_secrets.is_set() && tokens.is_empty() {
        let message = "serviceAccountTokenInSecrets can only be set when tokenRequests is configured";
        errors.push(FieldError::invalid(&in_secrets.path, in_secrets.value.clone(), message));
    }
    let period = spec.child("nodeAllocatableUpdatePeriodSeconds");
    if let Some(seconds) = period.integer().filter(|seconds| *seconds < MIN_ALLOCATABLE_PERIOD) {
        let message = format!("must be greater than or equal to {MIN_ALLOCATABLE_PERIOD} seconds");
        errors.push(FieldError::invalid(&period.path, seconds, message));
    }
}

fn node(node: &Node<'_>, errors: &mut ErrorList) {
    let mut seen = Vec::new();
    for driver in node.at(&["spec", "drivers"]).items() {
        let (name, id, keys) = (driver.child("name"), driver.child("nodeID"), driver.child("topologyKeys"));
        driver_name(&name, errors);
        if required(&id, errors) && id.text().len() > MAX_NODE_ID {
            let message = format!("must be {MAX_NODE_ID} characters or less");
            errors.push(FieldError::invalid(&id.path, id.text(), message));
        }
        non_negative(&driver.at(&["allocatable", "count"]), errors);
        if seen.contains(&name.text()) {
            errors.push(FieldError::duplicate(&name.path, name.text()));
        }
        seen.push(name.text());
        let mut topology = Vec::new();
        // Upstream's errors name the driver.
        for key in keys.items() {
            if key.is_empty() {
                errors.push(FieldError::required(&driver.path, ""));
            }
            if topology.contains(&key.text()) {
                errors.push(FieldError::duplicate(&driver.path, key.text()));
            }
            topology.push(key.text());
            errors.invalid_each(&driver.path, key.text(), names::qualified_name(key.text()));
        }
    }
}

/// A driver stays as it is, but for how many volumes it can attach.
fn node_change(new: &Node<'_>, old: &Node<'_>, errors: &mut ErrorList) {
    let without_count = |driver: &Node<'_>| {
        let mut driver = driver.value.clone();
        if let Some(members) = driver.as_object_mut() {
            members.remove("allocatable");
        }
        driver
    };
    for driver in new.at(&["spec", "drivers"]).items() {
        let name = driver.child("name");
        let before = old.at(&["spec", "drivers"]);
        let mut before = before.items();
        if let Some(before) = before.find(|before| before.child("name").text() == name.text())
            && without_count(&driver) != without_count(&before)
        {
            let path = new.path.children(&["spec", "drivers"]);
            errors.push(FieldError::invalid(&path, driver.value.clone(), super::IMMUTABLE));
        }
    }
}

fn capacity(capacity: &Node<'_>, errors: &mut ErrorList) {
    label_selector(&capacity.child("nodeTopology"), errors);
    let class = capacity.child("storageClassName");
    errors.invalid_each(&class.path, class.text(), names::dns1123_subdomain(class.text()));
    amount_of(&capacity.child("capacity"), errors);
}

fn attachment(attachment: &Node<'_>, errors: &mut ErrorList) {
    let spec = attachment.child("spec");
    driver_name(&spec.child("attacher"), errors);
    let source = spec.child("source");
    let (name, inline) = (source.child("persistentVolumeName"), source.child("inlineVolumeSpec"));
    let message = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (name.is_set(), inline.is_set()) {
        (false, false) => errors.push(FieldError::required(&source.path, message)),
        (true, true) => errors.push(FieldError::forbidden(&source.path, message)),
        (true, false) if name.is_empty() => {
            errors.push(FieldError::required(&name.path, "must specify non empty persistentVolumeName"));
        }
        (true, false) => errors.invalid_each(&name.path, name.text(), names::dns1123_subdomain(name.text())),
        (false, true) => super::storage::volume_spec(&inline, true, errors),
    }
    let on = spec.child("nodeName");
    errors.invalid_each(&on.path, on.text(), names::dns1123_subdomain(on.text()));
    attachment_status(&attachment.child("status"), errors);
}

fn attachment_status(status: &Node<'_>, errors: &mut ErrorList) {
    let metadata = status.child("attachmentMetadata");
    let size: usize = metadata.entries().map(|(key, value)| key.len() + value.value.as_str().map_or(0, str::len)).sum();
    if size > MAX_PARAMETER_BYTES {
        errors.push(FieldError::too_long(&metadata.path, MAX_PARAMETER_BYTES));
    }
    for member in ["attachError", "detachError"] {
        let (message, code) = (status.at(&[member, "message"]), status.at(&[member, "errorCode"]));
        if message.text().len() > MAX_ERROR_MESSAGE {
            // Upstream names the limit of the metadata.
            errors.push(FieldError::too_long(&message.path, MAX_PARAMETER_BYTES));
        }
        if let Some(number) = code.integer().filter(|number| *number < 0) {
            let message = names::inclusive_range(0, i64::from(i32::MAX));
            errors.push(FieldError::invalid(&code.path, number, message));
        }
    }
}
