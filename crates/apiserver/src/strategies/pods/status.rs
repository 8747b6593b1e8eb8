//! `pods/status`: the kubelet's word; who the pod belongs to and its class of service are not the kubelet's to change.

use std::collections::HashMap;

use kminik_meta::Object;
use serde_json::{Value, json};

use crate::registry::strategy::{Strategy, StrategyContext, keep_all_but_status, keep_metadata};

pub(crate) struct PodStatus;

impl Strategy for PodStatus {
    fn prepare_update(&self, ctx: &StrategyContext<'_>, old: &Object, new: &mut Object) {
        keep_all_but_status(old, new);
        keep_metadata(ctx.row, "status", old, new);
        if let Some(class) = old.get(&["status", "qosClass"])
            && new.str(&["status", "qosClass"]).unwrap_or_default().is_empty()
        {
            new.set(&["status", "qosClass"], class.clone());
        }
        same_address(new);
        keep_observed_generations(old, new);
    }
}

/// `podIP` is the first of `podIPs`; where they differ, it is right.
fn same_address(pod: &mut Object) {
    let single = pod.str(&["status", "podIP"]).unwrap_or_default().to_owned();
    let first = pod.array(&["status", "podIPs"]).first().and_then(|address| address.get("ip")).and_then(Value::as_str);
    match first.map(str::to_owned) {
        Some(first) if single.is_empty() => pod.set(&["status", "podIP"], first),
        first if !single.is_empty() && first.as_ref() != Some(&single) => {
            pod.set(&["status", "podIPs"], json!([{ "ip": single }]));
        }
        _ => {}
    }
}

/// Generations that were observed once are not forgotten by who does not tell of them.
fn keep_observed_generations(old: &Object, new: &mut Object) {
    const OBSERVED: &str = "observedGeneration";
    let observed = |value: &Value| value.get(OBSERVED).and_then(Value::as_i64).filter(|generation| *generation != 0);
    if let Some(generation) = old.i64(&["status", OBSERVED])
        && new.i64(&["status", OBSERVED]).unwrap_or_default() == 0
    {
        new.set(&["status", OBSERVED], generation);
    }
    // One type may stand several times.
    let mut known: HashMap<&str, Vec<Option<i64>>> = HashMap::new();
    for condition in old.array(&["status", "conditions"]).iter().rev() {
        let kind = condition.get("type").and_then(Value::as_str).unwrap_or_default();
        known.entry(kind).or_default().push(observed(condition));
    }
    let conditions = new.get_mut(&["status", "conditions"]).and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        let kind = condition.get("type").and_then(Value::as_str).unwrap_or_default();
        let before = known.get_mut(kind).and_then(Vec::pop).flatten();
        if let (None, Some(before), Some(condition)) = (observed(condition), before, condition.as_object_mut()) {
            condition.insert(OBSERVED.into(), before.into());
        }
    }
}
