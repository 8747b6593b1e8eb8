//! What objects count for in resource quotas: pure functions that admission and the quota controller share, so that what
//! one charges the other recomputes.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::labels::{Operator, Requirement};
use crate::pod_resources::{self, Amounts, Side, amounts};
use crate::{Object, Quantity};

const REQUESTS: &str = "requests.";
const HUGE_PAGES: &str = "hugepages-";
const STORAGE_CLASS: &str = ".storageclass.storage.k8s.io/";
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
/// Quotas that make each container of a pod say how much it takes of the resource.
const DEMANDED: [&str; 6] = ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];
const OF_PODS: [&str; 9] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];
const OF_SERVICES: [&str; 3] = ["services", "services.nodeports", "services.loadbalancers"];
const OF_CLAIMS: [&str; 2] = ["persistentvolumeclaims", "requests.storage"];
/// Plurals of the core group that quotas also count by their bare name.
const BARE_NAMES: [&str; 5] = ["configmaps", "resourcequotas", "replicationcontrollers", "secrets", "pods"];

/// The kinds of object of which more than the number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Pod,
    Service,
    Claim,
    Other,
}

/// The group and plural of what a name in a quota counts; `None` for a name that counts nothing.
pub fn counted_by(name: &str) -> Option<(&str, &str)> {
    if let Some(counted) = name.strip_prefix("count/") {
        let (plural, group) = counted.split_once('.').unwrap_or((counted, ""));
        return Some((group, plural));
    }
    let mut plurals = BARE_NAMES.into_iter().chain(["services", "persistentvolumeclaims"]);
    let plural = plurals.find(|plural| Counted::new("", plural).counts(name))?;
    Some(("", plural))
}

/// A resource as quotas see it.
#[derive(Clone, Debug)]
pub struct Counted {
    kind: Kind,
    /// `count/deployments.apps`.
    count: String,
    /// The bare name by which it is counted, too.
    bare: Option<&'static str>,
}

impl Counted {
    /// The objects of a group's plural.
    pub fn new(group: &str, plural: &str) -> Self {
        let kind = match (group, plural) {
            ("", "pods") => Kind::Pod,
            ("", "services") => Kind::Service,
            ("", "persistentvolumeclaims") => Kind::Claim,
            _ => Kind::Other,
        };
        let count = if group.is_empty() { format!("count/{plural}") } else { format!("count/{plural}.{group}") };
        let bare = BARE_NAMES.into_iter().find(|name| group.is_empty() && *name == plural && kind == Kind::Other);
        Self { kind, count, bare }
    }

    /// Whether a quota on this name counts such objects.
    pub fn counts(&self, name: &str) -> bool {
        if name == self.count {
            return true;
        }
        match self.kind {
            Kind::Pod => {
                name == "pods"
                    || OF_PODS.contains(&name)
                    || name.starts_with(HUGE_PAGES)
                    || name.strip_prefix(REQUESTS).is_some_and(|rest| rest.starts_with(HUGE_PAGES) || is_extended(rest))
            }
            Kind::Service => OF_SERVICES.contains(&name),
            Kind::Claim => OF_CLAIMS
                .iter()
                .any(|own| name == *own || name.strip_suffix(own).is_some_and(|class| class.ends_with(STORAGE_CLASS))),
            Kind::Other => self.bare == Some(name),
        }
    }

    /// What an object takes of everything that is counted.
    pub fn usage(&self, object: &Object, now: Timestamp) -> Amounts {
        let mut usage = Amounts::from([(self.count.clone(), one())]);
        match self.kind {
            Kind::Pod => {
                if !has_ended(object, now) {
                    usage.append(&mut usage_of_pod(object));
                }
            }
            Kind::Service => usage.append(&mut usage_of_service(object)),
            Kind::Claim => usage.append(&mut usage_of_claim(object)),
            Kind::Other => {
                usage.extend(self.bare.map(|bare| (bare.to_owned(), one())));
            }
        }
        usage
    }

    /// Whether the quota's scopes take the object in.
    pub fn in_scope(&self, quota: &Object, object: &Object) -> bool {
        let scopes = quota.array(&["spec", "scopes"]).iter().filter_map(Value::as_str);
        let mut scopes = scopes.map(|scope| self.matches(scope, "Exists", &[], object));
        let selected = quota.array(&["spec", "scopeSelector", "matchExpressions"]).iter().all(|expression| {
            let text = |key: &str| expression.get(key).and_then(Value::as_str).unwrap_or_default();
            let values = expression.get("values").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            self.matches(text("scopeName"), text("operator"), values, object)
        });
        scopes.all(|matches| matches) && selected
    }

    fn matches(&self, scope: &str, operator: &str, values: &[Value], object: &Object) -> bool {
        match (self.kind, scope) {
            (Kind::Pod, "Terminating") => is_terminating(object),
            (Kind::Pod, "NotTerminating") => !is_terminating(object),
            (Kind::Pod, "BestEffort") => is_best_effort(object),
            (Kind::Pod, "NotBestEffort") => !is_best_effort(object),
            (Kind::Pod, "PriorityClass") => {
                let class = object.str(&["spec", "priorityClassName"]).filter(|class| !class.is_empty());
                any_matches(operator, values, &class.into_iter().collect::<Vec<_>>())
            }
            (Kind::Pod, "CrossNamespacePodAffinity") => crosses_namespaces(object),
            (Kind::Claim, "VolumeAttributesClass") => {
                let classes = [
                    object.str(&["spec", "volumeAttributesClassName"]),
                    object.str(&["status", "currentVolumeAttributesClassName"]),
                    object.str(&["status", "modifyVolumeStatus", "targetVolumeAttributesClassName"]),
                ];
                let classes: Vec<&str> = classes.into_iter().flatten().filter(|class| !class.is_empty()).collect();
                any_matches(operator, values, &classes)
            }
            _ => false,
        }
    }

    /// Which containers do not say what a quota on these names makes them say: `must specify cpu for: a,b; memory for: a`.
    pub fn missing<'a>(&self, names: impl Iterator<Item = &'a str>, object: &Object) -> Option<String> {
        if self.kind != Kind::Pod {
            return None;
        }
        let mut demanded: Vec<&str> = names.filter(|name| DEMANDED.contains(name)).collect();
        demanded.sort_unstable();
        let mut missing = Vec::new();
        for name in demanded {
            let mut containers: Vec<&str> = ["containers", "initContainers"]
                .iter()
                .flat_map(|list| object.array(&["spec", list]))
                .filter(|container| !says(container, name))
                .filter_map(|container| container.get("name")?.as_str())
                .collect();
            containers.sort_unstable();
            containers.dedup();
            if !containers.is_empty() {
                missing.push(format!("{name} for: {}", containers.join(",")));
            }
        }
        if missing.is_empty() { None } else { Some(format!("must specify {}", missing.join("; "))) }
    }
}

fn one() -> Quantity {
    Quantity::from_milli(1000)
}

fn says(container: &Value, name: &str) -> bool {
    let (side, resource) = match name.split_once('.') {
        Some(("limits", resource)) => ("limits", resource),
        Some((_, resource)) => ("requests", resource),
        None => ("requests", name),
    };
    container.get("resources").and_then(|r| r.get(side)).is_some_and(|side| side.get(resource).is_some())
}

/// A resource that only some nodes have: named by a domain that is not Kubernetes' own.
fn is_extended(name: &str) -> bool {
    let Some((domain, _)) = name.split_once('/') else { return false };
    !domain.contains("kubernetes.io") && !name.starts_with(REQUESTS)
}

fn usage_of_pod(pod: &Object) -> Amounts {
    let (requests, limits) = (pod_resources::of_pod(pod, Side::Requests), pod_resources::of_pod(pod, Side::Limits));
    let mut usage = Amounts::from([("pods".to_owned(), one())]);
    for (name, amount) in requests {
        match name.as_str() {
            "cpu" | "memory" | "ephemeral-storage" => {
                usage.insert(format!("{REQUESTS}{name}"), amount);
                usage.insert(name, amount);
            }
            other if other.starts_with(HUGE_PAGES) => {
                usage.insert(format!("{REQUESTS}{name}"), amount);
                usage.insert(name, amount);
            }
            other if is_extended(other) => {
                usage.insert(format!("{REQUESTS}{name}"), amount);
            }
            _ => {}
        }
    }
    for (name, amount) in limits {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            usage.insert(format!("limits.{name}"), amount);
        }
    }
    usage
}

fn usage_of_service(service: &Object) -> Amounts {
    let ports = service.array(&["spec", "ports"]);
    let kind = service.str(&["spec", "type"]).unwrap_or_default();
    let allocates = service.bool(&["spec", "allocateLoadBalancerNodePorts"]) != Some(false);
    let node_ports = match kind {
        "NodePort" => ports.len(),
        "LoadBalancer" if allocates => ports.len(),
        // Those that were asked for by number.
        "LoadBalancer" => {
            let given = |port: &&Value| port.get("nodePort").and_then(Value::as_i64).is_some_and(|number| number != 0);
            ports.iter().filter(given).count()
        }
        _ => 0,
    };
    let count = |number: usize| Quantity::from_milli(i64::try_from(number).unwrap_or(i64::MAX).saturating_mul(1000));
    Amounts::from([
        ("services".to_owned(), one()),
        ("services.nodeports".to_owned(), count(node_ports)),
        ("services.loadbalancers".to_owned(), count(usize::from(kind == "LoadBalancer"))),
    ])
}

fn usage_of_claim(claim: &Object) -> Amounts {
    let mut usage = Amounts::from([("persistentvolumeclaims".to_owned(), one())]);
    let class = claim.annotation(CLASS_ANNOTATION).or_else(|| claim.str(&["spec", "storageClassName"]));
    let class = class.filter(|class| !class.is_empty());
    let storage = |value: Option<&Value>| amounts(value).remove("storage");
    let requested = storage(claim.get(&["spec", "resources", "requests"]));
    let allocated = storage(claim.get(&["status", "allocatedResources"]));
    // While a claim grows, or shrinks back, the larger counts.
    let storage = requested.map(|requested| allocated.map_or(requested, |allocated| allocated.max(requested)));
    let storage = storage.map(|amount| whole(&amount));
    if let Some(class) = class {
        usage.insert(format!("{class}{STORAGE_CLASS}persistentvolumeclaims"), one());
        usage.extend(storage.map(|amount| (format!("{class}{STORAGE_CLASS}requests.storage"), amount)));
    }
    usage.extend(storage.map(|amount| ("requests.storage".to_owned(), amount)));
    usage
}

/// The amount in whole bytes, rounded up.
fn whole(amount: &Quantity) -> Quantity {
    let rounded = Quantity::new(amount.value(), amount.format());
    if rounded == *amount { *amount } else { rounded }
}

/// Whether a pod takes nothing any more, though it is still there.
fn has_ended(pod: &Object, now: Timestamp) -> bool {
    if matches!(pod.str(&["status", "phase"]), Some("Succeeded" | "Failed")) {
        return true;
    }
    let (Some(at), Some(grace)) = (pod.deletion_timestamp(), pod.deletion_grace_period_seconds()) else { return false };
    at.checked_add(SignedDuration::from_secs(grace)).is_ok_and(|end| now > end)
}

fn is_terminating(pod: &Object) -> bool {
    pod.i64(&["spec", "activeDeadlineSeconds"]).is_some_and(|seconds| seconds >= 0)
}

fn is_best_effort(pod: &Object) -> bool {
    pod.str(&["status", "qosClass"]) == Some("BestEffort")
}

/// Whether one of the names, or none where there are none, meets the condition.
fn any_matches(operator: &str, values: &[Value], names: &[&str]) -> bool {
    let operator = match operator {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => return !names.is_empty(),
        "DoesNotExist" => return names.is_empty(),
        _ => return false,
    };
    let values = values.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let Ok(requirement) = Requirement::new("scope", operator, values) else { return false };
    if names.is_empty() { requirement.matches(None) } else { names.iter().any(|name| requirement.matches(Some(*name))) }
}

fn crosses_namespaces(pod: &Object) -> bool {
    let crosses = |term: &Value| {
        term.get("namespaces").and_then(Value::as_array).is_some_and(|namespaces| !namespaces.is_empty())
            || term.get("namespaceSelector").is_some()
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let terms = |list: &str| pod.array(&["spec", "affinity", kind, list]);
        terms("requiredDuringSchedulingIgnoredDuringExecution").iter().any(crosses)
            || terms("preferredDuringSchedulingIgnoredDuringExecution")
                .iter()
                .any(|weighted| weighted.get("podAffinityTerm").is_some_and(crosses))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Object {
        Object::try_from(value).unwrap()
    }

    fn usage(group: &str, plural: &str, value: Value) -> Vec<String> {
        let usage = Counted::new(group, plural).usage(&object(value), Timestamp::UNIX_EPOCH);
        usage.into_iter().map(|(name, amount)| format!("{name}={amount}")).collect()
    }

    #[test]
    fn pods_count_until_they_end() {
        let mut pod = json!({"spec": {"containers": [{"name": "a", "resources": {
            "requests": {"cpu": "100m", "example.com/gpu": "2", "hugepages-2Mi": "4Mi"}, "limits": {"memory": "1Gi"}}}]}});
        let expected = [
            "count/pods=1",
            "cpu=100m",
            "hugepages-2Mi=4Mi",
            "limits.memory=1Gi",
            "pods=1",
            "requests.cpu=100m",
            "requests.example.com/gpu=2",
            "requests.hugepages-2Mi=4Mi",
        ];
        assert_eq!(usage("", "pods", pod.clone()), expected);
        pod["status"] = json!({"phase": "Failed"});
        assert_eq!(usage("", "pods", pod), ["count/pods=1"]);
    }

    #[test]
    fn services_claims_and_all_else() {
        let service = json!({"spec": {"type": "LoadBalancer", "ports": [{"port": 1}, {"port": 2}]}});
        let expected = ["count/services=1", "services=1", "services.loadbalancers=1", "services.nodeports=2"];
        assert_eq!(usage("", "services", service), expected);
        let claim = json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}}});
        let expected = [
            "count/persistentvolumeclaims=1",
            "fast.storageclass.storage.k8s.io/persistentvolumeclaims=1",
            "fast.storageclass.storage.k8s.io/requests.storage=1Gi",
            "persistentvolumeclaims=1",
            "requests.storage=1Gi",
        ];
        assert_eq!(usage("", "persistentvolumeclaims", claim), expected);
        assert_eq!(usage("", "secrets", json!({})), ["count/secrets=1", "secrets=1"]);
        assert_eq!(usage("apps", "deployments", json!({})), ["count/deployments.apps=1"]);
        let claims = Counted::new("", "persistentvolumeclaims");
        assert!(claims.counts("x.storageclass.storage.k8s.io/requests.storage"));
        assert!(!claims.counts("x/requests.storage") && !claims.counts("pods"));
        assert_eq!(counted_by("count/deployments.apps"), Some(("apps", "deployments")));
        assert_eq!(counted_by("limits.cpu"), Some(("", "pods")));
        assert_eq!(counted_by("x.storageclass.storage.k8s.io/requests.storage"), Some(("", "persistentvolumeclaims")));
        assert_eq!((counted_by("secrets"), counted_by("nothing")), (Some(("", "secrets")), None));
        let pods = Counted::new("", "pods");
        assert!(pods.counts("requests.example.com/gpu") && !pods.counts("requests.storage"));
    }

    #[test]
    fn scopes_take_pods_in() {
        let pods = Counted::new("", "pods");
        let pod = object(json!({
            "spec": {"activeDeadlineSeconds": 5, "priorityClassName": "high"}, "status": {"qosClass": "BestEffort"}}));
        for (scopes, taken) in [
            (json!(["Terminating", "BestEffort"]), true),
            (json!(["NotTerminating"]), false),
            (json!(["Terminating", "NotBestEffort"]), false),
            (json!(["PriorityClass"]), true),
            (json!(["VolumeAttributesClass"]), false),
        ] {
            assert_eq!(pods.in_scope(&object(json!({"spec": {"scopes": scopes}})), &pod), taken, "{scopes}");
        }
        let selecting = |operator: &str, values: Value| {
            let expression = json!({"scopeName": "PriorityClass", "operator": operator, "values": values});
            let quota = object(json!({"spec": {"scopeSelector": {"matchExpressions": [expression]}}}));
            (pods.in_scope(&quota, &pod), pods.in_scope(&quota, &object(json!({"spec": {}}))))
        };
        assert_eq!(selecting("In", json!(["high"])), (true, false));
        assert_eq!(selecting("NotIn", json!(["high"])), (false, true));
        assert_eq!(selecting("DoesNotExist", json!([])), (false, true));
    }

    #[test]
    fn quotas_of_cpu_and_memory_demand_words() {
        let pod = object(json!({"spec": {
            "containers": [{"name": "b"}, {"name": "a", "resources": {"requests": {"cpu": 1}}}]}}));
        let names = ["requests.cpu", "limits.memory", "pods", "requests.ephemeral-storage"];
        let missing = Counted::new("", "pods").missing(names.into_iter(), &pod);
        assert_eq!(missing.as_deref(), Some("must specify limits.memory for: a,b; requests.cpu for: b"));
    }
}
