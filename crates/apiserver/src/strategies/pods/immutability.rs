//! What of a pod's spec may change once it exists: images, the deadline, more tolerations, fewer gates.

use kminik_meta::{ErrorList, FieldError, Object, Path};
use serde_json::{Map, Value};

const MESSAGE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
                       `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to \
                       existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
                       previously negative)";

pub(super) fn check(old: &Object, new: &Object) -> ErrorList {
    let mut errors = ErrorList::new();
    let spec = Path::new("spec");
    for list in ["containers", "initContainers"] {
        let (before, after) = (old.array(&["spec", list]), new.array(&["spec", list]));
        if before.len() != after.len() {
            errors.push(FieldError::forbidden(&spec.child(list), "pod updates may not add or remove containers"));
            return errors;
        }
        for (index, container) in after.iter().enumerate() {
            if container.get("image").and_then(Value::as_str).unwrap_or_default().is_empty() {
                errors.push(FieldError::required(&spec.child(list).index(index).child("image"), ""));
            }
        }
    }
    deadline(old, new, &mut errors);
    tolerations(old, new, &mut errors);
    gates(old, new, &mut errors);
    let (before, after) = (fixed_part(old, old), fixed_part(new, old));
    if before != after {
        let changed = changed_fields(&before, &after);
        errors.push(FieldError::forbidden(&spec, format!("{MESSAGE}\n{}", changed.join("\n"))));
    }
    errors
}

/// A deadline can be set or come nearer.
fn deadline(old: &Object, new: &Object, errors: &mut ErrorList) {
    let seconds = |object: &Object| object.i64(&["spec", "activeDeadlineSeconds"]);
    let path = Path::new("spec").child("activeDeadlineSeconds");
    match (seconds(old), seconds(new)) {
        (Some(before), Some(after)) if after > before => {
            let detail = "must be less than or equal to previous value";
            errors.push(FieldError::invalid(&path, after, detail));
        }
        (Some(_), None) => {
            errors.push(FieldError::invalid(
                &path,
                Value::Null,
                "must not update from a positive integer to nil value",
            ));
        }
        _ => {}
    }
}

fn tolerations(old: &Object, new: &Object, errors: &mut ErrorList) {
    // How long a taint is tolerated may change; everything else of a toleration stays.
    let key = |toleration: &Value| {
        let mut toleration = toleration.as_object().cloned().unwrap_or_default();
        toleration.remove("tolerationSeconds");
        toleration
    };
    let kept: Vec<Map<String, Value>> = new.array(&["spec", "tolerations"]).iter().map(key).collect();
    if old.array(&["spec", "tolerations"]).iter().all(|toleration| kept.contains(&key(toleration))) {
        return;
    }
    let detail = "existing toleration can not be modified except its tolerationSeconds";
    errors.push(FieldError::forbidden(&Path::new("spec").child("tolerations"), detail));
}

fn gates(old: &Object, new: &Object, errors: &mut ErrorList) {
    let before = old.array(&["spec", "schedulingGates"]);
    let path = Path::new("spec").child("schedulingGates");
    for (index, gate) in new.array(&["spec", "schedulingGates"]).iter().enumerate() {
        if !before.contains(gate) {
            let detail = format!("only deletion is allowed, but found new scheduling gate {:?}", gate["name"]);
            errors.push(FieldError::forbidden(&path.index(index), detail));
        }
    }
}

/// The spec without all that may change in it. `old` tells what else may change by its state.
fn fixed_part(pod: &Object, old: &Object) -> Map<String, Value> {
    let mut spec = pod.get(&["spec"]).and_then(Value::as_object).cloned().unwrap_or_default();
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        spec.remove(field);
    }
    if old.i64(&["spec", "terminationGracePeriodSeconds"]).is_some_and(|seconds| seconds < 0)
        && pod.i64(&["spec", "terminationGracePeriodSeconds"]).is_none_or(|seconds| seconds == 1 || seconds < 0)
    {
        spec.remove("terminationGracePeriodSeconds");
    }
    // A pod behind gates has not been looked at by a scheduler: its node selection may still be narrowed.
    if !old.array(&["spec", "schedulingGates"]).is_empty() {
        spec.remove("nodeSelector");
        spec.remove("affinity");
    }
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(container) = container.as_object_mut() {
                container.remove("image");
            }
        }
    }
    spec
}

fn changed_fields(before: &Map<String, Value>, after: &Map<String, Value>) -> Vec<String> {
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort();
    names.dedup();
    let text = |value: Option<&Value>| value.map_or_else(|| "<absent>".to_owned(), Value::to_string);
    names
        .into_iter()
        .filter(|name| before.get(*name) != after.get(*name))
        .map(|name| format!("{name}: {} -> {}", text(before.get(name)), text(after.get(name))))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn errors(change: impl Fn(&mut Object)) -> String {
        let old = Object::try_from(json!({"spec": {
            "containers": [{"name": "a", "image": "x", "command": ["c"]}], "nodeName": "n",
            "activeDeadlineSeconds": 10, "tolerations": [{"key": "k", "operator": "Exists"}]}}))
        .unwrap();
        let mut new = old.clone();
        change(&mut new);
        let errors = check(&old, &new);
        if errors.is_empty() { String::new() } else { errors.to_string() }
    }

    #[test]
    fn only_few_fields_change() {
        assert_eq!(errors(|_| {}), "");
        assert_eq!(errors(|pod| *pod.pointer_mut("/spec/containers/0/image").unwrap() = json!("y")), "");
        assert_eq!(errors(|pod| pod.set(&["spec", "activeDeadlineSeconds"], 5)), "");
        let more = json!([{"key": "k", "operator": "Exists", "tolerationSeconds": 3}, {"key": "l"}]);
        assert_eq!(errors(|pod| pod.set(&["spec", "tolerations"], more.clone())), "");
        assert!(errors(|pod| pod.set(&["spec", "activeDeadlineSeconds"], 11)).contains("less than or equal"));
        assert!(errors(|pod| pod.set(&["spec", "tolerations"], json!([]))).contains("can not be modified"));
        assert!(errors(|pod| pod.set(&["spec", "hostname"], "h")).contains("may not change fields other than"));
        assert!(errors(|pod| pod.set(&["spec", "containers"], json!([]))).contains("may not add or remove containers"));
        let emptied = errors(|pod| *pod.pointer_mut("/spec/containers/0/image").unwrap() = json!(""));
        assert!(emptied.contains("spec.containers[0].image: Required value"), "{emptied}");
    }
}
