//! Which of a policy's bindings a request is one for, and with which parameters.

use std::sync::Arc;

use kminik_meta::Object;

use super::super::Attributes;
use super::super::matching::Sighting;
use super::compiled::{Binding, Common};
use super::params;

/// A policy that a request is one for.
pub(super) struct Matched<'p> {
    pub(super) sighting: Sighting,
    /// The bindings that it is one for, too.
    pub(super) bindings: Vec<Under<'p>>,
}

/// A binding with the parameters to evaluate with, or why it cannot be used.
pub(super) struct Under<'p> {
    pub(super) binding: &'p Binding,
    pub(super) params: Result<Vec<Option<Arc<Object>>>, String>,
}

impl Common {
    /// Holds the policy's and its bindings' criteria against a request; `None` where the policy has no say in it.
    ///
    /// # Errors
    /// Why the policy's criteria cannot be used.
    pub(super) async fn matched(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&Object>,
    ) -> Result<Option<Matched<'_>>, String> {
        let sighting = self.criteria.matches(attributes, object).await.map_err(|error| error.message)?;
        let Some(sighting) = sighting else { return Ok(None) };
        let mut bindings = Vec::new();
        for binding in &self.bindings {
            let params = match binding.criteria.matches(attributes, object).await {
                Ok(Some(_)) => params::collect(self, binding, attributes).await,
                Ok(None) => continue,
                Err(error) => Err(error.message),
            };
            bindings.push(Under { binding, params });
        }
        Ok(Some(Matched { sighting, bindings }))
    }

    /// What is said of a policy or binding that cannot be used; `None` where that lets the request pass.
    pub(super) fn misconfiguration(&self, binding: Option<&Binding>, why: &str) -> Option<String> {
        let what = if binding.is_some() { "binding" } else { "policy" };
        (!self.fails_open).then(|| format!("failed to configure {what}: {why}"))
    }
}
