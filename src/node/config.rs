//! What a node is told by whoever made it: one file in its data directory, beside its keys.

use std::net::Ipv4Addr;
use std::path::Path;

use kminik_oci::ResolverConfig;
use serde::{Deserialize, Serialize};

/// Seen from inside the node.
pub const DATA_DIR: &str = "/var/lib/kminik";
/// Relative to the data directory.
pub const CONFIG_FILE: &str = "node.json";

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
    /// Limits of the machine, 0 is none.
    pub cpus: u32,
    pub memory_bytes: u64,
    /// Where pods' images come from.
    pub images: ResolverConfig,
    /// Addons to apply, by name.
    pub addons: Vec<String>,
}

impl NodeConfig {
    /// # Errors
    /// When the file is missing or damaged.
    pub fn load(data_dir: &Path) -> std::io::Result<Self> {
        let bytes = std::fs::read(data_dir.join(CONFIG_FILE))?;
        serde_json::from_slice(&bytes).map_err(std::io::Error::other)
    }
}
