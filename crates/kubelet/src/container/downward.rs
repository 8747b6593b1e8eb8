//! What a pod may know of itself: fieldRef and resourceFieldRef.

use k8s_openapi::api::core::v1::{ObjectFieldSelector, ResourceFieldSelector};
use kminik_meta::field::quote;

use super::quantity;
use crate::pods::view::PodView;

/// Addresses as they are when the value is read, and what the node has for pods without limits.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    pub node_name: String,
    pub host_ips: Vec<String>,
    pub pod_ips: Vec<String>,
    pub allocatable_milli_cpu: i64,
    pub allocatable_memory_bytes: i64,
    pub allocatable_storage_bytes: i64,
}

/// A reference that names nothing.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum DownwardError {
    #[error("unsupported fieldPath: {0}")]
    Field(String),
    #[error("container {0} not found")]
    Container(String),
    #[error("unsupported container resource : {0}")]
    Resource(String),
}

/// The value of a fieldRef.
pub(crate) fn field(
    selector: &ObjectFieldSelector,
    view: &PodView,
    around: &Surroundings,
) -> Result<String, DownwardError> {
    let meta = &view.pod.metadata;
    let path = selector.field_path.as_str();
    if let Some((map, key)) = path.strip_suffix("']").and_then(|p| p.split_once("['")) {
        let values = match map {
            "metadata.labels" => meta.labels.as_ref(),
            "metadata.annotations" => meta.annotations.as_ref(),
            _ => return Err(DownwardError::Field(path.to_string())),
        };
        return Ok(values.and_then(|v| v.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => view.name.clone(),
        "metadata.namespace" => view.namespace.clone(),
        "metadata.uid" => view.uid.clone(),
        "metadata.labels" => formatted_map(meta.labels.as_ref()),
        "metadata.annotations" => formatted_map(meta.annotations.as_ref()),
        "spec.nodeName" => around.node_name.clone(),
        "spec.serviceAccountName" => view.spec().service_account_name.clone().unwrap_or_default(),
        "status.hostIP" => around.host_ips.first().cloned().unwrap_or_default(),
        "status.hostIPs" => around.host_ips.join(","),
        "status.podIP" => around.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => around.pod_ips.join(","),
        _ => return Err(DownwardError::Field(path.to_string())),
    })
}

/// `key="value"` lines, as in downward API volumes.
fn formatted_map(map: Option<&std::collections::BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map.into_iter().flatten().map(|(key, value)| format!("{key}={}", quote(value))).collect();
    lines.join("\n")
}

/// The value of a resourceFieldRef; `own` is the container it stands in, used when it names none.
pub(crate) fn resource(
    selector: &ResourceFieldSelector,
    view: &PodView,
    own: Option<&str>,
    around: &Surroundings,
) -> Result<String, DownwardError> {
    let name = selector.container_name.as_deref().filter(|n| !n.is_empty()).or(own).unwrap_or_default();
    let container = view.container(name).ok_or_else(|| DownwardError::Container(name.to_string()))?;
    let resources = container.spec.resources.as_ref();
    let Some((list, resource)) = selector.resource.split_once('.') else {
        return Err(DownwardError::Resource(selector.resource.clone()));
    };
    let map = match list {
        "limits" => resources.and_then(|r| r.limits.as_ref()),
        "requests" => resources.and_then(|r| r.requests.as_ref()),
        _ => return Err(DownwardError::Resource(selector.resource.clone())),
    };
    let given = quantity::of(map, resource);
    // A container without a limit may use what the node has.
    let unlimited = |amount: i64| if list == "limits" { amount } else { 0 };
    let positive = |amount: i64, fallback: i64| if amount > 0 { amount } else { unlimited(fallback) };
    if resource == "cpu" {
        let amount = positive(given.map_or(0, quantity::milli), around.allocatable_milli_cpu);
        let divisor = selector.divisor.as_ref().map(quantity::milli).filter(|d| *d > 0).unwrap_or(1000);
        return Ok(divided(amount, divisor));
    }
    let fallback = match resource {
        "memory" => around.allocatable_memory_bytes,
        "ephemeral-storage" => around.allocatable_storage_bytes,
        name if name.starts_with("hugepages-") => 0,
        _ => return Err(DownwardError::Resource(selector.resource.clone())),
    };
    let amount = positive(given.map_or(0, quantity::value), fallback);
    let divisor = selector.divisor.as_ref().map(quantity::value).filter(|d| *d > 0).unwrap_or(1);
    Ok(divided(amount, divisor))
}

fn divided(amount: i64, divisor: i64) -> String {
    (amount / divisor + i64::from(amount % divisor != 0)).to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn view() -> PodView {
        let pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"b": "2", "a": "x\"y\n"}},
            "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "1250m", "memory": "32Mi"}}}, {"name": "d"}]}
        }));
        PodView::new(Arc::new(pod.unwrap()))
    }

    #[test]
    fn fields() {
        let around = Surroundings { pod_ips: vec!["10.0.0.1".into(), "fd::1".into()], ..Surroundings::default() };
        let get =
            |path: &str| field(&ObjectFieldSelector { api_version: None, field_path: path.into() }, &view(), &around);
        assert_eq!(get("metadata.labels['b']").unwrap(), "2");
        assert_eq!(get("metadata.labels").unwrap(), "a=\"x\\\"y\\n\"\nb=\"2\"");
        assert_eq!(get("status.podIPs").unwrap(), "10.0.0.1,fd::1");
        assert!(get("spec.nothing").is_err());
    }

    #[test]
    fn resources_round_up_and_fall_back_to_the_node() {
        let around =
            Surroundings { allocatable_milli_cpu: 2000, allocatable_memory_bytes: 1 << 30, ..Default::default() };
        let get = |resource: &str, divisor: Option<&str>, own: &str| {
            let divisor = divisor.map(|d| k8s_openapi::apimachinery::pkg::api::resource::Quantity(d.into()));
            let selector = ResourceFieldSelector { container_name: None, divisor, resource: resource.into() };
            super::resource(&selector, &view(), Some(own), &around).unwrap()
        };
        assert_eq!(get("limits.cpu", None, "c"), "2");
        assert_eq!(get("limits.cpu", Some("1m"), "c"), "1250");
        assert_eq!(get("limits.memory", Some("1Mi"), "c"), "32");
        assert_eq!(get("limits.cpu", None, "d"), "2");
        assert_eq!(get("limits.memory", None, "d"), (1 << 30).to_string());
        assert_eq!(get("requests.memory", None, "d"), "0");
    }
}
