//! What a node is told by whoever made it: one file in its data directory, beside its keys.

use std::net::Ipv4Addr;
use std::path::Path;

use kminik_oci::ResolverConfig;
use serde::{Deserialize, Serialize};

use crate::addons::Choices;

/// Seen from inside the node.
pub const DATA_DIR: &str = "/var/lib/kminik";
/// Where the images of the cluster's own pods are, below the node's /var.
pub const NODE_IMAGES: &str = "lib/kminik/node-image";
/// Relative to the data directory.
pub const CONFIG_FILE: &str = "node.json";

/// The audit policy, relative to the data directory.
pub const AUDIT_POLICY: &str = "audit-policy.yaml";
/// A snapshot that the node's store is made from before it opens; relative to the data directory.
pub const RESTORE_FILE: &str = "store/restore.snapshot";
/// Certificates for an etcd cluster, in the directory of keys.
pub const DATASTORE_CA: &str = "datastore-ca.crt";
pub const DATASTORE_CERT: &str = "datastore-client.crt";
pub const DATASTORE_KEY: &str = "datastore-client.key";

/// The node's configuration; absent fields have their defaults, unknown ones are an older or newer command line's.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeConfig {
    /// Name of the cluster.
    pub profile: String,
    /// Of the Node object; a DNS-1123 subdomain.
    pub node_name: String,
    pub node_address: Ipv4Addr,
    /// Where the host's DNS forwarder listens, if there is one.
    pub host_resolver: Option<Ipv4Addr>,
    pub service_cidr: String,
    pub cluster_cidr: String,
    pub cluster_dns: Ipv4Addr,
    pub cluster_domain: String,
    pub api_port: u16,
    /// Members of the etcd cluster that keeps the objects; none is the node's own store. Its certificates lie beside the
    /// node's keys ([`DATASTORE_CA`], [`DATASTORE_CERT`], [`DATASTORE_KEY`]), those that it needs.
    #[serde(default)]
    pub datastore_endpoints: Vec<String>,
    /// `None` writes no audit log; the policy lies in [`AUDIT_POLICY`].
    #[serde(default)]
    pub audit_log: Option<AuditLog>,
    /// Names and addresses that the API's certificate is for, beside the node's own and the cluster's.
    #[serde(default)]
    pub api_names: Vec<String>,
    /// For how long certificates are issued.
    #[serde(default = "cert_expiration_seconds")]
    pub cert_expiration_seconds: u64,
    /// Serves and asks MutatingAdmissionPolicies.
    #[serde(default)]
    pub mutating_policies: bool,
    /// Limits of the machine, 0 is none.
    pub cpus: u32,
    pub memory_bytes: u64,
    /// Where pods' images come from.
    pub images: ResolverConfig,
    /// Addons of the binary's own to apply, by name.
    pub addons: Vec<String>,
    /// What the user has said of them.
    #[serde(default)]
    pub addon_choices: Choices,
    /// A node that has it is a worker: it has no control plane, and no key of the cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<Join>,
}

/// By what a worker finds its control plane, and comes to a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Join {
    /// `https://<control plane's address>:<port>`.
    pub server: String,
    /// The authority that the server's certificate is of.
    pub ca_pem: String,
    /// A bootstrap token, `<id>.<secret>`, good for some minutes; a worker that has a certificate does not need it.
    pub token: String,
}

/// minikube's default: three years.
pub fn cert_expiration_seconds() -> u64 {
    26_280 * 3600
}

/// The API server's audit log, bounded as upstream's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditLog {
    /// In the node; `-` is the node's standard output.
    pub path: String,
    /// Of one file.
    pub max_size_mb: u32,
    /// Older files that are kept; 0 is all.
    pub max_backups: u32,
    /// Days for which they are kept; 0 is for ever.
    pub max_age_days: u32,
}

impl Default for AuditLog {
    fn default() -> Self {
        let path = "/var/log/kubernetes/audit/audit.log".to_owned();
        AuditLog { path, max_size_mb: 100, max_backups: 3, max_age_days: 0 }
    }
}

impl NodeConfig {
    /// # Errors
    /// When the file is missing or damaged.
    pub fn load(data_dir: &Path) -> std::io::Result<Self> {
        let bytes = std::fs::read(data_dir.join(CONFIG_FILE))?;
        serde_json::from_slice(&bytes).map_err(std::io::Error::other)
    }
}
