//! Every Service with a selector has EndpointSlices: where its pods are reached, and in which state they are.
//!
//! A pod is an endpoint from when it has an address until it has ended. `serving` is its readiness, `terminating` whether it is being
//! deleted, `ready` both together (or always, if the Service publishes addresses that are not ready). Pods whose named ports resolve
//! alike share slices of at most 100 endpoints; [`slices`] moves as few endpoints between slices as it can. A Service without endpoints has
//! one empty slice per address family.

pub(crate) mod slices;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use k8s_openapi::api::core::v1::{Container, Node, ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kminik_client::{Informer, Next, ObjectKey, WorkQueue};
use kube::ResourceExt;
use kube::api::DeleteParams;

use crate::context::Context;
use crate::error::Error;
use crate::owners::controller_reference;
use crate::pod_control::reason;
use crate::pods::{is_ready, is_terminal, is_terminating, node_of};
use slices::{Ports, plan};

pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub(crate) const HEADLESS: &str = "service.kubernetes.io/headless";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const BY_SERVICE: &str = "service";
const WORKERS: usize = 5;

struct Controller {
    context: Context,
    services: Informer<Service>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    slices: Informer<EndpointSlice>,
}

pub(crate) async fn run(context: Context) -> Result<(), Error> {
    let controller = Arc::new(Controller {
        services: context.informers.get(),
        pods: context.informers.get(),
        nodes: context.informers.get(),
        slices: context.informers.get(),
        context: context.clone(),
    });
    controller.slices.add_index(BY_SERVICE, |slice| {
        let ours = slice.labels().get(MANAGED_BY).is_some_and(|manager| manager == MANAGER);
        service_of(slice).filter(|_| ours).map(|key| key.to_string()).into_iter().collect()
    });
    let queue = WorkQueue::new();
    let services = controller.services.clone();
    let _subscriptions = [
        controller.services.enqueue(&queue),
        controller.slices.enqueue_with(&queue, |slice, keys| {
            if slice.labels().get(MANAGED_BY).is_some_and(|manager| manager == MANAGER) {
                keys.extend(service_of(slice));
            }
        }),
        controller.pods.enqueue_with(&queue, move |pod, keys| push_selecting_services(&services, pod, keys)),
    ];
    let synced = [
        controller.services.wait_synced().boxed(),
        controller.pods.wait_synced().boxed(),
        controller.nodes.wait_synced().boxed(),
        controller.slices.wait_synced().boxed(),
    ];
    let worker = controller.clone();
    context.work(queue, WORKERS, synced, move |key| reconcile(worker.clone(), key)).await
}

/// Pushes the Services of a pod's namespace whose selector admits the pod.
pub(crate) fn push_selecting_services(services: &Informer<Service>, pod: &Pod, keys: &mut Vec<ObjectKey>) {
    for service in services.list_in(pod.metadata.namespace.as_deref().unwrap_or_default()) {
        if selects(&service, pod) {
            keys.push(ObjectKey::of(service.as_ref()));
        }
    }
}

/// The Service's selector admits the pod. No selector admits nothing.
pub(crate) fn selects(service: &Service, pod: &Pod) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| {
        !selector.is_empty() && selector.iter().all(|(name, value)| pod.labels().get(name) == Some(value))
    })
}

fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    Some(ObjectKey::new(slice.namespace()?, slice.labels().get(SERVICE_NAME)?.clone()))
}

async fn reconcile(controller: Arc<Controller>, key: ObjectKey) -> Result<Next, Error> {
    let Controller { context, slices, .. } = controller.as_ref();
    let existing = slices.by_index(BY_SERVICE, &key.to_string());
    let service = controller.services.get(&key).filter(|service| {
        let spec = service.spec.as_ref();
        service.metadata.deletion_timestamp.is_none()
            && spec.is_some_and(|spec| spec.selector.as_ref().is_some_and(|selector| !selector.is_empty()))
            && spec.and_then(|spec| spec.type_.as_deref()) != Some("ExternalName")
    });
    let Some(service) = service else {
        // Slices of a deleted Service go with their owner; those of one that lost its selector stay, as upstream leaves them.
        return Ok(Next::Done);
    };
    let families = families(&service);
    let mut changes = slices::Changes::default();
    for slice in existing.iter().filter(|slice| !families.contains(&slice.address_type.as_str())) {
        changes.delete.push(slice.clone());
    }
    let pods: Vec<_> = controller.pods.list_in(&key.namespace);
    for family in families {
        let desired = desired(&controller, &service, &pods, family);
        let existing = existing.iter().filter(|slice| slice.address_type == family).cloned();
        changes.merge(plan(&desired, existing.collect(), family));
    }
    let result = write(&controller, &key, &service, changes).await;
    if let Err(error) = &result
        && !error.is_terminating()
    {
        let message =
            format!("Error updating Endpoint Slices for Service {}/{}: {}", key.namespace, key.name, reason(error));
        context.recorder.warning(service.as_ref(), "FailedToUpdateEndpointSlices", message);
    }
    match result {
        Err(error) if !error.is_terminating() => Err(error),
        _ => Ok(Next::Done),
    }
}

async fn write(
    controller: &Controller,
    key: &ObjectKey,
    service: &Service,
    changes: slices::Changes,
) -> Result<(), Error> {
    let Controller { context, slices, .. } = controller;
    let labels = labels(service);
    for mut slice in changes.create {
        slice.metadata = ObjectMeta {
            generate_name: Some(format!("{}-", key.name)),
            namespace: Some(key.namespace.clone()),
            labels: Some(labels.clone()),
            owner_references: Some(vec![controller_reference(service)]),
            ..ObjectMeta::default()
        };
        context.create(key, slices, &slice).await?;
    }
    for (old, mut new) in changes.keep {
        new.metadata.labels = Some(labels.clone());
        context.update(key, slices, &old, &new).await?;
    }
    for slice in changes.delete {
        context.delete(key, slices, slice.as_ref(), DeleteParams::default()).await?;
    }
    Ok(())
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    labels.insert(SERVICE_NAME.into(), service.name_any());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels
}

/// The Service has no address of its own.
pub(crate) fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

/// Address types that the Service's slices have.
fn families(service: &Service) -> Vec<&'static str> {
    let families = service.spec.as_ref().and_then(|spec| spec.ip_families.as_ref());
    let names: Vec<_> =
        families.into_iter().flatten().map(|family| if family == "IPv6" { "IPv6" } else { "IPv4" }).collect();
    if names.is_empty() { vec!["IPv4"] } else { names }
}

/// Endpoints of one address family by their ports.
fn desired(
    controller: &Controller,
    service: &Service,
    pods: &[Arc<Pod>],
    family: &str,
) -> BTreeMap<Ports, Vec<Endpoint>> {
    let mut desired: BTreeMap<Ports, Vec<Endpoint>> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| selects(service, pod) && !is_terminal(pod)) {
        let addresses: Vec<String> =
            addresses(pod).into_iter().filter(|address| address.contains(':') == (family == "IPv6")).collect();
        if addresses.is_empty() {
            continue;
        }
        let node = controller.nodes.get(&ObjectKey::cluster(node_of(pod)));
        let zone = node.and_then(|node| node.labels().get("topology.kubernetes.io/zone").cloned());
        let endpoint = endpoint(service, pod, addresses, zone);
        desired.entry(Ports(ports(service, pod))).or_default().push(endpoint);
    }
    desired
}

/// All addresses of a pod.
pub(crate) fn addresses(pod: &Pod) -> Vec<String> {
    let Some(status) = &pod.status else { return Vec::new() };
    let all: Vec<String> = status.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect();
    if all.is_empty() { status.pod_ip.iter().filter(|ip| !ip.is_empty()).cloned().collect() } else { all }
}

fn endpoint(service: &Service, pod: &Pod, addresses: Vec<String>, zone: Option<String>) -> Endpoint {
    let spec = service.spec.as_ref();
    let publish = spec.and_then(|spec| spec.publish_not_ready_addresses).unwrap_or(false);
    let (serving, terminating) = (is_ready(pod), is_terminating(pod));
    Endpoint {
        addresses,
        conditions: Some(EndpointConditions {
            ready: Some(publish || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname_in(service, pod),
        node_name: Some(node_of(pod).to_string()).filter(|name| !name.is_empty()),
        target_ref: Some(target(pod)),
        zone,
        ..Endpoint::default()
    }
}

/// The name by which DNS serves the pod under the Service, if it has one.
pub(crate) fn hostname_in(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let of_service = spec.subdomain.as_deref() == service.metadata.name.as_deref();
    spec.hostname.clone().filter(|name| of_service && !name.is_empty())
}

/// What an endpoint says of its pod.
pub(crate) fn target(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: pod.namespace(),
        name: pod.metadata.name.clone(),
        uid: pod.uid(),
        ..ObjectReference::default()
    }
}

/// The Service's ports as this pod serves them; ports that it does not have are left out.
fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    let ports = ports.into_iter().flatten().filter_map(|port| {
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(target_port(port, pod)?),
            protocol: Some(protocol(port).to_string()),
            app_protocol: port.app_protocol.clone(),
        })
    });
    ports.collect()
}

/// A Service port's protocol.
pub(crate) fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

/// The port of the pod that a Service port leads to. `None` if it is named and no container has it.
pub(crate) fn target_port(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let sidecars = spec.init_containers.iter().flatten().filter(|container| is_sidecar(container));
            let declared =
                spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
            declared
                .filter(|own| own.protocol.as_deref().unwrap_or("TCP") == protocol(port))
                .find(|own| own.name.as_ref() == Some(name))
                .map(|own| own.container_port)
        }
    }
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(value: serde_json::Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "s", "namespace": "n"}, "spec": value})).unwrap()
    }

    fn pod(value: serde_json::Value) -> Pod {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn named_ports_are_looked_up_in_each_pod() {
        let service = service(json!({"ports": [
            {"name": "web", "port": 80, "targetPort": "http"}, {"name": "raw", "port": 90}, {"name": "none", "port": 1, "targetPort": "absent"},
        ]}));
        let pod = pod(json!({"metadata": {}, "spec": {"containers": [
            {"name": "a", "ports": [{"name": "http", "containerPort": 8080}, {"name": "http", "containerPort": 53, "protocol": "UDP"}]},
        ]}}));
        let found: Vec<_> =
            ports(&service, &pod).into_iter().map(|port| (port.name.unwrap(), port.port.unwrap())).collect();
        assert_eq!(found, [("web".to_string(), 8080), ("raw".to_string(), 90)]);
    }

    #[test]
    fn a_terminating_pod_serves_but_is_not_ready() {
        let pod = pod(json!({
            "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"containers": []},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }));
        let of = |service: Service| endpoint(&service, &pod, vec!["10.0.0.1".into()], None).conditions.unwrap();
        let conditions = of(service(json!({})));
        let all = (conditions.ready, conditions.serving, conditions.terminating);
        assert_eq!(all, (Some(false), Some(true), Some(true)));
        assert_eq!(of(service(json!({"publishNotReadyAddresses": true}))).ready, Some(true));
    }
}
