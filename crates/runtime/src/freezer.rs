//! Pausing containers: their processes stand still, with all they have in memory and every connection.
//!
//! It goes by the records of the state directory and the kernel's files alone, so it also works where no runtime runs, or where
//! the process that holds it stands still itself.

use std::collections::BTreeMap;
use std::path::Path;

use crate::RuntimeError;
use crate::cgroup::{CgroupError, Layout};
use crate::service::{Recorded, cgroup_error, recorded};

/// Freezes the running containers of the sandboxes whose labels are `wanted`; how many they are.
///
/// # Errors
/// If the kernel cannot; those that were stopped then stand still until they are thawed.
pub fn freeze(
    state_dir: &Path,
    pods_cgroup: &Path,
    wanted: impl Fn(&BTreeMap<String, String>) -> bool,
) -> Result<usize, RuntimeError> {
    each(state_dir, pods_cgroup, wanted, |layout, group| {
        let runs = !layout.processes(group).is_empty();
        if runs {
            layout.freeze(group)?;
        }
        Ok(runs)
    })
}

/// Lets containers of the wanted sandboxes that stand still go on; how many they are.
///
/// # Errors
/// If the kernel cannot.
pub fn thaw(
    state_dir: &Path,
    pods_cgroup: &Path,
    wanted: impl Fn(&BTreeMap<String, String>) -> bool,
) -> Result<usize, RuntimeError> {
    each(state_dir, pods_cgroup, wanted, |layout, group| {
        let stands = layout.is_frozen(group);
        if stands {
            layout.thaw(group)?;
        }
        Ok(stands)
    })
}

/// Does `change` to the containers of the sandboxes whose labels are `wanted`; how many it changed.
fn each(
    state_dir: &Path,
    pods_cgroup: &Path,
    wanted: impl Fn(&BTreeMap<String, String>) -> bool,
    change: impl Fn(&Layout, &Path) -> Result<bool, CgroupError>,
) -> Result<usize, RuntimeError> {
    let layout = Layout::detect().map_err(cgroup_error)?;
    let mut count = 0;
    for Recorded { labels, group } in recorded(state_dir, pods_cgroup) {
        if wanted(&labels) && change(&layout, &group).map_err(cgroup_error)? {
            count += 1;
        }
    }
    Ok(count)
}

/// Lets everything below the group go on, recorded or not.
///
/// # Errors
/// If the kernel cannot.
pub fn thaw_all(pods_cgroup: &Path) -> Result<(), RuntimeError> {
    Layout::detect().and_then(|layout| layout.thaw(pods_cgroup)).map_err(cgroup_error)
}
