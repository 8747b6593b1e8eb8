use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kminik_base::component::{Component, Ready};
use kminik_net::proxy::{ServiceProxy, ServiceProxyConfig};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::api::Api;
use crate::ns::{Ns, ask_udp};
use crate::pods;

/// A node with pods a and b on it, a neighbour node with nothing of ours, and a service proxy.
struct Cluster {
    api: Api,
    node: Ns,
    outside: Ns,
    a: Ns,
    b: Ns,
    stop: CancellationToken,
    _dir: tempfile::TempDir,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

const A: &str = "10.244.1.2";
const B: &str = "10.244.1.3";
const NODE: &str = "203.0.113.2";

impl Cluster {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (node, outside) = pods::node_and_outside();
        let network = pods::start(&node, pods::config(dir.path(), 1));
        let (a, b) = (Ns::new(), Ns::new());
        pods::setup(&node, &network, "a", &a, vec![]);
        pods::setup(&node, &network, "b", &b, vec![]);
        for (pod, name) in [(&a, "a"), (&b, "b")] {
            pod.serve_tcp(8080, name);
            pod.serve_udp(8080, name);
        }
        let api = Api::default();
        let stop = CancellationToken::new();
        start_proxy(&node, &api, &stop);
        Self { api, node, outside, a, b, stop, _dir: dir }
    }

    fn service(&self, spec: Value) {
        let metadata = json!({"namespace": "ns", "name": "web", "uid": "1"});
        self.api.put("services", json!({"metadata": metadata, "spec": spec}));
    }

    fn endpoints(&self, endpoints: Value) {
        self.api.put("endpointslices", slice("web", endpoints));
    }

    /// Waits until what the table lists is as wanted.
    fn settle(&self, wanted: impl Fn(&str) -> bool) -> String {
        let bound = Instant::now() + Duration::from_secs(5);
        loop {
            let listed = self.node.try_sh("nft list table ip kminik-services").0;
            if wanted(&listed) {
                return listed;
            }
            assert!(Instant::now() < bound, "{listed}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn start_proxy(node: &Ns, api: &Api, stop: &CancellationToken) {
    let (client, stop) = (api.clone(), stop.clone());
    // The proxy has a thread of its own, in the node's namespace.
    node.run(move || {
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let config =
                    ServiceProxyConfig { node_name: "here".to_owned(), cluster_cidr: "10.244.0.0/16".parse().unwrap() };
                let proxy = Arc::new(ServiceProxy::new(config, client.client()));
                proxy.run(stop, Ready::detached()).await.unwrap();
            });
        });
    });
}

fn slice(service: &str, endpoints: Value) -> Value {
    let port = |name, protocol| json!({"name": name, "port": 8080, "protocol": protocol});
    json!({
        "metadata": {
            "namespace": "ns", "name": format!("{service}-1"), "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4", "ports": [port("tcp", "TCP"), port("udp", "UDP")], "endpoints": endpoints,
    })
}

fn ready(address: &str) -> Value {
    json!({"addresses": [address], "nodeName": "here", "conditions": {"ready": true}})
}

fn ports(node_ports: bool) -> Value {
    let port = |name, protocol: &str| {
        let node_port = if node_ports { json!(30080) } else { Value::Null };
        json!({"name": name, "port": 80, "protocol": protocol, "nodePort": node_port})
    };
    json!([port("tcp", "TCP"), port("udp", "UDP")])
}

/// Who answered how often, and under which address the client was seen.
fn tally(answers: impl Iterator<Item = Result<String, std::io::ErrorKind>>) -> BTreeMap<String, usize> {
    answers.fold(BTreeMap::new(), |mut tally, answer| {
        *tally.entry(answer.unwrap_or_else(|kind| kind.to_string())).or_default() += 1;
        tally
    })
}

fn ask(from: &Ns, address: &str, times: usize) -> BTreeMap<String, usize> {
    tally((0..times).map(|_| from.ask_tcp(address)))
}

#[test]
fn cluster_ip_tcp_and_udp_on_one_port() {
    let cluster = Cluster::new();
    cluster.service(json!({"clusterIP": "10.96.0.9", "ports": ports(false)}));
    cluster.endpoints(json!([ready(A), ready(B)]));
    cluster.settle(|table| table.matches("dnat to").count() == 4);
    let seen = ask(&cluster.a, "10.96.0.9:80", 40);
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["a 10.244.1.1", "b 10.244.1.2"], "hairpin masqueraded, others not");
    assert!(seen.values().all(|count| *count > 5), "{seen:?}");
    let seen = tally((0..40).map(|_| cluster.b.ask_udp("10.96.0.9:80")));
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["a 10.244.1.3", "b 10.244.1.1"]);
    assert_eq!(ask(&cluster.node, "10.96.0.9:80", 20).len(), 2);
    assert_eq!(cluster.a.ask_tcp("10.96.0.9:81"), Err(std::io::ErrorKind::ConnectionRefused), "not a port of it");

    cluster.api.delete("services", "ns", "web");
    let table = cluster.settle(|table| !table.contains("10.96.0.9"));
    assert!(!table.contains("dnat to") && !table.contains("chain endpoint-"), "{table}");
}

#[test]
fn node_ports_from_everywhere() {
    let cluster = Cluster::new();
    cluster.node.sh("ip addr add 203.0.113.3/24 dev eth0");
    cluster.service(json!({"type": "NodePort", "clusterIP": "10.96.0.9", "ports": ports(true)}));
    cluster.endpoints(json!([ready(A)]));
    cluster.settle(|table| table.contains("dnat to"));
    for (from, address, seen) in [
        (&cluster.outside, "203.0.113.2:30080", "a 10.244.1.1"),
        (&cluster.outside, "203.0.113.3:30080", "a 10.244.1.1"),
        (&cluster.node, "203.0.113.2:30080", "a 10.244.1.1"),
        (&cluster.node, "127.0.0.1:30080", "a 10.244.1.1"),
        (&cluster.node, "10.244.1.1:30080", "a 10.244.1.1"),
        (&cluster.a, "203.0.113.2:30080", "a 10.244.1.1"),
        (&cluster.b, "203.0.113.2:30080", "a 10.244.1.1"),
    ] {
        assert_eq!(from.ask_tcp(address).as_deref(), Ok(seen), "{address}");
        assert_eq!(from.ask_udp(address).as_deref(), Ok(seen), "{address}");
    }
    cluster.node.serve_tcp(22, "node");
    // Back to a plain service: the port is closed.
    cluster.service(json!({"clusterIP": "10.96.0.9", "ports": ports(false)}));
    cluster.settle(|table| !table.contains("30080"));
    assert!(cluster.outside.ask_tcp("203.0.113.2:30080").is_err());
    assert_eq!(cluster.b.ask_tcp("10.96.0.9:80").as_deref(), Ok("a 10.244.1.3"));
}

#[test]
fn client_affinity_on_and_off() {
    let cluster = Cluster::new();
    let spec = |affinity: &str| {
        json!({"type": "NodePort", "clusterIP": "10.96.0.9", "ports": ports(true), "sessionAffinity": affinity,
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 600}}})
    };
    cluster.endpoints(json!([ready(A), ready(B)]));
    cluster.service(spec("ClientIP"));
    cluster.settle(|table| table.contains("timeout 10m"));
    for (client, address) in [(&cluster.b, "10.96.0.9:80"), (&cluster.outside, "203.0.113.2:30080")] {
        assert_eq!(ask(client, address, 20).len(), 1, "{address}");
    }
    // The endpoint that a client stays with outlives changes elsewhere.
    let chosen = cluster.outside.ask_tcp("203.0.113.2:30080").unwrap();
    cluster.endpoints(json!([ready(A), ready(B), ready("10.244.1.77")]));
    cluster.settle(|table| table.contains("10.244.1.77"));
    assert_eq!(ask(&cluster.outside, "203.0.113.2:30080", 20), BTreeMap::from([(chosen, 20)]));
    cluster.endpoints(json!([ready(A), ready(B)]));
    cluster.service(spec("None"));
    cluster.settle(|table| !table.contains("timeout 10m") && !table.contains("10.244.1.77"));
    assert_eq!(ask(&cluster.outside, "203.0.113.2:30080", 40).len(), 2);
}

#[test]
fn traffic_policies_keep_traffic_on_the_node() {
    let cluster = Cluster::new();
    let remote = |address: &str| json!({"addresses": [address], "nodeName": "there", "conditions": {"ready": true}});
    cluster.service(json!({
        "type": "LoadBalancer", "clusterIP": "10.96.0.9", "ports": ports(true), "externalTrafficPolicy": "Local",
        "internalTrafficPolicy": "Local", "externalIPs": ["198.51.100.7"],
    }));
    cluster.outside.sh("ip route add 198.51.100.0/24 via 203.0.113.2");
    cluster.endpoints(json!([ready(A), remote(B)]));
    cluster.settle(|table| table.contains("local-"));
    for address in ["203.0.113.2:30080", "198.51.100.7:80"] {
        assert_eq!(ask(&cluster.outside, address, 20), BTreeMap::from([("a 203.0.113.1".to_owned(), 20)]), "{address}");
    }
    assert_eq!(ask(&cluster.b, "10.96.0.9:80", 20), BTreeMap::from([("a 10.244.1.3".to_owned(), 20)]));
    assert_eq!(ask(&cluster.node, "203.0.113.2:30080", 30).len(), 2, "the node itself is not outside");

    cluster.endpoints(json!([remote(B)]));
    cluster.settle(|table| !table.contains("local-"));
    for address in ["203.0.113.2:30080", "198.51.100.7:80"] {
        assert_eq!(cluster.outside.ask_tcp(address), Err(std::io::ErrorKind::TimedOut), "dropped, not refused");
    }
    assert_eq!(cluster.a.ask_tcp("10.96.0.9:80"), Err(std::io::ErrorKind::TimedOut));
    assert_eq!(cluster.a.ask_tcp("203.0.113.2:30080").as_deref(), Ok("b 10.244.1.2"));
}

#[test]
fn without_endpoints_refused_and_draining_ones_as_the_last_resort() {
    let cluster = Cluster::new();
    cluster.service(json!({"type": "NodePort", "clusterIP": "10.96.0.9", "ports": ports(true)}));
    cluster.settle(|table| table.contains("30080"));
    let refused = Err(std::io::ErrorKind::ConnectionRefused);
    for (from, address) in [
        (&cluster.a, "10.96.0.9:80"),
        (&cluster.node, "10.96.0.9:80"),
        (&cluster.a, "203.0.113.2:30080"),
        (&cluster.node, "127.0.0.1:30080"),
        (&cluster.outside, "203.0.113.2:30080"),
    ] {
        assert_eq!(from.ask_tcp(address), refused, "{address}");
    }
    let draining = json!({"addresses": [A], "conditions": {"ready": false, "serving": true, "terminating": true}});
    cluster.endpoints(json!([draining]));
    cluster.settle(|table| table.contains("dnat to"));
    assert_eq!(cluster.b.ask_tcp("10.96.0.9:80").as_deref(), Ok("a 10.244.1.3"));
    cluster.endpoints(json!([draining, ready(B)]));
    cluster.settle(|table| table.contains(&format!("dnat to {B}")));
    assert_eq!(ask(&cluster.a, "10.96.0.9:80", 20), BTreeMap::from([("b 10.244.1.2".to_owned(), 20)]));
}

#[test]
fn udp_clients_that_keep_sending_follow_the_endpoints() {
    let cluster = Cluster::new();
    cluster.service(json!({"type": "NodePort", "clusterIP": "10.96.0.9", "ports": ports(true)}));
    cluster.settle(|table| table.contains("30080"));
    let (pod, outside) = (cluster.b.udp(), cluster.outside.udp());
    let fast = Some(Duration::from_millis(100));
    pod.set_read_timeout(fast).unwrap();
    outside.set_read_timeout(fast).unwrap();
    let both = |name: &str| {
        let bound = Instant::now() + Duration::from_secs(3);
        for (socket, address) in [(&pod, "10.96.0.9:80"), (&outside, "203.0.113.2:30080")] {
            while !ask_udp(socket, address).is_ok_and(|answer| answer.starts_with(name)) {
                assert!(Instant::now() < bound, "{address} never reached {name}");
            }
        }
    };
    // Entries without an endpoint first.
    assert!(ask_udp(&outside, "203.0.113.2:30080").is_err() && ask_udp(&pod, "10.96.0.9:80").is_err());
    cluster.endpoints(json!([ready(A)]));
    both("a");
    cluster.endpoints(json!([ready(B)]));
    both("b");
}

#[test]
fn the_api_servers_own_service_leads_to_the_node() {
    let cluster = Cluster::new();
    cluster.node.serve_tcp(8443, "api");
    let metadata = json!({"namespace": "default", "name": "kubernetes"});
    let port = json!({"name": "https", "port": 443, "targetPort": 8443});
    cluster.api.put("services", json!({"metadata": metadata, "spec": {"clusterIP": "10.96.0.1", "ports": [port]}}));
    cluster.api.put(
        "endpointslices",
        json!({
            "metadata": {"namespace": "default", "name": "kubernetes",
                "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "addressType": "IPv4", "ports": [{"name": "https", "port": 8443, "protocol": "TCP"}],
            "endpoints": [{"addresses": [NODE], "conditions": {"ready": true}}],
        }),
    );
    cluster.settle(|table| table.contains("dnat to 203.0.113.2:8443"));
    assert_eq!(cluster.a.ask_tcp("10.96.0.1:443").as_deref(), Ok("api 10.244.1.2"));
    assert!(cluster.node.ask_tcp("10.96.0.1:443").unwrap().starts_with("api"));
}

#[test]
fn a_restart_replaces_the_table_without_a_gap() {
    let cluster = Cluster::new();
    cluster.service(json!({"clusterIP": "10.96.0.9", "ports": ports(false)}));
    cluster.endpoints(json!([ready(A)]));
    cluster.settle(|table| table.contains("dnat to"));
    cluster.node.sh("nft add chain ip kminik-services left-over");
    cluster.stop.cancel();
    assert_eq!(cluster.b.ask_tcp("10.96.0.9:80").as_deref(), Ok("a 10.244.1.3"), "the table outlives its keeper");
    let stop = CancellationToken::new();
    start_proxy(&cluster.node, &cluster.api, &stop);
    let bound = Instant::now() + Duration::from_secs(5);
    while cluster.node.sh("nft list table ip kminik-services").contains("left-over") {
        assert!(Instant::now() < bound);
        assert_eq!(cluster.b.ask_tcp("10.96.0.9:80").as_deref(), Ok("a 10.244.1.3"));
    }
    // Rules that someone else removed come back with the next change.
    cluster.node.sh("nft delete table ip kminik-services");
    cluster.endpoints(json!([ready(A), ready(B)]));
    cluster.settle(|table| table.contains(&format!("dnat to {B}")));
    stop.cancel();
}

/// Prints how long a thousand services of three endpoints take, all at once and one more.
#[test]
fn a_thousand_services() {
    let node = Ns::new();
    let (api, stop) = (Api::default(), CancellationToken::new());
    let put = |index: usize| {
        let name = format!("s{index}");
        let address = |host: usize| format!("10.244.{}.{}", index / 80, 2 + 3 * (index % 80) + host);
        let metadata = json!({"namespace": "ns", "name": name});
        let cluster_ip = format!("10.96.{}.{}", 1 + index / 200, 1 + index % 200);
        let port = json!({"name": "tcp", "port": 80, "nodePort": 30_000 + index});
        let spec = json!({"type": "NodePort", "clusterIP": cluster_ip, "ports": [port]});
        api.put("services", json!({"metadata": metadata, "spec": spec}));
        api.put("endpointslices", slice(&name, (0..3).map(|host| ready(&address(host))).collect()));
    };
    (0..1000).for_each(put);
    let wait = |text: &str| {
        let started = Instant::now();
        while !node.try_sh("nft list map ip kminik-services service-nodeports 2>/dev/null").0.contains(text) {
            assert!(started.elapsed() < Duration::from_secs(20));
        }
        started.elapsed()
    };
    start_proxy(&node, &api, &stop);
    println!("1000 services x 3 endpoints: {:?}", wait("30999"));
    put(1000);
    println!("one more: {:?}", wait("31000"));
    stop.cancel();
}
