//! What the node has: the limits of its own cgroup, else what the machine has.

use std::fs;
use std::path::Path;

use crate::config::Capacity;

/// Reads it. `disk`: a path on the file system that pods write to.
pub(crate) fn read(disk: &Path) -> Capacity {
    let processors = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let machine_cpu = processors * 1000;
    let machine_memory = memory_total().unwrap_or(0);
    let text = |path: &str| fs::read_to_string(path).ok();
    let cpu = text("/sys/fs/cgroup/cpu.max").and_then(|t| cpu_max(&t)).or_else(|| {
        let quota = text("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")?.trim().parse::<i64>().ok()?;
        let period = text("/sys/fs/cgroup/cpu/cpu.cfs_period_us")?.trim().parse::<i64>().ok()?;
        u64::try_from(quota.checked_mul(1000)?.checked_div(period)?).ok().filter(|cpu| *cpu > 0)
    });
    let memory = text("/sys/fs/cgroup/memory.max").or_else(|| text("/sys/fs/cgroup/memory/memory.limit_in_bytes"));
    let memory = memory.and_then(|t| t.trim().parse::<u64>().ok());
    Capacity {
        milli_cpu: cpu.map_or(machine_cpu, |cpu| cpu.min(machine_cpu)),
        memory_bytes: memory.map_or(machine_memory, |memory| memory.min(machine_memory)),
        ephemeral_storage_bytes: disk_bytes(disk),
    }
}

/// `cpu.max`: quota (or `max`) and period.
fn cpu_max(text: &str) -> Option<u64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    quota.checked_mul(1000)?.checked_div(period)
}

fn memory_total() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

fn disk_bytes(path: &Path) -> u64 {
    // The directory may not exist yet; its nearest ancestor is on the same file system.
    let existing = path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    rustix::fs::statvfs(existing).map(|s| s.f_blocks * s.f_frsize).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas() {
        assert_eq!(cpu_max("150000 100000\n"), Some(1500));
        assert_eq!(cpu_max("max 100000\n"), None);
    }

    #[test]
    fn this_machine_has_something() {
        let capacity = read(Path::new("/does/not/exist"));
        assert!(capacity.milli_cpu >= 1000 && capacity.memory_bytes > 1 << 20 && capacity.ephemeral_storage_bytes > 0);
    }
}
