//! Defaults of the core group.

use serde_json::{Map, Value, json};

use super::{Row, Rule, is_empty, set_absent, text};
use crate::path::object_at;

pub(super) const ROWS: &[Row] = &[
    ("core.v1.Container", "terminationMessagePath", r#""/dev/termination-log""#),
    ("core.v1.Container", "terminationMessagePolicy", r#""File""#),
    ("core.v1.EphemeralContainer", "terminationMessagePath", r#""/dev/termination-log""#),
    ("core.v1.EphemeralContainer", "terminationMessagePolicy", r#""File""#),
    ("core.v1.PodSpec", "dnsPolicy", r#""ClusterFirst""#),
    ("core.v1.PodSpec", "restartPolicy", r#""Always""#),
    ("core.v1.PodSpec", "securityContext", "{}"),
    ("core.v1.PodSpec", "terminationGracePeriodSeconds", "30"),
    ("core.v1.PodSpec", "schedulerName", r#""default-scheduler""#),
    ("core.v1.Probe", "timeoutSeconds", "1"),
    ("core.v1.Probe", "periodSeconds", "10"),
    ("core.v1.Probe", "successThreshold", "1"),
    ("core.v1.Probe", "failureThreshold", "3"),
    ("core.v1.GRPCAction", "service", r#""""#),
    ("core.v1.HTTPGetAction", "path", r#""/""#),
    ("core.v1.HTTPGetAction", "scheme", r#""HTTP""#),
    ("core.v1.SecretVolumeSource", "defaultMode", "420"),
    ("core.v1.ConfigMapVolumeSource", "defaultMode", "420"),
    ("core.v1.DownwardAPIVolumeSource", "defaultMode", "420"),
    ("core.v1.ProjectedVolumeSource", "defaultMode", "420"),
    ("core.v1.ServiceAccountTokenProjection", "expirationSeconds", "3600"),
    ("core.v1.ObjectFieldSelector", "apiVersion", r#""v1""#),
    ("core.v1.HostPathVolumeSource", "type", r#""""#),
    ("core.v1.Secret", "type", r#""Opaque""#),
    ("core.v1.PersistentVolumeStatus", "phase", r#""Pending""#),
    ("core.v1.PersistentVolumeSpec", "persistentVolumeReclaimPolicy", r#""Retain""#),
    ("core.v1.PersistentVolumeSpec", "volumeMode", r#""Filesystem""#),
    ("core.v1.PersistentVolumeClaimStatus", "phase", r#""Pending""#),
    ("core.v1.PersistentVolumeClaimSpec", "volumeMode", r#""Filesystem""#),
    ("core.v1.EndpointPort", "protocol", r#""TCP""#),
    ("core.v1.ServiceSpec", "sessionAffinity", r#""None""#),
    ("core.v1.ServiceSpec", "type", r#""ClusterIP""#),
    ("core.v1.ServicePort", "protocol", r#""TCP""#),
    ("core.v1.NamespaceStatus", "phase", r#""Active""#),
];

pub(super) const RULES: &[Rule] = &[
    ("core.v1.Container", pull_policy),
    ("core.v1.EphemeralContainer", pull_policy),
    ("core.v1.ImageVolumeSource", image_volume),
    ("core.v1.Volume", volume),
    ("core.v1.Pod", pod),
    ("core.v1.ServicePort", target_port),
    ("core.v1.ServiceSpec", service),
    ("core.v1.Service", load_balancer_status),
    ("core.v1.Namespace", namespace),
    ("core.v1.NodeStatus", allocatable),
    ("core.v1.ReplicationController", replication_controller),
    ("core.v1.LimitRangeItem", limit_range_item),
];

/// Always for `latest`, named or meant; otherwise IfNotPresent. A digest without a tag is no `latest`.
fn policy_of(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let last = name.rsplit('/').next().unwrap_or_default();
    match (last.split_once(':'), digest) {
        (Some((_, "latest")), _) | (None, None) => "Always",
        _ => "IfNotPresent",
    }
}

fn pull_policy(container: &mut Map<String, Value>) {
    let policy = policy_of(text(container, "image"));
    set_absent(container, "imagePullPolicy", policy);
}

fn image_volume(image: &mut Map<String, Value>) {
    let policy = policy_of(text(image, "reference"));
    set_absent(image, "pullPolicy", policy);
}

/// A volume without a source is an empty directory.
fn volume(volume: &mut Map<String, Value>) {
    if volume.keys().all(|member| member == "name") {
        volume.insert("emptyDir".into(), json!({}));
    }
}

fn pod(pod: &mut Map<String, Value>) {
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return };
    set_absent(spec, "enableServiceLinks", true);
    let host_network = spec.get("hostNetwork").and_then(Value::as_bool).unwrap_or_default();
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            requests_from_limits(container);
            if host_network {
                host_ports(container);
            }
        }
    }
    pod_level_requests(spec);
}

/// A limit without a request is the request too.
fn requests_from_limits(container: &mut Value) {
    let Some(resources) = container.get_mut("resources").and_then(Value::as_object_mut) else { return };
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else { return };
    let requests = object_at(resources, "requests");
    for (name, amount) in limits {
        requests.entry(name).or_insert(amount);
    }
}

/// On the host's network a container port is a host port.
fn host_ports(container: &mut Value) {
    for port in container.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        let number = port.get("containerPort").cloned();
        if let (Some(port), Some(number)) = (port.as_object_mut(), number) {
            set_absent(port, "hostPort", number);
        }
    }
}

/// Limits of the pod as a whole are its requests where neither it nor a container asks for the resource.
fn pod_level_requests(spec: &mut Map<String, Value>) {
    let asked: Vec<String> = spec
        .get("containers")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|c| c.get("resources")?.get("requests")?.as_object())
        .flat_map(|requests| requests.keys().cloned())
        .collect();
    let Some(resources) = spec.get_mut("resources").and_then(Value::as_object_mut) else { return };
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else { return };
    for (name, amount) in limits.into_iter().filter(|(name, _)| !asked.contains(name)) {
        object_at(resources, "requests").entry(name).or_insert(amount);
    }
}

fn target_port(port: &mut Map<String, Value>) {
    let unset = match port.get("targetPort") {
        None | Some(Value::Null) => true,
        Some(Value::String(name)) => name.is_empty(),
        Some(number) => number.as_i64() == Some(0),
    };
    if unset && let Some(number) = port.get("port").cloned() {
        port.insert("targetPort".into(), number);
    }
}

fn service(spec: &mut Map<String, Value>) {
    if text(spec, "sessionAffinity") == "ClientIP" {
        let set = spec.get("sessionAffinityConfig").and_then(|c| c.get("clientIP")?.get("timeoutSeconds"));
        if set.is_none() {
            spec.insert("sessionAffinityConfig".into(), json!({"clientIP": {"timeoutSeconds": 10_800}}));
        }
    } else if text(spec, "sessionAffinity") == "None" {
        spec.remove("sessionAffinityConfig");
    }
    let kind = text(spec, "type").to_owned();
    let outside =
        matches!(kind.as_str(), "NodePort" | "LoadBalancer") || (kind == "ClusterIP" && !is_empty(spec, "externalIPs"));
    if outside {
        set_absent(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind != "ExternalName" {
        set_absent(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        set_absent(spec, "allocateLoadBalancerNodePorts", true);
    }
}

fn load_balancer_status(service: &mut Map<String, Value>) {
    if service.get("spec").and_then(|s| s.get("type")).and_then(Value::as_str) != Some("LoadBalancer") {
        return;
    }
    let entries = service.get_mut("status").and_then(|s| s.get_mut("loadBalancer")?.get_mut("ingress")?.as_array_mut());
    for entry in entries.into_iter().flatten().filter_map(Value::as_object_mut) {
        if !text(entry, "ip").is_empty() {
            set_absent(entry, "ipMode", "VIP");
        }
    }
}

/// Every namespace carries its name as a label.
fn namespace(namespace: &mut Map<String, Value>) {
    let metadata = object_at(namespace, "metadata");
    let name = text(metadata, "name").to_owned();
    if !name.is_empty() {
        object_at(metadata, "labels").insert("kubernetes.io/metadata.name".into(), name.into());
    }
}

fn allocatable(status: &mut Map<String, Value>) {
    if let Some(capacity) = status.get("capacity").cloned() {
        set_absent(status, "allocatable", capacity);
    }
}

fn replication_controller(controller: &mut Map<String, Value>) {
    let template = controller.get("spec").and_then(|s| s.get("template"));
    let Some(labels) = template.and_then(|t| t.get("metadata")?.get("labels")).cloned() else { return };
    let spec = object_at(controller, "spec");
    if is_empty(spec, "selector") {
        spec.insert("selector".into(), labels.clone());
    }
    let metadata = object_at(controller, "metadata");
    if is_empty(metadata, "labels") {
        metadata.insert("labels".into(), labels);
    }
}

/// For containers: `max` is the default limit, a default limit the default request, `min` the default request of last resort.
fn limit_range_item(item: &mut Map<String, Value>) {
    if text(item, "type") != "Container" {
        return;
    }
    for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
        let amounts = item.get(from).and_then(Value::as_object).cloned().unwrap_or_default();
        let target = object_at(item, to);
        for (name, amount) in amounts {
            target.entry(name).or_insert(amount);
        }
    }
    for member in ["default", "defaultRequest"] {
        if is_empty(item, member) {
            item.remove(member);
        }
    }
}
