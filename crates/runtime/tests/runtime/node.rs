//! Nodes: machines made of containers.

use std::path::Path;
use std::time::Duration;

use futures::FutureExt;
use kminik_runtime::Runtime;
use kminik_runtime::node::{NodeContainer, NodeError, NodeSpec, NodeState, OutputBounds};

use crate::harness::{Test, eventually, node_ended, node_rootfs};
use crate::pods::{Pods, runtime_config};

pub const ALL: &[Test] = &[
    Test { name: "node::life", run: || life().boxed_local() },
    Test { name: "node::pods_in_a_node", run: || pods_in_a_node().boxed_local() },
    Test { name: "node::a_pod_that_eats_all_memory", run: || memory().boxed_local() },
    Test { name: "node::another_life", run: || another_life().boxed_local() },
    Test { name: "node::killed_creator", run: || killed_creator().boxed_local() },
];

/// What the node process of a test does, inside of the node.
pub fn inside(args: &[String]) -> i32 {
    match args.first().map(String::as_str) {
        Some("idle") => {
            println!("idle as pid {}", std::process::id());
            let (read, _write) = std::io::pipe().unwrap();
            let _ = std::io::Read::read(&mut &read, &mut [0]);
            0
        }
        Some("pods") => pods_inside(),
        Some("hungry") => hungry_pod(),
        Some("first-life") => first_life(),
        Some("second-life") => second_life(),
        other => panic!("unknown scenario {other:?}"),
    }
}

fn spec(directory: &std::path::Path, name: &str, scenario: &str) -> NodeSpec {
    let data_dir = directory.join("data");
    std::fs::create_dir_all(&data_dir).unwrap();
    NodeSpec {
        name: name.to_owned(),
        state_dir: directory.join("state"),
        rootfs: vec![node_rootfs(directory)],
        data_dir,
        hostname: "machine-1".to_owned(),
        cpus: Some(1),
        memory_bytes: Some(512 << 20),
        argv: vec!["/kminik".to_owned(), "__init".to_owned(), scenario.to_owned()],
        env: vec!["RUST_BACKTRACE=1".to_owned()],
        mounts: Vec::new(),
        console_log: directory.join("node.log"),
    }
}

const BOUNDS: OutputBounds = OutputBounds { time: Duration::from_secs(60), bytes: 1 << 20 };

/// Runs a shell command in the node: (exit code, output).
async fn shell(node: &NodeContainer, script: &str) -> (i32, String) {
    let output = node.output(&["sh".into(), "-c".into(), format!("{script} 2>&1")], BOUNDS).await.unwrap();
    (output.exit_code, String::from_utf8(output.stdout).unwrap())
}

async fn life() {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let spec = spec(directory.path(), "runtime-life", "idle");
    let state = spec.state_dir.clone();
    let log = spec.console_log.clone();
    let mounts_before = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let node = NodeContainer::create(&spec).await.unwrap();
    assert_eq!(node.state(), NodeState::Created);
    assert!(std::fs::metadata(node.netns_path()).is_ok());
    node.start().unwrap();
    assert_eq!(node.state(), NodeState::Running);
    let read_log = || std::fs::read_to_string(&log).unwrap_or_default();
    eventually("the node process runs", || read_log().contains("idle as pid")).await;

    // Another process of the command line finds it.
    let node = NodeContainer::open(&state, "runtime-life").unwrap().unwrap();
    let (code, text) =
        shell(&node, "{ cat /proc/sys/kernel/hostname; cat /proc/self/cgroup; mount; ps; echo > /new; exit 3; }").await;
    assert_eq!(code, 3, "{text}");
    assert!(text.starts_with("machine-1\n"), "{text}");
    assert!(text.contains("/kminik __init"), "{text}");
    assert!(!spec.rootfs[0].join("new").exists(), "the layers are not written to");
    let limit = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes || cat /sys/fs/cgroup/memory.max";
    let (code, text) = shell(&node, limit).await;
    assert_eq!((code, text.trim()), (0, "536870912"));
    let missing = node.output(&["nothing-there".into()], BOUNDS).await.unwrap_err().to_string();
    assert!(missing.contains("executable file not found in $PATH"), "{missing}");
    let bounds = OutputBounds { time: Duration::from_millis(200), ..BOUNDS };
    let endless = node.output(&["sleep".into(), "4711".into()], bounds).await.unwrap_err();
    assert!(matches!(endless, NodeError::Endless), "{endless}");
    let chatty = node.output(&["cat".into(), "/dev/zero".into()], BOUNDS).await.unwrap_err();
    assert!(matches!(chatty, NodeError::TooMuch), "{chatty}");
    let (_, left) = shell(&node, "ps").await;
    assert!(left.contains("__init") && !left.contains("4711") && !left.contains("/dev/zero"), "{left}");

    node.stop(Duration::from_secs(5)).await.unwrap();
    assert_eq!(node.state(), NodeState::Stopped);
    let node = NodeContainer::create(&spec).await.unwrap();
    node.start().unwrap();
    assert_eq!(node.state(), NodeState::Running);
    NodeContainer::delete(&state, "runtime-life").await.unwrap();
    NodeContainer::delete(&state, "runtime-life").await.unwrap();
    assert!(NodeContainer::open(&state, "runtime-life").unwrap().is_none());
    assert_eq!(std::fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts_before);
    assert!(!state.exists());
    assert!(!std::path::Path::new("/sys/fs/cgroup/memory/kminik/runtime-life").exists());
}

fn block_on(work: impl Future<Output = ()>) -> i32 {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(work);
    0
}

/// Containers made by the library in a container made by the library.
fn pods_inside() -> i32 {
    block_on(async {
        let directory = Path::new("/var/pods");
        std::fs::create_dir_all(directory).unwrap();
        let pods = Pods::at(directory, Path::new("/pods")).await;
        pods.sandbox("a").await;
        let (code, text) = pods.script("a", "hello", "echo hello; hostname; exit 7", |_| {}).await;
        assert_eq!((code, text.as_str()), (7, "hello\na-host\n"));
        let (code, _) = pods
            .script("a", "hungry", "dd if=/dev/zero of=/dev/null bs=200M count=1", |config| {
                config.resources.memory_limit_bytes = Some(16 << 20);
            })
            .await;
        assert_eq!(code, 137);
        pods.start("a", pods.config("long", "sleep 1000")).await;
        assert_eq!(pods.exec("long", "echo exec").await, (0, "exec\n".to_owned()));
        let script = "mknod /disk b 7 0; dd if=/disk of=/dev/null bs=1 count=1";
        let (_, text) = pods.script("a", "device", script, |_| {}).await;
        assert!(text.contains("not permitted"), "{text}");
        pods.runtime.stop_container("long", Duration::from_millis(100)).await.unwrap();
        pods.finish().await;
        println!("pods passed");
    })
}

async fn pods_in_a_node() {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let spec = spec(directory.path(), "runtime-pods", "pods");
    let node = NodeContainer::create(&spec).await.unwrap();
    node.start().unwrap();
    let log = node_ended(&node).await;
    assert!(log.contains("pods passed"), "{log}");
    NodeContainer::delete(&spec.state_dir, "runtime-pods").await.unwrap();
}

/// A pod without limits takes what it gets; the node process goes on.
fn hungry_pod() -> i32 {
    block_on(async {
        let directory = Path::new("/var/pods");
        std::fs::create_dir_all(directory).unwrap();
        let pods = Pods::at(directory, Path::new("/pods")).await;
        pods.sandbox("a").await;
        // What it writes there is memory.
        let (code, _) = pods
            .script(
                "a",
                "hungry",
                "dd if=/dev/zero of=/dev/shm/x bs=1M; dd if=/dev/zero of=/dev/null bs=2000M count=1",
                |_| {},
            )
            .await;
        assert_eq!(code, 137);
        assert_eq!(pods.exit("hungry").await.reason.as_deref(), Some("OOMKilled"));
        assert_eq!(pods.script("a", "next", "echo well", |_| {}).await.1, "well\n");
        pods.finish().await;
        println!("still here");
    })
}

async fn memory() {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let spec = NodeSpec { memory_bytes: Some(600 << 20), ..spec(directory.path(), "runtime-memory", "hungry") };
    let node = NodeContainer::create(&spec).await.unwrap();
    node.start().unwrap();
    let log = node_ended(&node).await;
    assert!(log.contains("still here"), "{log}");
    NodeContainer::delete(&spec.state_dir, "runtime-memory").await.unwrap();
}

async fn pods_of_a_life() -> Pods {
    let directory = Path::new("/var/pods");
    std::fs::create_dir_all(directory).unwrap();
    let mut config = runtime_config(directory, Path::new("/pods"));
    config.run_dir = "/run/pods".into();
    Pods::with(directory, Path::new("/pods"), config).await
}

fn first_life() -> i32 {
    block_on(async {
        let pods = pods_of_a_life().await;
        pods.sandbox("a").await;
        assert_eq!(pods.script("a", "done", "exit 4", |_| {}).await.0, 4);
        pods.start("a", pods.config("long", "echo begun; sleep 1000")).await;
        eventually("it has begun", || pods.log("long") == "begun\n").await;
        println!("first life is ready");
        std::future::pending::<()>().await;
    })
}

fn second_life() -> i32 {
    block_on(async {
        let pods = pods_of_a_life().await;
        let sandboxes = pods.runtime.list_sandboxes().await.unwrap();
        assert_eq!(sandboxes[0].state, kminik_runtime::SandboxState::NotReady);
        assert_eq!(pods.exit("done").await.exit_code, Some(4));
        let long = pods.exit("long").await;
        assert_eq!((long.exit_code, long.reason.as_deref()), (Some(255), Some("Unknown")));
        assert_eq!(pods.log("long"), "begun\n");
        pods.runtime.remove_sandbox("a").await.unwrap();
        pods.sandbox("b").await;
        assert_eq!(pods.script("b", "new", "echo new", |_| {}).await, (0, "new\n".to_owned()));
        pods.finish().await;
        println!("second life passed");
    })
}

/// PID 1 is killed: what the records say is taken for what it is, and nothing runs twice.
async fn another_life() {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let mut spec = spec(directory.path(), "runtime-lives", "first-life");
    let node = NodeContainer::create(&spec).await.unwrap();
    node.start().unwrap();
    let read_log = || std::fs::read_to_string(&spec.console_log).unwrap_or_default();
    eventually("the first life is ready", || read_log().contains("first life is ready")).await;
    node.kill().await.unwrap();
    spec.argv[2] = "second-life".to_owned();
    let node = NodeContainer::create(&spec).await.unwrap();
    node.start().unwrap();
    let log = node_ended(&node).await;
    assert!(log.contains("second life passed"), "{log}");
    NodeContainer::delete(&spec.state_dir, "runtime-lives").await.unwrap();
}

/// What `__creator` does: makes and starts a node until it is killed.
pub fn creator(args: &[String]) -> i32 {
    let directory = Path::new(&args[0]).to_owned();
    block_on(async move {
        let text = std::fs::read(directory.join("spec.json")).unwrap();
        let spec: NodeSpec = serde_json::from_slice(&text).unwrap();
        let node = NodeContainer::create(&spec).await.unwrap();
        node.start().unwrap();
        std::future::pending::<()>().await;
    })
}

/// The command line is killed at any moment of a creation: deletion leaves nothing, and the next creation works.
async fn killed_creator() {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let spec = spec(directory.path(), "runtime-killed", "idle");
    std::fs::write(directory.path().join("spec.json"), serde_json::to_vec(&spec).unwrap()).unwrap();
    let mounts_before = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    for round in 0..12 {
        let mut child =
            std::process::Command::new("/proc/self/exe").arg("__creator").arg(directory.path()).spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(5 + 17 * round)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        NodeContainer::delete(&spec.state_dir, "runtime-killed").await.unwrap();
        assert!(!spec.state_dir.exists());
        assert!(!Path::new("/sys/fs/cgroup/memory/kminik/runtime-killed").exists());
        assert_eq!(std::fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts_before, "round {round}");
    }
    let node = NodeContainer::create(&spec).await.unwrap();
    node.start().unwrap();
    assert_eq!(node.state(), NodeState::Running);
    node.kill().await.unwrap();
    NodeContainer::delete(&spec.state_dir, "runtime-killed").await.unwrap();
}
