//! Tables of expressions and what they give.

mod check;
mod costs;
mod evaluation;
mod hostile;
mod rules;

use serde_json::{Value as Json, json};

use crate::{Activation, Budget, DeclType, Env, Program, Type, Value};

/// An object with something of everything.
fn object() -> Json {
    json!({
        "name": "web", "count": 3, "ratio": 0.5, "on": true, "nothing": null,
        "list": [1, 2, 3], "words": ["b", "a", "c"], "empty": [],
        "map": {"a": 1, "b-c": 2}, "nested": {"deep": {"er": "x"}}, "rows": [{"k": "a", "v": 1}, {"k": "b", "v": 2}]
    })
}

/// Evaluates without types; errors as `error: …`.
fn run(source: &str) -> Json {
    let object = object();
    let env = Env::new().variable("object", Type::Dyn);
    let program = match Program::compile(source, &env) {
        Ok(program) => program,
        Err(error) => return Json::from(format!("compile: {error}")),
    };
    let activation = Activation::new().with("object", Value::json(&object));
    match program.eval(&activation, &mut Budget::default()) {
        Ok(value) => value.to_json().unwrap_or_else(|e| Json::from(format!("json: {e}"))),
        Err(error) => Json::from(format!("error: {error}")),
    }
}

/// Evaluates a rule over `self` of a schema; gives the value and the cost.
fn run_typed(schema: &Json, value: &Json, source: &str) -> (Json, u64) {
    let decl = DeclType::from_json_schema(schema, false).unwrap();
    let env = Env::new().variable("self", decl.cel_type());
    let program = Program::compile(source, &env).unwrap_or_else(|e| panic!("{source}: {e}"));
    let activation = Activation::new().with("self", Value::typed(value, &decl).unwrap());
    let mut budget = Budget::new(u64::MAX);
    match program.eval(&activation, &mut budget) {
        Ok(value) => (value.to_json().unwrap_or_default(), budget.spent()),
        Err(error) => (Json::from(format!("error: {error}")), budget.spent()),
    }
}

/// Every expression must be true.
fn all_true(sources: &[&str]) {
    let wrong: Vec<String> = sources
        .iter()
        .map(|s| (s, run(s)))
        .filter(|(_, v)| *v != json!(true))
        .map(|(s, v)| format!("{s}: {v}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
