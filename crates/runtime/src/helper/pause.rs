//! The first process of a pid namespace that several containers share.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};

use super::serve::{Channel, answer};
use super::{PauseRequest, Reply};
use crate::sys::process::ProcessId;

/// Nobody's user and group.
const NOBODY: u32 = 65535;

pub(super) fn run(request: &PauseRequest, channel: &Channel) -> Result<(), String> {
    let mut groups = Vec::new();
    for path in &request.cgroup_procs {
        let file = File::options().write(true).open(path);
        groups.push(file.map_err(|error| format!("cannot open {}: {error}", path.display()))?);
    }
    for path in &request.join {
        let file = File::open(path).map_err(|error| format!("cannot open {}: {error}", path.display()))?;
        rustix::thread::move_into_link_name_space(file.as_fd(), None)
            .map_err(|error| format!("cannot join {}: {error}", path.display()))?;
    }
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(|error| format!("cannot protect the process: {error}"))?;
    // SAFETY: this process has one thread, and no descriptor table or address space is unshared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWPID) }
        .map_err(|error| format!("cannot make a pid namespace: {error}"))?;
    let (mut ready, failed) = std::io::pipe().map_err(|error| format!("cannot make a pipe: {error}"))?;
    // SAFETY: this process has one thread, so the child may go on with ordinary code.
    let child = match unsafe { libc::fork() } {
        -1 => return Err(format!("cannot fork: {}", std::io::Error::last_os_error())),
        0 => {
            drop(ready);
            let error = hold(request, groups, &failed);
            let mut failed = failed;
            // If the parent does not hear it, it sees the end.
            let _ = failed.write_all(error.as_bytes());
            // SAFETY: ends the child without running the parent's exit handlers a second time.
            unsafe { libc::_exit(1) }
        }
        child => child,
    };
    drop((failed, groups));
    let mut error = String::new();
    std::io::Read::read_to_string(&mut ready, &mut error).map_err(|error| format!("cannot wait: {error}"))?;
    if !error.is_empty() {
        super::create::reap_all();
        return Err(error);
    }
    let process =
        ProcessId::of(child.cast_unsigned()).map_err(|error| format!("the pause process has gone: {error}"))?;
    answer(channel, &Reply::Created(process), &[])
}

/// In the child: never returns but with an error. The end of `told` says that it is ready.
fn hold(request: &PauseRequest, groups: Vec<File>, told: &std::io::PipeWriter) -> String {
    match seclude(request, groups) {
        Ok(()) => {}
        Err(error) => return error,
    }
    // The number, for everything is closed below, this too.
    let _ = told;
    // SAFETY: nothing owned is used after this; closing everything is what tells the parent.
    unsafe { libc::close_range(0, u32::MAX, 0) };
    let signals = child_ends();
    loop {
        let mut number = 0;
        // SAFETY: the set and the number are valid places; no child's status is asked for.
        unsafe {
            libc::sigwait(&signals, &mut number);
            while libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) > 0 {}
        }
    }
}

/// The set of just SIGCHLD, which is blocked and waited for.
fn child_ends() -> libc::sigset_t {
    // SAFETY: an all-zero set is a valid place for the calls below.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a valid place.
    unsafe {
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
    }
    set
}

fn seclude(request: &PauseRequest, groups: Vec<File>) -> Result<(), String> {
    let step = |what: &'static str| move |error: rustix::io::Errno| format!("cannot {what}: {error}");
    for mut group in groups {
        group.write_all(b"0").map_err(|error| format!("cannot join the control group: {error}"))?;
    }
    rustix::process::setsid().map_err(step("start a session"))?;
    // SAFETY: as above.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.map_err(step("make a mount namespace"))?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(step("make mounts private"))?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("pause", &request.root, "tmpfs", flags, c"size=0").map_err(step("mount an empty root"))?;
    rustix::process::chdir(&request.root).map_err(step("enter the empty root"))?;
    rustix::process::pivot_root(".", ".").map_err(step("change the root"))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(step("let go of the old root"))?;
    rustix::process::chdir("/").map_err(step("enter the empty root"))?;
    rustix::thread::set_name(c"pause").map_err(step("set the name"))?;
    rustix::thread::set_thread_groups(&[]).map_err(step("drop groups"))?;
    let (gid, uid) = (Gid::from_raw(NOBODY), Uid::from_raw(NOBODY));
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(step("drop the group"))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(step("drop the user"))?;
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .map_err(step("drop capabilities"))
}
