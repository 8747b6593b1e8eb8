//! Nodes: machines made of containers.

use std::time::Duration;

use futures::FutureExt;
use kminik_runtime::node::{NodeContainer, NodeSpec, NodeState};

use crate::harness::{Test, eventually, node_rootfs};

pub const ALL: &[Test] = &[Test { name: "node::life", run: || life().boxed_local() }];

/// What the node process of a test does, inside of the node.
pub fn inside(args: &[String]) -> i32 {
    match args.first().map(String::as_str) {
        Some("idle") => {
            println!("idle as pid {}", std::process::id());
            let (read, _write) = std::io::pipe().unwrap();
            let _ = std::io::Read::read(&mut &read, &mut [0]);
            0
        }
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

/// Runs a shell command in the node: (exit code, output).
async fn shell(node: &NodeContainer, script: &str) -> (i32, String) {
    let output = node.output(&["sh".into(), "-c".into(), format!("{script} 2>&1")]).await.unwrap();
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
    let missing = node.output(&["nothing-there".into()]).await.unwrap_err().to_string();
    assert!(missing.contains("executable file not found in $PATH"), "{missing}");

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
