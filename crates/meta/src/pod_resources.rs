//! What a pod asks for as a whole: its containers, those that prepare it, its sidecars and its overhead, as upstream
//! adds them up for quotas.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{Object, Quantity};

/// Amounts by the name of the resource.
pub type Amounts = BTreeMap<String, Quantity>;

/// Which side of a container's resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What is set aside.
    Requests,
    /// What is not exceeded.
    Limits,
}

impl Side {
    fn key(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Limits => "limits",
        }
    }
}

/// Reads a map of amounts; what is no amount is left out.
pub fn amounts(value: Option<&Value>) -> Amounts {
    let members = value.and_then(Value::as_object).into_iter().flatten();
    members.filter_map(|(name, amount)| Some((name.clone(), Quantity::from_value(amount)?.ok()?))).collect()
}

/// Adds every amount of `other`.
pub fn add(to: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        *to.entry(name.clone()).or_default() += *amount;
    }
}

/// Raises every amount to at least that of `other`.
fn raise(to: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let present = to.entry(name.clone()).or_insert(*amount);
        if *present < *amount {
            *present = *amount;
        }
    }
}

/// What the pod as a whole asks for, with its overhead. A container that is being resized counts with the larger of what
/// it wants and has.
pub fn of_pod(pod: &Object, side: Side) -> Amounts {
    let mut total = of_containers(pod, side);
    let overhead = amounts(pod.get(&["spec", "overhead"]));
    match side {
        Side::Requests => add(&mut total, &overhead),
        // Overhead raises limits; it does not make any.
        Side::Limits => {
            for (name, amount) in overhead {
                if let Some(limit) = total.get_mut(&name).filter(|limit| !limit.is_zero()) {
                    *limit += amount;
                }
            }
        }
    }
    total
}

/// As [`of_pod`], without what its runtime takes besides.
pub fn of_containers(pod: &Object, side: Side) -> Amounts {
    let mut total = Amounts::new();
    for container in pod.array(&["spec", "containers"]) {
        add(&mut total, &of_container(pod, container, "containerStatuses", side));
    }
    // Containers that prepare run one after the other, each beside the sidecars started before it.
    let (mut sidecars, mut preparing) = (Amounts::new(), Amounts::new());
    for container in pod.array(&["spec", "initContainers"]) {
        let own = of_container(pod, container, "initContainerStatuses", side);
        let mut beside = sidecars.clone();
        add(&mut beside, &own);
        if container.get("restartPolicy").and_then(Value::as_str) == Some("Always") {
            add(&mut total, &own);
            sidecars.clone_from(&beside);
        }
        raise(&mut preparing, &beside);
    }
    raise(&mut total, &preparing);
    // What is said of the pod as a whole stands for its containers.
    let whole = amounts(pod.get(&["spec", "resources", side.key()]));
    total.extend(whole.into_iter().filter(|(name, _)| is_pod_level(name)));
    total
}

/// Whether a resource may be asked for by a pod as a whole.
pub(crate) fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

fn of_container(pod: &Object, container: &Value, statuses: &str, side: Side) -> Amounts {
    let mut wanted = amounts(container.get("resources").and_then(|resources| resources.get(side.key())));
    let name = container.get("name");
    let status = pod.array(&["status", statuses]).iter().find(|status| status.get("name") == name);
    let Some(status) = status else { return wanted };
    let mut held = amounts(status.get("resources").and_then(|resources| resources.get(side.key())));
    if side == Side::Requests {
        raise(&mut held, &amounts(status.get("allocatedResources")));
    }
    // A resize that cannot be done leaves the pod with what it has.
    if is_infeasible(pod) && !held.is_empty() {
        return held;
    }
    raise(&mut wanted, &held);
    wanted
}

fn is_infeasible(pod: &Object) -> bool {
    pod.array(&["status", "conditions"]).iter().any(|condition| {
        let text = |key: &str| condition.get(key).and_then(Value::as_str);
        text("type") == Some("PodResizePending") && text("reason") == Some("Infeasible")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn container(name: &str, cpu: &str) -> Value {
        json!({"name": name, "resources": {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}})
    }

    fn cpu(pod: Value, side: Side) -> String {
        of_pod(&Object::try_from(pod).unwrap(), side)["cpu"].to_string()
    }

    #[test]
    fn containers_add_up_and_preparing_ones_raise() {
        let mut sidecar = container("s", "100m");
        sidecar["restartPolicy"] = json!("Always");
        let mut pod = json!({"spec": {
            "containers": [container("a", "1"), container("b", "500m")],
            "initContainers": [sidecar, container("i", "2")],
        }});
        // Preparing takes 2 beside the sidecar, more than the 1.6 afterwards.
        assert_eq!(cpu(pod.clone(), Side::Requests), "2100m");
        pod["spec"]["overhead"] = json!({"cpu": "250m"});
        assert_eq!(cpu(pod.clone(), Side::Requests), "2350m");
        assert_eq!(cpu(pod.clone(), Side::Limits), "2350m");
        pod["spec"]["resources"] = json!({"requests": {"cpu": "3"}});
        assert_eq!(cpu(pod, Side::Requests), "3250m");
    }

    #[test]
    fn a_resize_counts_the_larger_of_both() {
        let mut pod = json!({
            "spec": {"containers": [container("a", "1")]},
            "status": {"containerStatuses": [{"name": "a", "allocatedResources": {"cpu": "2"}}]},
        });
        assert_eq!(cpu(pod.clone(), Side::Requests), "2");
        assert_eq!(cpu(pod.clone(), Side::Limits), "1");
        pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("9");
        pod["status"]["conditions"] = json!([{"type": "PodResizePending", "reason": "Infeasible"}]);
        assert_eq!(cpu(pod, Side::Requests), "2");
    }
}
