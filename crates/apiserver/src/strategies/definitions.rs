//! CustomResourceDefinitions: versions that were ever stored stay named, and a deleted one waits for its objects.

use jiff::Timestamp;
use kminik_cel::rules;
use kminik_meta::{ErrorList, Object, validate};
use serde_json::Value;

use crate::custom::{CLEANUP, Condition, set_condition};
use crate::registry::strategy::{Strategy, StrategyContext, copy_member, differs_outside_metadata_and_status};

/// CustomResourceDefinitions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Definitions;

impl Strategy for Definitions {
    fn prepare_create(&self, _ctx: &StrategyContext<'_>, object: &mut Object) {
        object.map_mut().remove("status");
        object.set_generation(1);
        note_stored_version(object);
    }

    fn prepare_update(&self, _ctx: &StrategyContext<'_>, old: &Object, new: &mut Object) {
        copy_member(old, new, "status");
        let changed = differs_outside_metadata_and_status(old, new);
        new.set_generation(old.generation() + i64::from(changed));
        note_stored_version(new);
    }

    fn check(&self, _ctx: &StrategyContext<'_>, old: Option<&Object>, new: &Object, errors: &mut ErrorList) {
        // Rules that were accepted once are not measured again.
        let known = |schema: &Value| {
            old.is_some_and(|old| validate::definitions::schemas(old).iter().any(|(_, s)| *s == schema))
        };
        for (path, schema) in validate::definitions::schemas(new).into_iter().filter(|(_, schema)| !known(schema)) {
            let valid = validate::definitions::violations(&path, schema).is_empty();
            let found = rules::lint(schema, &path, valid);
            errors.append(found.schema);
            errors.append(found.expressions);
        }
    }

    fn warnings(&self, _ctx: &StrategyContext<'_>, old: Option<&Object>, new: &Object) -> Vec<String> {
        let known = old.map(validate::definitions::unknown_formats).unwrap_or_default();
        let formats = validate::definitions::unknown_formats(new).into_iter();
        formats
            .filter(|format| !known.contains(format))
            .map(|format| format!("unrecognized format {format:?}"))
            .collect()
    }

    fn begin_delete(&self, ctx: &StrategyContext<'_>, object: &mut Object) {
        let mut finalizers: Vec<String> = object.finalizers().into_iter().map(str::to_owned).collect();
        if !finalizers.iter().any(|name| name == CLEANUP) {
            finalizers.push(CLEANUP.to_owned());
        }
        object.set_finalizers(&finalizers);
        terminating(object, ctx.now);
    }

    fn held(&self, object: &Object) -> bool {
        // Until its deletion has begun; then its finalizers say.
        !object.is_deleting()
    }
}

fn terminating(object: &mut Object, now: Timestamp) {
    let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    set_condition(object, &Condition::new("Terminating", "True", "InstanceDeletionPending", message), now);
}

/// Adds the version in which objects are stored to those in which they ever were.
fn note_stored_version(object: &mut Object) {
    let versions = object.array(&["spec", "versions"]).iter();
    let mut stored = versions.filter(|version| version.get("storage").and_then(Value::as_bool) == Some(true));
    let Some(name) = stored.next().and_then(|version| version.get("name")).cloned() else { return };
    let mut known = object.array(&["status", "storedVersions"]).to_vec();
    if !known.contains(&name) {
        known.push(name);
        object.set(&["status", "storedVersions"], known);
    }
    for (member, zero) in
        [("acceptedNames", serde_json::json!({"kind": "", "plural": ""})), ("conditions", Value::Null)]
    {
        if object.get(&["status", member]).is_none() {
            object.set(&["status", member], zero);
        }
    }
}
