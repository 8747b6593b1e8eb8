//! What may differ between resources when objects are written. Every method defaults to what the row's policy says.
//!
//! The pipeline calls, in this order: `prepare_*`, `reserve`, `validate*`, `warnings`, `canonicalize`. On updates all of
//! it runs inside the store's optimistic loop, so each method must be repeatable: no effect outside its arguments but the
//! guard that [`Strategy::reserve`] returns.

use std::any::Any;

use jiff::Timestamp;
use kminik_meta::apply::Resets;
use kminik_meta::decode::zero_value;
use kminik_meta::{ErrorList, Object, StatusError};
use serde_json::Value;

use super::Registry;
use super::def::{ResourceDef, Storage};
use crate::auth::UserInfo;

/// What a strategy may look at besides the object.
#[derive(Clone, Copy)]
pub struct StrategyContext<'a> {
    /// Everything stored; reads only.
    pub registry: &'a Registry,
    pub row: &'a ResourceDef,
    pub user: &'a UserInfo,
    /// Namespace of the request, empty for cluster-scoped resources.
    pub namespace: &'a str,
    pub dry_run: bool,
    /// The time of the request: strategies never read a clock.
    pub now: Timestamp,
}

/// Something taken from a pool (an address, a port) for the object being written. Dropped without
/// [`commit`](Reservation::commit), it must give back what it took.
pub trait Reservation: Send {
    /// The object was stored at this revision; what it names is now in use.
    fn commit(self: Box<Self>, revision: u64);
}

/// Another object that is written in the same transaction as the one it belongs to.
pub enum Companion {
    /// Comes into being; a write that finds one of its name fails with 409.
    Made { group: &'static str, plural: &'static str, object: Object },
    /// Goes, if it is there. Both kinds are of cluster-scoped resources.
    Removed { group: &'static str, plural: &'static str, name: String },
}

/// How a deletion treats the object itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grace {
    /// Removed at once, unless finalizers hold it.
    None,
    /// Someone (the kubelet) confirms by deleting again with 0 seconds.
    Seconds(i64),
}

/// Differences of one resource, or of one of its views. Objects are in the version that the row works in.
pub trait Strategy: Send + Sync + Any {
    /// Fills what a new object must have and drops what a client may not set. May mutate.
    fn prepare_create(&self, ctx: &StrategyContext<'_>, object: &mut Object) {
        default_prepare_create(ctx, object);
    }

    /// Keeps in `new` what this path may not change. May mutate `new`.
    fn prepare_update(&self, ctx: &StrategyContext<'_>, old: &Object, new: &mut Object) {
        default_prepare_update(ctx, old, new);
    }

    /// Takes what the object needs from pools and writes it into the object. `old` is `None` on create.
    ///
    /// # Errors
    /// When the pool is exhausted or the wanted value is taken or out of range.
    fn reserve(
        &self,
        _ctx: &StrategyContext<'_>,
        _old: Option<&Object>,
        _new: &mut Object,
    ) -> Result<Option<Box<dyn Reservation>>, StatusError> {
        Ok(None)
    }

    /// What only one object of the row may have at a time (`addresses/10.96.0.1`). The store itself sees to it, in the
    /// transaction that writes the object, so that no two servers can give the same to two objects.
    fn claims(&self, _object: &Object) -> Vec<String> {
        Vec::new()
    }

    /// Checks beyond the schema and metadata. Must not mutate.
    fn validate(&self, _ctx: &StrategyContext<'_>, _object: &Object) -> ErrorList {
        ErrorList::new()
    }

    /// Checks of a change; [`validate`](Strategy::validate) runs on `new` too. Must not mutate.
    fn validate_update(&self, _ctx: &StrategyContext<'_>, _old: &Object, _new: &Object) -> ErrorList {
        ErrorList::new()
    }

    /// All checks beyond the schema and metadata; adds to the errors that these found. Must not mutate.
    fn check(&self, ctx: &StrategyContext<'_>, old: Option<&Object>, new: &Object, errors: &mut ErrorList) {
        errors.append(self.validate(ctx, new));
        if let Some(old) = old {
            errors.append(self.validate_update(ctx, old, new));
        }
    }

    /// Texts for `Warning` headers. `old` is `None` on create.
    fn warnings(&self, _ctx: &StrategyContext<'_>, _old: Option<&Object>, _new: &Object) -> Vec<String> {
        Vec::new()
    }

    /// Brings a valid object into its one stored form. May mutate.
    fn canonicalize(&self, _ctx: &StrategyContext<'_>, _object: &mut Object) {}

    /// What is written together with the object whenever it is stored or removed, by whatever door: at most one object of
    /// a resource. `old` is `None` for a new object, `new` for one that goes.
    fn companions(&self, _old: Option<&Object>, _new: Option<&Object>) -> Vec<Companion> {
        Vec::new()
    }

    /// How long a deletion waits for somebody else. `requested` is gracePeriodSeconds of the client.
    fn grace(&self, _ctx: &StrategyContext<'_>, _object: &Object, _requested: Option<i64>) -> Grace {
        Grace::None
    }

    /// Whether a deletion may begin.
    ///
    /// # Errors
    /// When the object must not be deleted now.
    fn check_delete(&self, _ctx: &StrategyContext<'_>, _object: &Object) -> Result<(), StatusError> {
        Ok(())
    }

    /// Marks an object whose deletion begins (a namespace becomes `Terminating`). May mutate.
    fn begin_delete(&self, _ctx: &StrategyContext<'_>, _object: &mut Object) {}

    /// Whether something besides `metadata.finalizers` still holds a deleted object (`spec.finalizers` of a namespace).
    fn held(&self, _object: &Object) -> bool {
        false
    }
}

/// The row's policy and nothing else.
#[derive(Clone, Copy, Debug)]
pub struct Default;

impl Strategy for Default {}

/// `/status`: everything but `status` and the metadata clients may change stays as it was.
#[derive(Clone, Copy, Debug)]
pub struct Status;

impl Strategy for Status {
    fn prepare_update(&self, ctx: &StrategyContext<'_>, old: &Object, new: &mut Object) {
        keep_all_but_status(old, new);
        keep_metadata(ctx.row, "status", old, new);
    }
}

/// Restores those parts of the metadata that a door below the row keeps.
pub fn keep_metadata(row: &ResourceDef, door: &str, old: &Object, new: &mut Object) {
    const ALL: &[&str] = &["labels", "annotations", "finalizers", "ownerReferences"];
    let paths = match row.resets(door) {
        Resets::Fields(paths) => paths,
        Resets::AllBut(_) => &[&["metadata"][..]],
    };
    for path in paths {
        let kept: &[&str] = match path {
            ["metadata"] => ALL,
            // A deletion is no client's to take back, in any resource.
            ["metadata", member] if *member != "deletionTimestamp" => &[*member],
            _ => &[],
        };
        for member in kept {
            match old.get(&["metadata", member]) {
                Some(value) => new.set(&["metadata", member], value.clone()),
                None => drop(new.remove(&["metadata", member])),
            }
        }
    }
}

/// What creating does by policy: `status` is that of an object nobody has acted on yet, generation starts at 1.
pub fn default_prepare_create(ctx: &StrategyContext<'_>, object: &mut Object) {
    if ctx.row.policy.status_reset && has_status(ctx.row) {
        // As Go writes a struct that is held by value: clients of the built-in kinds read its members without looking for it.
        let held = match &ctx.row.storage {
            Storage::Stored { schema, .. } => schema.field("status").filter(|field| field.always && !field.pointer),
            Storage::Virtual(_) | Storage::Computed(_) => None,
        };
        match held {
            Some(field) => object.map_mut().insert("status".to_owned(), zero_value(field.schema())),
            None => object.map_mut().remove("status"),
        };
    }
    if ctx.row.policy.generation {
        object.set_generation(1);
    }
}

/// What updating does by policy: `status` stays as it was, generation counts changes outside metadata and status.
pub fn default_prepare_update(ctx: &StrategyContext<'_>, old: &Object, new: &mut Object) {
    if ctx.row.policy.status_reset && has_status(ctx.row) {
        copy_member(old, new, "status");
    }
    if ctx.row.policy.generation {
        let changed = differs_outside_metadata_and_status(old, new) || (new.is_deleting() && !old.is_deleting());
        new.set_generation(old.generation() + i64::from(changed));
    }
}

/// Restores every root member but `status` and `metadata`, and `metadata.generation`: what every `/status` does.
pub fn keep_all_but_status(old: &Object, new: &mut Object) {
    let status = new.map_mut().remove("status");
    let metadata = new.map_mut().remove("metadata");
    let mut kept = old.map().clone();
    for (key, value) in [("status", status), ("metadata", metadata)] {
        match value {
            Some(value) => kept.insert(key.to_owned(), value),
            None => kept.remove(key),
        };
    }
    *new = Object::from(kept);
    new.set_generation(old.generation());
}

/// Copies one root member, or removes it where `old` has none.
pub fn copy_member(old: &Object, new: &mut Object, key: &str) {
    match old.map().get(key) {
        Some(value) => new.map_mut().insert(key.to_owned(), value.clone()),
        None => new.map_mut().remove(key),
    };
}

/// Whether anything but `metadata` and `status` changed.
pub fn differs_outside_metadata_and_status(old: &Object, new: &Object) -> bool {
    let counts = |(key, _): &(&String, &Value)| !matches!(key.as_str(), "metadata" | "status" | "apiVersion" | "kind");
    !old.map().iter().filter(counts).eq(new.map().iter().filter(counts))
}

fn has_status(row: &ResourceDef) -> bool {
    row.subresource("status").is_some()
}
