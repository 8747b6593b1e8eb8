//! Evaluation of a policy's expressions.

use kminik_cel::{Activation, Budget, Value};

use super::super::expressions::Variables;
use super::compiled::Expression;

/// What is said of evaluations that together cost too much.
pub(super) const EXHAUSTED: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// Why an expression has no value.
pub(super) enum Failure {
    /// The evaluations together cost too much.
    Exhausted,
    Error(String),
}

/// What metrics say of an evaluation in which nothing went wrong.
pub(super) const NO_ERROR: &str = "no_error";
/// With it the reason begins of an expression that does not compile.
const UNCOMPILED: &str = "compilation error: ";

impl Failure {
    /// What is said of it.
    pub(super) fn text(self) -> String {
        match self {
            Failure::Exhausted => EXHAUSTED.to_owned(),
            Failure::Error(why) => why,
        }
    }

    /// As metrics name it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Failure::Exhausted => "out_of_budget",
            Failure::Error(why) if why.starts_with(UNCOMPILED) => "compile_error",
            Failure::Error(_) => "invalid_error",
        }
    }
}

/// The evaluations of a policy's expressions, which share a budget.
pub(super) struct Run<'e, 'a> {
    pub(super) activation: &'e Activation<'a>,
    pub(super) variables: &'e Variables<'a>,
    /// What is left of the budget.
    pub(super) left: u64,
}

impl<'a> Run<'_, 'a> {
    pub(super) fn evaluate(&mut self, expression: &Expression) -> Result<Value<'a>, Failure> {
        let program = expression.program.as_ref().map_err(|why| Failure::Error(format!("{UNCOMPILED}{why}")))?;
        let mut budget = Budget::default();
        let result = program.eval(self.activation, &mut budget);
        let cost = budget.spent().saturating_add(self.variables.take_cost());
        self.left = self.left.checked_sub(cost).ok_or(Failure::Exhausted)?;
        result.map_err(|error| Failure::Error(format!("expression '{}' resulted in error: {error}", expression.source)))
    }
}
