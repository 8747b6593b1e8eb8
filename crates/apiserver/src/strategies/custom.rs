//! Objects of custom resources: what their definitions say beside their schemas.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use kminik_cel::rules::Rules;
use kminik_meta::field::ErrorType;
use kminik_meta::schema::Ref;
use kminik_meta::{ErrorList, FieldError, Object, Path, json_type, names};
use serde_json::Value;

use crate::registry::def::{ScalePaths, Text};
use crate::registry::strategy::{Strategy, StrategyContext, copy_member, keep_all_but_status};

/// Errors behind which rules are not evaluated.
const BLOCKING: [ErrorType; 5] =
    [ErrorType::NotSupported, ErrorType::Required, ErrorType::TooLong, ErrorType::TooMany, ErrorType::TypeInvalid];
/// Finalizers that need no domain.
const PLAIN_FINALIZERS: [&str; 3] = ["orphan", "foregroundDeletion", "kubernetes"];

/// Objects of a custom resource.
pub(crate) struct CustomObjects {
    scale: Option<ScalePaths>,
    schema: Ref,
    /// The rules of the schema, compiled when an object is first written.
    rules: OnceLock<Rules>,
}

impl CustomObjects {
    /// `scale`: where Scale finds its fields, if the resource has it; `schema`: the type of objects in the version that the
    /// row works in.
    pub(crate) fn new(scale: Option<ScalePaths>, schema: Ref) -> Self {
        CustomObjects { scale, schema, rules: OnceLock::new() }
    }

    /// Evaluates the schema's rules, unless errors were found that would make them fail for no reason of their own.
    fn check_rules(&self, ctx: &StrategyContext<'_>, old: Option<&Object>, new: &Object, errors: &mut ErrorList) {
        let meters = &ctx.registry.cache().metrics().table.custom;
        let compile = || {
            let started = Instant::now();
            let rules = self.schema.source().map(|source| Rules::compile(&source)).unwrap_or_default();
            meters.compilations.with([]).took(started.elapsed());
            rules
        };
        let rules = self.rules.get_or_init(compile);
        if rules.is_empty() {
            return;
        }
        if errors.iter().any(|error| BLOCKING.contains(&error.kind)) {
            let detail = "some validation rules were not checked because the object was invalid; correct the existing errors to \
                          complete validation";
            errors.push(FieldError::invalid(&Path::root(), Value::Null, detail));
            return;
        }
        let started = Instant::now();
        errors.append(rules.validate(new.map(), old.map(Object::map), &Path::root()).errors);
        meters.evaluations.with([]).took(started.elapsed());
    }
}

/// `/status` of a custom resource.
pub(crate) struct CustomStatus(pub(crate) Arc<CustomObjects>);

impl Strategy for CustomStatus {
    fn prepare_update(&self, _ctx: &StrategyContext<'_>, old: &Object, new: &mut Object) {
        keep_all_but_status(old, new);
    }

    fn check(&self, ctx: &StrategyContext<'_>, old: Option<&Object>, new: &Object, errors: &mut ErrorList) {
        if let Some(scale) = &self.0.scale {
            replicas(new, &scale.status_replicas, errors);
        }
        self.0.check_rules(ctx, old, new, errors);
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

    fn check(&self, ctx: &StrategyContext<'_>, old: Option<&Object>, new: &Object, errors: &mut ErrorList) {
        errors.append(self.validate(ctx, new));
        self.check_rules(ctx, old, new, errors);
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
