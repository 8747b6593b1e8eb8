//! About what events are told: the pod, or a container of it.

use k8s_openapi::api::core::v1::ObjectReference;

use super::view::{ContainerView, Kind, PodView};

/// The reference of a pod, or of one of its containers.
pub(crate) fn about(view: &PodView, container: Option<&ContainerView>) -> ObjectReference {
    let mut reference = kminik_client::reference(view.pod.as_ref());
    reference.field_path = container.map(|container| {
        let list = match container.kind {
            Kind::Init | Kind::Sidecar => "initContainers",
            Kind::App => "containers",
            Kind::Ephemeral => "ephemeralContainers",
        };
        format!("spec.{list}{{{}}}", container.name())
    });
    reference
}
