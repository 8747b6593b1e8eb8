//! LimitRanger: a namespace's limit ranges give containers their defaults and bound what pods and claims may ask for.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use kminik_meta::pod_resources::{self, Amounts, Side, amounts};
use kminik_meta::{Object, Quantity, StatusError};
use serde_json::{Map, Value};

use super::{Admission, Attributes, Operation};
use crate::storage::cache::{Cache, ResourceCache};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";
/// Lists of a pod's containers, and what one of each is called.
const CONTAINERS: [(&str, &str); 2] = [("containers", "container"), ("initContainers", "init container")];

pub(super) struct LimitRanger {
    ranges: Arc<ResourceCache>,
}

impl LimitRanger {
    pub(super) fn new(cache: &Cache) -> Self {
        LimitRanger { ranges: cache.resource("core/limitranges") }
    }
}

#[async_trait]
impl Admission for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        if !attributes.row.group.is_empty() || attributes.old.is_some_and(Object::is_deleting) {
            return false;
        }
        let limited = match (attributes.row.plural.as_ref(), attributes.operation, attributes.subresource) {
            // What containers ask for changes through a resize only.
            ("pods", Operation::Create, "") | ("pods", Operation::Update, "resize") => true,
            ("persistentvolumeclaims", Operation::Create | Operation::Update, "") => true,
            _ => false,
        };
        limited && !self.ranges.is_empty()
    }

    async fn mutate(&self, attributes: &Attributes<'_>, object: &mut Object) -> Result<(), StatusError> {
        if attributes.row.plural == "pods" {
            for range in attributes.registry.cached_in("", "limitranges", attributes.namespace) {
                set_defaults(&range, object);
            }
        }
        Ok(())
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), StatusError> {
        let Some(object) = object else { return Ok(()) };
        for range in attributes.registry.cached_in("", "limitranges", attributes.namespace) {
            let wrong = match attributes.row.plural.as_ref() {
                "pods" => objections_to_pod(&range, object),
                _ => objections_to_claim(&range, object),
            };
            let why = match wrong.as_slice() {
                [] => continue,
                [only] => only.clone(),
                several => format!("[{}]", several.join(", ")),
            };
            return Err(attributes.forbidden(why));
        }
        Ok(())
    }
}

/// The limits of one type.
fn limits<'a>(range: &'a Object, of: &'static str) -> impl Iterator<Item = &'a Value> {
    let limits = range.array(&["spec", "limits"]).iter();
    limits.filter(move |limit| limit.get("type").and_then(Value::as_str) == Some(of))
}

/// Gives containers what they do not say, and says so in an annotation.
fn set_defaults(range: &Object, pod: &mut Object) {
    let defaults = |key: &str| -> Map<String, Value> {
        let maps = limits(range, "Container").filter_map(|limit| limit.get(key)?.as_object());
        maps.flatten().map(|(name, amount)| (name.clone(), amount.clone())).collect()
    };
    let sides = [("requests", "request", defaults("defaultRequest")), ("limits", "limit", defaults("default"))];
    let mut notes = Vec::new();
    for (list, called) in CONTAINERS {
        for container in pod.get_mut(&["spec", list]).and_then(Value::as_array_mut).into_iter().flatten() {
            let name = container.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            for (side, word, defaults) in &sides {
                let set = fill(container, side, defaults);
                if !set.is_empty() {
                    let set: Vec<&str> = set.into_iter().collect();
                    notes.push(format!("{} {word} for {called} {name}", set.join(", ")));
                }
            }
        }
    }
    if !notes.is_empty() {
        pod.set_annotation(ANNOTATION, &format!("LimitRanger plugin set: {}", notes.join("; ")));
    }
}

/// Adds the defaults that one side of a container's resources lacks; their names.
fn fill<'d>(container: &mut Value, side: &str, defaults: &'d Map<String, Value>) -> BTreeSet<&'d str> {
    let mut set = BTreeSet::new();
    if defaults.is_empty() {
        return set;
    }
    let member = |parent: &mut Value, key: &str| {
        if !parent.get(key).is_some_and(Value::is_object) {
            parent[key] = Map::new().into();
        }
    };
    member(container, "resources");
    member(&mut container["resources"], side);
    let Some(amounts) = container["resources"][side].as_object_mut() else { return set };
    for (name, amount) in defaults {
        if !amounts.contains_key(name) {
            amounts.insert(name.clone(), amount.clone());
            set.insert(name.as_str());
        }
    }
    set
}

fn objections_to_pod(range: &Object, pod: &Object) -> Vec<String> {
    let mut wrong = Vec::new();
    for limit in limits(range, "Container") {
        for container in CONTAINERS.iter().flat_map(|(list, _)| pod.array(&["spec", list])) {
            let side = |key: &str| amounts(container.get("resources").and_then(|resources| resources.get(key)));
            let asked = Asked { of: "Container", requests: side("requests"), limits: side("limits") };
            asked.check(limit, &mut wrong);
        }
    }
    for limit in limits(range, "Pod") {
        let asked = Asked {
            of: "Pod",
            requests: pod_resources::of_containers(pod, Side::Requests),
            limits: pod_resources::of_containers(pod, Side::Limits),
        };
        asked.check(limit, &mut wrong);
    }
    unique(wrong)
}

fn objections_to_claim(range: &Object, claim: &Object) -> Vec<String> {
    let mut wrong = Vec::new();
    for limit in limits(range, "PersistentVolumeClaim") {
        let asked = Asked {
            of: "PersistentVolumeClaim",
            requests: amounts(claim.get(&["spec", "resources", "requests"])),
            limits: Amounts::new(),
        };
        for (name, least) in amounts(limit.get("min")) {
            wrong.extend(asked.below(&name, least));
        }
        for (name, most) in amounts(limit.get("max")) {
            wrong.extend(asked.request_above(&name, most));
        }
    }
    unique(wrong)
}

/// Each text once, as errors are put together.
fn unique(texts: Vec<String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    texts.into_iter().filter(|text| seen.insert(text.clone())).collect()
}

/// What is asked for, to be held against limits.
struct Asked {
    /// Type of the limits.
    of: &'static str,
    requests: Amounts,
    limits: Amounts,
}

impl Asked {
    fn check(&self, limit: &Value, wrong: &mut Vec<String>) {
        for (name, least) in amounts(limit.get("min")) {
            wrong.extend(self.below(&name, least));
        }
        for (name, most) in amounts(limit.get("max")) {
            wrong.extend(self.above(&name, most));
        }
        for (name, most) in amounts(limit.get("maxLimitRequestRatio")) {
            wrong.extend(self.too_far_apart(&name, most));
        }
    }

    fn below(&self, name: &str, least: Quantity) -> Option<String> {
        let why = match (self.requests.get(name), self.limits.get(name)) {
            (None, _) => ".  No request is specified".to_owned(),
            (Some(request), _) if *request < least => format!(", but request is {request}"),
            (_, Some(limit)) if *limit < least => format!(", but limit is {limit}"),
            _ => return None,
        };
        Some(format!("minimum {name} usage per {} is {least}{why}", self.of))
    }

    fn above(&self, name: &str, most: Quantity) -> Option<String> {
        let why = match (self.limits.get(name), self.requests.get(name)) {
            (None, _) => ".  No limit is specified".to_owned(),
            (Some(limit), _) if *limit > most => format!(", but limit is {limit}"),
            (_, Some(request)) if *request > most => format!(", but request is {request}"),
            _ => return None,
        };
        Some(format!("maximum {name} usage per {} is {most}{why}", self.of))
    }

    fn request_above(&self, name: &str, most: Quantity) -> Option<String> {
        let why = match self.requests.get(name) {
            None => ".  No request is specified".to_owned(),
            Some(request) if *request > most => format!(", but request is {request}"),
            Some(_) => return None,
        };
        Some(format!("maximum {name} usage per {} is {most}{why}", self.of))
    }

    fn too_far_apart(&self, name: &str, most: Quantity) -> Option<String> {
        let given = |amounts: &Amounts| amounts.get(name).copied().filter(|amount| !amount.is_zero());
        let why = match (given(&self.requests), given(&self.limits)) {
            (None, _) => "no request is specified or request is 0".to_owned(),
            (_, None) => "no limit is specified or limit is 0".to_owned(),
            (Some(request), Some(limit)) => {
                let ratio = limit.as_f64() / request.as_f64();
                if ratio <= most.as_f64() {
                    return None;
                }
                format!("provided ratio is {ratio:.6}")
            }
        };
        Some(format!("{name} max limit to request ratio per {} is {most}, but {why}", self.of))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn range(limit: Value) -> Object {
        Object::try_from(json!({"spec": {"limits": [limit]}})).unwrap()
    }

    fn pod(resources: Value) -> Object {
        Object::try_from(json!({"spec": {"containers": [{"name": "c", "resources": resources}]}})).unwrap()
    }

    #[test]
    fn defaults_fill_what_is_not_said() {
        let range = range(json!({"type": "Container", "defaultRequest": {"cpu": "100m", "memory": "1Mi"},
            "default": {"cpu": "200m"}}));
        let mut pod = pod(json!({"requests": {"cpu": "50m"}}));
        set_defaults(&range, &mut pod);
        assert_eq!(
            pod.pointer("/spec/containers/0/resources").unwrap(),
            &json!({"requests": {"cpu": "50m", "memory": "1Mi"}, "limits": {"cpu": "200m"}})
        );
        let note = "LimitRanger plugin set: memory request for container c; cpu limit for container c";
        assert_eq!(pod.annotation(ANNOTATION), Some(note));
    }

    #[test]
    fn objections_are_upstreams() {
        for (limit, resources, expected) in [
            (
                json!({"type": "Container", "min": {"cpu": "1"}}),
                json!({"requests": {"cpu": "500m"}}),
                vec!["minimum cpu usage per Container is 1, but request is 500m"],
            ),
            (
                json!({"type": "Container", "max": {"memory": "1Gi"}}),
                json!({}),
                vec!["maximum memory usage per Container is 1Gi.  No limit is specified"],
            ),
            (
                json!({"type": "Pod", "max": {"cpu": "1"}}),
                json!({"limits": {"cpu": "2"}}),
                vec!["maximum cpu usage per Pod is 1, but limit is 2"],
            ),
            (
                json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}}),
                json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "250m"}}),
                vec!["cpu max limit to request ratio per Container is 2, but provided ratio is 2.500000"],
            ),
            (json!({"type": "Container", "max": {"cpu": "1"}}), json!({"limits": {"cpu": "1"}}), vec![]),
        ] {
            assert_eq!(objections_to_pod(&range(limit), &pod(resources)), expected);
        }
        let claim = Object::try_from(json!({"spec": {"resources": {"requests": {"storage": "5Gi"}}}})).unwrap();
        let range = range(json!({"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}}));
        let expected = ["maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 5Gi"];
        assert_eq!(objections_to_claim(&range, &claim), expected);
    }
}
