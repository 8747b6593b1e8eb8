//! Every Service with a selector has an Endpoints object of its name: the older form of what EndpointSlices tell.
//!
//! Pods being deleted are left out (unless the Service publishes addresses that are not ready), at most 1000 addresses are kept, and
//! addresses with the same ports share a subset. An Endpoints object of a Service without a selector belongs to its author.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kminik_client::{Informer, Next, ObjectKey, WorkQueue};
use kube::ResourceExt;
use kube::api::DeleteParams;

use crate::context::Context;
use crate::endpoint_slice::{
    HEADLESS, addresses, hostname_in, is_headless, protocol, push_selecting_services, selects, target, target_port,
};
use crate::error::Error;
use crate::pods::{is_ready, is_terminal, is_terminating, node_of};

/// Addresses that an object holds at most, as upstream.
const CAPACITY: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED_BY: (&str, &str) = ("endpoints.kubernetes.io/managed-by", "endpoint-controller");
const WORKERS: usize = 2;

struct Controller {
    context: Context,
    services: Informer<Service>,
    pods: Informer<Pod>,
    endpoints: Informer<Endpoints>,
}

pub(crate) async fn run(context: Context) -> Result<(), Error> {
    let controller = Arc::new(Controller {
        services: context.informers.get(),
        pods: context.informers.get(),
        endpoints: context.informers.get(),
        context: context.clone(),
    });
    let queue = WorkQueue::new();
    let services = controller.services.clone();
    let _subscriptions = [
        controller.services.enqueue(&queue),
        controller.endpoints.enqueue(&queue),
        controller.pods.enqueue_with(&queue, move |pod, keys| push_selecting_services(&services, pod, keys)),
    ];
    let synced = [
        controller.services.wait_synced().boxed(),
        controller.pods.wait_synced().boxed(),
        controller.endpoints.wait_synced().boxed(),
    ];
    let worker = controller.clone();
    context.work(queue, WORKERS, synced, move |key| reconcile(worker.clone(), key)).await
}

async fn reconcile(controller: Arc<Controller>, key: ObjectKey) -> Result<Next, Error> {
    let Controller { context, services, pods, endpoints } = controller.as_ref();
    let existing = endpoints.get(&key);
    let Some(service) = services.get(&key) else {
        // What this controller made goes with its Service; what a person made without one stays.
        if let Some(existing) =
            existing.filter(|existing| existing.labels().get(MANAGED_BY.0).is_some_and(|by| by == MANAGED_BY.1))
        {
            context.delete(&key, endpoints, existing.as_ref(), DeleteParams::default()).await?;
        }
        return Ok(Next::Done);
    };
    let spec = service.spec.as_ref();
    let has_selector = spec.is_some_and(|spec| spec.selector.as_ref().is_some_and(|selector| !selector.is_empty()));
    let external = spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName");
    if !has_selector || external || service.metadata.deletion_timestamp.is_some() {
        return Ok(Next::Done);
    }
    let (subsets, over) = subsets(&service, &pods.list_in(&key.namespace));
    let mut wanted = match &existing {
        Some(existing) => existing.as_ref().clone(),
        None => Endpoints {
            metadata: ObjectMeta {
                name: Some(key.name.clone()),
                namespace: Some(key.namespace.clone()),
                ..ObjectMeta::default()
            },
            ..Endpoints::default()
        },
    };
    wanted.subsets = Some(subsets).filter(|subsets| !subsets.is_empty());
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.0.into(), MANAGED_BY.1.into());
    labels.remove(HEADLESS);
    if is_headless(&service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    wanted.metadata.labels = Some(labels);
    let annotations = wanted.metadata.annotations.get_or_insert_default();
    match over {
        true => annotations.insert(OVER_CAPACITY.into(), "truncated".into()),
        false => annotations.remove(OVER_CAPACITY),
    };
    if annotations.is_empty() {
        wanted.metadata.annotations = None;
    }
    let written = match &existing {
        Some(existing) => context.update(&key, endpoints, existing, &wanted).await.map(|_| ()),
        None => context.create(&key, endpoints, &wanted).await.map(|_| ()),
    };
    match written {
        Err(error) if !error.is_terminating() => Err(error),
        _ => Ok(Next::Done),
    }
}

/// Name, number, protocol and application protocol: what tells subsets apart.
type Ports = Vec<(Option<String>, i32, String, Option<String>)>;

/// The subsets of a Service, and whether addresses had to be left out.
fn subsets(service: &Service, pods: &[Arc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    let spec = service.spec.as_ref();
    let publish = spec.and_then(|spec| spec.publish_not_ready_addresses).unwrap_or(false);
    let family = spec.and_then(|spec| spec.ip_families.as_ref()?.first().cloned());
    let six = family.as_deref() == Some("IPv6");
    let mut by_ports: BTreeMap<Ports, (Vec<EndpointAddress>, Vec<EndpointAddress>)> = BTreeMap::new();
    let mut members: Vec<_> = pods.iter().filter(|pod| selects(service, pod) && !is_terminal(pod)).collect();
    // Where not all fit, those that serve stay.
    members.sort_by_key(|pod| !is_ready(pod));
    let (mut kept, mut over) = (0, false);
    for pod in members {
        let address = addresses(pod).into_iter().find(|address| address.contains(':') == six);
        let Some(ip) = address.filter(|_| publish || !is_terminating(pod)) else { continue };
        if kept == CAPACITY {
            over = true;
            break;
        }
        kept += 1;
        let ports = spec.and_then(|spec| spec.ports.as_ref()).into_iter().flatten().filter_map(|port| {
            let name = port.name.clone().filter(|name| !name.is_empty());
            Some((name, target_port(port, pod)?, protocol(port).to_string(), port.app_protocol.clone()))
        });
        let address = EndpointAddress {
            ip,
            node_name: Some(node_of(pod).to_string()).filter(|node| !node.is_empty()),
            hostname: hostname_in(service, pod),
            target_ref: Some(target(pod)),
        };
        let subset = by_ports.entry(ports.collect()).or_default();
        if publish || is_ready(pod) { subset.0.push(address) } else { subset.1.push(address) }
    }
    let some = |mut addresses: Vec<EndpointAddress>| {
        addresses.sort_by(|a, b| a.ip.cmp(&b.ip));
        Some(addresses).filter(|addresses| !addresses.is_empty())
    };
    let subsets = by_ports.into_iter().map(|(ports, (ready, not_ready))| EndpointSubset {
        addresses: some(ready),
        not_ready_addresses: some(not_ready),
        ports: Some(
            ports
                .into_iter()
                .map(|(name, port, protocol, app_protocol)| EndpointPort {
                    name,
                    port,
                    protocol: Some(protocol),
                    app_protocol,
                })
                .collect(),
        ),
    });
    (subsets.collect(), over)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_are_grouped_by_ports_and_readiness() {
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": "s"},
            "spec": {"selector": {"a": "b"}, "ports": [{"port": 80, "targetPort": "web"}]},
        }))
        .unwrap();
        let pod = |ip: &str, port: i32, ready: &str, deleted: Option<&str>| -> Arc<Pod> {
            let value = json!({
                "metadata": {"labels": {"a": "b"}, "deletionTimestamp": deleted},
                "spec": {"containers": [{"name": "c", "ports": [{"name": "web", "containerPort": port}]}]},
                "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": ready}]},
            });
            Arc::new(serde_json::from_value(value).unwrap())
        };
        let pods = [
            pod("10.0.0.2", 8080, "True", None),
            pod("10.0.0.1", 8080, "False", None),
            pod("10.0.0.3", 9090, "True", None),
            pod("10.0.0.4", 8080, "True", Some("2026-01-01T00:00:00Z")),
        ];
        let (subsets, over) = subsets(&service, &pods);
        let ips = |addresses: &Option<Vec<EndpointAddress>>| -> Vec<String> {
            addresses.iter().flatten().map(|address| address.ip.clone()).collect()
        };
        assert!(!over);
        assert_eq!(subsets.len(), 2);
        assert_eq!(
            (ips(&subsets[0].addresses), ips(&subsets[0].not_ready_addresses)),
            (vec!["10.0.0.2".into()], vec!["10.0.0.1".into()])
        );
        assert_eq!(subsets[1].ports.as_ref().unwrap()[0].port, 9090);
    }
}
