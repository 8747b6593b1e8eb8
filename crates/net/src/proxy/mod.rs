//! Service addresses: what is sent to one of a service's addresses reaches one of its endpoints.
//!
//! Follows kube-proxy in its nftables mode: cluster IPs, node ports on every address of the node (loopback too), external and load
//! balancer addresses, client affinity, internal and external traffic policies, draining endpoints when no other is left, refusal
//! without endpoints.
//!
//! Every change of a Service or EndpointSlice leads to a new computation of the whole table from the informers' caches, of which only
//! the difference reaches the kernel. Changes that come while one is being applied are taken together.

mod conntrack;
mod model;
mod rules;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kminik_base::backoff::Backoff;
use kminik_base::component::{BoxError, Component, Ready, chain};
use kminik_client::{Informer, Informers};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::nft::{NftError, Table};
use crate::sysctl;

pub use conntrack::ConntrackError;

#[derive(Clone, Debug)]
pub struct ServiceProxyConfig {
    /// Name of this node, for policies that keep traffic on it.
    pub node_name: String,
    /// All nodes' pod ranges: what comes from them is a pod.
    pub cluster_cidr: Ipv4Net,
}

/// Keeps table `ip kminik-services` of the namespace it runs in. The table stays when it stops, so that services go on
/// while the node's process is replaced.
pub struct ServiceProxy {
    config: ServiceProxyConfig,
    client: kube::Client,
}

impl ServiceProxy {
    /// `client` needs to list and watch Services and EndpointSlices of all namespaces.
    pub fn new(config: ServiceProxyConfig, client: kube::Client) -> Self {
        Self { config, client }
    }
}

impl Component for ServiceProxy {
    fn name(&self) -> &'static str {
        "service-proxy"
    }

    fn run(self: Arc<Self>, stop: CancellationToken, ready: Ready) -> BoxFuture<'static, Result<(), BoxError>> {
        Box::pin(async move {
            // Ends the informers also when this future is dropped.
            let watching = stop.child_token().drop_guard();
            let informers = Informers::new(self.client.clone(), watching.token().clone());
            let services = informers.get::<Service>();
            let slices = informers.get::<EndpointSlice>();
            let changed = Arc::new(Notify::new());
            let notify = |changed: &Arc<Notify>| {
                let changed = changed.clone();
                move || changed.notify_one()
            };
            let (service_changed, slice_changed) = (notify(&changed), notify(&changed));
            let _services = services.subscribe(move |_| service_changed());
            let _slices = slices.subscribe(move |_| slice_changed());
            tokio::select! {
                synced = futures::future::join(services.wait_synced(), slices.wait_synced()) => {
                    if synced != (true, true) {
                        return Ok(());
                    }
                }
                () = stop.cancelled() => return Ok(()),
            }
            // A client on the node's loopback address may be translated to an endpoint on any link.
            sysctl::set("net/ipv4/conf/all/route_localnet", "1")?;
            let applier = Applier { config: &self.config, services, slices, table: Table::open(rules::TABLE)? };
            tokio::select! {
                () = applier.run(&changed, &ready) => {}
                () = stop.cancelled() => {}
            }
            Ok(())
        })
    }
}

struct Applier<'c> {
    config: &'c ServiceProxyConfig,
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    table: Table,
}

/// After an application the applier rests this many times as long as that took, within bounds, so that changes without end
/// leave the core to others.
const REST_FACTOR: u32 = 4;
const REST: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));

impl Applier<'_> {
    async fn run(mut self, changed: &Notify, ready: &Ready) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
        let mut udp = None;
        loop {
            let started = Instant::now();
            match self.apply(&mut udp).await {
                Ok(()) => {
                    ready.set_ready();
                    backoff.reset();
                    tokio::time::sleep((started.elapsed() * REST_FACTOR).clamp(REST.0, REST.1)).await;
                    changed.notified().await;
                }
                Err(error) => {
                    tracing::error!(error = %chain(&error), "service rules cannot be applied");
                    tokio::time::sleep(backoff.next_delay()).await;
                }
            }
        }
    }

    async fn apply(&mut self, udp: &mut Option<conntrack::UdpServices>) -> Result<(), NftError> {
        let ports = model::service_ports(&self.services.list(), &self.slices.list(), &self.config.node_name);
        let applied = self.table.apply(rules::wanted(&ports, self.config.cluster_cidr)).await?;
        if !applied.is_empty() {
            tracing::debug!(
                ports = ports.len(),
                chains = applied.chains,
                elements = applied.elements,
                replaced = applied.replaced,
                "service rules applied"
            );
        }
        let wanted = conntrack::udp_services(&ports);
        if udp.as_ref() != Some(&wanted) {
            match conntrack::flush_stale(&wanted).await {
                Ok(deleted) => {
                    tracing::debug!(deleted, "stale udp connections deleted");
                    *udp = Some(wanted);
                }
                // The rules hold; old UDP clients find their way when their entries expire.
                Err(error) => tracing::warn!(error = %chain(&error), "stale udp connections cannot be deleted"),
            }
        }
        Ok(())
    }
}
