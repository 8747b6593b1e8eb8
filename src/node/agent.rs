//! The node's own agent: container runtime, pod network, kubelet with its HTTPS, service proxy, routes. It is the same on every
//! node; what differs is how it reaches the API ([`Access`]).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use ipnet::Ipv4Net;
use kminik_base::atomic_file;
use kminik_base::component::{Supervisor, chain};
use kminik_base::pki::Identity;
use kminik_kubelet::images::{ImageService, StoredImages};
use kminik_kubelet::server::{KubeletServer, ServerConfig};
use kminik_kubelet::{Kubelet, KubeletConfig};
use kminik_net::proxy::{ServiceProxy, ServiceProxyConfig};
use kminik_net::routes::NodeRoutes;
use kminik_oci::{ImageStore, ResolverConfig};
use kminik_runtime::{LibcontainerRuntime, Runtime, RuntimeConfig};
use kube::Client;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::config::{CONFIG_FILE, DATA_DIR, NODE_IMAGES, NodeConfig};
use super::network::LatePodNetwork;
use super::resolver::Resolver;
use super::{NodeError, image};
use crate::version;

const KUBELET_PORT: u16 = 10250;
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Below the node's own group; capped below the node's memory, so that pods cannot take the API with them.
const PODS_CGROUP: &str = "/pods";

/// The agent's way to the API, and what its own server is verified by.
pub struct Access {
    /// As the node.
    pub kubelet: Client,
    /// May follow services, their endpoints and nodes.
    pub proxy: Client,
    /// By which the kubelet's clients are known.
    pub ca_pem: String,
    /// HTTPS of the kubelet.
    pub serving: Identity,
}

/// Starts everything; returns when containers that run have been adopted.
pub async fn start(
    data: &Path,
    config: &NodeConfig,
    access: Access,
    supervisor: &Supervisor,
    threads: &Handle,
) -> Result<(), NodeError> {
    match config.host_resolver {
        // The host's agent answers there; loopback resolvers of the host are out of reach from here and from pods.
        Some(resolver) => {
            std::fs::write(RESOLV_CONF, format!("nameserver {resolver}\n")).map_err(NodeError::Resolver)?;
        }
        None => supervisor.start_on(
            threads,
            Resolver::take_over(Path::new(RESOLV_CONF), config.node_address, data).map_err(NodeError::Resolver)?,
        ),
    }
    std::fs::create_dir_all(data.join("net")).map_err(NodeError::Directory)?;
    let range_file = data.join("net/range");
    let known = std::fs::read_to_string(&range_file).ok().and_then(|text| text.trim().parse().ok());
    let (range_sender, range) = watch::channel::<Option<Ipv4Net>>(known);
    let cluster_cidr = config.cluster_cidr.parse().map_err(|_| NodeError::Cidr(config.cluster_cidr.clone()))?;
    let network = Arc::new(LatePodNetwork::new(range, cluster_cidr, data.join("net")));

    let runtime_config = RuntimeConfig {
        state_dir: data.join("runtime"),
        run_dir: "/run/kminik/runtime".into(),
        pods_cgroup: PODS_CGROUP.into(),
        fd_store: "/run/kminik/init.sock".into(),
        network,
        log_max_bytes: 10 << 20,
        log_max_files: 5,
    };
    let making = threads.spawn(LibcontainerRuntime::new(runtime_config));
    let runtime = making.await.map_err(|error| NodeError::Images(error.to_string()))??;
    let (layer, root) = image::ensure(&Path::new("/var").join(NODE_IMAGES)).map_err(NodeError::Image)?;
    runtime.adopt_layer(&layer, &root)?;
    let store = ImageStore::open(&data.join("images"), config.images.clone())
        .map_err(|error| NodeError::Images(chain(&error)))?;
    let images: Arc<dyn ImageService> = Arc::new(image::WithBuiltIn::new(StoredImages::new(store.clone()), layer));

    let kubelet = Kubelet::new(kubelet_config(config, access.kubelet), runtime as Arc<dyn Runtime>, images);
    let kubelet_range = kubelet.pod_range();
    let _context = threads.enter();
    let server = ServerConfig {
        listen: (Ipv4Addr::UNSPECIFIED, KUBELET_PORT).into(),
        certificate_pem: access.serving.cert_pem,
        key_pem: access.serving.key_pem,
        client_ca_pem: access.ca_pem,
        log_dir: "/var/log".into(),
        keep_image_config: Some(Arc::new(keep_image_config)),
    };
    supervisor.start_on(threads, KubeletServer::new(server, kubelet.clone(), store));
    supervisor.start_on(threads, kubelet);

    threads.spawn(keep_range(kubelet_range, range_sender, range_file));

    let proxy_config = ServiceProxyConfig { node_name: config.node_name.clone(), cluster_cidr };
    supervisor.start_on(threads, Arc::new(ServiceProxy::new(proxy_config, access.proxy.clone())));
    supervisor.start_on(threads, Arc::new(NodeRoutes::new(config.node_name.clone(), access.proxy)));
    Ok(())
}

/// Writes where pulls go into the node's configuration, for its next start.
fn keep_image_config(images: &ResolverConfig) -> std::io::Result<()> {
    let mut config = NodeConfig::load(Path::new(DATA_DIR))?;
    config.images = images.clone();
    let bytes = serde_json::to_vec_pretty(&config)?;
    let path = Path::new(DATA_DIR).join(CONFIG_FILE);
    atomic_file::write(&path, &bytes, atomic_file::SECRET).map_err(std::io::Error::other)
}

fn kubelet_config(config: &NodeConfig, client: Client) -> KubeletConfig {
    let capacity = (config.memory_bytes > 0 && config.cpus > 0).then(|| kminik_kubelet::Capacity {
        milli_cpu: u64::from(config.cpus) * 1000,
        memory_bytes: config.memory_bytes,
        ephemeral_storage_bytes: crate::drivers::total_space(Path::new("/var")).unwrap_or(0),
    });
    KubeletConfig {
        node_name: config.node_name.clone(),
        node_ips: vec![IpAddr::V4(config.node_address)],
        cluster_dns: vec![IpAddr::V4(config.cluster_dns)],
        cluster_domain: config.cluster_domain.clone(),
        root_dir: "/var/lib/kubelet".into(),
        log_dir: "/var/log/pods".into(),
        resolv_conf: RESOLV_CONF.into(),
        client,
        port: KUBELET_PORT,
        node_labels: BTreeMap::new(),
        node_taints: Vec::new(),
        capacity,
        max_pods: 110,
        provider_id: format!("kminik://{}/{}", config.profile, config.node_name),
        version: format!("{}+kminik", version::KUBERNETES),
        runtime_version: version::KMINIK.to_owned(),
    }
}

/// Passes the node's pod range on, and remembers it for the next start.
async fn keep_range(
    mut own: watch::Receiver<Option<String>>,
    range: watch::Sender<Option<Ipv4Net>>,
    file: std::path::PathBuf,
) {
    while let Ok(known) = own.wait_for(Option::is_some).await.map(|range| range.clone()) {
        if let Some(new) = known.and_then(|text| text.parse().ok())
            && range.send_if_modified(|old| old.replace(new) != Some(new))
            && let Err(error) = atomic_file::write(&file, new.to_string().as_bytes(), atomic_file::PUBLIC)
        {
            tracing::warn!(error = %error, "the pod range cannot be remembered");
        }
        if own.changed().await.is_err() {
            return;
        }
    }
}
