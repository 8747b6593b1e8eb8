//! An Endpoints object made by hand, for a Service without a selector, is mirrored in EndpointSlices: they are what is read.
//!
//! Endpoints with the label `endpointslice.kubernetes.io/skip-mirror`, and those of the API server itself (`kubernetes`), are left alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kminik_client::{Informer, Next, ObjectKey, WorkQueue};
use kube::ResourceExt;
use kube::api::DeleteParams;

use crate::context::Context;
use crate::endpoint_slice::slices::{Ports, plan};
use crate::endpoint_slice::{MANAGED_BY, SERVICE_NAME};
use crate::error::Error;
use crate::owners::controller_reference;

const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Addresses of a subset that are mirrored at most.
const PER_SUBSET: usize = 1000;
const BY_SERVICE: &str = "mirror of";

struct Controller {
    context: Context,
    endpoints: Informer<Endpoints>,
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
}

pub(crate) async fn run(context: Context) -> Result<(), Error> {
    let controller = Arc::new(Controller {
        endpoints: context.informers.get(),
        services: context.informers.get(),
        slices: context.informers.get(),
        context: context.clone(),
    });
    controller.slices.add_index(BY_SERVICE, |slice| mirrored(slice).map(|key| key.to_string()).into_iter().collect());
    let queue = WorkQueue::new();
    let _subscriptions = [
        controller.endpoints.enqueue(&queue),
        controller.services.enqueue(&queue),
        controller.slices.enqueue_with(&queue, |slice, keys| keys.extend(mirrored(slice))),
    ];
    let synced = [
        controller.endpoints.wait_synced().boxed(),
        controller.services.wait_synced().boxed(),
        controller.slices.wait_synced().boxed(),
    ];
    let worker = controller.clone();
    context.work(queue, 1, synced, move |key| reconcile(worker.clone(), key)).await
}

/// What a slice of ours mirrors.
fn mirrored(slice: &EndpointSlice) -> Option<ObjectKey> {
    let ours = slice.labels().get(MANAGED_BY).is_some_and(|manager| manager == MANAGER);
    Some(ObjectKey::new(slice.namespace()?, slice.labels().get(SERVICE_NAME)?.clone())).filter(|_| ours)
}

async fn reconcile(controller: Arc<Controller>, key: ObjectKey) -> Result<Next, Error> {
    let Controller { context, endpoints, services, slices } = controller.as_ref();
    let existing = slices.by_index(BY_SERVICE, &key.to_string());
    let source = endpoints.get(&key).filter(|endpoints| {
        let labels = endpoints.labels();
        labels.get(SKIP).is_none_or(|skip| skip != "true")
            && !labels.contains_key("endpoints.kubernetes.io/managed-by")
            && !endpoints.annotations().contains_key(LEADER)
            && endpoints.metadata.deletion_timestamp.is_none()
    });
    let by_hand = services.get(&key).is_some_and(|service| {
        service.spec.as_ref().is_none_or(|spec| spec.selector.as_ref().is_none_or(BTreeMap::is_empty))
    });
    let Some(source) = source.filter(|_| by_hand) else {
        for slice in existing {
            context.delete(&key, slices, slice.as_ref(), DeleteParams::default()).await?;
        }
        return Ok(Next::Done);
    };
    let mut labels = source.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.into(), key.name.clone());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    for family in ["IPv4", "IPv6"] {
        let desired = desired(source.subsets.as_deref().unwrap_or_default(), family);
        let mut own: Vec<_> = existing.iter().filter(|slice| slice.address_type == family).cloned().collect();
        if desired.is_empty() {
            // Unlike a Service's own, a mirror of nothing is nothing.
            for slice in own.drain(..) {
                context.delete(&key, slices, slice.as_ref(), DeleteParams::default()).await?;
            }
            continue;
        }
        let changes = plan(&desired, own, family);
        for mut slice in changes.create {
            slice.metadata = ObjectMeta {
                generate_name: Some(format!("{}-", key.name)),
                namespace: Some(key.namespace.clone()),
                labels: Some(labels.clone()),
                owner_references: Some(vec![controller_reference(source.as_ref())]),
                ..ObjectMeta::default()
            };
            context.create(&key, slices, &slice).await?;
        }
        for (old, mut new) in changes.keep {
            new.metadata.labels = Some(labels.clone());
            context.update(&key, slices, &old, &new).await?;
        }
        for slice in changes.delete {
            context.delete(&key, slices, slice.as_ref(), DeleteParams::default()).await?;
        }
    }
    Ok(Next::Done)
}

fn desired(subsets: &[EndpointSubset], family: &str) -> BTreeMap<Ports, Vec<Endpoint>> {
    let mut desired: BTreeMap<Ports, Vec<Endpoint>> = BTreeMap::new();
    for subset in subsets {
        let ports = subset.ports.iter().flatten().map(|port| EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(port.port),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
            app_protocol: port.app_protocol.clone(),
        });
        let ready = subset.addresses.iter().flatten().map(|address| endpoint(address, true));
        let others = subset.not_ready_addresses.iter().flatten().map(|address| endpoint(address, false));
        let of_family =
            |endpoint: &Endpoint| endpoint.addresses.iter().all(|address| address.contains(':') == (family == "IPv6"));
        let endpoints: Vec<_> = ready.chain(others).filter(of_family).take(PER_SUBSET).collect();
        if !endpoints.is_empty() {
            desired.entry(Ports(ports.collect())).or_default().extend(endpoints);
        }
    }
    desired
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}
