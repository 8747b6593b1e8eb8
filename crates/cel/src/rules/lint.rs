//! What writing a definition checks of its rules: their form, that they compile, and that they cost little enough.

use std::sync::Arc;

use kminik_meta::field::{ErrorList, FieldError, Path};
use serde_json::Value as Json;

use super::{compile_message, compile_rule, environment, field_path, is_embedded, member, rules_of};
use crate::budget::{PER_CRD_ESTIMATE, PER_EXPRESSION_ESTIMATE};
use crate::decl::{DeclType, escape};

/// Schemas may be nested so deeply.
const MAX_DEPTH: usize = 100;
/// Reasons that a rule may give.
const REASONS: &[&str] = &["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// What is wrong with the rules of a schema.
#[derive(Debug, Default)]
pub struct Lint {
    /// Of their form.
    pub schema: ErrorList,
    /// Of the expressions and their costs; only found when the form is right.
    pub expressions: ErrorList,
}

struct Linter {
    found: Lint,
    total: u64,
    /// The rules that cost the most.
    expensive: Vec<(u64, Path)>,
}

/// A place of the schema.
struct Place<'s> {
    schema: &'s Json,
    path: Path,
    /// `None` where expressions see nothing.
    decl: Option<Arc<DeclType>>,
    /// How often it can occur in an object; `None` when nothing but the size of a request bounds it.
    cardinality: Option<u64>,
    /// The part around it whose elements cannot be told which they were.
    uncorrelatable: Option<Path>,
    depth: usize,
}

/// Checks all rules of a resource's schema, which stands at `path`. Give `valid` as false when the schema has errors already: then
/// only the form of the rules is looked at.
pub fn lint(schema: &Json, path: &Path, valid: bool) -> Lint {
    let mut linter = Linter { found: Lint::default(), total: 0, expensive: Vec::new() };
    let decl = DeclType::from_json_schema(schema, true);
    let root = Place { schema, path: path.clone(), decl, cardinality: Some(1), uncorrelatable: None, depth: 0 };
    linter.form(schema, path, 0);
    if valid && linter.found.schema.is_empty() {
        linter.expressions(&root);
        linter.limit(path);
    }
    linter.found
}

impl Linter {
    fn form(&mut self, schema: &Json, path: &Path, depth: usize) {
        if depth > MAX_DEPTH {
            return;
        }
        for (i, rule) in rules_of(schema).iter().enumerate() {
            self.rule_form(schema, rule, &path.child("x-kubernetes-validations").index(i));
        }
        each_child(schema, path, &mut |child, path, _| self.form(child, &path, depth + 1));
    }

    fn rule_form(&mut self, schema: &Json, rule: &Json, path: &Path) {
        let breaks = |text: &str| text.contains(['\n', '\r']);
        let (source, message) = (member(rule, "rule").trim(), member(rule, "message"));
        let errors = &mut self.found.schema;
        if source.is_empty() {
            errors.push(FieldError::required(&path.child("rule"), "rule is not specified"));
        } else if !message.is_empty() && message.trim().is_empty() {
            errors.push(FieldError::invalid(&path.child("message"), message, "must be non-empty if specified"));
        } else if breaks(message.trim()) {
            errors.push(FieldError::invalid(&path.child("message"), message, "must not contain line breaks"));
        } else if breaks(source) && message.is_empty() {
            errors.push(FieldError::required(
                &path.child("message"),
                "message must be specified if rule contains line breaks",
            ));
        }
        let expression = member(rule, "messageExpression");
        if !expression.is_empty() && expression.trim().is_empty() {
            let detail = "messageExpression must be non-empty if specified";
            errors.push(FieldError::required(&path.child("messageExpression"), detail));
        }
        if let Some(reason) = rule.get("reason").and_then(Json::as_str).filter(|r| !REASONS.contains(r)) {
            errors.push(FieldError::not_supported(&path.child("reason"), reason, REASONS));
        }
        let field = member(rule, "fieldPath");
        if field.is_empty() {
            return;
        }
        let place = path.child("fieldPath");
        if field.trim().is_empty() {
            errors.push(FieldError::invalid(&place, field, "must be non-empty if specified"));
        }
        if breaks(field) {
            errors.push(FieldError::invalid(&place, field, "must not contain line breaks"));
        }
        if field_path(field, schema).is_err() {
            errors.push(FieldError::invalid(&place, field, "must be a valid path"));
        }
    }

    fn expressions(&mut self, place: &Place<'_>) {
        if place.depth > MAX_DEPTH {
            return;
        }
        let schema = place.schema;
        // Children first, as upstream lists its errors.
        let within = elements(schema).and_then(|n| Some(place.cardinality?.saturating_mul(n)));
        let list = member(schema, "type") == "array" && member(schema, "x-kubernetes-list-type") != "map";
        let atomic = matches!(member(schema, "x-kubernetes-map-type"), "" | "granular" | "atomic");
        let mut children = Vec::new();
        each_child(schema, &place.path, &mut |child, path, step| {
            let decl = match (step, &place.decl) {
                (Step::Property(name), Some(decl)) => match escape(name) {
                    Some(escaped) => decl.field(&escaped).map(|f| f.decl.clone()),
                    None => DeclType::from_json_schema(child, is_embedded(child)),
                },
                (Step::Element, Some(decl)) => decl.element().cloned(),
                (_, None) => DeclType::from_json_schema(child, is_embedded(child)),
            };
            let uncorrelatable = place.uncorrelatable.clone().or_else(|| (list || !atomic).then(|| place.path.clone()));
            children.push(Place {
                schema: child,
                path,
                decl,
                cardinality: within,
                uncorrelatable,
                depth: place.depth + 1,
            });
        });
        for child in &children {
            self.expressions(child);
        }
        for (i, rule) in rules_of(schema).iter().enumerate() {
            let path = place.path.child("x-kubernetes-validations").index(i);
            let Some(decl) = &place.decl else {
                let why = "internal error: failed to construct type information for x-kubernetes-validations rules: unable to convert structural schema to CEL declarations";
                let path = place.path.child("x-kubernetes-validations");
                self.found.expressions.push(FieldError::internal(&path, why));
                return;
            };
            self.rule(place, rule, decl, &path);
        }
    }

    fn rule(&mut self, place: &Place<'_>, rule: &Json, decl: &Arc<DeclType>, path: &Path) {
        let compiled = match compile_rule(rule, decl) {
            Ok(compiled) => compiled,
            Err(why) => {
                self.found.expressions.push(FieldError::invalid(&path.child("rule"), rule.clone(), why));
                return;
            }
        };
        let max = compiled.rule.estimate(Some(decl)).max;
        let cost = max.saturating_mul(place.cardinality.unwrap_or_else(|| decl.max_cardinality()));
        self.observe(cost, "estimated rule cost", path.child("rule"));
        let optional = rule.get("optionalOldSelf").and_then(Json::as_bool);
        match compile_message(rule, &environment(decl, optional.unwrap_or_default())) {
            Ok(None) => {}
            Ok(Some((_, message))) => {
                let cost = message.estimate(Some(decl)).max;
                self.observe(cost, "estimated messageExpression cost", path.child("messageExpression"));
            }
            Err(why) => {
                self.found.expressions.push(FieldError::invalid(&path.child("messageExpression"), rule.clone(), why))
            }
        }
        if compiled.uses_old_self {
            if let Some(around) = &place.uncorrelatable {
                let why = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {around}");
                self.found.expressions.push(FieldError::invalid(&path.child("rule"), member(rule, "rule"), why));
            }
        } else if let Some(optional) = optional {
            let why = "may not be set if oldSelf is not used in rule";
            self.found.expressions.push(FieldError::invalid(&path.child("optionalOldSelf"), optional, why));
        }
    }

    fn observe(&mut self, cost: u64, what: &str, path: Path) {
        if cost > PER_EXPRESSION_ESTIMATE {
            let error = FieldError::forbidden(&path, exceeds(what, cost, PER_EXPRESSION_ESTIMATE));
            self.found.expressions.push(error);
        }
        self.total = self.total.saturating_add(cost);
        if cost >= PER_CRD_ESTIMATE / 100 {
            self.expensive.push((cost, path));
        }
    }

    /// Whether all rules together cost too much, and which cost the most.
    fn limit(&mut self, path: &Path) {
        if self.total <= PER_CRD_ESTIMATE {
            return;
        }
        self.expensive.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
        for (_, place) in self.expensive.iter().take(4) {
            let why = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            self.found.expressions.push(FieldError::forbidden(place, why));
        }
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        self.found.expressions.push(FieldError::forbidden(path, exceeds(what, self.total, PER_CRD_ESTIMATE)));
    }
}

enum Step<'s> {
    Property(&'s str),
    Element,
}

fn each_child<'s>(schema: &'s Json, path: &Path, see: &mut dyn FnMut(&'s Json, Path, Step<'s>)) {
    if let Some(child) = schema.get("additionalProperties").filter(|a| a.is_object()) {
        see(child, path.child("additionalProperties"), Step::Element);
    }
    for (name, child) in schema.get("properties").and_then(Json::as_object).into_iter().flatten() {
        see(child, path.child("properties").key(name), Step::Property(name));
    }
    if let Some(child) = schema.get("items").filter(|i| i.is_object()) {
        see(child, path.child("items"), Step::Element);
    }
}

/// How many values can stand right below a place; `None` when the schema does not say.
fn elements(schema: &Json) -> Option<u64> {
    let bound = |key: &str| schema.get(key).and_then(Json::as_i64).map(|n| u64::try_from(n).unwrap_or_default());
    match member(schema, "type") {
        "object" if schema.get("additionalProperties").is_some() => bound("maxProperties"),
        "array" => bound("maxItems"),
        _ => Some(1),
    }
}

fn exceeds(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}
