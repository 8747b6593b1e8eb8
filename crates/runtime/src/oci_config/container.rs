//! A container's configuration as the container library reads it.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::capabilities::{capability_names, container_set};
use super::seccomp::default_filter;
use super::user::Identity;
use crate::cgroup::{DeviceAccess, DeviceKind, DeviceRule};
use crate::environment::with_defaults;
use crate::{ContainerConfig, Device, Mount, Propagation, RuntimeError, Seccomp};

/// Where the container's namespaces come from; `None` is one of its own (mount, pid, cgroup) or the node's (the others).
#[derive(Clone, Debug, Default)]
pub(crate) struct Namespaces {
    pub net: Option<PathBuf>,
    pub ipc: Option<PathBuf>,
    pub uts: Option<PathBuf>,
    pub pid: PidNamespace,
}

#[derive(Clone, Debug, Default)]
pub(crate) enum PidNamespace {
    #[default]
    Own,
    Node,
    Joined(PathBuf),
}

/// What of a container depends on the machine and the sandbox.
#[derive(Debug)]
pub(crate) struct Surroundings<'a> {
    pub rootfs: &'a Path,
    pub cgroup: &'a Path,
    pub namespaces: Namespaces,
    /// Bound to /dev/shm.
    pub shm: Option<PathBuf>,
    pub identity: &'a Identity,
    pub oom_score_adj: Option<i32>,
    pub cgroup_v2: bool,
}

/// What is hidden in /proc and /sys unless the caller says otherwise.
const MASKED: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The OCI configuration.
pub(crate) fn oci(config: &ContainerConfig, around: &Surroundings<'_>) -> Result<Value, RuntimeError> {
    let security = &config.security;
    let set = container_set(security.privileged, &security.add_capabilities, &security.drop_capabilities);
    let capabilities = capability_names(set);
    let Identity { uid, gid, groups, home } = around.identity;
    let mut process = json!({
        "terminal": config.tty,
        "user": {"uid": uid, "gid": gid, "additionalGids": groups},
        "args": config.args,
        "env": with_defaults(&terminal_env(config), home),
        "cwd": if config.working_dir.is_empty() { "/" } else { config.working_dir.as_str() },
        // Of a user other than root they are for programs with file capabilities only: nothing is inheritable.
        "capabilities": {
            "bounding": capabilities, "permitted": capabilities, "effective": capabilities,
        },
    });
    let mut linux = json!({
        "cgroupsPath": around.cgroup,
        "namespaces": namespaces(&around.namespaces),
        "rootfsPropagation": propagation(&config.mounts),
        "maskedPaths": paths(&security.masked_paths, MASKED, security.privileged),
        "readonlyPaths": paths(&security.readonly_paths, READ_ONLY, security.privileged),
        "devices": devices(config)?,
    });
    // The library loads the filter after the capabilities are gone if this is there at all, whatever it says.
    if security.no_new_privileges
        && let Some(process) = process.as_object_mut()
    {
        process.insert("noNewPrivileges".to_owned(), json!(true));
    }
    if let (Some(score), Some(process)) = (around.oom_score_adj, process.as_object_mut()) {
        process.insert("oomScoreAdj".to_owned(), json!(score));
    }
    if let (Some(filter), Some(linux)) = (filter(config, &capabilities)?, linux.as_object_mut()) {
        linux.insert("seccomp".to_owned(), filter);
    }
    Ok(json!({
        "ociVersion": "1.0.2",
        "root": {"path": around.rootfs, "readonly": security.read_only_rootfs},
        "process": process,
        "mounts": mounts(config, around),
        "linux": linux,
    }))
}

/// The system call filter of a container with these capabilities (`CAP_…`), `None` if it is unconfined.
pub(crate) fn filter(config: &ContainerConfig, capabilities: &[String]) -> Result<Option<Value>, RuntimeError> {
    match &config.security.seccomp {
        _ if config.security.privileged => Ok(None),
        Seccomp::Unconfined => Ok(None),
        Seccomp::RuntimeDefault => Ok(Some(default_filter(capabilities))),
        Seccomp::Localhost(path) => {
            let what = || format!("cannot load seccomp profile {}", path.display());
            let text = std::fs::read(path).map_err(|source| RuntimeError::Io { what: what(), source })?;
            let profile = serde_json::from_slice(&text)
                .map_err(|error| RuntimeError::Kernel { what: what(), detail: error.to_string() })?;
            Ok(Some(profile))
        }
    }
}

/// Which devices the container's group allows.
pub(crate) fn device_rules(config: &ContainerConfig) -> Result<Vec<DeviceRule>, RuntimeError> {
    if config.security.privileged {
        return Ok(vec![DeviceRule::ANY]);
    }
    let mut rules = DeviceRule::DEFAULT.to_vec();
    for device in &config.devices {
        let (kind, major, minor, _) = node(device)?;
        rules.push(DeviceRule {
            kind: Some(kind),
            major: Some(major),
            minor: Some(minor),
            access: DeviceAccess::parse(&device.permissions),
        });
    }
    Ok(rules)
}

fn terminal_env(config: &ContainerConfig) -> Vec<String> {
    let mut env = config.env.clone();
    if config.tty && !env.iter().any(|entry| entry.starts_with("TERM=")) {
        env.push("TERM=xterm".to_owned());
    }
    env
}

fn namespaces(namespaces: &Namespaces) -> Vec<Value> {
    let mut list = vec![json!({"type": "mount"}), json!({"type": "cgroup"})];
    for (kind, path) in [("network", &namespaces.net), ("ipc", &namespaces.ipc), ("uts", &namespaces.uts)] {
        if let Some(path) = path {
            list.push(json!({"type": kind, "path": path}));
        }
    }
    match &namespaces.pid {
        PidNamespace::Own => list.push(json!({"type": "pid"})),
        PidNamespace::Joined(path) => list.push(json!({"type": "pid", "path": path})),
        PidNamespace::Node => {}
    }
    list
}

/// The root's propagation decides for all mounts below: the library knows no other. The widest that a mount asks for.
fn propagation(mounts: &[Mount]) -> &'static str {
    let any = |wanted| mounts.iter().any(|mount| mount.propagation == wanted);
    if any(Propagation::Bidirectional) {
        "shared"
    } else if any(Propagation::HostToContainer) {
        "slave"
    } else {
        "private"
    }
}

fn paths(given: &Option<Vec<String>>, default: &[&str], privileged: bool) -> Vec<String> {
    match given {
        Some(paths) => paths.clone(),
        None if privileged => Vec::new(),
        None => default.iter().map(|path| (*path).to_owned()).collect(),
    }
}

fn mounts(config: &ContainerConfig, around: &Surroundings<'_>) -> Vec<Value> {
    let privileged = config.security.privileged;
    let mount = |target: &str, kind: &str, options: &[&str]| json!({"destination": target, "type": kind, "source": kind, "options": options});
    let own_net = around.namespaces.net.is_some();
    let sys = if privileged { "rw" } else { "ro" };
    let mut list = vec![
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ];
    if own_net {
        list.push(mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", sys]));
    } else {
        // sysfs belongs to a network namespace: a new one needs a new namespace.
        list.push(json!({"destination": "/sys", "type": "bind", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", sys]}));
    }
    // On v1 the library mounts the groups writable, so a container goes without.
    if around.cgroup_v2 && own_net {
        list.push(mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", sys]));
    }
    match &around.shm {
        Some(shm) => list.push(json!({
            "destination": "/dev/shm", "type": "bind", "source": shm, "options": ["rbind", "rw"],
        })),
        None => list.push(mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"])),
    }
    let covered = |target: &str| config.mounts.iter().any(|mount| mount.target == Path::new(target));
    list.retain(|mount| mount.get("destination").and_then(Value::as_str).is_none_or(|target| !covered(target)));
    // A mount at /a must not hide one at /a/b.
    let mut sorted: Vec<&Mount> = config.mounts.iter().collect();
    sorted.sort_by_key(|mount| mount.target.components().count());
    list.extend(sorted.into_iter().map(bind));
    list
}

fn bind(mount: &Mount) -> Value {
    let mut options = vec!["rbind"];
    options.push(if mount.read_only { "ro" } else { "rw" });
    if mount.recursive_read_only {
        options.push("rro");
    }
    json!({"destination": mount.target, "type": "bind", "source": mount.source, "options": options})
}

fn devices(config: &ContainerConfig) -> Result<Vec<Value>, RuntimeError> {
    let mut list = Vec::new();
    for device in &config.devices {
        list.push(node_json(device)?);
    }
    if config.security.privileged {
        for device in node_devices() {
            if !config.devices.iter().any(|other| other.target == device.target) {
                // One that has gone meanwhile is left out.
                list.extend(node_json(&device));
            }
        }
    }
    Ok(list)
}

fn node_json(device: &Device) -> Result<Value, RuntimeError> {
    let (kind, major, minor, mode) = node(device)?;
    let kind = match kind {
        DeviceKind::Block => "b",
        DeviceKind::Char => "c",
    };
    Ok(
        json!({"path": device.target, "type": kind, "major": major, "minor": minor, "fileMode": mode, "uid": 0, "gid": 0}),
    )
}

/// Kind, numbers and mode of a device node.
fn node(device: &Device) -> Result<(DeviceKind, u32, u32, u32), RuntimeError> {
    let failed = |source: std::io::Error| RuntimeError::Io {
        what: format!("cannot use device {}", device.source.display()),
        source,
    };
    let stat = rustix::fs::stat(&device.source).map_err(|error| failed(error.into()))?;
    let kind = match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
        rustix::fs::FileType::BlockDevice => DeviceKind::Block,
        rustix::fs::FileType::CharacterDevice => DeviceKind::Char,
        _ => return Err(failed(std::io::ErrorKind::InvalidInput.into())),
    };
    Ok((kind, rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev), stat.st_mode & 0o777))
}

/// The node's own devices, which a privileged container sees: those directly in /dev, its terminals left out.
fn node_devices() -> Vec<Device> {
    const OWN: [&str; 8] = ["console", "ptmx", "null", "zero", "full", "tty", "urandom", "random"];
    let Ok(entries) = std::fs::read_dir("/dev") else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| !OWN.iter().any(|name| entry.file_name() == *name))
        .filter(|entry| {
            use std::os::unix::fs::FileTypeExt;
            entry.file_type().is_ok_and(|kind| kind.is_char_device() || kind.is_block_device())
        })
        .map(|entry| Device { source: entry.path(), target: entry.path(), permissions: "rwm".to_owned() })
        .collect()
}
