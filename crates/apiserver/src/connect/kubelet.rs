//! Where a node's kubelet is, by the node's status.

use http::HeaderMap;
use kminik_meta::{Object, StatusError};

use super::forward::Target;
use crate::config::Config;
use crate::outbound::{Peer, Place, Security, Trust, Verify};
use crate::registry::Registry;

/// In this order, as upstream's default for clusters of kubeadm.
const ADDRESS_TYPES: [&str; 3] = ["InternalIP", "ExternalIP", "Hostname"];
const DEFAULT_PORT: u16 = 10250;

/// The address and port of a kubelet.
pub(super) struct Kubelet {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Kubelet {
    /// # Errors
    /// 404 for an unknown node, 503 for one that has reported no address.
    pub(super) async fn of_node(registry: &Registry, name: &str) -> Result<Kubelet, StatusError> {
        let node = registry.object("", "nodes", "", name).await?;
        let node = node.ok_or_else(|| StatusError::not_found("", "nodes", name))?;
        let host = address(&node)
            .ok_or_else(|| StatusError::service_unavailable(format!("node {name:?} has not reported an address")))?;
        let port = node.i64(&["status", "daemonEndpoints", "kubeletEndpoint", "Port"]);
        let port = port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0).unwrap_or(DEFAULT_PORT);
        Ok(Kubelet { host, port })
    }

    /// The kubelet as a peer that is verified, and to which this server shows its certificate.
    pub(super) fn peer(&self, config: &Config) -> Peer {
        Peer {
            place: Place::Host { host: self.host.clone(), port: self.port },
            security: Security::Tls(Trust {
                verify: Verify::Bundle(config.kubelet_ca_pem.clone().into()),
                identity: Some(config.kubelet_client.clone()),
            }),
        }
    }

    pub(super) fn target(&self, config: &Config, path: String) -> Target {
        Target { peer: self.peer(config), path, claims: HeaderMap::new() }
    }
}

fn address(node: &Object) -> Option<String> {
    let addresses = node.array(&["status", "addresses"]);
    ADDRESS_TYPES.iter().find_map(|wanted| {
        let found = addresses.iter().find(|address| address.get("type").and_then(|kind| kind.as_str()) == Some(wanted));
        Some(found?.get("address")?.as_str()?.to_owned())
    })
}
