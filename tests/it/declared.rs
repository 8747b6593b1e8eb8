//! `start -f`: files say what flags say.

use serde_json::Value;

use crate::Test;
use crate::support::{Cluster, command, eventually, run};

pub const TESTS: &[Test] = &[
    ("a_cluster_is_made_from_its_file", from_file),
    ("a_file_makes_a_cluster_of_several_nodes", several_nodes),
    ("files_of_kind_and_k3s_are_read_as_they_are", foreign),
    ("what_a_file_may_not_have_is_refused_and_makes_nothing", refused),
];

fn write(cluster: &Cluster, name: &str, text: &str) -> String {
    let path = cluster.home().join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The profile's file.
fn config(cluster: &Cluster) -> Value {
    let path = cluster.home().join("home/profiles").join(&cluster.profile).join("config.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// `start` without a typed name: the file has it.
fn start(cluster: &Cluster, arguments: &[&str]) -> crate::support::Output {
    let mut start = command(crate::support::kminik_binary(), &[&["start"], arguments].concat());
    start.env("KMINIK_HOME", cluster.home().join("home")).env("KUBECONFIG", cluster.kubeconfig());
    run(&mut start, None)
}

fn from_file() {
    let cluster = Cluster::prepare("declared");
    let text = format!(
        "apiVersion: kminik.io/v1alpha1\nkind: Cluster\nmetadata: {{name: {}}}\nspec:\n  driver: native\n  cpus: 1\n  memory: 1g\n  \
         registries: {{mirrors: ['https://mirror.example'], insecure: [10.0.0.0/8]}}\n  kubeconfig: {{embedCerts: true}}\n  \
         wait: {{for: [node_ready]}}\n",
        cluster.profile
    );
    let file = write(&cluster, "cluster.yaml", &text);
    start(&cluster, &["-f", &file, "--memory=1100mb", "--insecure-registry=192.0.2.0/24"]).ok();
    let config = config(&cluster);
    assert_eq!((&config["cpus"], &config["memoryMib"], &config["driver"]), (&1.into(), &1100.into(), &"native".into()));
    assert_eq!(config["registries"]["mirrors"], serde_json::json!(["https://mirror.example"]));
    assert_eq!(config["registries"]["insecure"], serde_json::json!(["192.0.2.0/24"]), "what is typed counts");
    let kubeconfig = std::fs::read_to_string(cluster.kubeconfig()).unwrap();
    assert!(kubeconfig.contains("client-key-data") && kubeconfig.contains(&cluster.profile), "{kubeconfig}");
    cluster.kubectl(&["get", "nodes"]).ok();
    // Again, through standard input: start twice is start once.
    let mut again = cluster.command(&["start", "-f", "-"]);
    run(&mut again, Some(text.as_bytes())).ok();
}

fn several_nodes() {
    let cluster = Cluster::prepare("several");
    let names = || {
        let listed = cluster.kminik(&["node", "list"]).ok();
        listed.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let nodes = |count: usize| {
        let mut names = vec![cluster.profile.clone()];
        names.extend((2..=count).map(|number| format!("{}-m0{number}", cluster.profile)));
        names
    };
    let ready = ["wait", "--for=condition=Ready", "nodes", "--all", "--timeout=0s"];
    let own = write(
        &cluster,
        "cluster.yaml",
        &format!(
            "apiVersion: kminik.io/v1alpha1\nkind: Cluster\nmetadata: {{name: {}}}\nspec: {{driver: native, nodes: 3, memory: 1g}}\n",
            cluster.profile
        ),
    );
    start(&cluster, &["-f", &own]).ok();
    assert_eq!(names(), nodes(3));
    assert_eq!(cluster.kubectl(&ready).ok().lines().count(), 3, "start has waited for all of them");
    start(&cluster, &["-f", &own]).ok();
    assert_eq!(names(), nodes(3));
    cluster.delete().ok();
    let kind = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnodes: [{role: control-plane}, {role: worker}]\n";
    let kind = write(&cluster, "kind.yaml", kind);
    // Without waiting for it the worker comes by itself.
    cluster.start_again(&["-f", &kind, "--memory=1g", "--wait=none"]).ok();
    assert_eq!(names(), nodes(2));
    let worker = format!("node/{}-m02", cluster.profile);
    eventually("the worker", || {
        let ready = cluster.kubectl(&["wait", "--for=condition=Ready", &worker, "--timeout=30s"]);
        (ready.code == 0).then_some(())
    });
}

fn foreign() {
    let cluster = Cluster::prepare("foreign");
    let kind = write(
        &cluster,
        "kind.yaml",
        "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnodes:\n- role: control-plane\ncontainerdConfigPatches:\n- |-\n  \
         [plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]\n    endpoint = [\"https://one.example\"]\n",
    );
    let k3s = write(
        &cluster,
        "registries.yaml",
        "mirrors:\n  quay.io:\n    endpoint: [\"https://two.example\"]\nconfigs:\n  two.example:\n    tls: {insecure_skip_verify: true}\n",
    );
    cluster.start_again(&["-f", &kind, "-f", &k3s, "--wait=none"]).ok();
    let registries = &config(&cluster)["registries"];
    assert_eq!(
        registries["mirrors"],
        serde_json::json!(["docker.io=https://one.example", "quay.io=https://two.example"])
    );
    assert_eq!(registries["insecure"], serde_json::json!(["two.example"]));
}

fn refused() {
    let cluster = Cluster::prepare("refused");
    let head = "apiVersion: kminik.io/v1alpha1\nkind: Cluster\n";
    let kind = "apiVersion: kind.x-k8s.io/v1alpha4\nkind: Cluster\n";
    for (text, why) in [
        (format!("{head}spec: {{cpu: 2}}"), "spec.cpu is no field"),
        (format!("{head}spec: {{wait: {{timeout: soon}}}}"), "is not a duration"),
        (format!("{kind}networking: {{disableDefaultCNI: true}}"), "the network of pods is kminik's own"),
        (format!("{kind}kubeadmConfigPatches: [a]\nfeatureGates: {{A: true}}"), "featureGates"),
        ("{}".to_owned(), "are not known"),
    ] {
        let file = write(&cluster, "c.yaml", &text);
        let told = cluster.start_again(&["--dry-run", "-f", &file]).fails(14);
        assert!(told.contains("MK_BAD_CLUSTER_FILE") && told.contains(why), "{told}");
    }
    let told = cluster.start_again(&["--dry-run", "-f", "/nonexistent/c.yaml", "-o", "json"]);
    let event: Value = serde_json::from_str(told.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(event["data"]["name"], "MK_BAD_CLUSTER_FILE");
    let file = write(&cluster, "c.yaml", &format!("{kind}kubeadmConfigPatches: [a]"));
    let told = cluster.start_again(&["--dry-run", "--force", "-f", &file]);
    assert!(told.stderr.contains("going on without it"), "{}", told.stderr);
    told.ok();
    assert!(!cluster.home().join("home/profiles").exists());
}
