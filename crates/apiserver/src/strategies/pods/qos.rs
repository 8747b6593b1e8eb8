//! Classes of service, from what a pod's containers request.

use kminik_meta::{Object, Quantity};
use serde_json::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Class {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Class::Guaranteed => "Guaranteed",
            Class::Burstable => "Burstable",
            Class::BestEffort => "BestEffort",
        }
    }
}

/// Guaranteed if every container is limited in cpu and memory and requests just that; BestEffort if none says anything.
/// Resources of the pod as a whole, where given, speak for all containers.
pub(super) fn class_of(pod: &Object) -> Class {
    let whole = pod.get(&["spec", "resources"]).filter(|resources| says_something(resources));
    let resources: Vec<Option<&Value>> = match whole {
        Some(resources) => vec![Some(resources)],
        None => ["containers", "initContainers"]
            .iter()
            .flat_map(|list| pod.array(&["spec", list]))
            .map(|container| container.get("resources"))
            .collect(),
    };
    if !resources.iter().flatten().any(|resources| says_something(resources)) {
        return Class::BestEffort;
    }
    match resources.iter().all(|resources| resources.is_some_and(is_pinned)) {
        true => Class::Guaranteed,
        false => Class::Burstable,
    }
}

fn says_something(resources: &Value) -> bool {
    ["requests", "limits"].iter().any(|kind| {
        ["cpu", "memory"].iter().any(|name| amount(resources, kind, name).is_some_and(|amount| !amount.is_zero()))
    })
}

fn is_pinned(resources: &Value) -> bool {
    ["cpu", "memory"].iter().all(|name| {
        let limit = amount(resources, "limits", name).filter(|limit| !limit.is_zero());
        let request = amount(resources, "requests", name).or(limit);
        limit.is_some() && limit == request
    })
}

fn amount(resources: &Value, kind: &str, name: &str) -> Option<Quantity> {
    Quantity::from_value(resources.get(kind)?.get(name)?)?.ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn class(spec: Value) -> Class {
        class_of(&Object::try_from(json!({ "spec": spec })).unwrap())
    }

    #[test]
    fn classes_follow_the_resources() {
        let pinned = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}});
        let limits = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
        let some = json!({"requests": {"cpu": "1"}});
        let other = json!({"limits": {"example.com/gpu": "1"}});
        let of = |resources: &[&Value]| {
            let containers: Vec<Value> = resources.iter().map(|resources| json!({ "resources": resources })).collect();
            class(json!({ "containers": containers }))
        };
        assert_eq!(of(&[&pinned]), Class::Guaranteed);
        assert_eq!(of(&[&limits, &pinned]), Class::Guaranteed);
        assert_eq!(of(&[&pinned, &json!({})]), Class::Burstable);
        assert_eq!(of(&[&some]), Class::Burstable);
        assert_eq!(of(&[&other]), Class::BestEffort);
        assert_eq!(of(&[&json!({})]), Class::BestEffort);
        let whole = json!({"resources": limits, "containers": [{"resources": some}]});
        assert_eq!(class(whole), Class::Guaranteed);
        let init = json!({"containers": [{"resources": pinned}], "initContainers": [{"resources": some}]});
        assert_eq!(class(init), Class::Burstable);
    }
}
