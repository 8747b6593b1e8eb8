//! Evaluation of a policy, and what follows from it.

use kminik_cel::{Activation, Budget, RUNTIME_BUDGET, Value};
use kminik_meta::{Object, Reason, StatusError};

use super::super::Attributes;
use super::super::expressions::{Subject, Variables, Verdict};
use super::compiled::{Binding, Expression, Policy, Validation};

/// Bytes that an evaluated message may have.
const MAX_MESSAGE: usize = 5 * 1024;
const EXHAUSTED: &str = "validation failed due to running out of cost budget, no further validation rules will be run";

/// Why a request is refused.
pub(super) struct Denial {
    policy: String,
    binding: Option<String>,
    message: String,
    reason: String,
}

/// What does not hold.
pub(super) struct Decision {
    message: String,
    reason: String,
}

impl Denial {
    /// The status that the client gets.
    pub(super) fn status(&self, attributes: &Attributes<'_>) -> StatusError {
        let Denial { policy, binding, message, reason } = self;
        let binding = binding.as_ref().map(|b| format!(" with binding '{b}'")).unwrap_or_default();
        let message = format!("ValidatingAdmissionPolicy '{policy}'{binding} denied request: {message}");
        let mut status = attributes.forbidden(&message);
        status.reason = match reason.as_str() {
            "Unauthorized" => Reason::Unauthorized,
            "Forbidden" => Reason::Forbidden,
            "RequestEntityTooLarge" => Reason::RequestEntityTooLarge,
            _ => Reason::Invalid,
        };
        status.with_cause("", message, "")
    }
}

impl Policy {
    /// What follows from a policy or binding that cannot be used.
    pub(super) fn misconfigured(&self, binding: Option<&Binding>, why: &str) -> Option<Denial> {
        let what = if binding.is_some() { "binding" } else { "policy" };
        (!self.fails_open).then(|| Denial {
            policy: self.name.clone(),
            binding: binding.map(|b| b.name.clone()),
            message: format!("failed to configure {what}: {why}"),
            reason: String::new(),
        })
    }

    /// Evaluates the policy with one of its parameters.
    pub(super) fn validate(&self, subject: &Subject<'_>, params: Option<&Object>) -> Vec<Decision> {
        let failed =
            |message: String| if self.fails_open { None } else { Some(Decision { message, reason: String::new() }) };
        let base = subject.activation(params);
        if !self.conditions.is_empty() {
            match self.conditions.verdict(&base) {
                Verdict::Match => {}
                Verdict::Skip => return Vec::new(),
                Verdict::Failed(why) => return failed(why).into_iter().collect(),
            }
        }
        let variables = Variables::new(&self.variables, base);
        let activation = variables.activation();
        let mut run = Run { activation: &activation, variables: &variables, left: RUNTIME_BUDGET };
        let mut decisions = Vec::new();
        let mut broken = Vec::new();
        for validation in &self.validations {
            match run.evaluate(&validation.expression) {
                Ok(Value::Bool(true)) => {}
                Ok(_) => broken.push(validation),
                Err(Failure::Exhausted) => return failed(EXHAUSTED.to_owned()).into_iter().collect(),
                Err(Failure::Error(why)) => decisions.extend(failed(why)),
            }
        }
        for validation in broken {
            let message = run.message(validation);
            decisions.push(Decision { message, reason: validation.reason.clone() });
        }
        let mut run = Run { left: RUNTIME_BUDGET, ..run };
        for annotation in &self.annotations {
            match run.evaluate(&annotation.value) {
                // Annotations are for the audit log's events.
                Ok(Value::String(value)) => {
                    tracing::debug!(
                        policy = self.name,
                        key = annotation.key,
                        value = value.as_str(),
                        "audit annotation"
                    );
                }
                Ok(_) => {}
                Err(Failure::Exhausted) => decisions.extend(failed(EXHAUSTED.to_owned())),
                Err(Failure::Error(why)) => decisions.extend(failed(why)),
            }
        }
        decisions
    }
}

enum Failure {
    Exhausted,
    Error(String),
}

/// The evaluations of a policy's expressions, which share a budget.
struct Run<'e, 'a> {
    activation: &'e Activation<'a>,
    variables: &'e Variables<'a>,
    left: u64,
}

impl<'a> Run<'_, 'a> {
    fn evaluate(&mut self, expression: &Expression) -> Result<Value<'a>, Failure> {
        let program = expression.program.as_ref().map_err(|why| Failure::Error(format!("compilation error: {why}")))?;
        let mut budget = Budget::default();
        let result = program.eval(self.activation, &mut budget);
        let cost = budget.spent().saturating_add(self.variables.take_cost());
        self.left = self.left.checked_sub(cost).ok_or(Failure::Exhausted)?;
        result.map_err(|error| Failure::Error(format!("expression '{}' resulted in error: {error}", expression.source)))
    }

    /// What is said of a validation that does not hold.
    fn message(&mut self, validation: &Validation) -> String {
        let evaluated = validation.message_expression.as_ref().map(|e| self.evaluate(e));
        if let Some(Err(Failure::Exhausted)) = evaluated {
            return format!("failed messageExpression: {EXHAUSTED}");
        }
        let text = evaluated.and_then(Result::ok).as_ref().and_then(Value::as_str).map(|s| s.trim().to_owned());
        let usable = |text: &String| !text.is_empty() && text.len() <= MAX_MESSAGE && !text.contains('\n');
        let given = || Some(validation.message.trim().to_owned()).filter(|m| !m.is_empty());
        text.filter(usable)
            .or_else(given)
            .unwrap_or_else(|| format!("failed expression: {}", validation.expression.source.trim()))
    }
}

impl Binding {
    /// Does with the decisions what the binding says.
    pub(super) fn act(
        &self,
        policy: &Policy,
        decisions: Vec<Decision>,
        attributes: &Attributes<'_>,
        denials: &mut Vec<Denial>,
    ) {
        for Decision { message, reason } in decisions {
            for action in &self.actions {
                match action.as_str() {
                    "Deny" => denials.push(Denial {
                        policy: policy.name.clone(),
                        binding: Some(self.name.clone()),
                        message: message.clone(),
                        reason: reason.clone(),
                    }),
                    "Warn" => attributes.warn(format!(
                        "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {message}",
                        policy.name, self.name
                    )),
                    _ => tracing::info!(policy = policy.name, binding = self.name, message, "policy violated"),
                }
            }
        }
    }
}
