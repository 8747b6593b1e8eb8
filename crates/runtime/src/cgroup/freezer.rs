//! Standing still: the kernel stops every process of a group and goes on with them later; they notice nothing but the time.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use super::{CgroupError, Layout, subdirectories, write};

/// How long the kernel may take to stop the processes of a group: one that is in a system call ends it first.
const FREEZE_LIMIT: Duration = Duration::from_secs(10);
/// v1 tells nobody when a group stands still.
const PAUSE: Duration = Duration::from_millis(2);

const V1_STATE: &str = "freezer.state";
const V2_STATE: &str = "cgroup.freeze";
const V2_EVENTS: &str = "cgroup.events";

/// The group's directory and its file that is written to, if it and the controller are there.
fn state_file(layout: &Layout, group: &Path) -> Option<PathBuf> {
    let (controller, name) = if layout.is_v2() { ("", V2_STATE) } else { ("freezer", V1_STATE) };
    layout.controller(controller, group).map(|directory| directory.join(name)).filter(|file| file.exists())
}

/// Stops the processes of the group and of those below it; returns when all stand still. Blocks.
///
/// # Errors
/// Where the kernel has no freezer, or cannot stop all of them in time: then they go on.
pub(super) fn freeze(layout: &Layout, group: &Path) -> Result<(), CgroupError> {
    let missing = || CgroupError::NoFreezer { path: group.to_owned() };
    let file = state_file(layout, group).ok_or_else(missing)?;
    write(&file, if layout.is_v2() { "1" } else { "FROZEN" })?;
    let deadline = Instant::now() + FREEZE_LIMIT;
    while !stands_still(layout, &file) {
        if Instant::now() >= deadline {
            write(&file, going(layout))?;
            return Err(CgroupError::Restless { path: group.to_owned() });
        }
        wait_for_change(layout, &file);
    }
    Ok(())
}

fn going(layout: &Layout) -> &'static str {
    if layout.is_v2() { "0" } else { "THAWED" }
}

fn stands_still(layout: &Layout, file: &Path) -> bool {
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    if layout.is_v2() {
        super::keyed(&read(&file.with_file_name(V2_EVENTS)), "frozen") == Some(1)
    } else {
        read(file).trim() == "FROZEN"
    }
}

fn wait_for_change(layout: &Layout, file: &Path) {
    let events = layout.is_v2().then(|| fs::File::open(file.with_file_name(V2_EVENTS)).ok()).flatten();
    let Some(events) = events else { return std::thread::sleep(PAUSE) };
    let mut polls = [PollFd::from_borrowed_fd(events.as_fd(), PollFlags::PRI)];
    let limit = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    // Read again whatever it says.
    let _ = rustix::event::poll(&mut polls, Some(&limit));
}

/// Lets the processes of the group, and of those below it, go on; what goes on already is left alone.
pub(super) fn thaw(layout: &Layout, group: &Path) -> Result<(), CgroupError> {
    let Some(file) = state_file(layout, group) else { return Ok(()) };
    let Some(directory) = file.parent() else { return Ok(()) };
    let name = file.file_name().unwrap_or_default();
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        let file = directory.join(name);
        if is_asked_to_stop(layout, &file) {
            write(&file, going(layout))?;
        }
        pending.extend(subdirectories(&directory));
    }
    Ok(())
}

/// Whether the group itself was told to stop, or one above it.
pub(super) fn is_frozen(layout: &Layout, group: &Path) -> bool {
    group.ancestors().filter_map(|group| state_file(layout, group)).any(|file| is_asked_to_stop(layout, &file))
}

fn is_asked_to_stop(layout: &Layout, file: &Path) -> bool {
    let state = fs::read_to_string(file).unwrap_or_default();
    if layout.is_v2() { state.trim() == "1" } else { !matches!(state.trim(), "" | "THAWED") }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// Needs root and control groups; says so where they are missing.
    #[test]
    fn processes_stand_still_and_go_on() {
        let Ok(layout) = Layout::detect() else { return };
        let group = PathBuf::from(format!("/kminik-freezer-test-{}", std::process::id()));
        if !rustix::process::geteuid().is_root() || layout.create(&group).is_err() {
            return;
        }
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        for file in layout.procs_files(&group) {
            write(&file, &child.id().to_string()).unwrap();
        }
        assert!(!is_frozen(&layout, &group));
        freeze(&layout, &group).unwrap();
        assert!(is_frozen(&layout, &group) && is_frozen(&layout, &group.join("below")));
        thaw(&layout, &group).unwrap();
        assert!(!is_frozen(&layout, &group));
        // What stands still can be ended.
        freeze(&layout, &group).unwrap();
        layout.kill(&group).unwrap_or_else(|_| panic!("a frozen group is not killed"));
        child.wait().unwrap();
        layout.remove(&group).unwrap();
    }
}
