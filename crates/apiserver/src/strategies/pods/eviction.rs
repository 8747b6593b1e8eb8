//! `pods/eviction`: a deletion that says why.

use async_trait::async_trait;
use kminik_meta::{Object, StatusError, status, time};
use serde_json::json;

use super::set_condition;
use crate::http::info::Query;
use crate::registry::Change;
use crate::registry::action::{Action, ActionContext, ActionKind};
use crate::registry::def::Verb;
use crate::registry::strategy::StrategyContext;
use crate::verbs::delete::{DeleteOptions, next_state};

pub(crate) struct Eviction;

#[async_trait]
impl Action for Eviction {
    fn kind(&self) -> ActionKind {
        ActionKind { group: "policy", version: "v1", kind: "Eviction", verb: Verb::Create }
    }

    async fn run(&self, ctx: ActionContext<'_>, eviction: Object) -> Result<Object, StatusError> {
        if eviction.name() != ctx.name {
            return Err(StatusError::bad_request(format!(
                "name in URL does not match name in Eviction object: {:?}",
                eviction.name()
            )));
        }
        let options = eviction.get(&["deleteOptions"]).cloned().and_then(|options| Object::try_from(options).ok());
        let dry_run = ctx.dry_run || options.as_ref().is_some_and(|options| !options.array(&["dryRun"]).is_empty());
        let delete = DeleteOptions::of(&Query::default(), options.as_ref())?;
        let strategy = StrategyContext {
            registry: ctx.registry(),
            row: ctx.row,
            user: ctx.user,
            namespace: ctx.namespace,
            dry_run,
            now: ctx.now,
        };
        let change = |pod: &Object| {
            delete.check_preconditions(ctx.row, pod)?;
            let mut pod = pod.clone();
            let running = !matches!(pod.str(&["status", "phase"]), Some("Pending" | "Succeeded" | "Failed"));
            if running && !pod.is_deleting() {
                let condition = json!({
                    "type": "DisruptionTarget",
                    "status": "True",
                    "reason": "EvictionByEvictionAPI",
                    "message": "Eviction API: evicting",
                    "lastTransitionTime": time::format(ctx.now),
                });
                set_condition(&mut pod, condition);
            }
            let next = next_state(&strategy, &delete, &pod)?;
            Ok(if dry_run { Change::Keep } else { next })
        };
        ctx.registry().modify(ctx.row, ctx.namespace, ctx.name, change).await?;
        let mut answer = status::success(None);
        answer["code"] = 201.into();
        Object::try_from(answer).map_err(StatusError::internal)
    }
}
