use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kminik_net::pod::{PodNetwork, PodNetworkConfig};
use kminik_runtime::{PortMapping, Protocol, SandboxNetwork, SandboxState, SandboxStatus};

use crate::ns::{Ns, connect};

pub(crate) fn config(dir: &Path, third: u8) -> PodNetworkConfig {
    PodNetworkConfig {
        pod_cidr: format!("10.244.{third}.0/24").parse().unwrap(),
        cluster_cidr: "10.244.0.0/16".parse().unwrap(),
        bridge_name: "kminik0".to_owned(),
        state_dir: dir.join("net"),
        mtu: None,
    }
}

/// A node with an uplink of MTU 1400 to an outside that knows no way back to pods.
pub(crate) fn node_and_outside() -> (Ns, Ns) {
    let (node, outside) = (Ns::new(), Ns::new());
    connect(&node, "eth0", "203.0.113.2/24", &outside, "wan0", "203.0.113.1/24");
    node.sh("ip link set eth0 mtu 1400 && ip route add default via 203.0.113.1");
    outside.serve_tcp(80, "outside");
    (node, outside)
}

pub(crate) fn start(node: &Ns, config: PodNetworkConfig) -> Arc<PodNetwork> {
    Arc::new(node.block_on(move || async move { PodNetwork::new(config).await.unwrap() }))
}

pub(crate) fn setup(node: &Ns, network: &Arc<PodNetwork>, id: &str, pod: &Ns, ports: Vec<PortMapping>) -> IpAddr {
    let (network, id, path) = (network.clone(), id.to_owned(), pod.path.clone());
    node.block_on(move || async move { network.setup(&id, &path, &ports).await.unwrap()[0] })
}

fn teardown(node: &Ns, network: &Arc<PodNetwork>, id: &str) {
    let (network, id) = (network.clone(), id.to_owned());
    node.block_on(move || async move { network.teardown(&id, None).await.unwrap() });
}

fn status(id: &str, ip: IpAddr, netns: PathBuf) -> SandboxStatus {
    SandboxStatus {
        id: id.to_owned(),
        state: SandboxState::Ready,
        created_at: std::time::SystemTime::now(),
        ips: vec![ip],
        netns: Some(netns),
        labels: Default::default(),
        annotations: Default::default(),
    }
}

fn port(protocol: Protocol, node_port: u16, container_port: u16, node_ip: Option<&str>) -> PortMapping {
    PortMapping { protocol, container_port, node_port, node_ip: node_ip.map(|ip| ip.parse().unwrap()) }
}

#[test]
fn pods_reach_each_other_the_node_and_outside() {
    let dir = tempfile::tempdir().unwrap();
    let (node, _outside) = node_and_outside();
    let network = start(&node, config(dir.path(), 1));
    let (a, b) = (Ns::new(), Ns::new());
    assert_eq!(setup(&node, &network, "a", &a, vec![]).to_string(), "10.244.1.2");
    assert_eq!(setup(&node, &network, "b", &b, vec![]).to_string(), "10.244.1.3");
    assert_eq!(setup(&node, &network, "a", &a, vec![]).to_string(), "10.244.1.2", "repeated");
    // Two pods, one port.
    a.serve_tcp(80, "a");
    b.serve_tcp(80, "b");
    node.serve_tcp(10250, "node");
    assert_eq!(a.ask_tcp("10.244.1.3:80").unwrap(), "b 10.244.1.2");
    assert_eq!(b.ask_tcp("10.244.1.2:80").unwrap(), "a 10.244.1.3");
    assert_eq!(node.ask_tcp("10.244.1.3:80").unwrap(), "b 10.244.1.1");
    assert_eq!(a.ask_tcp("203.0.113.2:10250").unwrap(), "node 10.244.1.2");
    assert_eq!(a.ask_tcp("203.0.113.1:80").unwrap(), "outside 203.0.113.2");
    assert!(a.sh("cat /sys/class/net/eth0/mtu 2>/dev/null; ip link show eth0").contains("mtu 1400"));

    teardown(&node, &network, "b");
    teardown(&node, &network, "b");
    assert!(!b.try_sh("ip link show eth0").1);
    let c = Ns::new();
    assert_eq!(setup(&node, &network, "c", &c, vec![]).to_string(), "10.244.1.4", "an address rests");
}

#[test]
fn host_ports_by_address_protocol_and_port() {
    host_ports(None);
    // With and without the kernel's bridge filter.
    host_ports(Some("0"));
    host_ports(Some("1"));
}

fn host_ports(bridge_filter: Option<&str>) {
    let dir = tempfile::tempdir().unwrap();
    let (node, outside) = node_and_outside();
    if let Some(value) = bridge_filter
        && !node.try_sh(&format!("echo {value} > /proc/sys/net/bridge/bridge-nf-call-iptables")).1
    {
        println!("the bridge filter is not loaded, nothing to test");
        return;
    }
    node.sh("ip addr add 203.0.113.3/24 dev eth0");
    let network = start(&node, config(dir.path(), 2));
    let (a, b, c) = (Ns::new(), Ns::new(), Ns::new());
    let any = vec![port(Protocol::Tcp, 8080, 80, None), port(Protocol::Udp, 8080, 53, None)];
    setup(&node, &network, "a", &a, any);
    setup(&node, &network, "b", &b, vec![port(Protocol::Tcp, 9090, 80, Some("203.0.113.2"))]);
    setup(&node, &network, "c", &c, vec![port(Protocol::Tcp, 9090, 80, Some("203.0.113.3"))]);
    for (pod, name) in [(&a, "a"), (&b, "b"), (&c, "c")] {
        pod.serve_tcp(80, name);
    }
    a.serve_udp(53, "a-udp");
    assert_eq!(outside.ask_tcp("203.0.113.2:8080").unwrap(), "a 203.0.113.1", "the client's address is kept");
    assert_eq!(outside.ask_udp("203.0.113.2:8080").unwrap(), "a-udp 203.0.113.1");
    assert_eq!(outside.ask_tcp("203.0.113.2:9090").unwrap(), "b 203.0.113.1");
    assert_eq!(outside.ask_tcp("203.0.113.3:9090").unwrap(), "c 203.0.113.1");
    assert_eq!(node.ask_tcp("127.0.0.1:8080").unwrap(), "a 10.244.2.1", "from localhost");
    assert_eq!(node.ask_udp("127.0.0.1:8080").unwrap(), "a-udp 10.244.2.1");
    assert_eq!(node.ask_tcp("203.0.113.2:8080").unwrap(), "a 203.0.113.2");
    assert_eq!(b.ask_tcp("203.0.113.2:8080").unwrap(), "a 10.244.2.3");
    assert_eq!(a.ask_tcp("203.0.113.2:8080").unwrap(), "a 10.244.2.1", "hairpin");
    teardown(&node, &network, "a");
    assert!(outside.ask_tcp("203.0.113.2:8080").is_err());
    assert_eq!(outside.ask_tcp("203.0.113.2:9090").unwrap(), "b 203.0.113.1");
}

#[test]
fn a_restart_keeps_what_lives_and_frees_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let (node, outside) = node_and_outside();
    let network = start(&node, config(dir.path(), 3));
    let (a, b) = (Ns::new(), Ns::new());
    let address = setup(&node, &network, "a", &a, vec![port(Protocol::Tcp, 8080, 80, None)]);
    setup(&node, &network, "b", &b, vec![port(Protocol::Tcp, 8081, 80, None)]);
    a.serve_tcp(80, "a");
    drop(network);

    let network = start(&node, config(dir.path(), 3));
    assert_eq!(outside.ask_tcp("203.0.113.2:8080").unwrap(), "a 203.0.113.1");
    let live = vec![status("a", address, a.path.clone())];
    let restored = network.clone();
    node.block_on(move || async move { restored.restore(&live).await.unwrap() });
    assert_eq!(outside.ask_tcp("203.0.113.2:8080").unwrap(), "a 203.0.113.1");
    assert!(!node.sh("nft list table ip kminik-pods").contains("8081"));
    assert!(!b.try_sh("ip link show eth0").1);
    assert!(!std::fs::read_to_string(dir.path().join("net/addresses.json")).unwrap().contains("\"b\""));
}
