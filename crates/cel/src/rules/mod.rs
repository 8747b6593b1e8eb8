//! The `x-kubernetes-validations` of a schema: compiled once per schema, evaluated over (new, old) values.
//!
//! [`lint`] is what the writing of a definition checks, in upstream's words and with its cost limits; [`Rules::compile`] and
//! [`Rules::validate`] are what the writing of an object does. Both take the OpenAPI v3 schema as it is written in the definition.
//! Source: upstream's apiextensions `validation.go` and `pkg/apiserver/schema/cel`.

mod lint;
mod path;

use std::collections::BTreeMap;
use std::sync::Arc;

use kminik_meta::field::{ErrorList, FieldError, Path};
use serde_json::Value as Json;

pub use lint::{Lint, lint};
pub use path::field_path;

use crate::budget::{Budget, PER_CALL_LIMIT, RUNTIME_BUDGET};
use crate::decl::{DeclType, escape};
use crate::{Activation, Env, EvalError, Program, Type, Value};

/// Bytes that the value of a message expression may have.
const MAX_MESSAGE: usize = 5 * 1024;
/// Schemas may be nested so deeply.
const MAX_DEPTH: usize = 100;

/// The rules of a schema.
#[derive(Debug, Default)]
pub struct Rules {
    root: Option<Node>,
}

/// What [`Rules::validate`] found.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The rules that do not hold.
    pub errors: ErrorList,
    /// Rules that do not hold of parts that this update does not change.
    pub warnings: Vec<String>,
}

/// The members of a JSON object.
type Members = serde_json::Map<String, Json>;

/// A place of the schema with rules at or below it.
#[derive(Debug)]
struct Node {
    /// `object`, `array`, `string`, …
    kind: String,
    decl: Arc<DeclType>,
    rules: Vec<Rule>,
    properties: BTreeMap<String, Node>,
    additional: Option<Box<Node>>,
    items: Option<Box<Node>>,
    all_of: Vec<Node>,
    /// The key members by which elements are found in the old list.
    list_keys: Option<Vec<String>>,
}

/// A rule.
#[derive(Debug)]
struct Rule {
    source: String,
    message: String,
    reason: String,
    /// Below the place that the rule stands at.
    field: Option<Path>,
    optional_old_self: bool,
    program: Result<Compiled, String>,
}

#[derive(Debug)]
struct Compiled {
    rule: Program,
    uses_old_self: bool,
    message: Option<(String, Program)>,
}

fn member<'j>(json: &'j Json, key: &str) -> &'j str {
    json.get(key).and_then(Json::as_str).unwrap_or_default()
}

fn rules_of(schema: &Json) -> &[Json] {
    schema.get("x-kubernetes-validations").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn is_embedded(schema: &Json) -> bool {
    schema.get("x-kubernetes-embedded-resource").and_then(Json::as_bool).unwrap_or_default()
}

/// The environment of rules over values of this type.
fn environment(decl: &Arc<DeclType>, optional_old_self: bool) -> Env {
    let t = decl.cel_type();
    let old = if optional_old_self { Type::optional(t.clone()) } else { t.clone() };
    Env::new().variable("self", t).variable("oldSelf", old)
}

fn compile_rule(rule: &Json, decl: &Arc<DeclType>) -> Result<Compiled, String> {
    let optional = rule.get("optionalOldSelf").and_then(Json::as_bool).unwrap_or_default();
    let env = environment(decl, optional);
    let program = Program::compile(member(rule, "rule"), &env).map_err(|e| format!("compilation failed: {e}"))?;
    if *program.result_type() != Type::Bool {
        return Err("cel expression must evaluate to a bool".into());
    }
    let uses_old_self = program.variables().contains("oldSelf");
    let message = compile_message(rule, &env).ok().flatten();
    Ok(Compiled { rule: program, uses_old_self, message })
}

fn compile_message(rule: &Json, env: &Env) -> Result<Option<(String, Program)>, String> {
    let source = member(rule, "messageExpression");
    if source.is_empty() {
        return Ok(None);
    }
    let program = Program::compile(source, env).map_err(|e| format!("messageExpression compilation failed: {e}"))?;
    if *program.result_type() != Type::String {
        return Err("messageExpression must evaluate to a string".into());
    }
    Ok(Some((source.to_owned(), program)))
}

impl Rules {
    /// Compiles the rules of a resource's schema. Rules that do not compile, which only definitions of an older server can have, fail
    /// when they are evaluated.
    pub fn compile(schema: &Json) -> Self {
        let decl = DeclType::from_json_schema(schema, true);
        Rules { root: decl.and_then(|decl| Node::compile(schema, schema, &decl, 0)) }
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// Evaluates the rules over an object; `old` is what it was before an update. `path` is where the object stands.
    pub fn validate(&self, new: &Members, old: Option<&Members>, path: &Path) -> Outcome {
        let mut walk = Walk { budget: RUNTIME_BUDGET, outcome: Outcome::default() };
        if let Some(root) = &self.root {
            let unchanged = old.is_some_and(|old| old == new);
            // Running out of budget is already among the errors.
            let _ = walk.object(root, path, new, old, unchanged);
        }
        walk.outcome
    }
}

impl Node {
    /// `spine` is the structural schema at this place, `schema` that or a part of its `allOf`.
    fn compile(schema: &Json, spine: &Json, decl: &Arc<DeclType>, depth: usize) -> Option<Node> {
        if depth > MAX_DEPTH {
            return None;
        }
        let rules: Vec<Rule> = rules_of(schema)
            .iter()
            .filter(|rule| !member(rule, "rule").trim().is_empty())
            .map(|rule| Rule {
                source: member(rule, "rule").trim().to_owned(),
                message: member(rule, "message").trim().to_owned(),
                reason: member(rule, "reason").to_owned(),
                field: Some(member(rule, "fieldPath"))
                    .filter(|p| !p.is_empty())
                    .and_then(|p| field_path(p, spine).ok()),
                optional_old_self: rule.get("optionalOldSelf").and_then(Json::as_bool).unwrap_or_default(),
                program: compile_rule(rule, decl),
            })
            .collect();
        let below =
            |part: &str| Some((schema.get(part)?, spine.get(part)?)).filter(|(a, b)| a.is_object() && b.is_object());
        let element = |part: &str| {
            let (schema, spine) = below(part)?;
            Node::compile(schema, spine, decl.element()?, depth + 1).map(Box::new)
        };
        let mut properties = BTreeMap::new();
        for (name, property) in below("properties").and_then(|(a, _)| a.as_object()).into_iter().flatten() {
            let Some(spine) = spine.get("properties").and_then(|p| p.get(name)) else { continue };
            let child = match escape(name) {
                Some(escaped) => decl.field(&escaped).map(|f| f.decl.clone()),
                None => DeclType::from_json_schema(spine, is_embedded(spine)),
            };
            if let Some(node) = child.and_then(|child| Node::compile(property, spine, &child, depth + 1)) {
                properties.insert(name.clone(), node);
            }
        }
        let (additional, items) = (element("additionalProperties"), element("items"));
        let all_of: Vec<Node> = schema
            .get("allOf")
            .and_then(Json::as_array)
            .into_iter()
            .flatten()
            .filter_map(|part| Node::compile(part, spine, decl, depth + 1))
            .collect();
        if rules.is_empty() && properties.is_empty() && additional.is_none() && items.is_none() && all_of.is_empty() {
            return None;
        }
        let keys = spine.get("x-kubernetes-list-map-keys").and_then(Json::as_array);
        let keys = keys.map(|keys| keys.iter().filter_map(Json::as_str).map(str::to_owned).collect());
        let list_keys = if member(spine, "x-kubernetes-list-type") == "map" { keys } else { None };
        let kind = member(spine, "type").to_owned();
        Some(Node { kind, decl: decl.clone(), rules, properties, additional, items, all_of, list_keys })
    }
}

fn view<'a>(members: &'a Members, node: &'a Node) -> Value<'a> {
    Value::object(members, Some(&node.decl))
}

/// The budget is spent: nothing more is evaluated.
struct Spent;

struct Walk {
    budget: u64,
    outcome: Outcome,
}

impl Walk {
    /// `unchanged`: the value, or the nearest part around it that the old object has, is as it was.
    fn node(&mut self, node: &Node, path: &Path, new: &Json, old: Option<&Json>, unchanged: bool) -> Result<(), Spent> {
        if new.is_null() {
            return Ok(());
        }
        let old = old.filter(|old| !old.is_null());
        match new {
            Json::Object(members) => self.object(node, path, members, old.and_then(Json::as_object), unchanged),
            Json::Array(items) => {
                self.value(node, path, new, old, unchanged)?;
                let Some(child) = &node.items else { return Ok(()) };
                let olds = old.and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
                for (i, value) in items.iter().enumerate() {
                    // Only the elements of map-like lists can be told which they were before.
                    let same_keys =
                        |keys: &Vec<String>| olds.iter().find(|o| keys.iter().all(|k| o.get(k) == value.get(k)));
                    let before = node.list_keys.as_ref().and_then(same_keys);
                    let same = unchanged || before.is_some_and(|b| b == value);
                    self.node(child, &path.index(i), value, before, same)?;
                }
                Ok(())
            }
            _ => self.value(node, path, new, old, unchanged),
        }
    }

    /// The rules at a place, and those that its `allOf` adds.
    fn value(
        &mut self,
        node: &Node,
        path: &Path,
        new: &Json,
        old: Option<&Json>,
        unchanged: bool,
    ) -> Result<(), Spent> {
        let view = |json| Value::typed(json, &node.decl);
        match (view(new), old.map(view).transpose()) {
            (Ok(value), Ok(before)) => self.rules(node, path, (value, before), Some(new), unchanged)?,
            (Err(error), _) | (_, Err(error)) => {
                let kind = Json::from(node.kind.clone());
                self.outcome.errors.push(FieldError::invalid(path, kind, error.to_string()));
            }
        }
        node.all_of.iter().try_for_each(|part| self.node(part, path, new, old, unchanged))
    }

    fn object(
        &mut self,
        node: &Node,
        path: &Path,
        new: &Members,
        old: Option<&Members>,
        unchanged: bool,
    ) -> Result<(), Spent> {
        self.rules(node, path, (view(new, node), old.map(|old| view(old, node))), None, unchanged)?;
        for part in &node.all_of {
            self.object(part, path, new, old, unchanged)?;
        }
        for (name, value) in new {
            let before = old.and_then(|o| o.get(name));
            let same = unchanged || before.is_some_and(|b| b == value);
            if let Some(child) = &node.additional {
                self.node(child, &path.key(name), value, before, same)?;
            }
            if let Some(child) = node.properties.get(name) {
                self.node(child, &path.child(name), value, before, same)?;
            }
        }
        Ok(())
    }

    /// `shown` is the value as messages show it; they show no objects and lists.
    fn rules<'a>(
        &mut self,
        node: &Node,
        path: &Path,
        (value, before): (Value<'a>, Option<Value<'a>>),
        shown: Option<&Json>,
        unchanged: bool,
    ) -> Result<(), Spent> {
        if node.rules.is_empty() {
            return Ok(());
        }
        let kind = || Json::from(node.kind.clone());
        if self.budget == 0 {
            return self.exhausted(path, kind());
        }
        for rule in &node.rules {
            let compiled = match &rule.program {
                Ok(compiled) => compiled,
                Err(why) => {
                    self.outcome.errors.push(FieldError::invalid(path, kind(), format!("rule compile error: {why}")));
                    continue;
                }
            };
            // Rules of transitions hold nothing against what is new.
            if compiled.uses_old_self && before.is_none() && !rule.optional_old_self {
                continue;
            }
            let mut activation = Activation::new().with("self", value.clone());
            if rule.optional_old_self {
                activation.set("oldSelf", Value::Optional(before.clone().map(Arc::new)));
            } else if let Some(before) = &before {
                activation.set("oldSelf", before.clone());
            }
            let mut budget = Budget::new(PER_CALL_LIMIT);
            let result = compiled.rule.eval(&activation, &mut budget);
            if budget.spent() > self.budget {
                return self.exhausted(path, kind());
            }
            self.budget -= budget.spent();
            match result {
                Ok(Value::Bool(true)) => {}
                Ok(_) => {
                    let detail = self.message(path, kind(), rule, compiled, &activation)?;
                    let shown = shown.filter(|v| !v.is_object() && !v.is_array());
                    let error = failure(rule, path, shown, detail);
                    if unchanged && !compiled.uses_old_self {
                        self.outcome.warnings.push(error.to_string());
                    } else {
                        self.outcome.errors.push(error);
                    }
                }
                Err(error) => {
                    let shown = if rule.message.is_empty() { &rule.source } else { &rule.message };
                    let text = error.to_string();
                    let detail = if text.starts_with("no such overload") {
                        format!(
                            "'{text}': call arguments did not match a supported operator, function or macro signature for rule: {shown}"
                        )
                    } else if error.is_cancelled() {
                        format!(
                            "'{text}': no further validation rules will be run due to call cost exceeds limit for rule: {shown}"
                        )
                    } else {
                        format!("{text} evaluating rule: {shown}")
                    };
                    self.outcome.errors.push(FieldError::invalid(path, kind(), detail));
                    if error.is_cancelled() {
                        return Err(Spent);
                    }
                }
            }
        }
        Ok(())
    }

    fn exhausted(&mut self, path: &Path, kind: Json) -> Result<(), Spent> {
        let detail = "validation failed due to running out of cost budget, no further validation rules will be run";
        self.outcome.errors.push(FieldError::invalid(path, kind, detail));
        Err(Spent)
    }

    /// What is said when the rule does not hold.
    fn message(
        &mut self,
        path: &Path,
        kind: Json,
        rule: &Rule,
        compiled: &Compiled,
        activation: &Activation<'_>,
    ) -> Result<String, Spent> {
        let given =
            || if rule.message.is_empty() { format!("failed rule: {}", rule.source) } else { rule.message.clone() };
        let Some((source, program)) = &compiled.message else { return Ok(given()) };
        let mut budget = Budget::new(PER_CALL_LIMIT);
        let result = program.eval(activation, &mut budget);
        let stop = if budget.spent() > self.budget {
            Some("messageExpression evaluation failed due to running out of cost budget, no further validation rules will be run".to_owned())
        } else if result.as_ref().is_err_and(EvalError::is_cancelled) {
            let quoted = kminik_meta::field::quote(source);
            Some(format!(
                "no further validation rules will be run due to call cost exceeds limit for messageExpression: {quoted}"
            ))
        } else {
            None
        };
        if let Some(detail) = stop {
            self.outcome.errors.push(FieldError::invalid(path, kind, detail));
            return Err(Spent);
        }
        self.budget -= budget.spent();
        let text = result.ok().as_ref().and_then(Value::as_str).map(|s| s.trim().to_owned());
        Ok(text.filter(|t| !t.is_empty() && t.len() <= MAX_MESSAGE && !t.contains('\n')).unwrap_or_else(given))
    }
}

fn failure(rule: &Rule, path: &Path, value: Option<&Json>, detail: String) -> FieldError {
    let place = match &rule.field {
        Some(field) => path.child(&field.to_string()),
        None => path.clone(),
    };
    match rule.reason.as_str() {
        "FieldValueForbidden" => FieldError::forbidden(&place, detail),
        "FieldValueRequired" => FieldError::required(&place, detail),
        "FieldValueDuplicate" => FieldError::duplicate(&place, value.cloned().unwrap_or_default()),
        _ => match value {
            Some(value) => FieldError::invalid(&place, value.clone(), detail),
            None => FieldError { value: None, ..FieldError::invalid(&place, Json::Null, detail) },
        },
    }
}
