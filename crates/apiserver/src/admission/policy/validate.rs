//! Evaluation of a policy, and what follows from it.

use std::collections::BTreeMap;

use kminik_cel::{RUNTIME_BUDGET, Value};
use kminik_meta::{Object, Reason, StatusError};
use serde_json::json;

use super::super::Attributes;
use super::super::expressions::{Subject, Variables, Verdict};
use super::compiled::{Binding, Policy, Validation};
use super::run::{EXHAUSTED, Failure, Run};

/// Bytes that an evaluated message may have.
const MAX_MESSAGE: usize = 5 * 1024;
/// Bytes of an audit annotation's value that are written down.
const MAX_ANNOTATION: usize = 10 * 1024;
/// Key of the audit annotation of the first validation that does not hold under a binding with the action `Audit`.
const VALIDATION_FAILURE: &str = "validation.policy.admission.k8s.io/validation_failure";

/// Why a request is refused.
pub(super) struct Denial {
    policy: String,
    binding: Option<String>,
    message: String,
    reason: String,
}

/// What does not hold.
pub(super) struct Decision {
    /// Which of the policy's validations it is.
    index: usize,
    message: String,
    reason: String,
}

/// What a policy makes of a request.
#[derive(Default)]
pub(super) struct Judgement {
    decisions: Vec<Decision>,
    /// Keys and values for the audit log.
    annotations: Vec<(String, String)>,
    /// Why annotations cannot be made, where that refuses the request.
    errors: Vec<String>,
}

impl Judgement {
    /// The policy cannot be evaluated to its end; `None` lets the request pass.
    fn failed(message: Option<String>) -> Self {
        let decision = message.map(|message| Decision { index: 0, message, reason: String::new() });
        Judgement { decisions: decision.into_iter().collect(), ..Judgement::default() }
    }
}

/// The audit annotations of a policy under all of its bindings: of a key that has several values, all are listed.
#[derive(Default)]
pub(super) struct Annotations(BTreeMap<String, Vec<String>>);

impl Annotations {
    fn add(&mut self, key: String, value: String) {
        let values = self.0.entry(key).or_default();
        if !values.contains(&value) {
            values.push(value);
        }
    }

    /// Writes them into the audit log.
    pub(super) fn publish(self, policy: &Policy, attributes: &Attributes<'_>) {
        for (key, values) in self.0 {
            attributes.audit.annotate(&format!("{}/{key}", policy.common.name), || values.join(", "));
        }
    }
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
        self.common.misconfiguration(binding, why).map(|message| Denial {
            policy: self.common.name.clone(),
            binding: binding.map(|b| b.name.clone()),
            message,
            reason: String::new(),
        })
    }

    /// Evaluates the policy with one of its parameters.
    pub(super) fn validate(&self, subject: &Subject<'_>, params: Option<&Object>) -> Judgement {
        let failed = |message: String| (!self.common.fails_open).then_some(message);
        let base = subject.activation(params);
        if !self.common.conditions.is_empty() {
            match self.common.conditions.verdict(&base) {
                Verdict::Match => {}
                Verdict::Skip => return Judgement::default(),
                Verdict::Failed(why) => return Judgement::failed(failed(why)),
            }
        }
        let variables = Variables::new(&self.common.variables, base);
        let activation = variables.activation();
        let mut run = Run { activation: &activation, variables: &variables, left: RUNTIME_BUDGET };
        let mut outcomes = Vec::new();
        for (index, validation) in self.validations.iter().enumerate() {
            match run.evaluate(&validation.expression) {
                Ok(Value::Bool(true)) => {}
                Ok(_) => outcomes.push((index, validation, None)),
                Err(Failure::Exhausted) => return Judgement::failed(failed(EXHAUSTED.to_owned())),
                Err(Failure::Error(why)) => {
                    outcomes.extend(failed(why).map(|why| (index, validation, Some(why))));
                }
            }
        }
        // Messages come after all validations, from the same budget.
        let mut judgement = Judgement::default();
        for (index, validation, error) in outcomes {
            judgement.decisions.push(match error {
                Some(message) => Decision { index, message, reason: String::new() },
                None => Decision { index, message: run.message(validation), reason: validation.reason.clone() },
            });
        }
        let mut run = Run { left: RUNTIME_BUDGET, ..run };
        for annotation in &self.annotations {
            match run.evaluate(&annotation.value) {
                Ok(Value::String(value)) => {
                    let value = shortened(value.as_str().trim());
                    if !value.is_empty() {
                        judgement.annotations.push((annotation.key.clone(), value.to_owned()));
                    }
                }
                Ok(_) => {}
                Err(Failure::Exhausted) => return Judgement::failed(failed(EXHAUSTED.to_owned())),
                Err(Failure::Error(why)) => judgement.errors.extend(failed(why)),
            }
        }
        judgement
    }
}

/// The part of an annotation's value that is written down.
fn shortened(value: &str) -> &str {
    value.get(..value.floor_char_boundary(MAX_ANNOTATION)).unwrap_or(value)
}

impl Run<'_, '_> {
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
    /// Does with what the policy says what the binding says.
    pub(super) fn act(
        &self,
        policy: &Policy,
        judgement: Judgement,
        attributes: &Attributes<'_>,
        annotations: &mut Annotations,
        denials: &mut Vec<Denial>,
    ) {
        let denial = |message: String, reason: String| Denial {
            policy: policy.common.name.clone(),
            binding: Some(self.name.clone()),
            message,
            reason,
        };
        for Decision { index, message, reason } in judgement.decisions {
            for action in &self.actions {
                match action.as_str() {
                    "Deny" => denials.push(denial(message.clone(), reason.clone())),
                    "Warn" => attributes.warn(format!(
                        "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {message}",
                        policy.common.name, self.name
                    )),
                    _ => attributes.audit.annotate(VALIDATION_FAILURE, || {
                        json!([{
                            "message": message, "policy": policy.common.name, "binding": self.name,
                            "expressionIndex": index, "validationActions": self.actions,
                        }])
                        .to_string()
                    }),
                }
            }
        }
        for (key, value) in judgement.annotations {
            annotations.add(key, value);
        }
        // These refuse whatever the binding's actions are.
        denials.extend(judgement.errors.into_iter().map(|message| denial(message, String::new())));
    }
}
