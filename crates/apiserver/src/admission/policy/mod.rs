//! ValidatingAdmissionPolicy: policies with expressions have a say in what is written.
//!
//! Policies and their bindings are read from the cache and compiled again whenever one has changed, so they hold from the moment the
//! cache has seen them.

mod compiled;
mod params;
pub(crate) mod status;
mod typecheck;
mod validate;

use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use kminik_meta::{Object, StatusError};

pub(crate) use self::compiled::expression_errors;
use self::compiled::{Binding, Policy};
use self::validate::{Annotations, Denial};
use super::expressions::Subject;
use super::{Admission, Attributes, matching};
use crate::auth;
use crate::storage::cache::{Cache, ResourceCache};

const NAME: &str = "ValidatingAdmissionPolicy";

/// Asks the policies that may refuse.
pub(super) struct ValidatingPolicies {
    policies: Arc<ResourceCache>,
    bindings: Arc<ResourceCache>,
    compiled: ArcSwap<Compiled>,
    authorizer: Arc<dyn auth::Authorizer>,
}

#[derive(Default)]
struct Compiled {
    /// The newest changes of policies and bindings that are in here.
    built_from: (u64, u64),
    /// Only those with bindings, in the order of their names.
    policies: Arc<[Policy]>,
}

impl ValidatingPolicies {
    pub(super) fn new(cache: &Cache, authorizer: Arc<dyn auth::Authorizer>) -> Self {
        let resource = |plural: &str| cache.resource(&format!("admissionregistration.k8s.io/{plural}"));
        ValidatingPolicies {
            policies: resource("validatingadmissionpolicies"),
            bindings: resource("validatingadmissionpolicybindings"),
            compiled: ArcSwap::default(),
            authorizer,
        }
    }

    /// The policies as of the cache's newest change.
    fn current(&self) -> Arc<[Policy]> {
        let newest = (self.policies.last_changed(), self.bindings.last_changed());
        let compiled = self.compiled.load();
        if compiled.built_from == newest {
            return compiled.policies.clone();
        }
        let bindings: Vec<_> = self.bindings.entries().values().filter_map(|e| e.object().ok()).collect();
        let policies: Arc<[Policy]> = self
            .policies
            .entries()
            .values()
            .filter_map(|entry| entry.object().ok())
            .filter_map(|policy| {
                let bound = bindings.iter().filter(|b| b.str(&["spec", "policyName"]) == Some(policy.name()));
                let bindings: Vec<Binding> = bound.map(|b| Binding::of(b)).collect();
                // Nobody pays for compiling what binds nobody.
                (!bindings.is_empty()).then(|| Policy::of(&policy, bindings))
            })
            .collect();
        // Whoever comes last may store an older state; the next to ask sees that and compiles again.
        self.compiled.store(Arc::new(Compiled { built_from: newest, policies: policies.clone() }));
        policies
    }

    /// Asks a policy under each of its bindings.
    async fn ask(
        &self,
        policy: &Policy,
        attributes: &Attributes<'_>,
        object: Option<&Object>,
        denials: &mut Vec<Denial>,
    ) -> Result<(), StatusError> {
        let sighting = match policy.criteria.matches(attributes, object).await {
            Ok(Some(sighting)) => sighting,
            Ok(None) => return Ok(()),
            Err(error) => {
                denials.extend(policy.misconfigured(None, &error.message));
                return Ok(());
            }
        };
        let (mut subject, mut annotations) = (None, Annotations::default());
        for binding in &policy.bindings {
            match binding.criteria.matches(attributes, object).await {
                Ok(Some(_)) => {}
                Ok(None) => continue,
                Err(error) => {
                    denials.extend(policy.misconfigured(Some(binding), &error.message));
                    continue;
                }
            }
            let params = match params::collect(policy, binding, attributes).await {
                Ok(params) => params,
                Err(why) => {
                    denials.extend(policy.misconfigured(Some(binding), &why));
                    continue;
                }
            };
            if subject.is_none() {
                subject = Some(Subject::new(attributes, &sighting, object, self.authorizer.clone()).await?);
            }
            let Some(subject) = &subject else { continue };
            for param in &params {
                let judgement = policy.validate(subject, param.as_deref());
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
        !self.bindings.is_empty() && !matching::is_exempt(attributes)
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), StatusError> {
        let mut denials = Vec::new();
        for policy in self.current().iter() {
            self.ask(policy, attributes, object, &mut denials).await?;
        }
        match denials.into_iter().next() {
            Some(denial) => Err(denial.status(attributes)),
            None => Ok(()),
        }
    }
}
