//! Resource limits as the kernel's files want them.

use std::path::Path;

use super::{CgroupError, Layout, write, write_if_there};
use crate::Resources;

pub(super) fn apply(layout: &Layout, group: &Path, resources: &Resources) -> Result<(), CgroupError> {
    let v2 = layout.is_v2();
    let set = |controller: &str, file: &str, value: String| match layout.controller(controller, group) {
        Some(directory) => write(&directory.join(file), &value),
        None => Ok(()),
    };
    if let Some(shares) = resources.cpu_shares {
        if v2 {
            set("cpu", "cpu.weight", weight(shares).to_string())?
        } else {
            set("cpu", "cpu.shares", shares.to_string())?
        }
    }
    if resources.cpu_quota_us.is_some() || resources.cpu_period_us.is_some() {
        let period = resources.cpu_period_us.unwrap_or(100_000);
        let quota = resources.cpu_quota_us.unwrap_or(-1);
        if v2 {
            let quota = if quota > 0 { quota.to_string() } else { "max".to_owned() };
            set("cpu", "cpu.max", format!("{quota} {period}"))?;
        } else {
            // Lifting the quota first keeps the pair valid below the parent's at every moment.
            set("cpu", "cpu.cfs_quota_us", "-1".to_owned())?;
            set("cpu", "cpu.cfs_period_us", period.to_string())?;
            set("cpu", "cpu.cfs_quota_us", quota.to_string())?;
        }
    }
    if let Some(limit) = resources.memory_limit_bytes {
        memory(layout, group, limit, resources.memory_swap_limit_bytes)?;
    }
    if let Some(limit) = resources.pids_limit {
        set("pids", "pids.max", if limit > 0 { limit.to_string() } else { "max".to_owned() })?;
    }
    for (size, limit) in &resources.hugepages {
        let file = if v2 { format!("hugetlb.{size}.max") } else { format!("hugetlb.{size}.limit_in_bytes") };
        set("hugetlb", &file, limit.to_string())?;
    }
    Ok(())
}

fn memory(layout: &Layout, group: &Path, limit: i64, with_swap: Option<i64>) -> Result<(), CgroupError> {
    let Some(directory) = layout.controller("memory", group) else { return Ok(()) };
    let max = |value: i64| if value > 0 { value.to_string() } else { "max".to_owned() };
    if layout.is_v2() {
        write(&directory.join("memory.max"), &max(limit))?;
        if let Some(total) = with_swap {
            let swap = if total < 0 { "max".to_owned() } else { total.saturating_sub(limit.max(0)).max(0).to_string() };
            // Absent where the kernel accounts no swap.
            write_if_there(&directory.join("memory.swap.max"), &swap)?;
        }
        return Ok(());
    }
    let (plain, total) = (directory.join("memory.limit_in_bytes"), directory.join("memory.memsw.limit_in_bytes"));
    let limit = if limit > 0 { limit.to_string() } else { "-1".to_owned() };
    let Some(with_swap) = with_swap.filter(|_| total.exists()) else { return write(&plain, &limit) };
    // The kernel refuses any moment at which the sum is less than the part: lower the part first, raise the sum first.
    if write(&plain, &limit).is_ok() {
        write(&total, &with_swap.to_string())
    } else {
        write(&total, &with_swap.to_string())?;
        write(&plain, &limit)
    }
}

/// v1's 2..=262144 onto v2's 1..=10000, as every runtime converts it.
fn weight(shares: u64) -> u64 {
    let shares = shares.clamp(2, 262_144);
    1 + ((shares - 2) * 9_999) / 262_142
}

#[cfg(test)]
mod tests {
    #[test]
    fn shares_to_weight() {
        assert_eq!(super::weight(2), 1);
        assert_eq!(super::weight(1024), 39);
        assert_eq!(super::weight(262_144), 10_000);
        assert_eq!(super::weight(0), 1);
    }
}
