//! What holds on cgroup v2 in particular (and is asserted in the guest, see [`crate::qemu`]), and what no container may do to the runtime.

use futures::FutureExt;

use crate::harness::Test;
use crate::pods::Pods;

pub const ALL: &[Test] = &[
    Test { name: "v2::block_devices", run: || block_devices().boxed_local() },
    Test { name: "v2::limits", run: || limits().boxed_local() },
    Test { name: "escape::writing_to_proc_exe", run: || writing_to_proc_exe().boxed_local() },
];

fn is_v2() -> bool {
    std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// An unprivileged container cannot open a block device that a privileged one can.
async fn block_devices() {
    if !is_v2() {
        return;
    }
    let pods = Pods::new().await;
    pods.sandbox("a").await;
    let script = "mknod /disk b 7 0 && dd if=/disk of=/dev/null bs=1 count=1; echo code $?";
    let (_, plain) = pods.script("a", "plain", script, |_| {}).await;
    assert!(plain.contains("Operation not permitted") && plain.contains("code 1"), "{plain}");
    let (_, privileged) = pods.script("a", "privileged", script, |config| config.security.privileged = true).await;
    assert!(privileged.contains("code 0"), "{privileged}");
    // Neither can what is executed into it later, nor a group made below.
    pods.start("a", pods.config("long", "sleep 1000")).await;
    let (_, exec) = pods.exec("long", script).await;
    assert!(exec.contains("Operation not permitted"), "{exec}");
    pods.finish().await;
}

async fn limits() {
    if !is_v2() {
        return;
    }
    let pods = Pods::new().await;
    pods.sandbox("a").await;
    let script = "cd /sys/fs/cgroup; cat cpu.max memory.max pids.max cpu.weight memory.oom.group; mkdir new 2>&1";
    let (_, text) = pods
        .script("a", "limited", script, |config| {
            config.resources.cpu_quota_us = Some(50_000);
            config.resources.cpu_period_us = Some(100_000);
            config.resources.memory_limit_bytes = Some(32 << 20);
            config.resources.pids_limit = Some(50);
            config.resources.cpu_shares = Some(1024);
        })
        .await;
    assert!(text.starts_with("50000 100000\n33554432\n50\n39\n1\n"), "{text}");
    assert!(text.contains("Read-only file system"), "{text}");
    pods.finish().await;
}

/// The runtime enters containers with a copy of its program that nobody can write: whatever a container writes to
/// `/proc/<pid>/exe` of whom it sees changes nothing.
async fn writing_to_proc_exe() {
    let pods = Pods::new().await;
    pods.sandbox("a").await;
    let digest = || {
        let bytes = std::fs::read("/proc/self/exe").unwrap();
        sha2::Digest::finalize(<sha2::Sha256 as sha2::Digest>::new_with_prefix(bytes))
    };
    let before = digest();
    // Every process that shows up, even the helper about to become the exec'd program, gets its program overwritten.
    let script = "while :; do for p in /proc/[0-9]*; do [ $p = /proc/1 ] || [ $p = /proc/$$ ] || { echo pwned > $p/exe; } 2>/dev/null; done; done";
    pods.start("a", pods.config("attacker", script)).await;
    let rounds = if is_v2() { 3 } else { 20 };
    for _ in 0..rounds {
        assert_eq!(pods.exec("attacker", "echo fine").await, (0, "fine\n".to_owned()));
    }
    assert_eq!(digest(), before);
    pods.finish().await;
}
