//! Validation of objects in normal form, with upstream's field paths and words.
//!
//! A kind is a row: how it is named, what is checked when it is created (and, of the new object, when it is updated), and what may
//! not change. Values of enumerations are checked by the field table for every kind.

mod aggregation;
mod autoscaling;
mod batch;
mod certificates;
mod containers;
mod core;
mod cron;
mod csi;
mod custom;
pub mod definitions;
mod device_slices;
mod devices;
mod enumerations;
mod flow_control;
pub(crate) mod formats;
mod job_status;
mod meta;
mod mounts;
mod network;
mod networking;
mod node;
mod others;
mod pod_annotations;
mod pod_context;
mod pod_resources;
mod pod_status;
mod pod_system;
mod pods;
mod policies;
mod quotas;
mod resources;
mod scheduling;
mod services;
mod storage;
mod volume_sources;
mod volumes;
mod webhooks;
mod workloads;

pub(crate) use self::node::Node;
use crate::field::{ErrorList, FieldError};
use crate::gvk::Gvk;
use crate::schema::Schema;
use crate::{Object, names};

pub use meta::{object_meta, object_meta_update};

/// How the names of a kind's objects are checked.
pub type NameCheck = fn(&str) -> Vec<String>;

type Check = fn(&Node<'_>, &mut ErrorList);
type ChangeCheck = fn(&Node<'_>, &Node<'_>, &mut ErrorList);
type WholeCheck = fn(&Object, Option<&Object>, &mut ErrorList);

/// What is particular to a kind.
struct Kind {
    group: &'static str,
    kind: &'static str,
    name: NameCheck,
    /// Whether finalizers without a domain must be ones that everybody knows.
    known_finalizers: bool,
    /// Checks of the object by itself.
    object: Check,
    /// Checks of a new object only: what an old one may keep.
    created: Check,
    /// Checks of a change: new, old.
    change: ChangeCheck,
    /// Checks of the object that depend on what it was, if it was: new, old.
    whole: WholeCheck,
    /// Checks of the object when it comes through the `status` door.
    whole_status: fn(&Object, &mut ErrorList),
    /// Checks of a change of the status: new, old.
    status: ChangeCheck,
}

impl Kind {
    const fn new(group: &'static str, kind: &'static str, object: Check) -> Self {
        Self {
            group,
            kind,
            name: names::dns1123_subdomain,
            known_finalizers: true,
            object,
            created: |_, _| {},
            change: |_, _, _| {},
            whole: |_, _, _| {},
            whole_status: |_, _| {},
            status: |_, _, _| {},
        }
    }

    const fn named(self, name: NameCheck) -> Self {
        Self { name, ..self }
    }

    const fn any_finalizers(self) -> Self {
        Self { known_finalizers: false, ..self }
    }

    const fn created(self, created: Check) -> Self {
        Self { created, ..self }
    }

    const fn change(self, change: ChangeCheck) -> Self {
        Self { change, ..self }
    }

    const fn whole(self, whole: WholeCheck, whole_status: fn(&Object, &mut ErrorList)) -> Self {
        Self { whole, whole_status, ..self }
    }

    const fn status(self, status: ChangeCheck) -> Self {
        Self { status, ..self }
    }
}

fn find(gvk: &Gvk) -> Option<&'static Kind> {
    let tables = [
        core::KINDS,
        pods::KINDS,
        services::KINDS,
        storage::KINDS,
        csi::KINDS,
        workloads::KINDS,
        batch::KINDS,
        autoscaling::KINDS,
        quotas::KINDS,
        network::KINDS,
        networking::KINDS,
        webhooks::KINDS,
        policies::KINDS,
        aggregation::KINDS,
        flow_control::KINDS,
        devices::KINDS,
        certificates::KINDS,
        others::KINDS,
        definitions::KINDS,
    ];
    tables.into_iter().flatten().find(|row| row.group == gvk.group && row.kind == gvk.kind)
}

/// How a kind's objects are named: most as DNS subdomains.
pub fn name_check(gvk: &Gvk) -> NameCheck {
    find(gvk).map_or(names::dns1123_subdomain, |row| row.name)
}

/// Checks a new object against its kind's rules and its type. Whether it may or must have a namespace is for the caller, who knows the resource's scope.
pub fn create(gvk: &Gvk, schema: &Schema, object: &Object) -> ErrorList {
    let mut errors = object_meta(object, name_check(gvk));
    check(gvk, schema, object, None, &mut errors);
    if let Some(row) = find(gvk) {
        (row.created)(&Node::root(object), &mut errors);
        finalizers(row, object, &mut errors);
    }
    errors
}

/// The finalizers of most kinds with rules of their own; those of all others may be anything.
fn finalizers(row: &Kind, object: &Object, errors: &mut ErrorList) {
    let list = Node::root(object).at(&["metadata", "finalizers"]);
    list.items().filter(|_| row.known_finalizers).for_each(|finalizer| meta::finalizer(&finalizer, errors));
}

/// Checks a change of an object through its main door.
pub fn update(gvk: &Gvk, schema: &Schema, new: &Object, old: &Object) -> ErrorList {
    let mut errors = object_meta_update(new, old);
    // Outside the core group what an object says is read before what it may not change.
    if gvk.group.is_empty() {
        errors.append(transition(gvk, new, old));
        check(gvk, schema, new, Some(old), &mut errors);
    } else {
        check(gvk, schema, new, Some(old), &mut errors);
        errors.append(transition(gvk, new, old));
    }
    errors
}

/// Checks what may not change, and nothing else: with [`specification`], for the same doors.
pub fn transition(gvk: &Gvk, new: &Object, old: &Object) -> ErrorList {
    let mut errors = ErrorList::new();
    if let Some(row) = find(gvk) {
        (row.change)(&Node::root(new), &Node::root(old), &mut errors);
        finalizers(row, new, &mut errors);
    }
    errors
}

/// Checks what a kind's object says, without its metadata and without regard to what it said before: for doors that change one
/// part by rules of their own, such as a pod's `resize` and `ephemeralcontainers`.
pub fn specification(gvk: &Gvk, schema: &Schema, object: &Object) -> ErrorList {
    let mut errors = ErrorList::new();
    check(gvk, schema, object, None, &mut errors);
    errors
}

/// Checks a change through the `status` door, which leaves everything else alone.
pub fn update_status(gvk: &Gvk, schema: &Schema, new: &Object, old: &Object) -> ErrorList {
    let mut errors = object_meta_update(new, old);
    custom::check_status(schema, new, old, &mut errors);
    if let Some(row) = find(gvk) {
        (row.whole_status)(new, &mut errors);
        (row.status)(&Node::root(new), &Node::root(old), &mut errors);
    }
    errors
}

fn check(gvk: &Gvk, schema: &Schema, object: &Object, old: Option<&Object>, errors: &mut ErrorList) {
    let root = Node::root(object);
    enumerations::check(&root, schema, errors);
    custom::check(schema, object, old, errors);
    if let Some(row) = find(gvk) {
        (row.object)(&root, errors);
        (row.whole)(object, old, errors);
    }
}

const IMMUTABLE: &str = "field is immutable";
const NO_OPERATOR: &str = "not a valid selector operator";

/// The value may not change.
fn immutable(new: &Node<'_>, old: &Node<'_>, errors: &mut ErrorList) {
    if new.value != old.value {
        errors.push(FieldError::invalid(&new.path, new.value.clone(), IMMUTABLE));
    }
}

/// Whether addresses, or ranges of them, are of both families.
fn mixes_families(texts: &[&str]) -> bool {
    let second = texts.iter().filter(|text| text.contains(':')).count();
    second > 0 && second < texts.len()
}

/// A number that may not be negative.
fn non_negative(node: &Node<'_>, errors: &mut ErrorList) {
    if let Some(number) = node.integer()
        && number < 0
    {
        errors.push(FieldError::invalid(&node.path, number, "must be greater than or equal to 0"));
    }
}

/// A number in `low..=high`; an absent one is 0.
fn within(node: &Node<'_>, low: i64, high: i64, errors: &mut ErrorList) {
    let number = node.integer().unwrap_or_default();
    for message in names::in_range(number, low, high) {
        errors.push(FieldError::invalid(&node.path, number, message));
    }
}

/// A text that must be there.
fn required(node: &Node<'_>, errors: &mut ErrorList) -> bool {
    if node.text().is_empty() {
        errors.push(FieldError::required(&node.path, ""));
        return false;
    }
    true
}

/// Conditions as `metav1.Condition` has them.
fn conditions(list: &Node<'_>, errors: &mut ErrorList) {
    const MAX_MESSAGE: usize = 32 * 1024;
    const MAX_REASON: usize = 1024;
    let mut seen = Vec::new();
    for condition in list.items() {
        let kind = condition.child("type");
        if seen.contains(&kind.text()) {
            errors.push(FieldError::duplicate(&kind.path, kind.text()));
        }
        seen.push(kind.text());
        errors.invalid_each(&kind.path, kind.text(), names::qualified_name(kind.text()));
        let status = condition.child("status");
        if !matches!(status.text(), "True" | "False" | "Unknown") {
            errors.push(FieldError::not_supported(&status.path, status.text(), &["False", "True", "Unknown"]));
        }
        non_negative(&condition.child("observedGeneration"), errors);
        let since = condition.child("lastTransitionTime");
        if !since.is_set() {
            errors.push(FieldError::required(&since.path, "must be set"));
        }
        let (reason, message) = (condition.child("reason"), condition.child("message"));
        if reason.is_empty() {
            errors.push(FieldError::required(&reason.path, ""));
        } else if reason.text().len() > MAX_REASON {
            errors.push(FieldError::too_long(&reason.path, MAX_REASON));
        } else {
            errors.invalid_each(&reason.path, reason.text(), names::condition_reason(reason.text()));
        }
        if message.text().len() > MAX_MESSAGE {
            errors.push(FieldError::too_long(&message.path, MAX_MESSAGE));
        }
    }
}

/// Label selectors in the object form.
fn label_selector(selector: &Node<'_>, errors: &mut ErrorList) {
    labels(&selector.child("matchLabels"), errors);
    for expression in selector.child("matchExpressions").items() {
        let values = expression.child("values");
        match expression.child("operator").text() {
            "In" | "NotIn" if values.is_empty() => {
                let message = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(FieldError::required(&values.path, message));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let message = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(&values.path, message));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                let path = expression.path.child("operator");
                errors.push(FieldError::invalid(&path, other, NO_OPERATOR));
            }
        }
        let key = expression.child("key");
        errors.invalid_each(&key.path, key.text(), names::qualified_name(key.text()));
        for value in values.items() {
            errors.invalid_each(&value.path, value.text(), names::label_value(value.text()));
        }
    }
}

/// A map of labels.
fn labels(map: &Node<'_>, errors: &mut ErrorList) {
    for (key, value) in map.entries() {
        errors.invalid_each(&map.path, key, names::qualified_name(key));
        errors.invalid_each(&map.path, value.text(), names::label_value(value.text()));
    }
}

#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
mod group_tests;
#[cfg(test)]
mod pod_status_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_batch;
#[cfg(test)]
mod workload_tests;
