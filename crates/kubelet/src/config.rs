//! What the node's composition root tells the kubelet.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// All that differs between nodes; everything else is upstream's default.
#[derive(Clone)]
pub struct KubeletConfig {
    /// Name of the Node object, also its `kubernetes.io/hostname` label.
    pub node_name: String,
    /// Addresses of the node, primary first; become `InternalIP` addresses, `status.hostIP` and `status.hostIPs`.
    pub node_ips: Vec<IpAddr>,
    /// Name servers of pods with `dnsPolicy: ClusterFirst`.
    pub cluster_dns: Vec<IpAddr>,
    /// Usually `cluster.local`.
    pub cluster_domain: String,
    /// Usually `/var/lib/kubelet`.
    pub root_dir: PathBuf,
    /// Usually `/var/log/pods`.
    pub log_dir: PathBuf,
    /// The resolv.conf that pods with `dnsPolicy: Default` and the search list of `ClusterFirst` ones inherit.
    pub resolv_conf: PathBuf,
    /// As the kubelet's own identity (`system:node:<name>`).
    pub client: kube::Client,
    /// Port of the kubelet's HTTPS server, reported in `status.daemonEndpoints`.
    pub port: u16,
    /// Extra labels for the Node at its registration.
    pub node_labels: BTreeMap<String, String>,
    /// `(key, value, effect)` of the Node at its registration.
    pub node_taints: Vec<(String, String, String)>,
    /// Reported capacity; `None` reads the node's cgroup and /proc.
    pub capacity: Option<Capacity>,
    /// Most pods the node takes; upstream's default is 110.
    pub max_pods: u32,
    /// `spec.providerID` of the Node, e.g. `kminik://docker/<profile>/<node>`; empty leaves it out.
    pub provider_id: String,
    /// Reported as `nodeInfo.kubeletVersion`, e.g. `v1.35.0+kminik`.
    pub version: String,
    /// Reported as `nodeInfo.containerRuntimeVersion` after `kminik://`.
    pub runtime_version: String,
}

/// What the node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    pub milli_cpu: u64,
    pub memory_bytes: u64,
    pub ephemeral_storage_bytes: u64,
}
