//! The docker driver, on a real engine: the same cluster in a container.

use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::Test;
use crate::start_failures::taken_docker_port;
use crate::support::{Cluster, command, eventually, nginx, run};

pub const TESTS: &[Test] = &[("a_cluster_in_a_container_works_and_leaves_nothing", whole_life)];

/// An engine that answers: the host's own, or one of the test's that ends with it. One test at a time has it.
pub struct Engine(Option<Child>, #[expect(dead_code, reason = "held")] MutexGuard<'static, ()>);

static TURN: Mutex<()> = Mutex::new(());

impl Engine {
    pub fn get() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let answers = || run(&mut command("docker", &["info"]), None).code == 0;
        if answers() {
            return Self(None, turn);
        }
        let child =
            Command::new("dockerd").stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("dockerd is installed");
        let engine = Self(Some(child), turn);
        eventually("the engine to answer", || answers().then_some(()));
        engine
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = run(&mut command("kill", &[&child.id().to_string()]), None);
            let _ = child.wait();
        }
    }
}

pub fn docker(arguments: &[&str]) -> String {
    run(&mut command("docker", arguments), None).ok()
}

fn everything() -> String {
    [
        docker(&["ps", "-aq"]),
        docker(&["volume", "ls", "-q"]),
        docker(&["network", "ls", "-q"]),
        docker(&["images", "-q", "kminik/node"]),
    ]
    .join("|")
}

fn whole_life() {
    let _engine = Engine::get();
    let before = everything();
    let cluster = Cluster::start("docker", &["--driver=docker"]);
    assert!(cluster.kminik(&["profile", "list"]).ok().contains("docker"));
    assert!(docker(&["ps"]).contains(&cluster.profile));
    cluster.load(&nginx());
    cluster.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: web, labels: {app: web}}, spec: {containers: [{name: nginx, image: 'nginx:latest', imagePullPolicy: IfNotPresent}]}}",
    );
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/web", "--timeout=60s"]).ok();
    cluster.apply(
        "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, nodePort: 30081}]}}",
    );
    let answer = || run(&mut command("curl", &["-sS", "--max-time", "3", "http://localhost:30081"]), None).stdout;
    eventually("nginx on localhost", || answer().contains("nginx works").then_some(()));
    assert!(cluster.kubectl(&["exec", "web", "--", "cat", "/www/index.html"]).ok().contains("nginx works"));
    assert!(cluster.kminik(&["ssh", "echo", "inside"]).ok().contains("inside"));
    let server = |cluster: &Cluster| {
        cluster.kubectl(&["config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"]).ok()
    };
    let url = server(&cluster);
    taken_docker_port(&cluster, url.rsplit(':').next().unwrap().parse().unwrap());
    assert_eq!(server(&cluster), url, "the API's port stays");
    eventually("nginx after the restart", || answer().contains("nginx works").then_some(()));
    cluster.kminik(&["delete", "--all", "--purge"]).ok();
    assert_eq!(everything(), before);
}
