//! The kinds of admissionregistration.k8s.io whose expressions must compile when they are written.

use kminik_meta::field::Path;
use kminik_meta::{ErrorList, FieldError, Object};
use serde_json::Value as Json;

use crate::admission::expressions::{compile, environment};
use crate::admission::policy;
use crate::registry::strategy::{Strategy, StrategyContext};

/// Validating policies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policies;

impl Strategy for Policies {
    fn validate(&self, _ctx: &StrategyContext<'_>, object: &Object) -> ErrorList {
        policy::expression_errors(object)
    }
}

/// Mutating policies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MutatingPolicies;

impl Strategy for MutatingPolicies {
    fn validate(&self, _ctx: &StrategyContext<'_>, object: &Object) -> ErrorList {
        policy::mutating_expression_errors(object)
    }
}

/// Webhook configurations: the match conditions of each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Webhooks;

impl Strategy for Webhooks {
    fn validate(&self, _ctx: &StrategyContext<'_>, object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let env = environment(false, true);
        for (i, webhook) in object.array(&["webhooks"]).iter().enumerate() {
            let conditions = webhook.get("matchConditions").and_then(Json::as_array).into_iter().flatten();
            for (j, condition) in conditions.enumerate() {
                let Some(source) = condition.get("expression").and_then(Json::as_str).filter(|s| !s.trim().is_empty())
                else {
                    continue;
                };
                if let Err(why) = compile(source, &env, &[kminik_cel::Type::Bool]) {
                    let path = Path::new("webhooks").index(i).child("matchConditions").index(j).child("expression");
                    errors.push(FieldError::invalid(&path, source, why));
                }
            }
        }
        errors
    }
}
