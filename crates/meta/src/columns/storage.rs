//! Columns of volumes, claims, devices and classes.

use serde_json::Value;

use super::describe::{UNSET, flag_at, join_or, member, or};
use super::{AGE, Column, KindColumns, NAME, number, text, wide};
use crate::Object;

const VOLUME_MODE: Column =
    wide(text("VolumeMode", "Filesystem or Block.", |o, _| or(o, &["spec", "volumeMode"], UNSET).into()));
const ATTRIBUTES_CLASS: Column = text("VolumeAttributesClass", "Class of mutable attributes.", |o, _| {
    or(o, &["spec", "volumeAttributesClassName"], UNSET).into()
});
const STORAGE_CLASS: Column = text("StorageClass", "Class of the storage.", |o, _| {
    let by_annotation = o.annotation("volume.beta.kubernetes.io/storage-class");
    by_annotation.unwrap_or_else(|| or(o, &["spec", "storageClassName"], "")).into()
});

pub(super) const KINDS: &[KindColumns] = &[
    (
        "",
        "PersistentVolume",
        &[
            NAME,
            text("Capacity", "Size of the volume.", |o, _| or(o, &["spec", "capacity", "storage"], "").into()),
            text("Access Modes", "How it can be mounted.", |o, _| access_modes(o, &["spec", "accessModes"]).into()),
            text("Reclaim Policy", "What becomes of it when its claim goes.", |o, _| {
                or(o, &["spec", "persistentVolumeReclaimPolicy"], "").into()
            }),
            text("Status", "Phase of the volume.", |o, _| phase(o)),
            text("Claim", "Claim it is bound to.", |o, _| match o.get(&["spec", "claimRef"]) {
                Some(claim) => format!("{}/{}", member(claim, "namespace"), member(claim, "name")).into(),
                None => "".into(),
            }),
            STORAGE_CLASS,
            ATTRIBUTES_CLASS,
            text("Reason", "Why it is in this phase.", |o, _| or(o, &["status", "reason"], "").into()),
            AGE,
            VOLUME_MODE,
        ],
    ),
    (
        "",
        "PersistentVolumeClaim",
        &[
            NAME,
            text("Status", "Phase of the claim.", |o, _| phase(o)),
            text("Volume", "Volume it is bound to.", |o, _| or(o, &["spec", "volumeName"], "").into()),
            text("Capacity", "Size of that volume.", |o, _| {
                if o.str(&["spec", "volumeName"]).is_none_or(str::is_empty) {
                    return "".into();
                }
                or(o, &["status", "capacity", "storage"], "").into()
            }),
            text("Access Modes", "How it can be mounted.", |o, _| {
                if o.str(&["spec", "volumeName"]).is_none_or(str::is_empty) {
                    return "".into();
                }
                access_modes(o, &["status", "accessModes"]).into()
            }),
            STORAGE_CLASS,
            ATTRIBUTES_CLASS,
            AGE,
            VOLUME_MODE,
        ],
    ),
    (
        "storage.k8s.io",
        "StorageClass",
        &[
            Column {
                cell: |o, _| {
                    let marked = |key| o.annotation(key) == Some("true");
                    let default = marked("storageclass.kubernetes.io/is-default-class")
                        || marked("storageclass.beta.kubernetes.io/is-default-class");
                    if default { format!("{} (default)", o.name()).into() } else { o.name().into() }
                },
                ..NAME
            },
            text("Provisioner", "Who makes the volumes.", |o, _| or(o, &["provisioner"], "").into()),
            text("ReclaimPolicy", "What becomes of volumes when their claims go.", |o, _| {
                or(o, &["reclaimPolicy"], "Delete").into()
            }),
            text("VolumeBindingMode", "When volumes are bound.", |o, _| {
                or(o, &["volumeBindingMode"], "Immediate").into()
            }),
            text("AllowVolumeExpansion", "Whether claims may grow.", |o, _| {
                o.bool(&["allowVolumeExpansion"]).unwrap_or_default().into()
            }),
            AGE,
        ],
    ),
    (
        "storage.k8s.io",
        "VolumeAttributesClass",
        &[NAME, text("DriverName", "Driver that knows the attributes.", |o, _| or(o, &["driverName"], "").into()), AGE],
    ),
    (
        "storage.k8s.io",
        "VolumeAttachment",
        &[
            NAME,
            text("Attacher", "Driver that attaches.", |o, _| or(o, &["spec", "attacher"], "").into()),
            text("PV", "Volume.", |o, _| or(o, &["spec", "source", "persistentVolumeName"], "").into()),
            text("Node", "Node it is attached to.", |o, _| or(o, &["spec", "nodeName"], "").into()),
            text("Attached", "Whether it is attached.", |o, _| {
                o.bool(&["status", "attached"]).unwrap_or_default().into()
            }),
            AGE,
        ],
    ),
    (
        "storage.k8s.io",
        "CSINode",
        &[NAME, number("Drivers", "Number of drivers.", |o, _| o.array(&["spec", "drivers"]).len().into()), AGE],
    ),
    (
        "storage.k8s.io",
        "CSIDriver",
        &[
            NAME,
            text("AttachRequired", "Whether volumes are attached.", |o, _| flag_at(o, &["spec", "attachRequired"])),
            text("PodInfoOnMount", "Whether it learns of pods.", |o, _| flag_at(o, &["spec", "podInfoOnMount"])),
            text("StorageCapacity", "Whether it tells its capacity.", |o, _| flag_at(o, &["spec", "storageCapacity"])),
            text("TokenRequests", "Audiences of its tokens.", |o, _| {
                let requests = o.array(&["spec", "tokenRequests"]).iter();
                join_or(&requests.map(|r| member(r, "audience")).collect::<Vec<_>>(), ",", UNSET).into()
            }),
            text("RequiresRepublish", "Whether volumes are published again.", |o, _| {
                flag_at(o, &["spec", "requiresRepublish"])
            }),
            text("Modes", "Which volumes it serves.", |o, _| {
                let modes = o.array(&["spec", "volumeLifecycleModes"]).iter();
                join_or(&modes.filter_map(Value::as_str).collect::<Vec<_>>(), ",", "<none>").into()
            }),
            AGE,
        ],
    ),
    (
        "storage.k8s.io",
        "CSIStorageCapacity",
        &[
            NAME,
            text("StorageClassName", "Class the capacity is for.", |o, _| or(o, &["storageClassName"], "").into()),
            text("Capacity", "What is left.", |o, _| or(o, &["capacity"], UNSET).into()),
        ],
    ),
    ("resource.k8s.io", "DeviceClass", NAME_AND_AGE),
    ("resource.k8s.io", "ResourceClaimTemplate", NAME_AND_AGE),
    (
        "resource.k8s.io",
        "ResourceClaim",
        &[NAME, text("State", "Whether devices are allocated and in use.", |o, _| claim_state(o).into()), AGE],
    ),
    (
        "resource.k8s.io",
        "ResourceSlice",
        &[
            NAME,
            text("Node", "Node that has the devices.", |o, _| or(o, &["spec", "nodeName"], UNSET).into()),
            text("Driver", "Driver that offers them.", |o, _| or(o, &["spec", "driver"], "").into()),
            text("Pool", "Pool they belong to.", |o, _| or(o, &["spec", "pool", "name"], "").into()),
            AGE,
        ],
    ),
    (
        "networking.k8s.io",
        "NetworkPolicy",
        &[
            NAME,
            text("Pod-Selector", "Which pods it holds for.", |o, _| {
                super::describe::selector(o.get(&["spec", "podSelector"])).into()
            }),
            AGE,
        ],
    ),
    (
        "node.k8s.io",
        "RuntimeClass",
        &[NAME, text("Handler", "Which runtime it names.", |o, _| or(o, &["handler"], "").into()), AGE],
    ),
    (
        "scheduling.k8s.io",
        "PriorityClass",
        &[
            NAME,
            number("Value", "The priority.", |o, _| o.i64(&["value"]).unwrap_or_default().into()),
            text("Global-Default", "Whether pods without a class get it.", |o, _| {
                o.bool(&["globalDefault"]).unwrap_or_default().into()
            }),
            AGE,
            text("PreemptionPolicy", "Whether it displaces others.", |o, _| or(o, &["preemptionPolicy"], "").into()),
        ],
    ),
];

const NAME_AND_AGE: &[Column] = &[NAME, AGE];

fn claim_state(claim: &Object) -> String {
    let mut states = Vec::new();
    if claim.is_deleting() {
        states.push("deleted");
    }
    if claim.get(&["status", "allocation"]).is_none() {
        if !claim.is_deleting() {
            states.push("pending");
        }
    } else {
        states.push("allocated");
        if !claim.array(&["status", "reservedFor"]).is_empty() {
            states.push("reserved");
        }
    }
    states.join(",")
}

fn phase(object: &Object) -> Value {
    if object.is_deleting() { "Terminating".into() } else { or(object, &["status", "phase"], "").into() }
}

fn access_modes(object: &Object, path: &[&str]) -> String {
    let given: Vec<&str> = object.array(path).iter().filter_map(Value::as_str).collect();
    let known =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let short: Vec<&str> = known.iter().filter(|(long, _)| given.contains(long)).map(|(_, short)| *short).collect();
    short.join(",")
}
