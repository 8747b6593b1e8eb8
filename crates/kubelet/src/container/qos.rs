//! Quality-of-service classes and what follows from them for cgroups.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Class of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Class {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }

    /// The pod's cgroup below the pods cgroup.
    pub(crate) fn cgroup(self, uid: &str) -> String {
        match self {
            Self::Guaranteed => format!("pod{uid}"),
            Self::Burstable => format!("burstable/pod{uid}"),
            Self::BestEffort => format!("besteffort/pod{uid}"),
        }
    }
}

fn positive<'a>(map: Option<&'a BTreeMap<String, Quantity>>, name: &str) -> Option<&'a Quantity> {
    map?.get(name).filter(|q| super::quantity::milli(q) > 0)
}

/// The class of a pod: Guaranteed if every container limits CPU and memory and requests as much, BestEffort if none asks for
/// anything. Pod-level resources, where given, count instead of the containers'.
pub(crate) fn class(spec: &PodSpec) -> Class {
    if let Some(pod) = spec.resources.as_ref().filter(|r| asks(r)) {
        return if guaranteed(pod) { Class::Guaranteed } else { Class::Burstable };
    }
    let mut containers = spec.init_containers.iter().flatten().chain(&spec.containers).map(|c| c.resources.as_ref());
    if containers.clone().all(|r| r.is_none_or(|r| !asks(r))) {
        return Class::BestEffort;
    }
    if containers.all(|r| r.is_some_and(guaranteed)) { Class::Guaranteed } else { Class::Burstable }
}

fn asks(resources: &ResourceRequirements) -> bool {
    let maps = [resources.requests.as_ref(), resources.limits.as_ref()];
    maps.into_iter().any(|map| ["cpu", "memory"].into_iter().any(|name| positive(map, name).is_some()))
}

fn guaranteed(resources: &ResourceRequirements) -> bool {
    ["cpu", "memory"].into_iter().all(|name| {
        let Some(limit) = positive(resources.limits.as_ref(), name) else { return false };
        let request = positive(resources.requests.as_ref(), name).unwrap_or(limit);
        super::quantity::milli(request) == super::quantity::milli(limit)
    })
}
