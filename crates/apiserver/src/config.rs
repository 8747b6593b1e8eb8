//! What the API server is told when it is made.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use kminik_store::Store;

use crate::audit::AuditConfig;

/// PEM-encoded certificate chain and private key.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CertificateAndKey {
    pub certificate_pem: String,
    pub key_pem: String,
}

/// How this server and the extension servers behind it know each other.
#[derive(Clone)]
pub struct FrontProxy {
    /// Peers whose certificate it has signed may say in headers whom they speak for.
    pub ca_pem: String,
    /// The certificate, signed by it, that this server shows to extension servers.
    pub client: CertificateAndKey,
}

impl std::fmt::Debug for CertificateAndKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateAndKey").field("certificate_pem", &self.certificate_pem).finish_non_exhaustive()
    }
}

/// An IPv4 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    pub address: std::net::Ipv4Addr,
    /// 0 to 32.
    pub prefix: u8,
}

impl Default for Cidr {
    /// The services' network, 10.96.0.0/12.
    fn default() -> Self {
        Cidr { address: std::net::Ipv4Addr::new(10, 96, 0, 0), prefix: 12 }
    }
}

/// How long a peer may keep the server waiting.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// After the handshake, for what a connection begins with. Default 30 s.
    pub beginning: Duration,
    /// For the head of a request, from the answer to the one before it. Default 90 s, as upstream lets connections idle.
    pub head: Duration,
    /// Until it takes something of what is sent to it. Default 60 s.
    pub write: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience { beginning: Duration::from_secs(30), head: Duration::from_secs(90), write: Duration::from_secs(60) }
    }
}

/// The names of the control plane's parts, and whether each does its job now.
pub type Components = Arc<dyn Fn() -> Vec<(&'static str, bool)> + Send + Sync>;

/// Configuration of an [`crate::ApiServer`]. Files are read by the caller.
#[derive(Clone)]
pub struct Config {
    pub store: Arc<dyn Store>,
    /// What it serves HTTPS with.
    pub serving: CertificateAndKey,
    /// Client certificates are verified against it; also published to pods as the root CA.
    pub client_ca_pem: String,
    /// PEM private key (PKCS#8) that signs service account tokens.
    pub service_account_key_pem: String,
    /// Issuer of service account tokens, default `https://kubernetes.default.svc.cluster.local`.
    pub service_account_issuer: String,
    /// Cluster IPs are taken from it; the first one is the API's.
    pub service_cidr: Cidr,
    /// Node ports, both ends included.
    pub node_ports: (u16, u16),
    /// Where the `kubernetes` Service's endpoint points to.
    pub advertise_address: IpAddr,
    /// Port of the same endpoint.
    pub advertise_port: u16,
    /// The certificate by which the kubelets know this server.
    pub kubelet_client: CertificateAndKey,
    /// CA that signed the kubelets' serving certificates.
    pub kubelet_ca_pem: String,
    /// Without it nobody's headers are believed, and extension servers see no certificate. Default none.
    pub front_proxy: Option<FrontProxy>,
    /// Seats that API priority and fairness shares out; a request takes one or more.
    pub max_in_flight: usize,
    /// What is written into the audit log; `None` is nothing.
    pub audit: Option<AuditConfig>,
    /// Serves MutatingAdmissionPolicies (admissionregistration.k8s.io/v1beta1) and asks them. Off by default, as upstream's API version
    /// and its gate of that name are.
    pub mutating_policies: bool,
    /// A non-watching request may take so long.
    pub request_timeout: Duration,
    /// With slow clients.
    pub patience: Patience,
    /// What ComponentStatuses tell of besides the store; none by default.
    pub components: Components,
    /// While it is set, clients outside of this process but nodes are told that the cluster is paused (a node that is not heard of would
    /// lose its pods); false by default.
    pub paused: Arc<AtomicBool>,
    /// So long everything is still served after the server was told to stop, with `/readyz` failing.
    pub shutdown_delay: Duration,
}

impl Config {
    /// Upstream's limits and kminik's networks; no kubelet access beyond the given certificate.
    pub fn new(
        store: Arc<dyn Store>,
        serving: CertificateAndKey,
        client_ca_pem: String,
        service_account_key_pem: String,
        kubelet_client: CertificateAndKey,
        advertise_address: IpAddr,
    ) -> Self {
        Config {
            store,
            serving,
            kubelet_ca_pem: client_ca_pem.clone(),
            client_ca_pem,
            service_account_key_pem,
            service_account_issuer: "https://kubernetes.default.svc.cluster.local".into(),
            service_cidr: Cidr::default(),
            node_ports: (30000, 32767),
            advertise_address,
            advertise_port: 8443,
            kubelet_client,
            front_proxy: None,
            max_in_flight: 600,
            audit: None,
            mutating_policies: false,
            request_timeout: Duration::from_secs(60),
            patience: Patience::default(),
            components: Arc::new(Vec::new),
            paused: Arc::default(),
            shutdown_delay: Duration::ZERO,
        }
    }
}
