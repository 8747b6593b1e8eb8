//! What PID 1 does to a bare namespace before anything else runs: mounts, control groups, devices, sysctls.
//!
//! Idempotent towards whoever made the container: what is mounted stays, what a container engine mounted read-only is made writable
//! mount by mount (a plain remount would ask for the whole filesystem, which the kernel refuses).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, MountPropagationFlags};

use crate::Resources;
use crate::cgroup::{CgroupError, Layout};

/// Where the pods' control groups are and what they leave to the node's own processes.
#[derive(Clone, Debug)]
pub struct MachineConfig {
    /// Relative to the root of the hierarchy, e.g. `/pods`; made, and limited below the node's own limit.
    pub pods_cgroup: PathBuf,
    /// Memory that pods cannot take: the pods' limit is the node's less this. Without a limit of the node, of the machine's memory.
    pub reserved_memory_bytes: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    #[error("cannot {step} {path}")]
    Io {
        step: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("control groups of the machine")]
    Cgroup(#[from] CgroupError),
}

fn io_error(step: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> MachineError {
    let path = path.as_ref().to_owned();
    move |source| MachineError::Io { step, path, source }
}

/// A mount that every machine needs.
struct Needed {
    target: &'static str,
    kind: &'static str,
    flags: MountFlags,
    data: &'static str,
}

const HARMLESS: MountFlags = MountFlags::NOSUID.union(MountFlags::NOEXEC).union(MountFlags::NODEV);

const MOUNTS: [Needed; 8] = [
    Needed { target: "/proc", kind: "proc", flags: HARMLESS, data: "" },
    Needed { target: "/sys", kind: "sysfs", flags: HARMLESS, data: "" },
    Needed { target: "/dev", kind: "devtmpfs", flags: MountFlags::NOSUID, data: "mode=755" },
    Needed {
        target: "/dev/pts",
        kind: "devpts",
        flags: MountFlags::NOSUID.union(MountFlags::NOEXEC),
        data: "newinstance,ptmxmode=0666,mode=0620,gid=5",
    },
    Needed { target: "/dev/shm", kind: "tmpfs", flags: MountFlags::NOSUID.union(MountFlags::NODEV), data: "mode=1777" },
    Needed { target: "/dev/mqueue", kind: "mqueue", flags: HARMLESS, data: "" },
    Needed { target: "/run", kind: "tmpfs", flags: MountFlags::NOSUID.union(MountFlags::NODEV), data: "mode=755" },
    Needed { target: "/tmp", kind: "tmpfs", flags: MountFlags::NOSUID.union(MountFlags::NODEV), data: "mode=1777" },
];

/// Sysctls of the network namespace that a node with pods wants, and whether it cannot do without.
const SYSCTLS: [(&str, &str, bool); 3] = [
    ("net/ipv4/ip_forward", "1", true),
    ("net/ipv4/conf/all/rp_filter", "0", false),
    ("net/ipv6/conf/all/forwarding", "1", false),
];

/// Mounts, control groups, loopback and sysctls, in this order.
pub fn prepare(config: &MachineConfig) -> Result<(), MachineError> {
    for needed in &MOUNTS {
        mount_needed(needed)?;
    }
    rustix::mount::mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC)
        .map_err(|error| io_error("share the mounts of", "/")(error.into()))?;
    for path in ["/sys", "/proc/sys"] {
        make_writable(Path::new(path))?;
    }
    mount_cgroups()?;
    arrange_cgroups(config)?;
    loopback_up().map_err(io_error("bring up", "lo"))?;
    for (name, value, required) in SYSCTLS {
        let path = Path::new("/proc/sys").join(name);
        match fs::write(&path, value) {
            Err(error) if required && fs::read_to_string(&path).is_ok_and(|now| now.trim() != value) => {
                return Err(io_error("set", path)(error));
            }
            Err(error) => tracing::debug!(sysctl = name, %error, "sysctl left as it is"),
            Ok(()) => {}
        }
    }
    Ok(())
}

/// Brings the loopback interface of this process' network namespace up.
pub fn loopback_up() -> io::Result<()> {
    crate::helper::loopback_up()
}

fn mount_needed(needed: &Needed) -> Result<(), MachineError> {
    if is_mount_point(needed.target) {
        return Ok(());
    }
    fs::create_dir_all(needed.target).map_err(io_error("make", needed.target))?;
    let data = std::ffi::CString::new(needed.data).unwrap_or_default();
    let result = rustix::mount::mount(needed.kind, needed.target, needed.kind, needed.flags, data.as_c_str());
    result.map_err(|error| io_error("mount", needed.target)(error.into()))
}

/// Something is mounted exactly there. Read from the kernel's list, which needs /proc: without it nothing is.
fn is_mount_point(path: &str) -> bool {
    mount_points().iter().any(|(point, _)| point == path)
}

/// (mount point, options) of every mount.
fn mount_points() -> Vec<(String, String)> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(4);
            Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
        })
        .collect()
}

/// Takes the read-only flag off the mounts at and below `path`, mount by mount.
fn make_writable(path: &Path) -> Result<(), MachineError> {
    for (point, options) in mount_points() {
        if !Path::new(&point).starts_with(path) || !options.split(',').any(|option| option == "ro") {
            continue;
        }
        let flags = MountFlags::BIND | HARMLESS;
        rustix::mount::mount_remount(point.as_str(), flags, "")
            .map_err(|error| io_error("make writable", &point)(error.into()))?;
    }
    Ok(())
}

/// The host's hierarchies, each as the cgroup namespace shows it.
fn mount_cgroups() -> Result<(), MachineError> {
    if Layout::detect().is_ok() {
        return Ok(());
    }
    let root = "/sys/fs/cgroup";
    let flags = HARMLESS;
    let hierarchies = v1_hierarchies()?;
    if hierarchies.is_empty() {
        return rustix::mount::mount("cgroup2", root, "cgroup2", flags, c"nsdelegate,memory_recursiveprot")
            .or_else(|_| rustix::mount::mount("cgroup2", root, "cgroup2", flags, None))
            .map_err(|error| io_error("mount", root)(error.into()));
    }
    rustix::mount::mount("tmpfs", root, "tmpfs", flags, c"mode=755")
        .map_err(|error| io_error("mount", root)(error.into()))?;
    for controllers in hierarchies {
        let target = format!("{root}/{controllers}");
        fs::create_dir_all(&target).map_err(io_error("make", &target))?;
        let data = std::ffi::CString::new(controllers.as_str()).unwrap_or_default();
        rustix::mount::mount("cgroup", target.as_str(), "cgroup", flags, data.as_c_str())
            .map_err(|error| io_error("mount", &target)(error.into()))?;
        for controller in controllers.split(',').filter(|controller| *controller != controllers) {
            let link = format!("{root}/{controller}");
            std::os::unix::fs::symlink(&controllers, &link).map_err(io_error("link", &link))?;
        }
    }
    Ok(())
}

/// The controller lists of the v1 hierarchies this process is in, named hierarchies left out.
fn v1_hierarchies() -> Result<Vec<String>, MachineError> {
    let path = "/proc/self/cgroup";
    let text = fs::read_to_string(path).map_err(io_error("read", path))?;
    let lists = text.lines().filter_map(|line| line.split(':').nth(1));
    Ok(lists.filter(|list| !list.is_empty() && !list.contains('=')).map(str::to_owned).collect())
}

/// Puts every process that is here into a leaf (v2 only: a group with limited groups below has no processes itself) and makes the pods' group.
fn arrange_cgroups(config: &MachineConfig) -> Result<(), MachineError> {
    let layout = Layout::detect()?;
    if layout.is_v2() {
        let init = Path::new(crate::INIT_CGROUP);
        for directory in layout.directories(init) {
            fs::create_dir_all(&directory).map_err(io_error("make", &directory))?;
        }
        for pid in layout.own_processes(Path::new("/")) {
            for file in layout.procs_files(init) {
                // A process that has ended meanwhile needs no place.
                if let Err(error) = fs::write(&file, pid.to_string()) {
                    tracing::debug!(pid, %error, "process not moved");
                }
            }
        }
    }
    layout.create(&config.pods_cgroup)?;
    limit_pods(config)
}

/// Limits the pods' group below the node's own limit, as that is now.
pub fn limit_pods(config: &MachineConfig) -> Result<(), MachineError> {
    let layout = Layout::detect()?;
    let total = layout.memory_limit(Path::new("/")).unwrap_or(u64::MAX).min(machine_memory()?);
    // A machine smaller than twice the reserve gives half.
    let limit = total.saturating_sub(config.reserved_memory_bytes).max(total / 2);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let resources =
        Resources { memory_limit_bytes: Some(limit), memory_swap_limit_bytes: Some(limit), ..Resources::default() };
    Ok(layout.limit(&config.pods_cgroup, &resources)?)
}

fn machine_memory() -> Result<u64, MachineError> {
    let path = "/proc/meminfo";
    let text = fs::read_to_string(path).map_err(io_error("read", path))?;
    let total = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    Ok(total.unwrap_or(u64::MAX / 1024).saturating_mul(1024))
}
