//! A node as an OCI configuration: all capabilities, no filter, its own namespaces.

use std::path::Path;

use serde_json::{Value, json};

use super::NodeSpec;
use crate::Resources;
use crate::environment::with_defaults;
use crate::oci_config::{ALL_CAPABILITIES, capability_names};

pub(super) fn limits(spec: &NodeSpec) -> Resources {
    const PERIOD_US: u64 = 100_000;
    let memory = spec.memory_bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    Resources {
        cpu_quota_us: spec.cpus.map(|cpus| i64::from(cpus).saturating_mul(100_000)),
        cpu_period_us: spec.cpus.map(|_| PERIOD_US),
        memory_limit_bytes: memory,
        memory_swap_limit_bytes: memory,
        ..Resources::default()
    }
}

/// As [`limits`], with what is not limited said too: for a group that had other limits.
pub(super) fn all_limits(spec: &NodeSpec) -> Resources {
    const NONE: i64 = -1;
    let limits = limits(spec);
    Resources {
        cpu_quota_us: limits.cpu_quota_us.or(Some(NONE)),
        memory_limit_bytes: limits.memory_limit_bytes.or(Some(NONE)),
        memory_swap_limit_bytes: limits.memory_swap_limit_bytes.or(Some(NONE)),
        ..limits
    }
}

pub(super) fn oci(spec: &NodeSpec, rootfs: &Path, group: &Path) -> Value {
    let capabilities = capability_names(ALL_CAPABILITIES);
    let mount = |target: &str, kind: &str, options: &[&str]| json!({"destination": target, "type": kind, "source": kind, "options": options});
    let bind = |source: &Path, target: &Path, read_only: bool| {
        json!({
            "destination": target, "type": "bind", "source": source,
            "options": ["rbind", if read_only { "ro" } else { "rw" }],
        })
    };
    let mut mounts = vec![
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev"]),
        bind(&spec.data_dir, Path::new("/var"), false),
    ];
    mounts.extend(spec.mounts.iter().map(|mount| bind(&mount.source, &mount.target, mount.read_only)));
    json!({
        "ociVersion": "1.0.2",
        "hostname": spec.hostname,
        "root": {"path": rootfs, "readonly": false},
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": spec.argv,
            "env": with_defaults(&spec.env, "/root"),
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
        },
        "mounts": mounts,
        "linux": {
            "cgroupsPath": group,
            "namespaces": [
                {"type": "mount"}, {"type": "pid"}, {"type": "uts"}, {"type": "ipc"}, {"type": "cgroup"},
                {"type": "network"}],
        },
    })
}
