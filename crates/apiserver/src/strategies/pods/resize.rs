//! `pods/resize`: cpu and memory of a running pod's containers.

use kminik_meta::{ErrorList, FieldError, Object, Path};
use serde_json::{Map, Value};

use super::{bump_generation, qos};
use crate::registry::strategy::{Strategy, StrategyContext, copy_member, keep_metadata};

const LISTS: [&str; 2] = ["containers", "initContainers"];
const ONLY_RESOURCES: &str = "only cpu and memory resources are mutable";

pub(crate) struct Resize;

impl Strategy for Resize {
    fn prepare_update(&self, ctx: &StrategyContext<'_>, old: &Object, new: &mut Object) {
        // Containers that come, go or change places are for validation to find.
        if LISTS.iter().all(|list| names(old, list) == names(new, list)) {
            let wanted = new.clone();
            keep_metadata(ctx.row, "resize", old, new);
            copy_member(old, new, "spec");
            copy_member(old, new, "status");
            for list in LISTS {
                let containers = new.get_mut(&["spec", list]).and_then(Value::as_array_mut).into_iter().flatten();
                for (container, source) in containers.zip(wanted.array(&["spec", list])) {
                    let Some(container) = container.as_object_mut() else { continue };
                    for member in ["resources", "resizePolicy"] {
                        match source.get(member) {
                            Some(value) => container.insert(member.into(), value.clone()),
                            None => container.remove(member),
                        };
                    }
                }
            }
        }
        bump_generation(old, new);
    }

    fn validate_update(&self, _ctx: &StrategyContext<'_>, old: &Object, new: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let spec = Path::new("spec");
        for (present, what) in [
            (whole_resources(old), "pods with pod-level resources"),
            (super::is_static(old), "static pods"),
            (old.str(&["spec", "os", "name"]) == Some("windows"), "windows pods"),
        ] {
            if present {
                return FieldError::forbidden(&Path::root(), format!("{what} cannot be resized")).into();
            }
        }
        if qos::class_of(old) != qos::class_of(new) {
            let detail = "Pod QOS Class may not change as a result of resizing";
            errors.push(FieldError::invalid(&spec, qos::class_of(new).as_str(), detail));
        }
        for list in LISTS {
            let (before, after) = (old.array(&["spec", list]), new.array(&["spec", list]));
            if names(old, list) != names(new, list) {
                errors.push(FieldError::forbidden(&spec, ONLY_RESOURCES));
                continue;
            }
            for (index, (before, after)) in before.iter().zip(after).enumerate() {
                let path = spec.child(list).index(index);
                for kind in ["limits", "requests"] {
                    if removes(before, after, kind) {
                        let detail = format!("resource {kind} cannot be removed");
                        errors.push(FieldError::forbidden(&path.children(&["resources", kind]), detail));
                    }
                }
                let policy_changed = before.get("resizePolicy") != after.get("resizePolicy");
                if policy_changed || other_resources(before) != other_resources(after) {
                    errors.push(FieldError::forbidden(&spec, ONLY_RESOURCES));
                }
                let plain_init = list == "initContainers" && after.get("restartPolicy").is_none();
                if plain_init && before.get("resources") != after.get("resources") {
                    let detail = "resources for non-sidecar init containers are immutable";
                    errors.push(FieldError::forbidden(&spec, detail));
                }
            }
        }
        errors
    }
}

fn names<'a>(pod: &'a Object, list: &str) -> Vec<Option<&'a Value>> {
    pod.array(&["spec", list]).iter().map(|container| container.get("name")).collect()
}

fn whole_resources(pod: &Object) -> bool {
    ["limits", "requests"]
        .iter()
        .any(|kind| pod.get(&["spec", "resources", kind]).and_then(Value::as_object).is_some_and(|map| !map.is_empty()))
}

/// Whether a container had an amount of cpu or memory and has none any more.
fn removes(before: &Value, after: &Value, kind: &str) -> bool {
    let amount = |container: &Value, name: &str| container.get("resources")?.get(kind)?.get(name).cloned();
    ["cpu", "memory"].iter().any(|name| amount(before, name).is_some() && amount(after, name).is_none())
}

/// A container's resources without those that can be resized.
fn other_resources(container: &Value) -> Map<String, Value> {
    let mut resources = container.get("resources").and_then(Value::as_object).cloned().unwrap_or_default();
    for kind in ["requests", "limits"] {
        let empty = match resources.get_mut(kind).and_then(Value::as_object_mut) {
            Some(amounts) => {
                amounts.remove("cpu");
                amounts.remove("memory");
                amounts.is_empty()
            }
            None => continue,
        };
        if empty {
            resources.remove(kind);
        }
    }
    resources
}
