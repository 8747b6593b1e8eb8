//! Nodes: machines made of containers.

use std::os::fd::OwnedFd;
use std::time::Duration;

use futures::FutureExt;
use kminik_runtime::node::{NodeCommand, NodeContainer, NodeSpec, NodeState, NodeStdio, create_netns, remove_netns};

use crate::harness::{Test, eventually, node_rootfs};

pub const LIFE: Test = Test { name: "node::life", run: || life().boxed_local() };

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
        rootfs: node_rootfs(directory),
        data_dir,
        hostname: "machine-1".to_owned(),
        netns: directory.join("netns"),
        cpus: Some(1.5),
        memory_bytes: Some(512 << 20),
        argv: vec!["/kminik".to_owned(), "__init".to_owned(), scenario.to_owned()],
        env: vec!["RUST_BACKTRACE=1".to_owned()],
        mounts: Vec::new(),
        log_file: directory.join("node.log"),
    }
}

/// Runs a shell command in the node: (exit code, output).
async fn shell(node: &NodeContainer, script: &str) -> (i32, String) {
    let mut output = tempfile::tempfile().unwrap();
    let copy = || OwnedFd::from(output.try_clone().unwrap());
    let null = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let command = NodeCommand { args: vec!["sh".into(), "-c".into(), script.into()], env: Vec::new() };
    let stdio = NodeStdio::Streams { stdin: null, stdout: copy(), stderr: copy() };
    let code = node.exec(command, stdio).await.unwrap().wait().await.unwrap();
    let mut text = String::new();
    std::io::Seek::rewind(&mut output).unwrap();
    std::io::Read::read_to_string(&mut output, &mut text).unwrap();
    (code, text)
}

async fn life() {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let state = directory.path().join("state");
    let spec = spec(directory.path(), "runtime-life", "idle");
    let (log, netns) = (spec.log_file.clone(), spec.netns.clone());
    create_netns(&netns).await.unwrap();
    let mut node = NodeContainer::create(&state, spec).await.unwrap();
    assert_eq!(node.state(), NodeState::Created);
    node.start().await.unwrap();
    assert_eq!(node.state(), NodeState::Running);
    let read_log = || std::fs::read_to_string(&log).unwrap_or_default();
    eventually("the node process runs", || read_log().contains("idle as pid")).await;

    // Another process of the command line finds it.
    let mut node = NodeContainer::open(&state, "runtime-life").unwrap().unwrap();
    let (code, text) = shell(&node, "cat /proc/sys/kernel/hostname; cat /proc/self/cgroup; mount; ps; exit 3").await;
    assert_eq!(code, 3, "{text}");
    assert!(text.starts_with("machine-1\n"), "{text}");
    assert!(text.contains("/kminik __init"), "{text}");
    let (code, text) =
        shell(&node, "cat /sys/fs/cgroup/memory/memory.limit_in_bytes || cat /sys/fs/cgroup/memory.max").await;
    assert_eq!((code, text.lines().next_back().unwrap()), (0, "536870912"));
    println!("{text}");

    node.stop(Duration::from_secs(5)).await.unwrap();
    assert_eq!(node.state(), NodeState::Stopped);
    node.start().await.unwrap();
    assert_eq!(node.state(), NodeState::Running);
    node.delete().await.unwrap();
    assert!(NodeContainer::open(&state, "runtime-life").unwrap().is_none());
    remove_netns(&netns).unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(directory.path().to_str().unwrap()), "{mounts}");
    assert!(!std::path::Path::new("/sys/fs/cgroup/memory/kminik/runtime-life").exists());
}
