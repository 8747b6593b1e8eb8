//! Roles of the test program, and a runner for its tests.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use kminik_runtime::keeper::{self, KeeperConfig};
use kminik_runtime::machine::{self, MachineConfig};
use kminik_runtime::node::{NodeContainer, NodeState};

pub struct Test {
    pub name: &'static str,
    pub run: fn() -> LocalBoxFuture<'static, ()>,
}

/// A test that takes longer has hung.
const LIMIT: Duration = Duration::from_secs(700);

pub fn main(tests: &[&[Test]]) -> ! {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let role = args.first().map_or("", String::as_str);
    if args.is_empty() && std::process::id() == 1 {
        std::process::exit(crate::qemu::guest());
    }
    let code = match role {
        "__suite" => suite(tests, &args[1..]),
        "__init" => init(&args[1..]),
        "__worker" => crate::adoption::worker(&args[1..]),
        "__creator" => crate::node::creator(&args[1..]),
        "__node" => crate::node::inside(&args[1..]),
        _ => keep(&args),
    };
    std::process::exit(code)
}

/// The outermost process: a reaper with the suite below it.
fn keep(args: &[String]) -> i32 {
    // What cargo passes to every test program.
    let filters: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    if args.iter().any(|arg| arg == "--list") {
        return 0;
    }
    let directory = tempfile::tempdir_in("/run").unwrap();
    let socket = directory.path().join("keeper.sock");
    let exe = std::env::current_exe().unwrap().display().to_string();
    let mut program = vec![exe, "__suite".to_owned()];
    program.extend(filters.into_iter().cloned());
    let env = vec![("KEEPER_SOCKET".to_owned(), socket.display().to_string())];
    let config = KeeperConfig { socket, program, env, stop_limit: Duration::from_secs(5), restart: false };
    keeper::run(&config).unwrap()
}

fn suite(tests: &[&[Test]], filters: &[String]) -> i32 {
    let mut failed = Vec::new();
    let wanted = |test: &&Test| filters.is_empty() || filters.iter().any(|filter| test.name.contains(filter.as_str()));
    for test in tests.iter().copied().flatten().filter(wanted) {
        let started = Instant::now();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let local = tokio::task::LocalSet::new();
        let body =
            std::panic::AssertUnwindSafe(async { tokio::time::timeout(LIMIT, (test.run)()).await }).catch_unwind();
        let passed = matches!(local.block_on(&runtime, body), Ok(Ok(())));
        println!(
            "test {} ... {} ({} ms)",
            test.name,
            if passed { "ok" } else { "FAILED" },
            started.elapsed().as_millis()
        );
        if !passed {
            failed.push(test.name);
        }
    }
    println!("failed: {failed:?}");
    i32::from(!failed.is_empty())
}

/// PID 1 of a node: `__init SCENARIO...`.
fn init(args: &[String]) -> i32 {
    let config = MachineConfig { pods_cgroup: "/pods".into(), reserved_memory_bytes: 64 << 20 };
    machine::prepare(&config).unwrap();
    std::fs::create_dir_all("/run/kminik").unwrap();
    let mut program = vec!["/kminik".to_owned(), "__node".to_owned()];
    program.extend_from_slice(args);
    let socket = PathBuf::from("/run/kminik/init.sock");
    let env = vec![("KEEPER_SOCKET".to_owned(), socket.display().to_string())];
    keeper::run(&KeeperConfig { socket, program, env, stop_limit: Duration::from_secs(2), restart: false }).unwrap()
}

/// How long something may take before it counts as hung: under emulation far longer.
pub fn patience() -> Duration {
    Duration::from_secs(if std::env::var_os("IN_GUEST").is_some() { 300 } else { 30 })
}

/// Waits for a condition without a fixed pause; tests only.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + patience();
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until a node has ended by itself; shows its log if it does not.
pub async fn node_ended(node: &NodeContainer) -> String {
    let deadline = Instant::now() + patience();
    while node.state() != NodeState::Stopped {
        if Instant::now() > deadline {
            let log = std::fs::read_to_string(&node.spec().console_log).unwrap_or_default();
            panic!("the node does not end: {log}");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    std::fs::read_to_string(&node.spec().console_log).unwrap_or_default()
}

/// A root filesystem with this program as /kminik and busybox.
pub fn node_rootfs(directory: &Path) -> PathBuf {
    let root = directory.join("rootfs");
    for name in ["bin", "etc", "proc", "sys", "dev", "run", "tmp", "var", "root"] {
        std::fs::create_dir_all(root.join(name)).unwrap();
    }
    std::fs::copy("/proc/self/exe", root.join("kminik")).unwrap();
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for applet in ["sh", "cat", "sleep", "mount", "ls", "echo", "tty", "id", "ps"] {
        let _ = std::os::unix::fs::symlink("busybox", root.join("bin").join(applet));
    }
    std::fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
    root
}
