//! Routes to the pods of other nodes, by way of the nodes' addresses, as Node objects tell them.
//!
//! Our routes carry a protocol number of their own, so that those of nodes that are gone are found also after a restart.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Node;
use kminik_base::backoff::Backoff;
use kminik_base::component::{BoxError, Component, Ready, chain};
use kminik_client::{Informer, Informers};
use nlink::Ipv4Route;
use nlink::netlink::types::route::RouteProtocol;
use nlink::netlink::{Connection, Route};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::link::{LinkError, Links};

/// Keeps routes to every other node's pod range in the namespace it runs in.
pub struct NodeRoutes {
    node_name: String,
    client: kube::Client,
}

impl NodeRoutes {
    /// `client` needs to list and watch Nodes.
    pub fn new(node_name: String, client: kube::Client) -> Self {
        Self { node_name, client }
    }
}

impl Component for NodeRoutes {
    fn name(&self) -> &'static str {
        "node-routes"
    }

    fn run(self: Arc<Self>, stop: CancellationToken, ready: Ready) -> BoxFuture<'static, Result<(), BoxError>> {
        Box::pin(async move {
            // Ends the informer also when this future is dropped.
            let watching = stop.child_token().drop_guard();
            let nodes = Informers::new(self.client.clone(), watching.token().clone()).get::<Node>();
            let changed = Arc::new(Notify::new());
            let notify = changed.clone();
            let _subscription = nodes.subscribe(move |_| notify.notify_one());
            tokio::select! {
                synced = nodes.wait_synced() => if !synced { return Ok(()) },
                () = stop.cancelled() => return Ok(()),
            }
            let links = Links::here()?;
            tokio::select! {
                () = keep(&self.node_name, &nodes, &links, &changed, &ready) => {}
                () = stop.cancelled() => {}
            }
            Ok(())
        })
    }
}

/// Not in use by any routing daemon.
const PROTOCOL: u8 = 107;

/// Destination to gateway.
type Routes = BTreeMap<Ipv4Net, Ipv4Addr>;

async fn keep(node_name: &str, nodes: &Informer<Node>, links: &Links, changed: &Notify, ready: &Ready) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
    let mut set = None;
    loop {
        let wanted = wanted(nodes.list().iter().map(AsRef::as_ref), node_name);
        // Heartbeats change Nodes all the time, routes hardly ever.
        if set.as_ref() != Some(&wanted) {
            if let Err(error) = apply(links.route(), &wanted).await {
                tracing::error!(error = %chain(&error), "routes to nodes cannot be set");
                tokio::time::sleep(backoff.next_delay()).await;
                continue;
            }
            set = Some(wanted);
        }
        backoff.reset();
        ready.set_ready();
        changed.notified().await;
    }
}

fn wanted<'n>(nodes: impl Iterator<Item = &'n Node>, own_name: &str) -> Routes {
    let others = nodes.filter(|node| node.metadata.name.as_deref() != Some(own_name));
    let route = |node: &Node| -> Option<Vec<(Ipv4Net, Ipv4Addr)>> {
        let addresses = node.status.as_ref()?.addresses.as_ref()?;
        let internal = addresses.iter().filter(|address| address.type_ == "InternalIP");
        let gateway = internal.filter_map(|address| address.address.parse().ok()).next()?;
        let spec = node.spec.as_ref()?;
        let ranges = spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr);
        Some(ranges.filter_map(|range| Some((range.parse().ok()?, gateway))).collect())
    };
    others.filter_map(route).flatten().collect()
}

async fn apply(connection: &Connection<Route>, wanted: &Routes) -> Result<(), LinkError> {
    for (destination, gateway) in wanted {
        let route = Ipv4Route::from_addr(destination.network(), destination.prefix_len()).gateway(*gateway);
        let set = connection.replace_route(route.protocol(RouteProtocol::from(PROTOCOL))).await;
        set.map_err(|source| LinkError::Route { destination: *destination, source })?;
    }
    for route in connection.get_routes().await.map_err(LinkError::Routes)? {
        let (Some(IpAddr::V4(address)), Some(IpAddr::V4(gateway))) = (route.destination(), route.gateway()) else {
            continue;
        };
        let Ok(destination) = Ipv4Net::new(*address, route.dst_len()) else { continue };
        if route.protocol() != RouteProtocol::from(PROTOCOL) || wanted.contains_key(&destination) {
            continue;
        }
        // The kernel deletes only what is named in full.
        let stale = Ipv4Route::from_addr(*address, route.dst_len()).gateway(*gateway);
        let gone = connection.del_route_if_exists(stale.protocol(RouteProtocol::from(PROTOCOL))).await;
        gone.map_err(|source| LinkError::Route { destination, source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_route_a_range_of_another_node() {
        let node = |name: &str, address: &str, range: &str| -> Node {
            serde_json::from_value(json!({
                "metadata": {"name": name},
                "spec": {"podCIDR": range, "podCIDRs": [range]},
                "status": {"addresses": [
                    {"type": "Hostname", "address": name}, {"type": "InternalIP", "address": address},
                ]},
            }))
            .unwrap()
        };
        let bare: Node = serde_json::from_value(json!({"metadata": {"name": "new"}})).unwrap();
        let nodes = [node("own", "192.168.49.2", "10.244.0.0/24"), node("two", "192.168.49.3", "10.244.1.0/24"), bare];
        let expected = Routes::from([("10.244.1.0/24".parse().unwrap(), "192.168.49.3".parse().unwrap())]);
        assert_eq!(wanted(nodes.iter(), "own"), expected);
    }
}
