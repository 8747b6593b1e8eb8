//! Clusters of several nodes, from the host: how nodes come, stop, come back and go. What a worker does is in workers.rs.

use serde_json::Value;

use crate::Test;
use crate::docker::{Engine, docker};
use crate::support::{Cluster, Host, busybox, eventually, run};

pub const TESTS: &[Test] = &[
    ("nodes_come_go_and_come_back", || whole_life("native")),
    ("nodes_come_go_and_come_back_on_docker", || {
        let _engine = Engine::get();
        whole_life("docker");
    }),
    ("names_of_clusters_and_nodes_do_not_meet", names),
];

/// `NAME STATUS` of each node, as the API has it.
fn nodes(cluster: &Cluster) -> Vec<String> {
    let columns = "custom-columns=N:.metadata.name,R:.status.conditions[?(@.type==\"Ready\")].status";
    let listed = cluster.kubectl(&["get", "nodes", "--no-headers", "-o", columns]).ok();
    listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

fn wait_for(cluster: &Cluster, wanted: &[String]) {
    eventually(&format!("{wanted:?}"), || (nodes(cluster) == wanted).then_some(()));
}

/// A pod that sleeps on this node, and its address.
fn pod_on(cluster: &Cluster, name: &str, node: &str) -> String {
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  nodeName: {node}\n  terminationGracePeriodSeconds: 0\n  \
         containers:\n  - {{name: c, image: busybox, imagePullPolicy: Never, command: [sleep, '3600']}}\n"
    ));
    cluster.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"]).ok();
    cluster.kubectl(&["get", "pod", name, "-o", "jsonpath={.status.podIP}"]).ok()
}

fn names_in_status(cluster: &Cluster) -> Vec<(String, String)> {
    let output = cluster.kminik(&["status", "-o", "json"]);
    let nodes: Value = serde_json::from_str(&output.stdout).unwrap();
    let text = |node: &Value, key: &str| node[key].as_str().unwrap().to_owned();
    nodes.as_array().unwrap().iter().map(|node| (text(node, "Name"), text(node, "Host"))).collect()
}

fn whole_life(driver: &'static str) {
    let cluster = Cluster::start_by(driver, &format!("nodes-{driver}"), &["--nodes=2", "--memory=1g"]);
    let first = cluster.profile.clone();
    let (second, third) = (format!("{first}-m02"), format!("{first}-m03"));
    let ready = |names: &[&String]| -> Vec<String> { names.iter().map(|name| format!("{name} True")).collect() };
    wait_for(&cluster, &ready(&[&first, &second]));
    let identities = || cluster.kubectl(&["get", "nodes", "-o", "jsonpath={.items[*].status.nodeInfo.machineID}"]).ok();
    let made = identities();
    let unique: std::collections::BTreeSet<&str> = made.split(' ').filter(|id| id.len() == 32).collect();
    assert_eq!(unique.len(), 2, "each machine has an identity of its own: {made}");
    cluster.load(&busybox());

    // The list, addresses, status of each.
    let addresses = |cluster: &Cluster| -> Vec<(String, String)> {
        let listed = cluster.kminik(&["node", "list"]).ok();
        listed.lines().map(|line| line.split_once('\t').unwrap()).map(|(n, a)| (n.to_owned(), a.to_owned())).collect()
    };
    let listed = addresses(&cluster);
    assert_eq!(listed.iter().map(|(name, _)| name).collect::<Vec<_>>(), [&first, &second]);
    assert_eq!(cluster.kminik(&["ip", "-n", "m02"]).ok().trim(), listed[1].1);
    let internal = cluster.kubectl(&["get", "node", &second, "-o", "jsonpath={.status.addresses[0].address}"]).ok();
    assert_eq!(internal, listed[1].1);
    let status = cluster.kminik(&["status"]).ok();
    assert!(status.contains(&format!("{second}\ntype: Worker\nhost: Running\nkubelet: Running\n\n")), "{status}");
    let profiles = cluster.kminik(&["profile", "list"]).ok();
    assert!(profiles.lines().any(|line| line.contains(&first) && line.contains("│ 2 ")), "{profiles}");

    // Commands reach each, by both names; images are on both, pods of both reach each other.
    assert_eq!(cluster.kminik(&["ssh", "-n", "m02", "cat", "/etc/hostname"]).ok().trim(), second);
    assert_eq!(cluster.kminik(&["ssh", "-n", &first, "cat", "/etc/hostname"]).ok().trim(), first);
    cluster.kminik(&["ssh", "-n", "m03", "true"]).fails(85);
    let file = cluster.home().join("file");
    std::fs::write(&file, "from the host").unwrap();
    cluster.kminik(&["cp", file.to_str().unwrap(), &format!("{second}:/var/tmp/a")]).ok();
    cluster.kminik(&["cp", "m02:/var/tmp/a", &format!("{first}:/var/tmp/b")]).ok();
    assert_eq!(cluster.kminik(&["ssh", "cat", "/var/tmp/b"]).ok(), "from the host");
    assert!(cluster.kminik(&["logs", "--node", "m02"]).ok().contains("==> console <=="));
    let (here, there) = (pod_on(&cluster, "here", &first), pod_on(&cluster, "there", &second));
    for (pod, other) in [("here", &there), ("there", &here)] {
        cluster.kubectl(&["exec", pod, "--", "ping", "-c", "1", "-W", "5", other]).ok();
    }
    // No key of the cluster's is with a worker.
    let keys = cluster.kminik(&["ssh", "-n", "m02", "ls", "/var/lib/kminik/pki"]).stdout;
    assert!(!keys.contains("ca.key") && !keys.contains("sa.key"), "{keys}");

    // One more comes, and goes after its pods.
    let told = cluster.kminik(&["node", "add"]);
    assert!(told.clone().stderr.contains("m03"), "{told:?}");
    told.ok();
    wait_for(&cluster, &ready(&[&first, &second, &third]));
    cluster.kminik(&["node", "delete", "m03"]).ok();
    wait_for(&cluster, &ready(&[&first, &second]));
    assert_eq!(addresses(&cluster), listed);
    cluster.kminik(&["node", "delete", &first]).fails(14);
    cluster.kminik(&["node", "delete", "m09"]).fails(85);

    // One that is stopped by itself stays so while the others go on.
    cluster.kminik(&["node", "stop", "m02"]).ok();
    let states = |host: &str| vec![(first.clone(), "Running".to_owned()), (second.clone(), host.to_owned())];
    assert_eq!(names_in_status(&cluster), states("Stopped"));
    assert_eq!(cluster.kminik(&["status"]).code, 3);
    // Its Node says for a while that it is Ready; nobody waits for it.
    assert!(nodes(&cluster).contains(&format!("{second} True")));
    cluster.kminik(&["image", "tag", "busybox:latest", "example.com/meanwhile:1"]).ok();
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(names_in_status(&cluster), states("Stopped"));
    cluster.kminik(&["node", "start", &second]).ok();
    assert_eq!(names_in_status(&cluster), states("Running"));
    assert_eq!(cluster.kminik(&["ssh", "-n", "m02", "cat", "/var/tmp/a"]).ok(), "from the host");
    assert!(cluster.kminik(&["node", "start", "m02"]).stderr.contains("is already running"));
    let images = format!("/api/v1/nodes/{second}/proxy/kminik/v1/images");
    assert!(cluster.kubectl(&["get", "--raw", &images]).ok().contains("example.com/meanwhile:1"));

    // The cluster stops and starts with all its nodes; how many it has is not start's to change.
    let told = cluster.kminik(&["stop"]).stderr;
    assert!(told.contains("2 nodes stopped."), "{told}");
    let stopped = [&first, &second].map(|name| (name.clone(), "Stopped".to_owned()));
    assert_eq!(names_in_status(&cluster), stopped);
    let told = cluster.start_again(&["--nodes=3"]);
    assert!(told.stderr.contains("--nodes is ignored"), "{told:?}");
    told.ok();
    wait_for(&cluster, &ready(&[&first, &second]));
    assert_eq!(addresses(&cluster), listed);
    assert_eq!(identities(), made, "for the life of its data");
    assert_eq!(cluster.kminik(&["status"]).code, 0);

    cluster.delete().ok();
    assert!(!cluster.home().join("home/machines").join(&second).exists());
    assert!(!std::path::Path::new("/run/kminik/nodes").join(&second).exists());
    if driver == "docker" {
        for what in ["ps -a", "volume ls", "network ls"] {
            let listed = docker(&what.split(' ').collect::<Vec<_>>());
            assert!(!listed.contains(&first), "{what}: {listed}");
        }
    }
}

fn names() {
    let host = std::sync::Arc::new(Host::new());
    let before = host.state();
    let cluster = Cluster::on(&host, "names");
    let told = cluster.start_again(&["--ha"]).fails(14);
    assert!(told.contains("one control plane"), "{told}");
    cluster.start_again(&["--nodes=2", "--memory=1g"]).ok();
    let other = |name: &str, arguments: &[&str]| run(&mut cluster.command_of(name, arguments), None);
    let taken = format!("{}-m02", cluster.profile);
    let told = other(&taken, &["start", "--driver=native"]).fails(14);
    assert!(told.contains("a node of the cluster"), "{told}");
    // The other way round: a cluster that has the next node's name.
    let next = format!("{}-m03", cluster.profile);
    other(&next, &["start", "--driver=native", "--wait=none"]).ok();
    let told = cluster.kminik(&["node", "add"]).fails(80);
    assert!(told.contains("as another cluster is"), "{told}");
    cluster.kminik(&["node", "add", "--control-plane"]).fails(14);
    // Its deletion is not the other's, and a cluster whose profile is lost goes with its nodes.
    let profile = cluster.home().join("home/profiles").join(&cluster.profile);
    std::fs::remove_file(profile.join("config.json")).unwrap();
    cluster.delete().ok();
    assert_eq!(other(&next, &["status", "-f", "{{.Host}}"]).stdout, "Running\n");
    other(&next, &["delete"]).ok();
    assert_eq!(host.state(), before);
}
