//! Fields of features that are not there yet: upstream's gates that are off in Kubernetes 1.35. A write drops them, unless the stored
//! object uses the feature already.

use serde_json::Value;

use crate::Object;
use crate::gvk::Gvk;

/// A gate's fields below one place of an object.
struct Gate {
    /// What a new object may have of it.
    asked: &'static [&'static str],
    /// What a stored object that uses it has.
    used: &'static [&'static str],
    dropped: &'static [&'static str],
}

/// The gates of one kind: by the place below which their fields are.
struct Kind {
    group: &'static str,
    kind: &'static str,
    places: &'static [(&'static str, &'static [Gate])],
}

/// Fields are paths of members; `*` is every element of a list or map, and a member with `?` goes if nothing else is in it. The gate's
/// name, as upstream's `--feature-gates` has it, says what a row is there for.
const fn gate(_name: &str, fields: &'static [&'static str]) -> Gate {
    Gate { asked: fields, used: fields, dropped: fields }
}

impl Gate {
    const fn used(self, used: &'static [&'static str]) -> Self {
        Self { used, ..self }
    }

    const fn dropped(self, dropped: &'static [&'static str]) -> Self {
        Self { dropped, ..self }
    }
}

const fn kind(group: &'static str, kind: &'static str, places: &'static [(&'static str, &'static [Gate])]) -> Kind {
    Kind { group, kind, places }
}

const POD_SPEC: &[Gate] = &[
    gate("ClusterTrustBundleProjection", &["volumes/*/projected/sources/*/clusterTrustBundle"]),
    gate(
        "ContainerStopSignals",
        &[
            "containers/*/lifecycle?/stopSignal",
            "initContainers/*/lifecycle?/stopSignal",
            "ephemeralContainers/*/lifecycle?/stopSignal",
        ],
    ),
    gate("GenericWorkload", &["workloadRef"]),
    gate("PodCertificateRequest", &["volumes/*/projected/sources/*/podCertificate"]),
];

const HEALTH: &[&str] = &[
    "containerStatuses/*/allocatedResourcesStatus",
    "initContainerStatuses/*/allocatedResourcesStatus",
    "ephemeralContainerStatuses/*/allocatedResourcesStatus",
];

const POD_STATUS: &[Gate] = &[
    gate("DRAExtendedResource", &["extendedResourceClaimStatus"]),
    gate("InPlacePodLevelResourcesVerticalScaling", &["resources", "allocatedResources"]),
    gate("ResourceHealthStatus", HEALTH).used(&[]),
];

const VOLUME_CLAIM: &[Gate] = &[gate("CrossNamespaceVolumeDataSource", &["dataSourceRef/namespace"])
    .used(&["dataSourceRef"])
    .dropped(&["dataSourceRef"])];

const DEVICE_CLAIM: &[Gate] = &[
    gate(
        "DRAConsumableCapacity",
        &[
            "devices/constraints/*/distinctAttribute",
            "devices/requests/*/exactly/capacity",
            "devices/requests/*/firstAvailable/*/capacity",
        ],
    ),
    gate(
        "DRADeviceTaints",
        &["devices/requests/*/exactly/tolerations", "devices/requests/*/firstAvailable/*/tolerations"],
    ),
];

const DEVICE_CLAIM_STATUS: &[Gate] = &[
    gate(
        "DRAConsumableCapacity",
        &["allocation/devices/results/*/consumedCapacity", "allocation/devices/results/*/shareID", "devices/*/shareID"],
    ),
    gate(
        "DRADeviceBindingConditions",
        &["allocation/devices/results/*/bindingConditions", "allocation/devices/results/*/bindingFailureConditions"],
    ),
];

const SLICE: &[Gate] = &[
    gate("DRAConsumableCapacity", &["devices/*/allowMultipleAllocations", "devices/*/capacity/*/requestPolicy"]),
    gate(
        "DRADeviceBindingConditions",
        &["devices/*/bindingConditions", "devices/*/bindingFailureConditions", "devices/*/bindsToNode"],
    ),
    gate("DRADeviceTaints", &["devices/*/taints"]),
    gate(
        "DRAPartitionableDevices",
        &[
            "sharedCounters",
            "perDeviceNodeSelection",
            "devices/*/consumesCounters",
            "devices/*/nodeName",
            "devices/*/nodeSelector",
            "devices/*/allNodes",
        ],
    ),
];

const DEFINITION: &[Gate] =
    &[gate("CRDObservedGenerationTracking", &["observedGeneration", "conditions/*/observedGeneration"])];

/// A lease's fields are each by themselves.
const LEASE: &[Gate] =
    &[gate("CoordinatedLeaderElection", &["strategy"]), gate("CoordinatedLeaderElection", &["preferredHolder"])];

const TEMPLATE: &[(&str, &[Gate])] = &[("spec/template/spec", POD_SPEC)];

const KINDS: &[Kind] = &[
    kind("", "Pod", &[("spec", POD_SPEC), ("status", POD_STATUS)]),
    kind("", "PodTemplate", &[("template/spec", POD_SPEC)]),
    kind("", "ReplicationController", TEMPLATE),
    kind("apps", "DaemonSet", TEMPLATE),
    kind("apps", "Deployment", TEMPLATE),
    kind("apps", "ReplicaSet", TEMPLATE),
    kind("apps", "StatefulSet", TEMPLATE),
    kind("batch", "Job", TEMPLATE),
    kind("batch", "CronJob", &[("spec/jobTemplate/spec/template/spec", POD_SPEC)]),
    kind("", "Node", &[("status", &[gate("NodeDeclaredFeatures", &["declaredFeatures"])])]),
    kind("", "PersistentVolumeClaim", &[("spec", VOLUME_CLAIM)]),
    kind("apiextensions.k8s.io", "CustomResourceDefinition", &[("status", DEFINITION)]),
    kind("coordination.k8s.io", "Lease", &[("spec", LEASE)]),
    kind("resource.k8s.io", "DeviceClass", &[("spec", &[gate("DRAExtendedResource", &["extendedResourceName"])])]),
    kind("resource.k8s.io", "ResourceClaim", &[("spec", DEVICE_CLAIM), ("status", DEVICE_CLAIM_STATUS)]),
    kind("resource.k8s.io", "ResourceClaimTemplate", &[("spec/spec", DEVICE_CLAIM)]),
    kind("resource.k8s.io", "ResourceSlice", &[("spec", SLICE)]),
];

/// Removes from an object that is about to be written the fields of features that are off. `old` is what is stored; both are in the
/// stored version and in normal form.
pub fn drop_disabled(gvk: &Gvk, old: Option<&Object>, new: &mut Object) {
    let Some(row) = KINDS.iter().find(|row| row.kind == gvk.kind && row.group == gvk.group) else { return };
    for (place, gates) in row.places {
        let place: Vec<&str> = place.split('/').collect();
        let before = old.and_then(|old| old.get(&place));
        let Some(now) = new.get_mut(&place) else { continue };
        for gate in *gates {
            let in_use = || before.is_some_and(|before| gate.used.iter().any(|path| has(before, path)));
            if gate.asked.iter().any(|path| has(now, path)) && !in_use() {
                gate.dropped.iter().for_each(|path| remove(now, path));
            }
        }
    }
}

/// Whether there is something at a path.
fn has(value: &Value, path: &str) -> bool {
    match path.split_once('/') {
        None => match value.get(path) {
            None | Some(Value::Null) => false,
            Some(Value::String(text)) => !text.is_empty(),
            Some(Value::Array(items)) => !items.is_empty(),
            Some(_) => true,
        },
        Some(("*", rest)) => match value {
            Value::Array(items) => items.iter().any(|item| has(item, rest)),
            Value::Object(members) => members.values().any(|member| has(member, rest)),
            _ => false,
        },
        Some((name, rest)) => value.get(name.trim_end_matches('?')).is_some_and(|value| has(value, rest)),
    }
}

fn remove(value: &mut Value, path: &str) {
    match (path.split_once('/'), value) {
        (None, Value::Object(members)) => drop(members.remove(path)),
        (Some(("*", rest)), Value::Array(items)) => items.iter_mut().for_each(|item| remove(item, rest)),
        (Some(("*", rest)), Value::Object(members)) => members.values_mut().for_each(|member| remove(member, rest)),
        (Some((name, rest)), Value::Object(members)) => {
            let bare = name.trim_end_matches('?');
            let Some(member) = members.get_mut(bare).filter(|member| has(member, rest)) else { return };
            remove(member, rest);
            if bare != name && member.as_object().is_some_and(serde_json::Map::is_empty) {
                members.remove(bare);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::{self, Schema, Shape};

    /// The schema at a path of the table's form.
    fn follow<'a>(schema: &'a Schema, path: &str) -> Option<&'a Schema> {
        path.split('/').try_fold(schema, |schema, name| match (&schema.shape, name) {
            (Shape::List { item, .. }, "*") => Some(item.get()),
            (Shape::Map { value, .. }, "*") => Some(value.get()),
            (Shape::Struct { .. }, name) => schema.field(name.trim_end_matches('?')).map(|field| field.schema()),
            _ => None,
        })
    }

    #[test]
    fn every_field_is_there() {
        for row in KINDS {
            let gvk = Gvk::new(row.group, "v1", row.kind);
            let root = schema::lookup(&gvk).unwrap();
            for (place, gates) in row.places {
                let place = follow(root, place).unwrap();
                for gate in *gates {
                    for path in gate.asked.iter().chain(gate.used).chain(gate.dropped) {
                        assert!(follow(place, path).is_some(), "{} has no {path}", row.kind);
                    }
                }
            }
        }
    }

    fn dropped(gvk: &Gvk, old: Option<Value>, new: Value) -> Value {
        let old = old.map(|old| Object::try_from(old).unwrap());
        let mut new = Object::try_from(new).unwrap();
        drop_disabled(gvk, old.as_ref(), &mut new);
        new.to_value()
    }

    #[test]
    fn fields_go_unless_the_stored_object_uses_their_feature() {
        let pod = Gvk::new("", "v1", "Pod");
        let with = json!({"spec": {"workloadRef": {"name": "w", "podGroup": "g"}, "containers": [
            {"name": "a", "lifecycle": {"stopSignal": "SIGINT"}},
            {"name": "b", "lifecycle": {"stopSignal": "SIGINT", "preStop": {"sleep": {"seconds": 1}}}},
            {"name": "c", "lifecycle": {}}]}});
        let without = json!({"spec": {"containers": [
            {"name": "a"}, {"name": "b", "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}, {"name": "c", "lifecycle": {}}]}});
        assert_eq!(dropped(&pod, None, with.clone()), without);
        assert_eq!(dropped(&pod, Some(without), with.clone())["spec"]["workloadRef"], Value::Null);
        assert_eq!(dropped(&pod, Some(with.clone()), with.clone()), with);
        // One gate's use keeps nothing of another's.
        let signals = json!({"spec": {"initContainers": [{"name": "i", "lifecycle": {"stopSignal": "SIGINT"}}]}});
        let kept = dropped(&pod, Some(signals), with);
        assert_eq!(kept["spec"]["workloadRef"], Value::Null);
        assert_eq!(kept["spec"]["containers"][0]["lifecycle"]["stopSignal"], "SIGINT");

        let health =
            json!({"status": {"containerStatuses": [{"name": "a", "allocatedResourcesStatus": [{"name": "r"}]}]}});
        let bare = json!({"status": {"containerStatuses": [{"name": "a"}]}});
        assert_eq!(dropped(&pod, Some(health.clone()), health), bare);
    }

    #[test]
    fn a_source_in_another_namespace_goes_whole() {
        let claim = Gvk::new("", "v1", "PersistentVolumeClaim");
        let own = json!({"spec": {"dataSourceRef": {"kind": "PersistentVolumeClaim", "name": "a"}}});
        let other =
            json!({"spec": {"dataSourceRef": {"kind": "PersistentVolumeClaim", "name": "a", "namespace": "b"}}});
        assert_eq!(dropped(&claim, None, own.clone()), own);
        assert_eq!(dropped(&claim, None, other.clone()), json!({"spec": {}}));
        assert_eq!(dropped(&claim, Some(own), other.clone()), other);
    }
}
