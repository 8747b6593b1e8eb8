use std::sync::Arc;
use std::time::{Duration, Instant};

use kminik_base::component::{Component, Ready};
use kminik_net::routes::NodeRoutes;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::api::Api;
use crate::ns::{Ns, connect};
use crate::pods;

/// Two nodes with a pod each, joined by a link: pods see each other under their own addresses.
#[test]
fn pods_of_two_nodes_reach_each_other() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let nodes = [Ns::new(), Ns::new()];
    connect(&nodes[0], "eth0", "192.168.70.2/24", &nodes[1], "eth0", "192.168.70.3/24");
    let api = Api::default();
    let stop = CancellationToken::new();
    let put = |index: usize| {
        let range = format!("10.244.{index}.0/24");
        api.put(
            "nodes",
            json!({
                "metadata": {"name": format!("node{index}")},
                "spec": {"podCIDR": range, "podCIDRs": [range]},
                "status": {"addresses": [{"type": "InternalIP", "address": format!("192.168.70.{}", 2 + index)}]},
            }),
        );
    };
    let pods: Vec<Ns> = (0..2).map(|_| Ns::new()).collect();
    for (index, node) in nodes.iter().enumerate() {
        put(index);
        let third = u8::try_from(index).unwrap();
        let network = pods::start(node, pods::config(dirs[index].path(), third));
        pods::setup(node, &network, "pod", &pods[index], vec![]);
        pods[index].serve_tcp(80, &format!("pod{index}"));
        let (client, stop) = (api.clone(), stop.clone());
        node.run(move || {
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async move {
                    let routes = Arc::new(NodeRoutes::new(format!("node{index}"), client.client()));
                    routes.run(stop, Ready::detached()).await.unwrap();
                });
            });
        });
    }
    let bound = Instant::now() + Duration::from_secs(5);
    while !nodes.iter().all(|node| node.sh("ip route").contains("proto 107")) {
        assert!(Instant::now() < bound);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(pods[0].ask_tcp("10.244.1.2:80").as_deref(), Ok("pod1 10.244.0.2"));
    assert_eq!(pods[1].ask_tcp("10.244.0.2:80").as_deref(), Ok("pod0 10.244.1.2"));
    api.delete("nodes", "", "node1");
    while nodes[0].sh("ip route").contains("10.244.1.0/24") {
        assert!(Instant::now() < bound);
        std::thread::sleep(Duration::from_millis(5));
    }
    stop.cancel();
}
