//! The core group.

use std::sync::Arc;
use std::time::Duration;

use kminik_meta::apply::Resets;

use crate::auth::token_request::TokenRequest;
use crate::connect::{Attach, Exec, Log, NodeProxy, PodProxy, PortForward, ServiceProxy};
use crate::registry::def::{Propagation, ResourceDef, Scope, Verb};
use crate::strategies::components::ComponentStatuses;
use crate::strategies::namespaces::{Finalize, Namespaces};
use crate::strategies::nodes::Nodes;
use crate::strategies::pods::{Binding, Bindings, EphemeralContainers, Eviction, PodStatus, Pods, Resize};
use crate::strategies::secrets::Secrets;
use crate::strategies::service_accounts::ServiceAccounts;
use crate::strategies::services::{Pools, Services};
use crate::strategies::volumes::{Claims, VolumeStatus, Volumes};

/// Events are kept so long after they were last written.
const EVENT_TTL: Duration = Duration::from_secs(3600);

/// What the doors to a pod leave as it was.
const POD_RESETS: &[(&str, Resets<'static>)] = &[
    ("status", Resets::Fields(&[&["spec"], &["metadata", "deletionTimestamp"], &["metadata", "ownerReferences"]])),
    ("ephemeralcontainers", Resets::AllBut(&[&["spec", "ephemeralContainers"]])),
    (
        "resize",
        Resets::AllBut(&[
            &["spec", "containers", "*", "resources"],
            &["spec", "containers", "*", "resizePolicy"],
            &["spec", "initContainers", "*", "resources"],
            &["spec", "initContainers", "*", "resizePolicy"],
        ]),
    ),
];

pub(super) fn rows(pools: &Arc<Pools>) -> Vec<ResourceDef> {
    let mut bindings = ResourceDef::answering("", "v1", "bindings", "Binding", Arc::new(Bindings));
    bindings.scope = Scope::Namespaced;
    vec![
        bindings,
        ResourceDef::new("", "v1", "componentstatuses", "ComponentStatus")
            .cluster()
            .short(&["cs"])
            .computed(&[Verb::Get, Verb::List], ComponentStatuses)
            .deprecated("v1 ComponentStatus is deprecated in v1.19+"),
        ResourceDef::new("", "v1", "configmaps", "ConfigMap").short(&["cm"]),
        ResourceDef::new("", "v1", "endpoints", "Endpoints")
            .short(&["ep"])
            .deprecated("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
            .policy(|policy| policy.create_on_update = true),
        events(),
        ResourceDef::new("", "v1", "limitranges", "LimitRange").short(&["limits"]),
        ResourceDef::new("", "v1", "namespaces", "Namespace")
            .cluster()
            .short(&["ns"])
            .without(Verb::DeleteCollection)
            .strategy(Namespaces)
            .with_status()
            .with_action("finalize", Finalize)
            .selectable(&["status.phase"]),
        ResourceDef::new("", "v1", "nodes", "Node")
            .cluster()
            .short(&["no"])
            .strategy(Nodes)
            .with_status()
            .with_connect("proxy", NodeProxy)
            .selectable_as("spec.unschedulable", "spec.unschedulable", "false"),
        ResourceDef::new("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
            .short(&["pvc"])
            .strategy(Claims)
            .with_status()
            .policy(|policy| policy.returns_deleted = true),
        ResourceDef::new("", "v1", "persistentvolumes", "PersistentVolume")
            .cluster()
            .short(&["pv"])
            .strategy(Volumes)
            .with_view("status", VolumeStatus)
            .policy(|policy| policy.returns_deleted = true),
        ResourceDef::new("", "v1", "pods", "Pod")
            .short(&["po"])
            .in_all()
            .strategy(Pods)
            .with_view("status", PodStatus)
            .policy(|policy| policy.resets = POD_RESETS)
            .with_view("ephemeralcontainers", EphemeralContainers)
            .with_view("resize", Resize)
            .with_action("binding", Binding)
            .with_action("eviction", Eviction)
            .with_connect("attach", Attach)
            .with_connect("exec", Exec)
            .with_connect("log", Log)
            .with_connect("portforward", PortForward)
            .with_connect("proxy", PodProxy)
            .selectable(&[
                "spec.nodeName",
                "spec.restartPolicy",
                "spec.schedulerName",
                "spec.serviceAccountName",
                "status.phase",
                "status.podIP",
                "status.nominatedNodeName",
            ])
            .selectable_as("spec.hostNetwork", "spec.hostNetwork", "false")
            .policy(|policy| {
                policy.generation = true;
                policy.returns_deleted = true;
            }),
        ResourceDef::new("", "v1", "podtemplates", "PodTemplate").policy(|policy| {
            policy.generation = true;
            policy.returns_deleted = true;
        }),
        ResourceDef::new("", "v1", "replicationcontrollers", "ReplicationController")
            .short(&["rc"])
            .in_all()
            .with_status()
            .with_scale()
            .selectable_as("status.replicas", "status.replicas", "0")
            .policy(|policy| {
                policy.generation = true;
                policy.propagation = Propagation::Orphan;
            }),
        ResourceDef::new("", "v1", "resourcequotas", "ResourceQuota")
            .short(&["quota"])
            .with_status()
            .policy(|policy| policy.returns_deleted = true),
        ResourceDef::new("", "v1", "secrets", "Secret").strategy(Secrets).selectable(&["type"]),
        ResourceDef::new("", "v1", "serviceaccounts", "ServiceAccount")
            .short(&["sa"])
            .strategy(ServiceAccounts)
            .with_action("token", TokenRequest)
            .policy(|policy| policy.returns_deleted = true),
        ResourceDef::new("", "v1", "services", "Service")
            .short(&["svc"])
            .in_all()
            .strategy(Services { pools: pools.clone() })
            .with_status()
            .with_connect("proxy", ServiceProxy)
            .selectable(&["spec.clusterIP", "spec.type"])
            .policy(|policy| {
                policy.create_on_update = true;
                policy.returns_deleted = true;
            }),
    ]
}

/// Events as the core group shows them, which is how they are stored.
pub(super) fn events() -> ResourceDef {
    ResourceDef::new("", "v1", "events", "Event")
        .short(&["ev"])
        .expiring(EVENT_TTL)
        .selectable(&[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "type",
        ])
        .selectable_as("source", "source.component", "")
        .policy(|policy| policy.create_on_update = true)
}
