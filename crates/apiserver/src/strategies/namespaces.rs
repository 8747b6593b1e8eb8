//! Namespaces: they end when the namespace controller has emptied them and taken its finalizer back.

use async_trait::async_trait;
use kminik_meta::apply::{self, Resets, Write};
use kminik_meta::{Object, StatusError};
use serde_json::{Value, json};

use crate::registry::action::{Action, ActionContext, ActionKind};
use crate::registry::def::Verb;
use crate::registry::strategy::{Strategy, StrategyContext, copy_member};
use crate::registry::{Change, Written};

/// The finalizer of the namespace controller, in `spec.finalizers`.
const FINALIZER: &str = "kubernetes";
/// Every namespace carries its name as this label, so that selectors can name it.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

pub(crate) struct Namespaces;

impl Strategy for Namespaces {
    fn prepare_create(&self, _ctx: &StrategyContext<'_>, namespace: &mut Object) {
        namespace.set(&["status"], json!({ "phase": "Active" }));
        let mut finalizers = namespace.array(&["spec", "finalizers"]).to_vec();
        if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            finalizers.push(FINALIZER.into());
        }
        namespace.set(&["spec", "finalizers"], finalizers);
        label(namespace);
    }

    fn prepare_update(&self, _ctx: &StrategyContext<'_>, old: &Object, new: &mut Object) {
        copy_member(old, new, "status");
        copy_member(old, new, "spec");
        label(new);
    }

    fn begin_delete(&self, _ctx: &StrategyContext<'_>, namespace: &mut Object) {
        namespace.set(&["status", "phase"], "Terminating");
    }

    fn held(&self, namespace: &Object) -> bool {
        !namespace.array(&["spec", "finalizers"]).is_empty()
    }
}

fn label(namespace: &mut Object) {
    let name = namespace.name().to_owned();
    namespace.set_label(NAME_LABEL, &name);
}

/// `namespaces/finalize`: replaces `spec.finalizers`; the last one gone lets a deleted namespace go.
pub(crate) struct Finalize;

#[async_trait]
impl Action for Finalize {
    fn kind(&self) -> ActionKind {
        ActionKind { group: "", version: "v1", former: &[], kind: "Namespace", verb: Verb::Update }
    }

    async fn run(&self, ctx: ActionContext<'_>, wanted: Object) -> Result<Object, StatusError> {
        if wanted.name() != ctx.name {
            let why =
                format!("the name of the object ({}) does not match the name on the URL ({})", wanted.name(), ctx.name);
            return Err(StatusError::bad_request(why));
        }
        let finalizers = wanted.array(&["spec", "finalizers"]).to_vec();
        let change = |namespace: &Object| {
            let expected = wanted.resource_version();
            if !expected.is_empty() && expected != namespace.resource_version() {
                return Err(StatusError::modified("", "namespaces", ctx.name));
            }
            let mut next = namespace.clone();
            next.set(&["spec"], json!({}));
            if !finalizers.is_empty() {
                next.set(&["spec", "finalizers"], finalizers.clone());
            }
            let write = Write {
                schema: &ctx.version.schema,
                manager: ctx.field_manager,
                api_version: ctx.version.name.as_ref(),
                subresource: ctx.subresource,
                resets: Resets::Fields(&[&["status"]]),
                now: ctx.now,
                convert: None,
            };
            if let Err(error) = apply::update(Some(namespace), &mut next, write) {
                tracing::debug!(%error, name = ctx.name, "a write's fields are not tracked");
            }
            apply::restore_times(namespace, &mut next);
            let free = finalizers.is_empty() && next.finalizers().is_empty() && next.is_deleting();
            Ok(match (free, ctx.dry_run) {
                (_, true) => Change::Keep,
                (true, false) => Change::Delete,
                (false, false) => Change::Put(next),
            })
        };
        let written = ctx.registry().modify(ctx.row, "", ctx.name, change).await?;
        let (Written::Stored(entry) | Written::Unchanged(entry) | Written::Deleted(entry)) = written;
        let mut answer = Object::clone(&*entry.object()?);
        answer.set(&["spec", "finalizers"], Value::from(finalizers));
        Ok(answer)
    }
}
