//! What the controllers are told by the process they run in.

use std::sync::Arc;
use std::time::Duration;

use kminik_base::pki::Authority;
use kminik_client::Informers;

/// Configuration of all controllers.
#[derive(Clone)]
pub struct ControllersConfig {
    /// A client that acts as the user of that name, for example `system:serviceaccount:kube-system:replicaset-controller`.
    pub client_for: Arc<dyn Fn(&str) -> kube::Client + Send + Sync>,
    /// The shared informers; upstream reads as `system:kube-controller-manager`.
    pub informers: Informers,
    /// Signs certificates on request; without it nothing is signed.
    pub authority: Option<Arc<Authority>>,
    /// PEM of the certificates by which pods verify the API server (`kube-root-ca.crt`).
    pub root_ca: String,
    /// The first two octets' network of pods: each node gets a /24 of this /16. Default `10.244.0.0`.
    pub pod_network: std::net::Ipv4Addr,
    /// Where nodes have their addresses; kubelets' serving certificates are approved for these only. Default none: no such
    /// request is approved.
    pub node_network: Option<ipnet::Ipv4Net>,
    /// A node whose Lease is older than this is unknown. Upstream's default is 50 s.
    pub node_grace: Duration,
}

impl ControllersConfig {
    /// The defaults of everything but what has none.
    pub fn new(
        client_for: Arc<dyn Fn(&str) -> kube::Client + Send + Sync>,
        informers: Informers,
        root_ca: String,
    ) -> Self {
        Self {
            client_for,
            informers,
            authority: None,
            root_ca,
            pod_network: std::net::Ipv4Addr::new(10, 244, 0, 0),
            node_network: None,
            node_grace: Duration::from_secs(50),
        }
    }
}
