//! Objects of custom resources: what their definitions say beside their schemas.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use kminik_cel::rules::Rules;
use kminik_meta::schema::Definition;
use kminik_meta::{ErrorList, FieldError, Object, Path, json_type, names};
use serde_json::Value;

use crate::registry::def::{ScalePaths, Text};
use crate::registry::strategy::{self, Strategy, StrategyContext, copy_member};

/// Finalizers that need no domain.
const PLAIN_FINALIZERS: [&str; 3] = ["orphan", "foregroundDeletion", "kubernetes"];

/// Objects of a custom resource.
pub(crate) struct CustomObjects {
    /// Where Scale finds its fields, if the resource has it.
    pub(crate) scale: Option<ScalePaths>,
    pub(crate) rules: Arc<SchemaRules>,
}

/// Their status.
pub(crate) struct CustomStatus {
    pub(crate) rules: Arc<SchemaRules>,
}

/// The `x-kubernetes-validations` of the stored version, compiled when an object is first written.
pub(crate) struct SchemaRules {
    definition: Definition,
    compiled: OnceLock<Rules>,
}

impl SchemaRules {
    /// Those of a version of a definition in JSON.
    pub(crate) fn new(definition: Bytes, version: &str) -> Self {
        SchemaRules { definition: Definition::new(definition, version), compiled: OnceLock::new() }
    }

    fn errors(&self, old: Option<&Object>, new: &Object) -> ErrorList {
        let compile = || self.definition.source().map(|schema| Rules::compile(&schema)).unwrap_or_default();
        self.compiled.get_or_init(compile).validate(new.map(), old.map(Object::map), &Path::root()).errors
    }
}

impl Strategy for CustomStatus {
    fn prepare_update(&self, ctx: &StrategyContext<'_>, old: &Object, new: &mut Object) {
        strategy::Status.prepare_update(ctx, old, new);
    }

    fn validate_update(&self, _ctx: &StrategyContext<'_>, old: &Object, new: &Object) -> ErrorList {
        self.rules.errors(Some(old), new)
    }
}

impl Strategy for CustomObjects {
    fn prepare_update(&self, ctx: &StrategyContext<'_>, old: &Object, new: &mut Object) {
        if ctx.row.subresource("status").is_some() {
            copy_member(old, new, "status");
        }
        // Without the subresource a status is like any other member.
        let counted = |(key, _): &(&String, &Value)| key.as_str() != "metadata";
        let changed = !old.map().iter().filter(counted).eq(new.map().iter().filter(counted));
        new.set_generation(old.generation() + i64::from(changed));
    }

    fn validate(&self, _ctx: &StrategyContext<'_>, object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let Some(scale) = &self.scale else { return errors };
        for path in [&scale.spec_replicas, &scale.status_replicas] {
            replicas(object, path, &mut errors);
        }
        if let Some(path) = &scale.selector
            && let Some(value) = at(object, path)
            && !value.is_string()
        {
            errors.push(FieldError::invalid(&Path::new(path), "", accessor_error(path, value, "string")));
        }
        errors
    }

    fn validate_create(&self, _ctx: &StrategyContext<'_>, object: &Object) -> ErrorList {
        self.rules.errors(None, object)
    }

    fn validate_update(&self, _ctx: &StrategyContext<'_>, old: &Object, new: &Object) -> ErrorList {
        self.rules.errors(Some(old), new)
    }

    fn warnings(&self, _ctx: &StrategyContext<'_>, old: Option<&Object>, new: &Object) -> Vec<String> {
        let known = old.map(Object::finalizers).unwrap_or_default();
        let mut warnings = Vec::new();
        for finalizer in new.finalizers().into_iter().filter(|finalizer| !known.contains(finalizer)) {
            let named = kminik_meta::field::quote(finalizer);
            let wrong = names::qualified_name(finalizer);
            warnings.extend(wrong.into_iter().map(|why| format!("metadata.finalizers: {named}: {why}")));
            if !finalizer.contains('/') && !PLAIN_FINALIZERS.contains(&finalizer) {
                let path = if finalizer.contains('.') { " including a path (/)" } else { "" };
                warnings.push(format!(
                    "metadata.finalizers: {named}: prefer a domain-qualified finalizer name{path} to avoid accidental \
                     conflicts with other finalizer writers"
                ));
            }
        }
        warnings
    }
}

fn at<'a>(object: &'a Object, path: &Text) -> Option<&'a Value> {
    let names: Vec<&str> = path.trim_start_matches('.').split('.').collect();
    object.get(&names)
}

fn replicas(object: &Object, path: &Text, errors: &mut ErrorList) {
    let Some(value) = at(object, path) else { return };
    let place = Path::new(path);
    match value.as_i64() {
        None => errors.push(FieldError::invalid(&place, 0, accessor_error(path, value, "int64"))),
        Some(number) if number < 0 => {
            errors.push(FieldError::invalid(&place, number, "should be a non-negative integer"));
        }
        Some(number) if number > i64::from(i32::MAX) => {
            let detail = format!("should be less than or equal to {}", i32::MAX);
            errors.push(FieldError::invalid(&place, number, detail));
        }
        Some(_) => {}
    }
}

fn accessor_error(path: &str, value: &Value, wanted: &str) -> String {
    format!("{path} accessor error: {value} is of the type {}, expected {wanted}", json_type(value))
}
