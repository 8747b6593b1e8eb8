//! NamespaceLifecycle: objects are made in namespaces that exist and stay; some namespaces always stay.

use std::sync::Arc;

use async_trait::async_trait;
use kminik_meta::{Object, StatusError};

use super::{Admission, Attributes, Operation};

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub(super) struct NamespaceLifecycle;

#[async_trait]
impl Admission for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn may_mutate(&self) -> bool {
        false
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        match attributes.operation {
            // Questions about rights may be asked of any namespace.
            Operation::Create => attributes.row.namespaced() && attributes.row.group != "authorization.k8s.io",
            Operation::Delete => attributes.is(Operation::Delete, "", "namespaces"),
            Operation::Update | Operation::Connect => false,
        }
    }

    async fn mutate(&self, attributes: &Attributes<'_>, _object: &mut Object) -> Result<(), StatusError> {
        let name = attributes.namespace;
        let namespace = match attributes.registry.cached_object("", "namespaces", "", name) {
            // What the cache says of an end is not undone, all else is asked of the store.
            Some(namespace) if namespace.is_deleting() => Some(namespace),
            _ => attributes.registry.object("", "namespaces", "", name).await?,
        };
        let namespace: Arc<Object> = namespace.ok_or_else(|| StatusError::not_found("", "namespaces", name))?;
        if namespace.is_deleting() {
            let why = format!("unable to create new content in namespace {name} because it is being terminated");
            let cause = format!("namespace {name} is being terminated");
            return Err(attributes.forbidden(why).with_cause("NamespaceTerminating", cause, "metadata.namespace"));
        }
        Ok(())
    }

    async fn validate(&self, attributes: &Attributes<'_>, _object: Option<&Object>) -> Result<(), StatusError> {
        match attributes.operation == Operation::Delete && IMMORTAL.contains(&attributes.name) {
            true => Err(attributes.forbidden("this namespace may not be deleted")),
            false => Ok(()),
        }
    }
}
