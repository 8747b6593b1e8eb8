//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy: policies with expressions have a say in what is written.
//!
//! Policies and their bindings are read from the cache and compiled again whenever one has changed, so they hold from the moment the
//! cache has seen them.

mod bound;
mod compiled;
mod matched;
mod mutate;
mod params;
mod run;
pub(crate) mod status;
mod typecheck;
mod validate;

use std::sync::Arc;

use async_trait::async_trait;
use kminik_meta::{Object, StatusError};

use self::bound::Bound;
use self::compiled::Policy;
pub(crate) use self::compiled::expression_errors;
use self::matched::Under;
pub(crate) use self::mutate::{MutatingPolicies, expression_errors as mutating_expression_errors};
use self::validate::{Annotations, Denial};
use super::expressions::Subject;
use super::{Admission, Attributes, matching};
use crate::auth;
use crate::storage::cache::Cache;

const NAME: &str = "ValidatingAdmissionPolicy";

/// Asks the policies that may refuse.
pub(super) struct ValidatingPolicies {
    bound: Bound<Policy>,
    authorizer: Arc<dyn auth::Authorizer>,
}

impl ValidatingPolicies {
    pub(super) fn new(cache: &Cache, authorizer: Arc<dyn auth::Authorizer>) -> Self {
        let (policies, bindings) = ("validatingadmissionpolicies", "validatingadmissionpolicybindings");
        ValidatingPolicies { bound: Bound::new(cache, policies, bindings, Policy::of), authorizer }
    }

    /// Asks a policy under each of its bindings.
    async fn ask(
        &self,
        policy: &Policy,
        attributes: &Attributes<'_>,
        object: Option<&Object>,
        denials: &mut Vec<Denial>,
    ) -> Result<(), StatusError> {
        let matched = match policy.common.matched(attributes, object).await {
            Ok(Some(matched)) => matched,
            Ok(None) => return Ok(()),
            Err(why) => {
                denials.extend(policy.misconfigured(None, &why));
                return Ok(());
            }
        };
        let (mut subject, mut annotations) = (None, Annotations::default());
        for Under { binding, params } in &matched.bindings {
            let params = match params {
                Ok(params) => params,
                Err(why) => {
                    denials.extend(policy.misconfigured(Some(binding), why));
                    continue;
                }
            };
            if subject.is_none() {
                subject = Some(Subject::new(attributes, &matched.sighting, object, self.authorizer.clone()).await?);
            }
            let Some(subject) = &subject else { continue };
            for param in params {
                let judgement = policy.validate(attributes, subject, param.as_deref());
                binding.act(policy, judgement, attributes, &mut annotations, denials);
            }
        }
        annotations.publish(policy, attributes);
        Ok(())
    }
}

#[async_trait]
impl Admission for ValidatingPolicies {
    fn name(&self) -> &'static str {
        NAME
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        !self.bound.is_empty() && !matching::is_exempt(attributes)
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), StatusError> {
        let mut denials = Vec::new();
        for policy in self.bound.current().iter() {
            self.ask(policy, attributes, object, &mut denials).await?;
        }
        match denials.into_iter().next() {
            Some(denial) => Err(denial.status(attributes)),
            None => Ok(()),
        }
    }
}
