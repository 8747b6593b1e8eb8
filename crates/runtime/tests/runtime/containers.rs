//! Containers from their creation to their removal.

use std::time::{Duration, Instant};

use futures::FutureExt;
use kminik_runtime::{
    ContainerState, Device, ExecRequest, Mount, NamespaceMode, Propagation, Runtime, RuntimeError, Seccomp, Streams,
    TerminalSize,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::Test;
use crate::pods::Pods;

macro_rules! tests {
    ($($name:ident)*) => {
        pub const ALL: &[Test] = &[$(Test { name: concat!("containers::", stringify!($name)), run: || $name().boxed_local() }),*];
    };
}

tests! {
    output_and_exit_code
    exec
    failures_of_the_program
    killing
    namespaces_of_a_sandbox
    shared_pid_namespace
    user_and_security
    limits
    out_of_memory
    devices
    mounts
    terminal
    stdin_once
    log_rotation
    stop_before_start
    successor_with_the_same_parent
    dial
    speed
}

async fn output_and_exit_code() {
    let pods = Pods::new().await;
    pods.sandbox("a").await;
    let (code, _) = pods
        .script("a", "hello", "echo hello; echo problem >&2; pwd; hostname; printf unended; exit 7", |config| {
            config.working_dir = "/work/dir".to_owned();
        })
        .await;
    assert_eq!(code, 7);
    let mut lines: Vec<String> =
        pods.raw_log("hello").lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect();
    lines.sort();
    assert_eq!(
        lines,
        ["stderr F problem", "stdout F /work/dir", "stdout F a-host", "stdout F hello", "stdout P unended"]
    );
    let status = pods.runtime.container_status("hello").await.unwrap();
    assert_eq!(status.reason.as_deref(), Some("Error"));
    assert!(status.started_at.unwrap() <= status.finished_at.unwrap());
    pods.finish().await;
}

async fn exec() {
    let pods = Pods::new().await;
    pods.sandbox("a").await;
    pods.start("a", pods.config("long", "trap 'exit 0' TERM; while :; do sleep 1; done")).await;
    let (code, text) = pods.exec("long", "echo in; readlink /proc/self/ns/pid; readlink /proc/1/ns/pid; exit 3").await;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((code, lines[0]), (3, "in"));
    assert_eq!(lines[1], lines[2], "the container's pid namespace");
    let (_, status) = pods.exec("long", "cat /proc/self/status").await;
    assert!(status.contains("Seccomp:\t2"), "{status}");
    let (_, groups) = pods.exec("long", "cat /proc/self/cgroup").await;
    assert!(!groups.contains("init"), "{groups}");
    let missing =
        pods.runtime.exec_sync("long", vec!["/bin/nothing".into()], Duration::from_secs(5)).await.unwrap_err();
    assert!(missing.to_string().contains("stat /bin/nothing: no such file or directory"), "{missing}");
    // What this process has open leads nobody to the files outside.
    for fd in 0..24 {
        let outside = format!("/proc/self/fd/{fd}/../bin/busybox");
        let refused = pods.runtime.exec_sync("long", vec![outside, "true".into()], Duration::from_secs(5));
        assert!(!matches!(refused.await, Ok(output) if output.exit_code == 0), "by {fd}");
    }
    let missing = pods.runtime.exec_sync("long", vec!["nothing".into()], Duration::from_secs(5)).await.unwrap_err();
    assert!(missing.to_string().contains("executable file not found in $PATH"), "{missing}");
    let started = Instant::now();
    let slow = pods.runtime.exec_sync("long", vec!["sleep".into(), "4711".into()], Duration::from_millis(200)).await;
    assert!(matches!(slow, Err(RuntimeError::Timeout(_))) && started.elapsed() < crate::harness::patience());
    let (_, left) = pods.exec("long", "ps").await;
    assert!(left.contains("PID") && !left.contains("4711"), "what takes too long is killed: {left}");

    // Streams with half-close.
    let (mut input, stdin) = tokio::io::duplex(64);
    let (stdout, mut output) = tokio::io::duplex(1024);
    let streams = Streams { stdin: Some(Box::new(stdin)), stdout: Some(Box::new(stdout)), stderr: None, resize: None };
    let request = ExecRequest { args: vec!["sh".into(), "-c".into(), "cat; exit 5".into()], env: vec![], tty: false };
    let talk = async {
        input.write_all(b"through").await.unwrap();
        drop(input);
        let mut text = String::new();
        output.read_to_string(&mut text).await.unwrap();
        text
    };
    let (code, text) = tokio::join!(pods.runtime.exec("long", request, streams), talk);
    assert_eq!((code.unwrap(), text.as_str()), (5, "through"));

    let (_, signals) = pods.exec("long", "grep Sig /proc/1/status").await;
    assert!(signals.contains("SigBlk:\t0000000000000000") && !signals.contains("SigIgn:\t0000000000001"), "{signals}");
    // A failed exec leaves nothing that blocks the end.
    let started = Instant::now();
    pods.runtime.stop_container("long", Duration::from_secs(10)).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(pods.exit("long").await.exit_code, Some(0));
    assert!(pods.runtime.exec_sync("long", vec!["true".into()], Duration::from_secs(1)).await.is_err());
    pods.finish().await;
}

async fn failures_of_the_program() {
    let pods = Pods::new().await;
    pods.sandbox("a").await;
    let cases = [
        ("missing", "/bin/nothing", "exec: \"/bin/nothing\": stat /bin/nothing: no such file or directory"),
        ("unknown", "nothing", "exec: \"nothing\": executable file not found in $PATH"),
        ("denied", "/bin/not-executable", "permission denied"),
        ("garbage", "/bin/not-a-program", "exec format error"),
    ];
    for (id, program, wanted) in cases {
        let mut config = pods.config(id, "");
        config.args = vec![program.to_owned()];
        pods.runtime.create_container("a", config).await.unwrap();
        let error = pods.runtime.start_container(id).await.unwrap_err().to_string();
        assert!(error.contains(wanted) && error.starts_with("failed to create containerd task"), "{error}");
        let status = pods.runtime.container_status(id).await.unwrap();
        assert_eq!((status.exit_code, status.reason.as_deref()), (Some(128), Some("StartError")), "{status:?}");
    }
    let mut config = pods.config("nobody", "");
    config.user.image_user = "nobody-knows".to_owned();
    assert!(matches!(pods.runtime.create_container("a", config).await, Err(RuntimeError::UnknownUser { .. })));
    assert!(pods.runtime.container_status("nobody").await.is_err());
    pods.finish().await;
}

async fn killing() {
    let pods = Pods::new().await;
    pods.sandbox("a").await;
    let mut events = pods.runtime.events();
    pods.start("a", pods.config("deaf", "trap '' TERM; while :; do sleep 1; done")).await;
    pods.runtime.stop_container("deaf", Duration::from_millis(300)).await.unwrap();
    let status = pods.exit("deaf").await;
    assert_eq!((status.exit_code, status.reason.as_deref()), (Some(137), Some("Error")));
    assert!(matches!(events.recv().await.unwrap(), kminik_runtime::ContainerEvent::Started { .. }));
    assert!(matches!(events.recv().await.unwrap(), kminik_runtime::ContainerEvent::Exited { .. }));
    pods.runtime.stop_container("deaf", Duration::from_secs(1)).await.unwrap();
    pods.runtime.remove_container("deaf").await.unwrap();
    pods.runtime.remove_container("deaf").await.unwrap();
    assert!(matches!(events.recv().await.unwrap(), kminik_runtime::ContainerEvent::Removed { .. }));
    pods.finish().await;
}

async fn namespaces_of_a_sandbox() {
    let pods = Pods::new().await;
    let status = pods.sandbox("a").await;
    assert_eq!(status.ips.len(), 1);
    let show = "for n in net ipc uts pid mnt; do readlink /proc/self/ns/$n; done";
    pods.start("a", pods.config("one", "sleep 1000")).await;
    let (_, one) = pods.exec("one", show).await;
    let (_, two) = pods.script("a", "two", show, |_| {}).await;
    let (one, two): (Vec<&str>, Vec<&str>) = (one.lines().collect(), two.lines().collect());
    assert_eq!(one[..3], two[..3], "net, ipc and uts are the sandbox'");
    assert_ne!(one[3], two[3]);
    assert_ne!(one[4], two[4]);
    let node = |name: &str| std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display().to_string();
    assert_ne!(one[0], node("net"));
    // /dev/shm is the sandbox' too.
    pods.script("a", "write", "echo shared > /dev/shm/file", |_| {}).await;
    assert_eq!(pods.script("a", "read", "cat /dev/shm/file", |_| {}).await, (0, "shared\n".to_owned()));

    pods.sandbox_with("host", |config| config.network = NamespaceMode::Node).await;
    let (_, text) = pods.script("host", "in-host", show, |_| {}).await;
    assert_eq!(text.lines().next().unwrap(), node("net"));
    let (_, text) = pods.script("host", "host-pid", show, |config| config.pid = NamespaceMode::Node).await;
    assert_eq!(text.lines().nth(3).unwrap(), node("pid"));
    pods.finish().await;
}

async fn shared_pid_namespace() {
    let pods = Pods::new().await;
    pods.sandbox_with("a", |config| config.pid = NamespaceMode::Shared).await;
    let mut config = pods.config("sleeper", "sleep 1000");
    config.pid = NamespaceMode::Shared;
    pods.start("a", config).await;
    let shared = |config: &mut kminik_runtime::ContainerConfig| config.pid = NamespaceMode::Shared;
    let (_, text) = pods.script("a", "looker", "ps; ls /proc/1/root 2>&1; echo end", shared).await;
    assert!(text.contains("sleep 1000"), "{text}");
    assert!(text.contains("1 65535") || text.lines().any(|line| line.trim_start().starts_with("1 ")), "{text}");
    assert!(!text.contains("var") && text.contains("end"), "the pause process shows nothing of the node: {text}");
    let target =
        |config: &mut kminik_runtime::ContainerConfig| config.pid = NamespaceMode::Target("sleeper".to_owned());
    let (_, text) = pods.script("a", "debugger", "ps", target).await;
    assert!(text.contains("sleep 1000"), "{text}");
    pods.runtime.stop_container("sleeper", Duration::from_millis(100)).await.unwrap();
    pods.finish().await;
}

async fn user_and_security() {
    let pods = Pods::new().await;
    pods.sandbox("a").await;
    let (_, text) = pods
        .script(
            "a",
            "web",
            "id; echo $HOME; touch /file 2>&1; grep -E 'CapEff|CapBnd|NoNewPrivs|Seccomp:' /proc/self/status",
            |config| {
                config.user.image_user = "web".to_owned();
                config.security.read_only_rootfs = true;
                config.security.no_new_privileges = true;
            },
        )
        .await;
    assert!(text.contains("uid=1000(web) gid=1001(web) groups=1001(web),1002(extra)"), "{text}");
    assert!(text.contains("/home/web\n") && text.contains("Read-only file system"), "{text}");
    assert!(
        text.contains("CapEff:\t0000000000000000") && text.contains("NoNewPrivs:\t1") && text.contains("Seccomp:\t2"),
        "{text}"
    );
    assert!(text.contains("CapBnd:\t00000000a80425fb"), "{text}");

    let (_, text) = pods.script("a", "plain", "grep -E 'CapEff|Seccomp:' /proc/self/status; unshare -U true 2>&1; mount -t tmpfs x /tmp 2>&1; cat /proc/kcore | head -c1 | wc -c; echo 1 > /proc/sys/kernel/panic", |_| {}).await;
    assert!(text.contains("CapEff:\t00000000a80425fb") && text.contains("Seccomp:\t2"), "{text}");
    assert!(text.to_lowercase().matches("not permitted").count() + text.matches("denied").count() >= 2, "{text}");
    assert!(text.contains("\n0\n"), "/proc/kcore is masked: {text}");

    let script = "grep -E 'CapEff|Seccomp:' /proc/self/status; mount -t tmpfs x /tmp && echo mounted";
    let (_, text) = pods.script("a", "privileged", script, |config| config.security.privileged = true).await;
    assert!(text.contains("Seccomp:\t0") && text.contains("mounted"), "{text}");

    let (_, text) = pods
        .script("a", "caps", "grep CapEff /proc/self/status", |config| {
            config.security.drop_capabilities = vec!["ALL".to_owned()];
            config.security.add_capabilities = vec!["NET_BIND_SERVICE".to_owned()];
        })
        .await;
    assert_eq!(text, "CapEff:\t0000000000000400\n");
    pods.finish().await;
}

async fn limits() {
    let pods = Pods::new().await;
    pods.sandbox("a").await;
    let mut config = pods.config("limited", "while :; do sleep 1; done");
    config.resources.pids_limit = Some(6);
    config.resources.memory_limit_bytes = Some(64 << 20);
    config.resources.cpu_quota_us = Some(50_000);
    config.resources.cpu_period_us = Some(100_000);
    config.resources.cpu_shares = Some(512);
    config.resources.oom_score_adj = Some(900);
    pods.start("a", config).await;
    let (_, text) = pods
        .exec("limited", "cat /proc/1/oom_score_adj; (for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; echo done) 2>&1")
        .await;
    assert!(text.starts_with("900\n") && text.contains("can't fork"), "{text}");
    let group = |controller: &str, file: &str| {
        let name = format!(
            "{}/burstable/a/limited",
            pods.directory.file_name().unwrap().to_string_lossy().replace('.', "").to_lowercase()
        );
        let v1 = format!("/sys/fs/cgroup/{controller}/kminik-test/{name}/{file}");
        std::fs::read_to_string(v1).map(|text| text.trim().to_owned())
    };
    if let Ok(quota) = group("cpu", "cpu.cfs_quota_us") {
        assert_eq!(quota, "50000");
        assert_eq!(group("cpu", "cpu.shares").unwrap(), "512");
        assert_eq!(group("memory", "memory.limit_in_bytes").unwrap(), (64 << 20).to_string());
        let resources = kminik_runtime::Resources {
            cpu_quota_us: Some(70_000),
            memory_limit_bytes: Some(96 << 20),
            ..Default::default()
        };
        pods.runtime.update_resources("limited", resources).await.unwrap();
        assert_eq!(group("cpu", "cpu.cfs_quota_us").unwrap(), "70000");
        assert_eq!(group("memory", "memory.limit_in_bytes").unwrap(), (96 << 20).to_string());
    }
    let stats = pods.runtime.stats().await.unwrap();
    assert!(stats[0].memory_usage_bytes > 0 && stats[0].cpu_usage_ns > 0, "{stats:?}");
    pods.finish().await;
}

async fn out_of_memory() {
    let pods = Pods::new().await;
    pods.sandbox("a").await;
    let (code, _) = pods
        .script("a", "hungry", "dd if=/dev/zero of=/dev/null bs=200M count=1", |config| {
            config.resources.memory_limit_bytes = Some(16 << 20);
            config.resources.memory_swap_limit_bytes = Some(16 << 20);
        })
        .await;
    assert_eq!(code, 137);
    assert_eq!(pods.exit("hungry").await.reason.as_deref(), Some("OOMKilled"));
    pods.finish().await;
}

async fn devices() {
    let pods = Pods::new().await;
    pods.sandbox("a").await;
    let script = "mknod /disk b 7 0 && dd if=/disk of=/dev/null bs=1 count=1; echo code $?; mknod /mem c 1 1; cat /mem | head -c 1; echo x > /dev/null && echo null ok; ls /dev";
    let (_, text) = pods.script("a", "plain", script, |_| {}).await;
    assert!(text.contains("code 1") && text.contains("null ok"), "{text}");
    assert!(text.matches("not permitted").count() >= 2, "{text}");
    assert!(!text.contains("loop0") && !text.contains("vda"), "{text}");
    // A device that is given is there, with what is allowed.
    std::fs::create_dir_all(pods.directory.join("nodes")).unwrap();
    let node = pods.directory.join("nodes/mine");
    let kind = rustix::fs::FileType::CharacterDevice;
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &node,
        kind,
        rustix::fs::Mode::from_raw_mode(0o666),
        rustix::fs::makedev(1, 11),
    )
    .unwrap();
    let (_, text) = pods
        .script("a", "given", "echo hi > /dev/mine; echo code $?; head -c 1 /dev/mine; echo code $?", |config| {
            config.devices =
                vec![Device { source: node.clone(), target: "/dev/mine".into(), permissions: "w".to_owned() }];
        })
        .await;
    assert!(text.contains("code 0") && text.contains("code 1"), "{text}");
    pods.finish().await;
}

async fn mounts() {
    let pods = Pods::new().await;
    pods.sandbox("a").await;
    let volume = pods.directory.join("volume");
    std::fs::create_dir_all(volume.join("inner")).unwrap();
    std::fs::write(volume.join("file"), "content").unwrap();
    let bind = |source: &std::path::Path, target: &str, read_only: bool| Mount {
        source: source.to_owned(),
        target: target.into(),
        read_only,
        recursive_read_only: false,
        propagation: Propagation::Private,
    };
    let script = "cat /data/file /etc/resolv.conf; echo x > /data/new; echo x 2>&1 > /ro/file; ls /data/inner";
    let (_, text) = pods
        .script("a", "mounted", script, |config| {
            config.mounts = vec![
                bind(&volume.join("file"), "/data/inner/deep", false),
                bind(&volume, "/data", false),
                bind(&volume, "/ro", true),
                bind(&volume.join("file"), "/etc/resolv.conf", true),
            ];
        })
        .await;
    assert!(
        text.contains("contentcontent") && text.contains("Read-only file system") && text.contains("deep"),
        "{text}"
    );
    assert_eq!(std::fs::read_to_string(volume.join("new")).unwrap(), "x\n");
    pods.finish().await;
}

async fn terminal() {
    let pods = Pods::new().await;
    pods.sandbox("a").await;
    let mut config = pods.config("shell", "tty; read line; echo got $line; stty size; exit 4");
    config.tty = true;
    config.stdin = true;
    pods.runtime.create_container("a", config).await.unwrap();
    pods.runtime.start_container("shell").await.unwrap();
    let (mut input, stdin) = tokio::io::duplex(64);
    let (stdout, mut output) = tokio::io::duplex(4096);
    let (resize, sizes) = tokio::sync::mpsc::channel(4);
    let streams =
        Streams { stdin: Some(Box::new(stdin)), stdout: Some(Box::new(stdout)), stderr: None, resize: Some(sizes) };
    let talk = async {
        resize.send(TerminalSize { width: 111, height: 33 }).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        input.write_all(b"words\n").await.unwrap();
        let mut text = String::new();
        output.read_to_string(&mut text).await.unwrap();
        text
    };
    let (attached, text) = tokio::join!(pods.runtime.attach("shell", streams), talk);
    attached.unwrap();
    assert!(text.contains("got words") && text.contains("33 111"), "{text:?}");
    assert_eq!(pods.exit("shell").await.exit_code, Some(4));
    assert!(pods.log("shell").contains("/dev/pts/0"), "{}", pods.log("shell"));

    pods.start("a", pods.config("long", "sleep 1000")).await;
    let (stdout, mut output) = tokio::io::duplex(4096);
    let (mut input, stdin) = tokio::io::duplex(64);
    let streams = Streams { stdin: Some(Box::new(stdin)), stdout: Some(Box::new(stdout)), stderr: None, resize: None };
    let request = ExecRequest {
        args: vec!["sh".into(), "-c".into(), "tty; stty size; read a; echo $a; exit 9".into()],
        env: vec![],
        tty: true,
    };
    let talk = async {
        input.write_all(b"typed\n").await.unwrap();
        let mut text = String::new();
        output.read_to_string(&mut text).await.unwrap();
        text
    };
    let (code, text) = tokio::join!(pods.runtime.exec("long", request, streams), talk);
    assert!(
        code.unwrap() == 9 && text.contains("/dev/pts/") && text.contains("24 80") && text.contains("typed"),
        "{text:?}"
    );
    pods.finish().await;
}

async fn stdin_once() {
    let pods = Pods::new().await;
    pods.sandbox("a").await;
    let mut config = pods.config("filter", "cat; echo end");
    config.stdin = true;
    config.stdin_once = true;
    pods.start("a", config).await;
    let (mut input, stdin) = tokio::io::duplex(64);
    let (stdout, mut output) = tokio::io::duplex(1 << 20);
    let streams = Streams { stdin: Some(Box::new(stdin)), stdout: Some(Box::new(stdout)), stderr: None, resize: None };
    let talk = async {
        input.write_all(b"some text").await.unwrap();
        drop(input);
        let mut text = String::new();
        output.read_to_string(&mut text).await.unwrap();
        text
    };
    let (attached, text) = tokio::join!(pods.runtime.attach("filter", streams), talk);
    attached.unwrap();
    assert_eq!(text, "some textend\n");
    assert_eq!(pods.exit("filter").await.exit_code, Some(0));
    pods.finish().await;
}

async fn log_rotation() {
    let pods = Pods::new().await;
    pods.sandbox("a").await;
    let (code, _) = pods.script("a", "chatty", "seq 1 60000", |_| {}).await;
    assert_eq!(code, 0);
    let mut logs: Vec<_> =
        std::fs::read_dir(pods.directory.join("logs")).unwrap().flatten().map(|entry| entry.path()).collect();
    logs.sort();
    assert_eq!(logs.len(), 3, "{logs:?}");
    assert_eq!(pods.log("chatty").lines().next_back(), Some("60000"));
    let (_, text) = pods.script("a", "long-line", "head -c 40000 /dev/zero | tr '\\0' x; echo", |_| {}).await;
    assert_eq!(text.lines().map(str::len).collect::<Vec<_>>(), [16384, 16384, 40000 - 2 * 16384]);
    assert_eq!(
        pods.raw_log("long-line").lines().map(|line| line.split(' ').nth(2).unwrap()).collect::<Vec<_>>(),
        ["P", "P", "F"]
    );
    pods.finish().await;
}

async fn stop_before_start() {
    let pods = Pods::new().await;
    pods.sandbox("a").await;
    pods.runtime.create_container("a", pods.config("never", "true")).await.unwrap();
    assert_eq!(pods.runtime.container_status("never").await.unwrap().state, ContainerState::Created);
    pods.runtime.stop_container("never", Duration::from_secs(1)).await.unwrap();
    assert!(pods.runtime.start_container("never").await.is_err());
    pods.runtime.stop_sandbox("a").await.unwrap();
    pods.runtime.stop_sandbox("a").await.unwrap();
    assert!(pods.runtime.create_container("a", pods.config("late", "true")).await.is_err());
    pods.finish().await;
}

/// A sandbox whose predecessor of the same group is removed late.
async fn successor_with_the_same_parent() {
    let pods = Pods::new().await;
    pods.sandbox_with("old", |config| config.cgroup_parent = "burstable/pod".to_owned()).await;
    pods.start("old", pods.config("first", "sleep 1000")).await;
    pods.sandbox_with("new", |config| config.cgroup_parent = "burstable/pod".to_owned()).await;
    pods.start("new", pods.config("second", "sleep 1000")).await;
    pods.runtime.remove_sandbox("old").await.unwrap();
    assert_eq!(pods.runtime.container_status("second").await.unwrap().state, ContainerState::Running);
    assert_eq!(pods.exec("second", "echo well").await, (0, "well\n".to_owned()));
    pods.finish().await;
}

async fn dial() {
    let pods = Pods::new().await;
    pods.sandbox("a").await;
    pods.start("a", pods.config("server", "while :; do echo answer | nc -l -p 8080; done")).await;
    let mut text = String::new();
    for _ in 0..200 {
        if let Ok(mut stream) = pods.runtime.dial("a", 8080).await {
            stream.shutdown().await.unwrap();
            stream.read_to_string(&mut text).await.unwrap();
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(text, "answer\n");
    let error = pods.runtime.dial("a", 9999).await.err().unwrap();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("refused"), "{error}");
    pods.finish().await;
}

/// Prints what creation and start take; asserts nothing about it.
async fn speed() {
    let pods = Pods::new().await;
    pods.sandbox("a").await;
    for seccomp in [Seccomp::RuntimeDefault, Seccomp::Unconfined] {
        let mut times = Vec::new();
        for number in 0..20 {
            let mut config = pods.config(&format!("fast-{number}"), "true");
            config.security.seccomp = seccomp.clone();
            let id = config.id.clone();
            let started = Instant::now();
            pods.runtime.create_container("a", config).await.unwrap();
            let created = started.elapsed();
            pods.runtime.start_container(&id).await.unwrap();
            times.push((started.elapsed(), created));
            pods.exit(&id).await;
            pods.runtime.remove_container(&id).await.unwrap();
        }
        times.sort();
        let (total, create) = times[times.len() / 2];
        println!("{seccomp:?}: create+start median {total:?} (create {create:?}), best {:?}", times[0].0);
    }
    let started = Instant::now();
    pods.sandbox("b").await;
    println!("sandbox: {:?}", started.elapsed());
    pods.finish().await;
}
