//! Match conditions: expressions that must all hold before a webhook or a policy is asked.

use std::time::Instant;

use kminik_cel::{Activation, Budget, Env, MATCH_CONDITIONS_BUDGET, Program, Type, Value};
use serde_json::Value as Json;

use super::super::Attributes;
use super::compile;

/// The match conditions of a webhook or a policy.
pub(crate) struct Conditions(Vec<Condition>);

struct Condition {
    source: String,
    program: Result<Program, String>,
}

/// Whose conditions are evaluated, as metrics name it.
pub(crate) struct Owner<'a> {
    /// `webhook` or `policy`.
    pub(crate) kind: &'static str,
    pub(crate) name: &'a str,
    /// `admit` or `validate`.
    pub(crate) phase: &'static str,
}

/// What the conditions say of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// All hold.
    Match,
    /// One does not, so nobody is asked.
    Skip,
    /// None is false, but some failed: the failure policy decides.
    Failed(String),
}

impl Conditions {
    /// Reads `matchConditions`, absent or a list of names and expressions.
    pub(crate) fn of(conditions: Option<&Json>, env: &Env) -> Self {
        let conditions = conditions.and_then(Json::as_array).into_iter().flatten();
        let condition = |condition: &Json| {
            let source = condition.get("expression").and_then(Json::as_str).unwrap_or_default().to_owned();
            Condition { program: compile(&source, env, &[Type::Bool]), source }
        };
        Conditions(conditions.map(condition).collect())
    }

    /// Whether there are none, so that every request matches.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Evaluates the conditions, and counts what came of it.
    pub(crate) fn judge(&self, owner: &Owner<'_>, request: &Attributes<'_>, activation: &Activation<'_>) -> Verdict {
        let started = Instant::now();
        let verdict = self.verdict(activation);
        let table = &request.registry.cache().metrics().table.admission;
        let labels = [owner.kind, owner.name, request.operation.as_str(), owner.phase];
        table.conditions.with(labels).took(started.elapsed());
        match verdict {
            Verdict::Match => {}
            Verdict::Skip => table.condition_exclusions.with(labels).inc(),
            Verdict::Failed(_) => table.condition_errors.with(labels).inc(),
        }
        verdict
    }

    /// Evaluates the conditions in order.
    fn verdict(&self, activation: &Activation<'_>) -> Verdict {
        let mut left = MATCH_CONDITIONS_BUDGET;
        let mut errors = Vec::new();
        for Condition { source, program } in &self.0 {
            let program = match program {
                Ok(program) => program,
                Err(why) => {
                    errors.push(format!("compilation error: {why}"));
                    continue;
                }
            };
            let mut budget = Budget::default();
            let result = program.eval(activation, &mut budget);
            if budget.spent() > left {
                let why =
                    "validation failed due to running out of cost budget, no further validation rules will be run";
                return Verdict::Failed(why.to_owned());
            }
            left -= budget.spent();
            match result {
                Ok(Value::Bool(false)) => return Verdict::Skip,
                Ok(_) => {}
                Err(error) => errors.push(format!("expression '{source}' resulted in error: {error}")),
            }
        }
        match errors.as_slice() {
            [] => Verdict::Match,
            [one] => Verdict::Failed(one.clone()),
            several => Verdict::Failed(format!("[{}]", several.join(", "))),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_false_outweighs_failures() {
        let verdict = |sources: &[&str]| {
            let list: Vec<Json> = sources.iter().map(|s| json!({"name": "c", "expression": s})).collect();
            let env = Env::new().variable("object", Type::Dyn);
            let object = json!({"a": 1});
            Conditions::of(Some(&Json::from(list)), &env)
                .verdict(&Activation::new().with("object", Value::json(&object)))
        };
        assert_eq!(verdict(&[]), Verdict::Match);
        assert_eq!(verdict(&["object.a == 1", "true"]), Verdict::Match);
        assert_eq!(verdict(&["object.b == 1", "false"]), Verdict::Skip);
        let why = "expression 'object.b == 1' resulted in error: no such key: b";
        assert_eq!(verdict(&["object.b == 1", "true"]), Verdict::Failed(why.to_owned()));
        assert!(
            matches!(verdict(&["nope"]), Verdict::Failed(why) if why.starts_with("compilation error: compilation failed: "))
        );
    }
}
