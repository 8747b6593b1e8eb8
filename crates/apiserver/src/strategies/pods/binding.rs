//! Binding a pod to a node: `pods/binding`, and the older `bindings` beside it.

use async_trait::async_trait;
use kminik_meta::{ErrorList, FieldError, Object, Path, StatusError, status, time};
use serde_json::json;

use super::set_condition;
use crate::admission::TOPOLOGY;
use crate::registry::Change;
use crate::registry::action::{Action, ActionContext, ActionKind, Create};
use crate::registry::def::Verb;

/// `pods/binding`.
pub(crate) struct Binding;

#[async_trait]
impl Action for Binding {
    fn kind(&self) -> ActionKind {
        ActionKind { group: "", version: "v1", former: &[], kind: "Binding", verb: Verb::Create }
    }

    async fn run(&self, ctx: ActionContext<'_>, binding: Object) -> Result<Object, StatusError> {
        bind(&ctx, ctx.name, &binding).await
    }
}

/// `bindings`: the pod is the one that the binding is named after.
pub(crate) struct Bindings;

#[async_trait]
impl Create for Bindings {
    async fn create(&self, ctx: ActionContext<'_>, binding: Object) -> Result<Object, StatusError> {
        bind(&ctx, binding.name(), &binding).await
    }
}

async fn bind(ctx: &ActionContext<'_>, name: &str, binding: &Object) -> Result<Object, StatusError> {
    let errors = validate(binding);
    if !errors.is_empty() {
        return Err(StatusError::invalid("", "Binding", name, &errors));
    }
    let node = binding.str(&["target", "name"]).unwrap_or_default();
    let now = time::format(ctx.now);
    let change = |pod: &Object| {
        let conflict = |why: String| Err(StatusError::conflict("", "pods/binding", name, why));
        if !binding.uid().is_empty() && binding.uid() != pod.uid() {
            let error = StatusError::another_object("", "pods", pod.namespace(), name, binding.uid(), pod.uid());
            return Err(error);
        }
        if !binding.resource_version().is_empty() && binding.resource_version() != pod.resource_version() {
            return Err(StatusError::modified("", "pods/binding", name));
        }
        if pod.is_deleting() {
            return conflict(format!("pod {name} is being deleted, cannot be assigned to a host"));
        }
        if let Some(present) = pod.str(&["spec", "nodeName"]).filter(|present| !present.is_empty()) {
            return conflict(format!("pod {name} is already assigned to node {present:?}"));
        }
        if !pod.array(&["spec", "schedulingGates"]).is_empty() {
            return conflict(format!("pod {name} has non-empty .spec.schedulingGates"));
        }
        let mut pod = pod.clone();
        pod.set(&["spec", "nodeName"], node);
        for (key, value) in binding.annotations() {
            pod.set_annotation(key, value);
        }
        for key in TOPOLOGY {
            if let Some(value) = binding.label(key) {
                pod.set_label(key, value);
            }
        }
        let scheduled = json!({
            "type": "PodScheduled",
            "observedGeneration": pod.generation(),
            "status": "True",
            "lastTransitionTime": now,
        });
        set_condition(&mut pod, scheduled);
        Ok(if ctx.dry_run { Change::Keep } else { Change::Put(pod) })
    };
    let pods = ctx.registry().row("", "pods")?;
    ctx.registry().modify(&pods, ctx.namespace, name, change).await?;
    let mut answer = status::success(None);
    answer["code"] = 201.into();
    Object::try_from(answer).map_err(StatusError::internal)
}

fn validate(binding: &Object) -> ErrorList {
    let mut errors = ErrorList::new();
    let target = Path::new("target");
    let kind = binding.str(&["target", "kind"]).unwrap_or_default();
    if !kind.is_empty() && kind != "Node" {
        errors.push(FieldError::not_supported(&target.child("kind"), kind, &["Node", "<empty>"]));
    }
    if binding.str(&["target", "name"]).unwrap_or_default().is_empty() {
        errors.push(FieldError::required(&target.child("name"), ""));
    }
    errors
}
