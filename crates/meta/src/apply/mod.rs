//! Server-side apply, and the tracking of who set which field by plain writes.
//!
//! Each manager owns a set of fields, kept in `metadata.managedFields`. Applying a configuration merges it into the live object,
//! gives the manager what it names, and removes what it named before and no one else owns; where it changes what another
//! manager owns, that is a conflict unless forced. A plain write takes over whatever it changes.

mod check;
mod managers;
mod set;
mod typed;
mod untracked;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use jiff::Timestamp;
use serde_json::{Map, Value};
use thiserror::Error;

use self::managers::{Identity, Managed, Managers};
use self::typed::{Comparison, canonical, merge, remove, to_set};
use crate::decode::zero_value;
use crate::schema::Schema;
use crate::status::Cause;
use crate::{Object, StatusError};

pub use set::{Element, FieldSet};
pub use untracked::merge_untracked;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
const MANAGED: &[&str] = &["metadata", "managedFields"];

/// Fields that belong to no one.
static UNTRACKED: LazyLock<FieldSet> = LazyLock::new(|| FieldSet::of_fields(UNTRACKED_PATHS));
const UNTRACKED_PATHS: &[&[&str]] = &[
    &["apiVersion"],
    &["kind"],
    &["metadata"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "creationTimestamp"],
    &["metadata", "selfLink"],
    &["metadata", "uid"],
    &["metadata", "clusterName"],
    &["metadata", "generation"],
    MANAGED,
    &["metadata", "resourceVersion"],
];

/// Why a configuration cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ApplyError {
    /// It changes fields that other managers own: manager and path of each.
    #[error("{}", conflict_text(.0))]
    Conflicts(Vec<(String, String)>),
    /// It names another version than the request.
    #[error("Incorrect version specified in apply patch. Specified patch version: {found}, expected: {wanted}")]
    Version {
        /// `apiVersion` of the configuration.
        found: String,
        /// `apiVersion` of the request.
        wanted: String,
    },
    /// It brings its own managed fields.
    #[error("metadata.managedFields must be nil")]
    ManagedFields,
    /// It does not fit the schema: which object it is, and what is wrong where.
    #[error("failed to create typed patch object ({object}): {}", fault_text(.faults))]
    Untyped { object: String, faults: Vec<String> },
    /// It has a member that the schema does not know.
    #[error("failed to create typed patch object: {0}: field not declared in schema")]
    Undeclared(String),
    /// An element of a list has none of the members that tell elements apart.
    #[error(
        "associative list with keys has an element that omits all key fields {0:?} (and doesn't have default values for any key fields)"
    )]
    NoKeys(Vec<String>),
    /// A list has an element twice.
    #[error("duplicate entries for key {0}")]
    Duplicate(String),
    /// A configuration of admission names parts that can only be replaced as a whole; their paths.
    #[error("invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {}", .0.join(", "))]
    Atomics(Vec<String>),
    /// The live object's managed fields cannot be read.
    #[error("failed to decode managed fields")]
    Unreadable,
}

impl ApplyError {
    /// The status of the request.
    pub fn status(&self) -> StatusError {
        match self {
            Self::Conflicts(conflicts) => {
                let causes = conflicts.iter().map(|(manager, path)| Cause {
                    reason: "FieldManagerConflict".into(),
                    message: format!("conflict with {manager}"),
                    field: path.clone(),
                });
                StatusError::apply_conflict(causes.collect(), self.to_string())
            }
            Self::Version { .. } | Self::ManagedFields => StatusError::bad_request(self.to_string()),
            Self::Untyped { .. } => StatusError::unknown(self.to_string()),
            Self::Undeclared(_) | Self::NoKeys(_) | Self::Duplicate(_) | Self::Atomics(_) | Self::Unreadable => {
                StatusError::internal(self)
            }
        }
    }
}

fn fault_text(faults: &[String]) -> String {
    match faults {
        [only] => only.clone(),
        _ => format!("errors:\n  {}", faults.join("\n  ")),
    }
}

fn conflict_text(conflicts: &[(String, String)]) -> String {
    if let [(manager, path)] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {manager}: {path}");
    }
    let mut lines = Vec::new();
    let mut last = None;
    for (manager, path) in conflicts {
        if last != Some(manager) {
            lines.push(format!("conflicts with {manager}:"));
            last = Some(manager);
        }
        lines.push(format!("- {path}"));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

/// Brings an object from the version its `apiVersion` names into another one of its kind, with the schema there; `None` for a
/// version that is not known any more.
pub type Convert<'a> = dyn Fn(&Value, &str) -> Option<(Value, &'a Schema)> + Sync + 'a;

/// Fields that a door to an object leaves as they were. A path stands for all below it, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resets<'a> {
    /// These.
    Fields(&'a [&'a [&'a str]]),
    /// All but these, in which `*` is any member or element.
    AllBut(&'a [&'a [&'a str]]),
}

impl Resets<'_> {
    /// What of a set the door can change.
    fn rest(self, set: &FieldSet) -> FieldSet {
        match self {
            Self::Fields(paths) => set.without_subtrees(&FieldSet::of_fields(paths)),
            Self::AllBut(paths) => set.within(paths),
        }
    }
}

/// Who writes, and through which door.
#[derive(Clone, Copy)]
pub struct Write<'a> {
    /// Schema of the kind.
    pub schema: &'a Schema,
    /// The field manager; empty is `unknown`.
    pub manager: &'a str,
    /// `apiVersion` of the request.
    pub api_version: &'a str,
    /// Subresource of the request, empty for the object itself.
    pub subresource: &'a str,
    /// What this door cannot change, such as `status` through the object itself: neither owned nor compared.
    pub resets: Resets<'a>,
    /// Time of the write.
    pub now: Timestamp,
    /// How objects are brought into the versions in which other managers named their fields; `None` where all versions have
    /// the same fields.
    pub convert: Option<&'a Convert<'a>>,
}

impl<'a> Write<'a> {
    /// An object as another version shows it.
    fn at(&self, value: &Value, api_version: &str) -> Option<(Value, &'a Schema)> {
        let found = value.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
        match self.convert {
            Some(convert) if found != api_version || api_version != self.api_version => convert(value, api_version),
            _ => Some((value.clone(), self.schema)),
        }
    }
}

/// Applies a configuration to a live object (for a create: one with only `apiVersion` and `kind`).
///
/// `config` is the body as it was sent, not brought into normal form. The result is not in normal form or defaulted either;
/// its managed fields are set. When nothing changes it equals `live`.
///
/// # Errors
/// Conflicts unless `force`, and configurations that do not fit the schema.
pub fn apply(live: &Object, config: &Object, force: bool, write: Write<'_>) -> Result<Object, ApplyError> {
    match merge_config(live, config, force, &write) {
        // What client-side apply set and no one changed since is kubectl's to change.
        Err(ApplyError::Conflicts(conflicts)) if write.manager == "kubectl" => {
            let own = set_by_client_side_apply(live, &write).unwrap_or_default().paths();
            let others: Vec<_> = conflicts.into_iter().filter(|(_, path)| !own.contains(path)).collect();
            if others.is_empty() {
                return merge_config(live, config, true, &write);
            }
            Err(ApplyError::Conflicts(others))
        }
        outcome => outcome,
    }
}

/// The fields of the annotation that client-side apply leaves, as far as the object still has their values.
fn set_by_client_side_apply(live: &Object, write: &Write<'_>) -> Option<FieldSet> {
    let mut last = serde_json::from_str::<Value>(live.annotation(LAST_APPLIED)?).ok()?;
    if last.get("apiVersion").and_then(Value::as_str) != Some(write.api_version) {
        return None;
    }
    canonical(&mut last, write.schema);
    let comparison = Comparison::of(&last, &bare(live), write.schema).ok()?;
    let fields = to_set(&last, Some(write.schema), "").ok()?;
    Some(fields.difference(&comparison.modified).difference(&comparison.added).difference(&comparison.removed))
}

fn merge_config(live: &Object, config: &Object, force: bool, write: &Write<'_>) -> Result<Object, ApplyError> {
    if config.api_version() != write.api_version {
        return Err(ApplyError::Version { found: config.api_version().into(), wanted: write.api_version.into() });
    }
    if config.get(MANAGED).is_some_and(|m| !m.is_null()) {
        return Err(ApplyError::ManagedFields);
    }
    check::check(config, write.schema)?;
    let mut managers = Managers::decode(live).ok_or(ApplyError::Unreadable)?;
    let live_value = bare(live);
    if managers.0.is_empty() {
        let identity = Identity::new(BEFORE_FIRST_APPLY, false, write.api_version, write.subresource);
        take_over(&blank(write.schema), &live_value, &mut managers, &identity, write)?;
    }

    let mut config_value = config.to_value();
    canonical(&mut config_value, write.schema);
    let schema = Some(write.schema);
    let identity = Identity::new(write.manager, true, write.api_version, write.subresource);
    let merged = merge(Some(&live_value), Some(&config_value), schema)?.unwrap_or_default();
    let last = managers.0.get(&identity).cloned();
    let previous_time = last.as_ref().map(|m| m.time.clone()).unwrap_or_default();
    let fields = write.resets.rest(&to_set(&config_value, schema, "")?);
    managers.0.insert(identity.clone(), Managed { fields, api_version: write.api_version.into(), time: previous_time });
    let pruned = match &last {
        Some(last) => prune(merged, last, &managers, write)?,
        None => merged,
    };
    settle(&live_value, &pruned, &mut managers, Some(&identity), force, write)?;
    untrack(&mut managers, &identity);
    managers.drop_empty();

    let mut result = Object::try_from(pruned).unwrap_or_default();
    let unchanged = result.map() == bare_object(live).map();
    if unchanged && Managers::decode(live).as_ref() == Some(&managers) {
        return Ok(live.clone());
    }
    managers.touch(&identity, write.now);
    if write.manager == "kubectl" && result.annotation(LAST_APPLIED).is_some() {
        result.set_annotation(LAST_APPLIED, &last_applied(config));
    }
    managers.encode(&mut result);
    Ok(result)
}

/// Tracks a plain write: gives `new` the managed fields of `live` with what was changed taken over by the writer.
///
/// `live` is `None` for a create. Objects whose fields were never tracked stay so. A write may itself carry managed fields: an
/// empty list resets them.
///
/// # Errors
/// When a list has elements without keys; the write then goes on untracked, as upstream's does.
pub fn update(live: Option<&Object>, new: &mut Object, write: Write<'_>) -> Result<(), ApplyError> {
    let empty = Object::default();
    let before = live.unwrap_or(&empty);
    let reset = write.subresource.is_empty() && is_reset(new);
    let sent = if write.subresource.is_empty() { Managers::decode(new).filter(|m| !m.0.is_empty()) } else { None };
    let mut managers = match sent {
        _ if reset => Managers::default(),
        Some(sent) => sent,
        None => Managers::decode(before).unwrap_or_default(),
    };
    new.remove(MANAGED);
    if managers.0.is_empty() && live.is_some() {
        return Ok(());
    }
    let identity = Identity::new(write.manager, false, write.api_version, write.subresource);
    let old = live.map_or_else(|| blank(write.schema), bare);
    take_over(&old, &bare(new), &mut managers, &identity, &write)?;
    managers.cap();
    managers.encode(new);
    Ok(())
}

/// When an object differs from what is stored in nothing but the times of its managed fields, gives it the stored times, so that
/// the write changes nothing. To be called last, on an object in normal form with its defaults.
pub fn restore_times(old: &Object, new: &mut Object) {
    let (Some(stored), found) = (old.get(MANAGED), new.get(MANAGED)) else { return };
    let same = found != Some(stored)
        && equal_without(old.map(), new.map(), &["metadata"])
        && equal_without(
            old.metadata().unwrap_or(&Map::new()),
            new.metadata().unwrap_or(&Map::new()),
            &["managedFields", "resourceVersion"],
        )
        && timeless(stored) == timeless(found.unwrap_or(&Value::Null));
    if same {
        new.set(MANAGED, stored.clone());
    }
}

/// Whether two objects have the same members but for these.
fn equal_without(one: &Map<String, Value>, other: &Map<String, Value>, names: &[&str]) -> bool {
    let counts = |(name, _): &(&String, &Value)| !names.contains(&name.as_str());
    one.iter().filter(counts).eq(other.iter().filter(counts))
}

/// Entries of managed fields without their times. Those of one manager can only have changed their order if a time did.
fn timeless(entries: &Value) -> Vec<String> {
    let mut out: Vec<String> = entries
        .as_array()
        .into_iter()
        .flatten()
        .map(|entry| {
            let mut entry = entry.clone();
            if let Some(entry) = entry.as_object_mut() {
                entry.remove("time");
            }
            entry.to_string()
        })
        .collect();
    out.sort();
    out
}

/// What an object is compared with that did not exist before: members that Go always writes are no one's doing.
fn blank(schema: &Schema) -> Value {
    if schema.rules.is_some() { Value::Object(Map::new()) } else { zero_value(schema) }
}

/// Whether a body asks for its managed fields to be forgotten: `[]` or `[{}]`.
fn is_reset(object: &Object) -> bool {
    match object.get(MANAGED).and_then(Value::as_array).map(Vec::as_slice) {
        Some([]) => true,
        Some([Value::Object(only)]) => only.is_empty(),
        _ => false,
    }
}

fn bare_object(object: &Object) -> Object {
    let mut object = object.clone();
    object.remove(MANAGED);
    object
}

fn bare(object: &Object) -> Value {
    bare_object(object).into()
}

/// Gives a writer all that differs between two states.
fn take_over(
    old: &Value,
    new: &Value,
    managers: &mut Managers,
    identity: &Identity,
    write: &Write<'_>,
) -> Result<(), ApplyError> {
    let comparison = settle(old, new, managers, None, true, write)?;
    let gained = comparison.modified.union(&comparison.added).difference(&UNTRACKED);
    if gained.is_empty() {
        return Ok(());
    }
    let slot = managers.0.entry(identity.clone()).or_insert_with(|| Managed {
        fields: FieldSet::default(),
        api_version: write.api_version.into(),
        time: String::new(),
    });
    slot.fields = slot.fields.union(&gained);
    managers.touch(identity, write.now);
    Ok(())
}

/// Takes what changed from all managers but the one who applies, who may only do so without conflict or by force. Each
/// manager's fields are compared in the version that names them.
fn settle(
    old: &Value,
    new: &Value,
    managers: &mut Managers,
    applier: Option<&Identity>,
    force: bool,
    write: &Write<'_>,
) -> Result<Comparison, ApplyError> {
    let mut comparison = Comparison::of(old, new, write.schema)?;
    comparison.restrict(write.resets);
    let mut elsewhere: BTreeMap<String, Option<Comparison>> = BTreeMap::new();
    let mut conflicts = Vec::new();
    for (identity, managed) in managers.0.iter_mut().filter(|(identity, _)| Some(*identity) != applier) {
        let version = &managed.api_version;
        let here = if write.convert.is_none() || version == write.api_version {
            &comparison
        } else {
            if !elsewhere.contains_key(version) {
                elsewhere.insert(version.clone(), compare_at(old, new, version, write)?);
            }
            match elsewhere.get(version) {
                Some(Some(there)) => there,
                // Nobody can say any more what these fields were.
                _ => {
                    managed.fields = FieldSet::default();
                    continue;
                }
            }
        };
        let lost = managed.fields.intersection(&here.modified.union(&here.added));
        conflicts.extend(lost.paths().into_iter().map(|path| (identity.to_string(), path)));
        if applier.is_none() || force {
            managed.fields = managed.fields.difference(&lost);
        }
        managed.fields = managed.fields.difference(&here.removed);
    }
    if applier.is_some() && !force && !conflicts.is_empty() {
        conflicts.sort();
        return Err(ApplyError::Conflicts(conflicts));
    }
    managers.drop_empty();
    Ok(comparison)
}

fn compare_at(old: &Value, new: &Value, version: &str, write: &Write<'_>) -> Result<Option<Comparison>, ApplyError> {
    let (Some((old, schema)), Some((new, _))) = (write.at(old, version), write.at(new, version)) else {
        return Ok(None);
    };
    let mut comparison = Comparison::of(&old, &new, schema)?;
    comparison.restrict(write.resets);
    Ok(Some(comparison))
}

fn untrack(managers: &mut Managers, identity: &Identity) {
    if let Some(managed) = managers.0.get_mut(identity) {
        managed.fields = managed.fields.difference(&UNTRACKED);
    }
}

/// Removes what the manager applied last and no longer applies, unless someone owns it. What was applied last is looked at in
/// the version that names it, what others own in theirs.
fn prune(merged: Value, last: &Managed, managers: &Managers, write: &Write<'_>) -> Result<Value, ApplyError> {
    if last.fields.is_empty() {
        return Ok(merged);
    }
    let Some((whole, schema)) = write.at(&merged, &last.api_version) else { return Ok(merged) };
    let cut = |value: &Value, set: &FieldSet, schema: &Schema| {
        remove(value, set, Some(schema)).unwrap_or_else(|| Value::Object(Map::new()))
    };
    // The live part may hold what the schema no longer knows; it is nobody's then, and stays.
    let set_of =
        |value: &Value, schema: &Schema| to_set(value, Some(schema), "").map(|set| set.with_named_fields(Some(schema)));
    let named = last.fields.with_named_fields(Some(schema));
    let mut left = cut(&whole, &named, schema);
    for (version, owned) in managers.by_version() {
        let (Some((all, schema)), Some((kept, _))) = (write.at(&whole, version), write.at(&left, version)) else {
            continue;
        };
        let kept = set_of(&kept, schema)?.union(&owned.with_named_fields(Some(schema)));
        left = cut(&all, &set_of(&all, schema)?.difference(&kept), schema);
    }
    let Some((left, _)) = write.at(&left, &last.api_version) else { return Ok(merged) };
    let gone = set_of(&whole, schema)?.difference(&set_of(&left, schema)?).intersection(&named);
    Ok(write.at(&cut(&whole, &gone, schema), write.api_version).map_or(merged, |(pruned, _)| pruned))
}

/// The annotation that client-side apply reads, kept up to date by kubectl's server-side apply.
fn last_applied(config: &Object) -> String {
    let mut config = bare_object(config);
    config.remove(&["metadata", "annotations", LAST_APPLIED]);
    format!("{}\n", Value::from(config))
}

#[cfg(test)]
mod tests;
