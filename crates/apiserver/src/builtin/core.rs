//! The core group.

use std::time::Duration;

use crate::auth::token_request::TokenRequest;
use crate::registry::def::{NameRule, ResourceDef};

/// Events are kept so long after they were last written.
const EVENT_TTL: Duration = Duration::from_secs(3600);

pub(super) fn rows() -> Vec<ResourceDef> {
    vec![
        ResourceDef::new("", "v1", "configmaps", "ConfigMap").short(&["cm"]),
        ResourceDef::new("", "v1", "endpoints", "Endpoints")
            .short(&["ep"])
            .policy(|policy| policy.create_on_update = true),
        events(),
        ResourceDef::new("", "v1", "namespaces", "Namespace")
            .cluster()
            .short(&["ns"])
            .with_status()
            .selectable(&["status.phase"])
            .policy(|policy| policy.names = NameRule::Label),
        ResourceDef::new("", "v1", "nodes", "Node").cluster().short(&["no"]).with_status().selectable_as(
            "spec.unschedulable",
            "spec.unschedulable",
            "false",
        ),
        ResourceDef::new("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
            .short(&["pvc"])
            .with_status()
            .policy(|policy| policy.returns_deleted = true),
        ResourceDef::new("", "v1", "persistentvolumes", "PersistentVolume")
            .cluster()
            .short(&["pv"])
            .with_status()
            .policy(|policy| policy.returns_deleted = true),
        ResourceDef::new("", "v1", "pods", "Pod")
            .short(&["po"])
            .in_all()
            .with_status()
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
        ResourceDef::new("", "v1", "secrets", "Secret").selectable(&["type"]),
        ResourceDef::new("", "v1", "serviceaccounts", "ServiceAccount")
            .short(&["sa"])
            .with_action("token", TokenRequest)
            .policy(|policy| policy.returns_deleted = true),
        ResourceDef::new("", "v1", "services", "Service")
            .short(&["svc"])
            .in_all()
            .with_status()
            .selectable(&["spec.clusterIP", "spec.type"])
            .policy(|policy| {
                policy.create_on_update = true;
                policy.names = NameRule::Label1035;
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
