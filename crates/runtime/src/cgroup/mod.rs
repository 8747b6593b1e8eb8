//! Control groups, in either of the kernel's two layouts.
//!
//! A group is named by a path relative to the root of the hierarchy (which, in a node, is the node's own group: the root of its cgroup
//! namespace). On v1 it is a directory in each mounted hierarchy, on v2 one directory.

mod devices;
mod freezer;
mod limits;
mod program;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(crate) use devices::{DeviceAccess, DeviceKind, DeviceRule};

use crate::Resources;

const MOUNT_POINT: &str = "/sys/fs/cgroup";
/// How long the kernel may take to let go of a group.
const REMOVE_LIMIT: Duration = Duration::from_secs(5);
/// How long the processes of a killed group may take to end.
const KILL_LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write {value:?} to {path}")]
    Write {
        path: PathBuf,
        value: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot make {path}")]
    Create {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot remove {path}")]
    Remove {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("no control groups are mounted at {MOUNT_POINT}")]
    NotMounted,
    #[error("the kernel cannot stop the processes of {path}: it has no freezer")]
    NoFreezer { path: PathBuf },
    #[error("processes of {path} do not stand still")]
    Restless { path: PathBuf },
    #[error("processes of {path} did not end within {KILL_LIMIT:?}")]
    Undying { path: PathBuf },
    #[error("cannot {step} the device program of {path}")]
    Device {
        step: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The mounted hierarchies.
#[derive(Clone, Debug)]
pub(crate) enum Layout {
    V1(Vec<Hierarchy>),
    V2(PathBuf),
}

/// A v1 hierarchy.
#[derive(Clone, Debug)]
pub(crate) struct Hierarchy {
    pub controllers: Vec<String>,
    pub path: PathBuf,
}

/// What a group has used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub cpu_ns: u64,
    pub memory_bytes: u64,
    pub memory_working_set_bytes: u64,
}

impl Layout {
    /// What is mounted below /sys/fs/cgroup. On a host with both, v1 counts, because the controllers are there.
    pub(crate) fn detect() -> Result<Layout, CgroupError> {
        let path = Path::new("/proc/self/mountinfo");
        let text = fs::read_to_string(path).map_err(|source| CgroupError::Read { path: path.to_owned(), source })?;
        let mut hierarchies = Vec::new();
        for line in text.lines() {
            let Some((before, after)) = line.split_once(" - ") else { continue };
            let Some(mount_point) = before.split(' ').nth(4) else { continue };
            let mut after = after.split(' ');
            match after.next() {
                Some("cgroup2") if mount_point == MOUNT_POINT => return Ok(Layout::V2(MOUNT_POINT.into())),
                Some("cgroup") if mount_point.starts_with(MOUNT_POINT) => {
                    let options = after.nth(1).unwrap_or_default();
                    let controllers: Vec<String> =
                        options.split(',').filter(|o| is_controller(o)).map(str::to_owned).collect();
                    // A named hierarchy (systemd's) limits nothing.
                    if !controllers.is_empty() {
                        hierarchies.push(Hierarchy { controllers, path: mount_point.into() });
                    }
                }
                _ => {}
            }
        }
        if hierarchies.is_empty() { Err(CgroupError::NotMounted) } else { Ok(Layout::V1(hierarchies)) }
    }

    pub(crate) fn is_v2(&self) -> bool {
        matches!(self, Layout::V2(_))
    }

    /// The directories of a group, one a hierarchy.
    pub(crate) fn directories(&self, group: &Path) -> Vec<PathBuf> {
        let group = group.strip_prefix("/").unwrap_or(group);
        match self {
            Layout::V1(hierarchies) => hierarchies.iter().map(|hierarchy| hierarchy.path.join(group)).collect(),
            Layout::V2(root) => vec![root.join(group)],
        }
    }

    /// The files into which a pid is written to move its process there.
    pub(crate) fn procs_files(&self, group: &Path) -> Vec<PathBuf> {
        self.directories(group).into_iter().map(|directory| directory.join("cgroup.procs")).collect()
    }

    fn controller(&self, name: &str, group: &Path) -> Option<PathBuf> {
        let group = group.strip_prefix("/").unwrap_or(group);
        match self {
            Layout::V1(hierarchies) => hierarchies
                .iter()
                .find(|hierarchy| hierarchy.controllers.iter().any(|controller| controller == name))
                .map(|hierarchy| hierarchy.path.join(group)),
            Layout::V2(root) => Some(root.join(group)),
        }
    }

    /// Stops every process of the group and of those below; returns when they stand still. Blocks.
    pub(crate) fn freeze(&self, group: &Path) -> Result<(), CgroupError> {
        freezer::freeze(self, group)
    }

    /// Lets them go on.
    pub(crate) fn thaw(&self, group: &Path) -> Result<(), CgroupError> {
        freezer::thaw(self, group)
    }

    /// Whether they stand still, or are about to.
    pub(crate) fn is_frozen(&self, group: &Path) -> bool {
        freezer::is_frozen(self, group)
    }

    /// Makes the group and its parents; succeeds if it is there.
    pub(crate) fn create(&self, group: &Path) -> Result<(), CgroupError> {
        let relative = group.strip_prefix("/").unwrap_or(group);
        match self {
            Layout::V1(hierarchies) => {
                for hierarchy in hierarchies {
                    let mut path = hierarchy.path.clone();
                    for component in relative.components() {
                        let parent = path.clone();
                        path.push(component);
                        make_directory(&path)?;
                        if hierarchy.controllers.iter().any(|controller| controller == "cpuset") {
                            inherit_cpuset(&parent, &path)?;
                        }
                    }
                }
            }
            Layout::V2(root) => {
                let mut path = root.clone();
                for component in relative.components() {
                    enable_controllers(&path)?;
                    path.push(component);
                    make_directory(&path)?;
                }
            }
        }
        Ok(())
    }

    /// Sets what is `Some`; leaves the rest.
    pub(crate) fn limit(&self, group: &Path, resources: &Resources) -> Result<(), CgroupError> {
        limits::apply(self, group, resources)
    }

    /// Only the named devices from now on. On v2 this is final: a second program only restricts further.
    pub(crate) fn restrict_devices(&self, group: &Path, rules: &[DeviceRule]) -> Result<(), CgroupError> {
        match self {
            Layout::V1(_) => match self.controller("devices", group) {
                Some(directory) => devices::apply_v1(&directory, rules),
                None => Ok(()),
            },
            Layout::V2(root) => program::attach(&root.join(group.strip_prefix("/").unwrap_or(group)), rules),
        }
    }

    /// On v2: the whole group dies when one process runs out of memory.
    pub(crate) fn kill_together(&self, group: &Path) -> Result<(), CgroupError> {
        match self {
            Layout::V1(_) => Ok(()),
            Layout::V2(_) => match self.controller("memory", group) {
                Some(directory) => write_if_there(&directory.join("memory.oom.group"), "1"),
                None => Ok(()),
            },
        }
    }

    /// How many processes of the group the kernel has killed for lack of memory.
    pub(crate) fn oom_kills(&self, group: &Path) -> u64 {
        let file = match self {
            Layout::V1(_) => "memory.oom_control",
            Layout::V2(_) => "memory.events",
        };
        let text = self.controller("memory", group).and_then(|directory| fs::read_to_string(directory.join(file)).ok());
        text.and_then(|text| keyed(&text, "oom_kill")).unwrap_or(0)
    }

    pub(crate) fn usage(&self, group: &Path) -> Option<Usage> {
        let number = |path: PathBuf| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
        let memory = self.controller("memory", group)?;
        let memory_stat = fs::read_to_string(memory.join("memory.stat")).unwrap_or_default();
        let (cpu_ns, memory_bytes, inactive) = match self {
            Layout::V1(_) => (
                number(self.controller("cpuacct", group)?.join("cpuacct.usage"))?,
                number(memory.join("memory.usage_in_bytes"))?,
                keyed(&memory_stat, "total_inactive_file"),
            ),
            Layout::V2(_) => (
                keyed(&fs::read_to_string(memory.join("cpu.stat")).ok()?, "usage_usec")?.saturating_mul(1000),
                number(memory.join("memory.current"))?,
                keyed(&memory_stat, "inactive_file"),
            ),
        };
        let memory_working_set_bytes = memory_bytes.saturating_sub(inactive.unwrap_or(0));
        Some(Usage { cpu_ns, memory_bytes, memory_working_set_bytes })
    }

    /// The group's own memory limit, `None` if it has none.
    pub(crate) fn memory_limit(&self, group: &Path) -> Option<u64> {
        let file = if self.is_v2() { "memory.max" } else { "memory.limit_in_bytes" };
        fs::read_to_string(self.controller("memory", group)?.join(file)).ok()?.trim().parse().ok()
    }

    /// The processes of the group itself.
    pub(crate) fn own_processes(&self, group: &Path) -> Vec<u32> {
        let files = self.procs_files(group).into_iter();
        files.filter_map(|file| fs::read_to_string(file).ok()).flat_map(|text| parse_pids(&text)).collect()
    }

    /// Every process of the group and of the groups below it, zombies included.
    pub(crate) fn processes(&self, group: &Path) -> Vec<u32> {
        let mut pids = Vec::new();
        for directory in self.directories(group) {
            collect_processes(&directory, &mut pids);
        }
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Kills every process of the group and of those below, and waits until none is left. Blocks.
    pub(crate) fn kill(&self, group: &Path) -> Result<(), CgroupError> {
        let deadline = Instant::now() + KILL_LIMIT;
        let mut pause = Duration::from_millis(1);
        if !self.is_v2() {
            // There a process that stands still does not die.
            self.thaw(group)?;
        }
        loop {
            if let Layout::V2(_) = self {
                for directory in self.directories(group) {
                    // Kernels before 5.14 do not have the file; the loop below does the same, slower.
                    let _ = fs::write(directory.join("cgroup.kill"), "1");
                }
            }
            let pids = self.processes(group);
            if pids.is_empty() {
                return Ok(());
            }
            for pid in pids {
                if let Some(pid) = rustix::process::Pid::from_raw(pid.cast_signed()) {
                    // It may have ended.
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            if Instant::now() >= deadline {
                return Err(CgroupError::Undying { path: group.to_owned() });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// Removes the group and those below it with whatever still runs there; succeeds if it is missing. Blocks for a moment: the kernel lets go of a
    /// dead process' group a little after the process can no longer be seen.
    pub(crate) fn remove(&self, group: &Path) -> Result<(), CgroupError> {
        let deadline = Instant::now() + REMOVE_LIMIT;
        for directory in self.directories(group) {
            loop {
                match remove_tree(&directory) {
                    Ok(()) => break,
                    Err(error) if busy(&error) && Instant::now() < deadline => {
                        self.kill(group)?;
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    Err(source) => return Err(CgroupError::Remove { path: directory, source }),
                }
            }
        }
        Ok(())
    }
}

fn busy(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::DirectoryNotEmpty)
}

fn is_controller(option: &str) -> bool {
    !matches!(option, "rw" | "ro" | "relatime" | "noatime" | "nosuid" | "nodev" | "noexec" | "xattr" | "clone_children")
        && !option.contains('=')
}

fn make_directory(path: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(CgroupError::Create { path: path.to_owned(), source }),
    }
}

/// A new v1 cpuset is empty, and no process may enter an empty one.
fn inherit_cpuset(parent: &Path, child: &Path) -> Result<(), CgroupError> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let file = child.join(name);
        let is_empty = fs::read_to_string(&file).is_ok_and(|value| value.trim().is_empty());
        if !is_empty {
            continue;
        }
        let from = parent.join(name);
        let value = fs::read_to_string(&from).map_err(|source| CgroupError::Read { path: from, source })?;
        write(&file, value.trim())?;
    }
    Ok(())
}

/// Gives the groups below every controller that this one has.
pub(crate) fn enable_controllers(directory: &Path) -> Result<(), CgroupError> {
    let path = directory.join("cgroup.controllers");
    let available = fs::read_to_string(&path).map_err(|source| CgroupError::Read { path, source })?;
    let control = directory.join("cgroup.subtree_control");
    let enabled = fs::read_to_string(&control).unwrap_or_default();
    for controller in available.split_whitespace() {
        if enabled.split_whitespace().any(|name| name == controller) {
            continue;
        }
        // A controller that cannot be given on (a real-time task, a threaded group) is missed where a limit needs it, with an error there.
        if let Err(error) = fs::write(&control, format!("+{controller}")) {
            tracing::debug!(controller, directory = %directory.display(), %error, "controller not enabled");
        }
    }
    Ok(())
}

fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    fs::write(path, value).map_err(|source| CgroupError::Write {
        path: path.to_owned(),
        value: value.to_owned(),
        source,
    })
}

/// Writes unless the kernel has no such file.
fn write_if_there(path: &Path, value: &str) -> Result<(), CgroupError> {
    match write(path, value) {
        Err(CgroupError::Write { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// The number in the line `<key> <number>`.
fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

fn collect_processes(directory: &Path, pids: &mut Vec<u32>) {
    if let Ok(text) = fs::read_to_string(directory.join("cgroup.procs")) {
        pids.extend(parse_pids(&text));
    }
    for child in subdirectories(directory) {
        collect_processes(&child, pids);
    }
}

/// A pid of 0 is a process outside of this pid namespace.
fn parse_pids(text: &str) -> Vec<u32> {
    text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid != 0).collect()
}

fn remove_tree(directory: &Path) -> io::Result<()> {
    for child in subdirectories(directory) {
        remove_tree(&child)?;
    }
    match fs::remove_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn subdirectories(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyed_lines() {
        assert_eq!(keyed("low 0\noom_kill 3\noom_kill_disable 1\n", "oom_kill"), Some(3));
        assert_eq!(keyed("low 0\n", "oom_kill"), None);
    }
}
