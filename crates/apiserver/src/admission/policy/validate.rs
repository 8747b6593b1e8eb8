//! Evaluation of a policy, and what follows from it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kminik_cel::{RUNTIME_BUDGET, Value};
use kminik_meta::{Object, Reason, StatusError};
use serde_json::json;

use super::super::expressions::{Owner, Subject, Variables, Verdict};
use super::super::{Attributes, Phase};
use super::compiled::{Binding, Policy, Validation};
use super::run::{EXHAUSTED, Failure, NO_ERROR, Run};

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
    cost: Cost,
}

/// What evaluating an expression took, and what went wrong in it, as metrics name that.
#[derive(Clone, Copy)]
struct Cost {
    took: Duration,
    error: &'static str,
}

impl Cost {
    fn of(started: Instant, failure: Option<&Failure>) -> Self {
        Cost { took: started.elapsed(), error: failure.map_or(NO_ERROR, Failure::kind) }
    }
}

/// What a policy makes of a request.
#[derive(Default)]
pub(super) struct Judgement {
    decisions: Vec<Decision>,
    /// Keys and values for the audit log.
    annotations: Vec<(String, String)>,
    /// Why annotations cannot be made, where that refuses the request.
    errors: Vec<(String, Cost)>,
    /// Evaluations that failed where that lets the request pass.
    ignored: Vec<Cost>,
}

impl Judgement {
    /// The policy cannot be evaluated to its end; `None` lets the request pass.
    fn failed(message: Option<String>, cost: Cost) -> Self {
        let ignored = if message.is_none() { vec![cost] } else { Vec::new() };
        let decision = message.map(|message| Decision { index: 0, message, reason: String::new(), cost });
        Judgement { decisions: decision.into_iter().collect(), ignored, ..Judgement::default() }
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
    pub(super) fn validate(
        &self,
        attributes: &Attributes<'_>,
        subject: &Subject<'_>,
        params: Option<&Object>,
    ) -> Judgement {
        let started = Instant::now();
        let failed = |message: String| (!self.common.fails_open).then_some(message);
        let base = subject.activation(params);
        if !self.common.conditions.is_empty() {
            let owner = Owner { kind: "policy", name: &self.common.name, phase: Phase::Validate.as_str() };
            match self.common.conditions.judge(&owner, attributes, &base) {
                Verdict::Match => {}
                Verdict::Skip => return Judgement::default(),
                Verdict::Failed(why) => {
                    let cost = Cost::of(started, Some(&Failure::Error(why.clone())));
                    return Judgement::failed(failed(why), cost);
                }
            }
        }
        let variables = Variables::new(&self.common.variables, base);
        let activation = variables.activation();
        let mut run = Run { activation: &activation, variables: &variables, left: RUNTIME_BUDGET };
        let mut judgement = Judgement::default();
        let mut outcomes = Vec::new();
        for (index, validation) in self.validations.iter().enumerate() {
            let started = Instant::now();
            let evaluated = run.evaluate(&validation.expression);
            let cost = Cost::of(started, evaluated.as_ref().err());
            match evaluated {
                Ok(Value::Bool(true)) => {}
                Ok(_) => outcomes.push((index, validation, None, cost)),
                Err(Failure::Exhausted) => return Judgement::failed(failed(EXHAUSTED.to_owned()), cost),
                Err(Failure::Error(why)) => match failed(why) {
                    Some(why) => outcomes.push((index, validation, Some(why), cost)),
                    None => judgement.ignored.push(cost),
                },
            }
        }
        // Messages come after all validations, from the same budget.
        for (index, validation, error, cost) in outcomes {
            judgement.decisions.push(match error {
                Some(message) => Decision { index, message, reason: String::new(), cost },
                None => Decision { index, message: run.message(validation), reason: validation.reason.clone(), cost },
            });
        }
        let mut run = Run { left: RUNTIME_BUDGET, ..run };
        for annotation in &self.annotations {
            let started = Instant::now();
            let evaluated = run.evaluate(&annotation.value);
            let cost = Cost::of(started, evaluated.as_ref().err());
            match evaluated {
                Ok(Value::String(value)) => {
                    let value = shortened(value.as_str().trim());
                    if !value.is_empty() {
                        judgement.annotations.push((annotation.key.clone(), value.to_owned()));
                    }
                }
                Ok(_) => {}
                Err(Failure::Exhausted) => return Judgement::failed(failed(EXHAUSTED.to_owned()), cost),
                Err(Failure::Error(why)) => judgement.errors.extend(failed(why).map(|why| (why, cost))),
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
        let table = &attributes.metrics().table.admission;
        let count = |action: &str, cost: Cost| {
            let labels = [action, cost.error, policy.common.name.as_str(), self.name.as_str()];
            table.validating_policies.with(labels).inc();
            table.validating_policy_duration.with(labels).took(cost.took);
        };
        judgement.ignored.iter().for_each(|cost| count("allow", *cost));
        for Decision { index, message, reason, cost } in judgement.decisions {
            for action in &self.actions {
                count(&action.to_ascii_lowercase(), cost);
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
        for (message, cost) in judgement.errors {
            count("deny", cost);
            denials.push(denial(message, String::new()));
        }
    }
}
