//! `pods/eviction`: a deletion that says why, and waits for disruption budgets.
//!
//! A pod that serves nothing (it ended, ends, or has not begun) goes at once. Any other takes one disruption from the budget that
//! selects it, or goes without where it is not ready and the budget's policy lets such pods go.

use async_trait::async_trait;
use kminik_meta::{LabelSelector, Object, StatusError, status, time};
use serde_json::{Value, json};

use super::set_condition;
use crate::http::info::Query;
use crate::registry::action::{Action, ActionContext, ActionKind};
use crate::registry::def::Verb;
use crate::registry::strategy::StrategyContext;
use crate::registry::{Change, storage_prefix};
use crate::verbs::delete::{DeleteOptions, next_state};

/// Evictions that the disruption controller has not yet seen the end of; more are refused.
const DISRUPTED_MAX: usize = 2000;
/// Times that a pod is looked at again because it changed meanwhile.
const ATTEMPTS: usize = 20;
const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

pub(crate) struct Eviction;

#[async_trait]
impl Action for Eviction {
    fn kind(&self) -> ActionKind {
        ActionKind { group: "policy", version: "v1", former: &["v1beta1"], kind: "Eviction", verb: Verb::Create }
    }

    async fn run(&self, ctx: ActionContext<'_>, eviction: Object) -> Result<Object, StatusError> {
        if eviction.name() != ctx.name {
            return Err(StatusError::bad_request("name in URL does not match name in Eviction object"));
        }
        let options = eviction.get(&["deleteOptions"]).cloned().and_then(|options| Object::try_from(options).ok());
        let dry_run = ctx.dry_run || options.as_ref().is_some_and(|options| !options.array(&["dryRun"]).is_empty());
        let delete = DeleteOptions::of(&Query::default(), options.as_ref())?;
        let request = Request { ctx, delete, dry_run };
        for _ in 0..ATTEMPTS {
            let found = ctx.registry().object("", "pods", ctx.namespace, ctx.name).await?;
            let pod = found.ok_or_else(|| StatusError::not_found("", "pods", ctx.name))?;
            let permit = request.permit(&pod).await?;
            if request.remove(&pod, &permit).await? {
                let mut answer = status::success(None);
                answer["code"] = 201.into();
                return Object::try_from(answer).map_err(StatusError::internal);
            }
        }
        Err(StatusError::modified("", "pods", ctx.name))
    }
}

/// What lets a pod go.
enum Permit {
    /// It serves nothing.
    Idle,
    /// No budget, or one that has been charged.
    Granted,
    /// It is not ready, and this budget lets such pods go: as long as it is not.
    Unready(String),
}

struct Request<'a> {
    ctx: ActionContext<'a>,
    delete: DeleteOptions,
    dry_run: bool,
}

impl Request<'_> {
    /// Finds what lets the pod go, and charges its budget.
    async fn permit(&self, pod: &Object) -> Result<Permit, StatusError> {
        if is_idle(pod) {
            return Ok(Permit::Idle);
        }
        let registry = self.ctx.registry();
        let row = registry.row("policy", "poddisruptionbudgets")?;
        let snapshot = registry.cache().fresh(storage_prefix(&row)?).await?;
        let range = crate::storage::key::namespace(storage_prefix(&row)?, pod.namespace());
        let mut budgets = Vec::new();
        for entry in snapshot.range(&range, None) {
            let budget = entry.object()?;
            // One whose selector cannot be read selects nothing.
            if LabelSelector::from_value(budget.get(&["spec", "selector"])).is_ok_and(|s| s.matches(pod)) {
                budgets.push(budget);
            }
        }
        let budget = match budgets.as_slice() {
            [] => return Ok(Permit::Granted),
            [budget] => budget,
            _ => {
                let why =
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
                return Err(StatusError::internal(why));
            }
        };
        if !is_ready(pod) {
            let count = |member: &str| budget.i64(&["status", member]).unwrap_or_default();
            let healthy = count("currentHealthy") >= count("desiredHealthy") && count("desiredHealthy") > 0;
            let always = budget.str(&["spec", "unhealthyPodEvictionPolicy"]) == Some("AlwaysAllow");
            if always || healthy {
                return Ok(Permit::Unready(budget.name().to_owned()));
            }
        }
        let charge = |budget: &Object| {
            let charged = charged(budget, pod.name(), &time::format(self.ctx.now))?;
            Ok(if self.dry_run { Change::Keep } else { Change::Put(charged) })
        };
        registry.modify(&row, budget.namespace(), budget.name(), charge).await?;
        Ok(Permit::Granted)
    }

    /// Deletes the pod; `false` if it changed so that the permit is worth nothing.
    async fn remove(&self, seen: &Object, permit: &Permit) -> Result<bool, StatusError> {
        let ctx = &self.ctx;
        let strategy = StrategyContext {
            registry: ctx.registry(),
            row: ctx.row,
            user: ctx.user,
            namespace: ctx.namespace,
            dry_run: self.dry_run,
            now: ctx.now,
        };
        let mut permitted = true;
        let change = |pod: &Object| {
            self.delete.check_preconditions(ctx.row, pod)?;
            let changed = pod.resource_version() != seen.resource_version();
            match permit {
                Permit::Idle => permitted = is_idle(pod),
                Permit::Unready(budget) if changed => return Err(in_progress(budget)),
                Permit::Unready(_) | Permit::Granted => permitted = true,
            }
            if !permitted || self.dry_run {
                return Ok(Change::Keep);
            }
            let mut pod = pod.clone();
            let condition = json!({
                "type": "DisruptionTarget",
                "observedGeneration": pod.generation(),
                "status": "True",
                "reason": "EvictionByEvictionAPI",
                "message": "Eviction API: evicting",
                "lastTransitionTime": time::format(ctx.now),
            });
            set_condition(&mut pod, condition);
            next_state(&strategy, &self.delete, &pod)
        };
        ctx.registry().modify(ctx.row, ctx.namespace, ctx.name, change).await?;
        Ok(permitted)
    }
}

fn is_idle(pod: &Object) -> bool {
    pod.is_deleting() || matches!(pod.str(&["status", "phase"]), Some("Succeeded" | "Failed" | "Pending"))
}

fn is_ready(pod: &Object) -> bool {
    pod.array(&["status", "conditions"]).iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// The budget's controller has not caught up.
fn in_progress(budget: &str) -> StatusError {
    let why = format!("The disruption budget {budget} is still being processed by the server.");
    StatusError::too_many_requests(REFUSED, 10).with_cause("DisruptionBudget", why, "")
}

/// The budget with one disruption less, and the pod noted as on its way out.
fn charged(budget: &Object, pod: &str, now: &str) -> Result<Object, StatusError> {
    let count = |member: &str| budget.i64(&["status", member]).unwrap_or_default();
    let forbidden = |why: &str| StatusError::forbidden("policy", "poddisruptionbudget", budget.name(), why);
    if count("observedGeneration") < budget.generation() {
        return Err(in_progress(budget.name()));
    }
    let allowed = count("disruptionsAllowed");
    if allowed < 0 {
        return Err(forbidden("pdb disruptions allowed is negative"));
    }
    let disrupted = budget.get(&["status", "disruptedPods"]).and_then(Value::as_object).map_or(0, |pods| pods.len());
    if disrupted > DISRUPTED_MAX {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(forbidden(why));
    }
    if allowed == 0 {
        let why = format!(
            "The disruption budget {} needs {} healthy pods and has {} currently",
            budget.name(),
            count("desiredHealthy"),
            count("currentHealthy")
        );
        return Err(StatusError::too_many_requests(REFUSED, 0).with_cause("DisruptionBudget", why, ""));
    }
    let mut next = budget.clone();
    next.set(&["status", "disruptionsAllowed"], allowed - 1);
    if allowed == 1 {
        let condition = json!({
            "type": "DisruptionAllowed",
            "status": "False",
            "observedGeneration": count("observedGeneration"),
            "lastTransitionTime": now,
            "reason": "InsufficientPods",
            "message": "",
        });
        set_condition(&mut next, condition);
    }
    next.set(&["status", "disruptedPods", pod], now);
    Ok(next)
}
