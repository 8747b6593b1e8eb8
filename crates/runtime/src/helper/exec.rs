//! Runs a process in the namespaces of another: exec into a container, a shell in a node.
//!
//! This is not the container library's exec: that one leaves the seccomp filter out and needs a second process. The order is the
//! usual one: everything that needs the node's files first, then the namespaces, then a fork (a pid namespace holds for children only),
//! then the user, capabilities and filter, then the program.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets, ThreadNameSpaceType};

use super::create::chain;
use super::serve::{Channel, answer};
use super::{ExecRequest, Reply, executable};
use crate::sys::process::ProcessId;

pub(super) fn run(request: ExecRequest, fds: Vec<OwnedFd>, channel: &Channel) -> Result<(), String> {
    let step = |what: &'static str| move |error: rustix::io::Errno| format!("cannot {what}: {error}");
    let target = request.target.open().map_err(|_| "the container's process has gone".to_owned())?;
    let mut cgroups = Vec::new();
    for path in &request.cgroup_procs {
        let file = std::fs::OpenOptions::new().write(true).open(path);
        cgroups.push(file.map_err(|error| format!("cannot open {}: {error}", path.display()))?);
    }
    if let Some(score) = request.oom_score_adj {
        std::fs::write("/proc/self/oom_score_adj", score.to_string())
            .map_err(|error| format!("cannot set the out-of-memory score: {error}"))?;
    }
    // From here on a process of the container must not be able to look into this one.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(step("protect the process"))?;
    let proc = rustix::fs::open("/proc", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let proc = proc.map_err(step("open the processes"))?;
    join(&target, request.target)?;
    let terminal = request.terminal.map(open_terminal).transpose()?;
    let (mut error_read, error_write) = std::io::pipe().map_err(|error| format!("cannot make a pipe: {error}"))?;
    // SAFETY: this process has one thread, so the child may go on with ordinary code.
    let child = match unsafe { libc::fork() } {
        -1 => return Err(format!("cannot fork: {}", std::io::Error::last_os_error())),
        0 => {
            // A directory of before, open while the program is looked for, would be a way out of the container.
            drop((error_read, proc));
            let error = become_program(&request, &fds, terminal.as_ref().map(|(_, slave)| slave), cgroups);
            let mut error_write = error_write;
            // If the parent does not hear it, the exit code is left.
            let _ = error_write.write_all(error.as_bytes());
            // SAFETY: ends the child without running the parent's exit handlers a second time.
            unsafe { libc::_exit(127) }
        }
        child => child,
    };
    drop((error_write, fds, cgroups));
    let master = terminal.map(|(master, slave)| {
        drop(slave);
        master
    });
    let process = ProcessId { pid: child.cast_unsigned(), start: 0 };
    // By the mounts of before: the caller's pids are not those that the container's /proc shows.
    let process = ProcessId::of_in(&proc, process.pid).unwrap_or(process);
    drop(proc);
    let mut error = String::new();
    error_read.read_to_string(&mut error).map_err(|error| format!("cannot wait for the program: {error}"))?;
    if !error.is_empty() {
        wait(child);
        return Err(error);
    }
    let fds: Vec<_> = master.iter().map(AsFd::as_fd).collect();
    let started = answer(channel, &Reply::Started(process), &fds);
    drop(master);
    let code = wait(child);
    started?;
    answer(channel, &Reply::Exited(code), &[])
}

/// Joins every namespace that is not already this process' own.
fn join(target: &crate::sys::process::ProcessHandle, id: ProcessId) -> Result<(), String> {
    let namespaces = [
        ("cgroup", ThreadNameSpaceType::CONTROL_GROUP),
        ("ipc", ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION),
        ("uts", ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME),
        ("net", ThreadNameSpaceType::NETWORK),
        ("pid", ThreadNameSpaceType::PROCESS_ID),
        ("mnt", ThreadNameSpaceType::MOUNT),
    ];
    let mut flags = ThreadNameSpaceType::empty();
    for (name, flag) in namespaces {
        let theirs = std::fs::read_link(format!("/proc/{}/ns/{name}", id.pid));
        let ours = std::fs::read_link(format!("/proc/self/ns/{name}"));
        match (theirs, ours) {
            (Ok(theirs), Ok(ours)) if theirs == ours => {}
            (Ok(_), Ok(_)) => flags |= flag,
            _ => return Err("the container's process has gone".to_owned()),
        }
    }
    if flags.is_empty() {
        return Ok(());
    }
    rustix::thread::move_into_thread_name_spaces(target.as_fd(), flags)
        .map_err(|error| format!("cannot join the namespaces of process {}: {error}", id.pid))
}

/// A terminal of the container's own devpts: (master, slave).
fn open_terminal((width, height): (u16, u16)) -> Result<(OwnedFd, OwnedFd), String> {
    let open = |path: &str| rustix::fs::open(path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty());
    let master = open("/dev/pts/ptmx")
        .or_else(|_| open("/dev/ptmx"))
        .map_err(|error| format!("cannot open a terminal: {error}"))?;
    rustix::pty::unlockpt(&master).map_err(|error| format!("cannot unlock the terminal: {error}"))?;
    let slave =
        rustix::pty::ioctl_tiocgptpeer(&master, rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY)
            .map_err(|error| format!("cannot open the terminal's other side: {error}"))?;
    let size = rustix::termios::Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&master, size).map_err(|error| format!("cannot size the terminal: {error}"))?;
    Ok((master, slave))
}

/// In the child. Returns only the reason why the program does not run.
fn become_program(
    request: &ExecRequest,
    fds: &[OwnedFd],
    terminal: Option<&OwnedFd>,
    cgroups: Vec<std::fs::File>,
) -> String {
    match prepare(request, fds, terminal, cgroups) {
        Ok(()) => executable::execute(&request.args, &request.env),
        Err(error) => error,
    }
}

fn prepare(
    request: &ExecRequest,
    fds: &[OwnedFd],
    terminal: Option<&OwnedFd>,
    cgroups: Vec<std::fs::File>,
) -> Result<(), String> {
    let step = |what: &'static str| move |error: rustix::io::Errno| format!("cannot {what}: {error}");
    for mut file in cgroups {
        file.write_all(b"0").map_err(|error| format!("cannot join the control group: {error}"))?;
    }
    rustix::process::setsid().map_err(step("start a session"))?;
    if let Some(slave) = terminal {
        // A terminal whose user cannot be told is still usable by its group.
        let _ = rustix::fs::fchown(slave, Some(Uid::from_raw(request.uid)), None);
        rustix::process::ioctl_tiocsctty(slave).map_err(step("take the terminal"))?;
        stdio([slave, slave, slave]).map_err(step("use the terminal"))?;
    } else if let [stdin, stdout, stderr] = fds {
        stdio([stdin, stdout, stderr]).map_err(step("connect the standard streams"))?;
    }
    if !request.cwd.as_os_str().is_empty() {
        rustix::process::chdir(&request.cwd)
            .map_err(|error| format!("chdir to cwd ({:?}) set in config.json failed: {error}", request.cwd))?;
    }
    if !request.no_new_privileges {
        load_filter(request)?;
    }
    let capabilities = request.capabilities.as_ref().map(|numbers| capability_set(numbers));
    if let Some(kept) = capabilities {
        bound(kept)?;
    }
    let groups: Vec<Gid> = request.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    rustix::thread::set_keep_capabilities(true).map_err(step("keep capabilities"))?;
    rustix::thread::set_thread_groups(&groups).map_err(step("set the groups"))?;
    let gid = Gid::from_raw(request.gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(step("set the group"))?;
    let uid = Uid::from_raw(request.uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(step("set the user"))?;
    rustix::thread::set_keep_capabilities(false).map_err(step("keep capabilities"))?;
    if let Some(kept) = capabilities {
        // A user other than root gets none, as capabilities are not ambient.
        let effective = if request.uid == 0 { kept } else { CapabilitySet::empty() };
        let sets = CapabilitySets { effective, permitted: effective, inheritable: CapabilitySet::empty() };
        rustix::thread::set_capabilities(None, sets).map_err(step("set capabilities"))?;
    }
    if std::env::current_dir().is_err() {
        return Err("the working directory is outside of the container".to_owned());
    }
    if request.no_new_privileges {
        rustix::thread::set_no_new_privs(true).map_err(step("forbid new privileges"))?;
        load_filter(request)?;
    }
    Ok(())
}

fn load_filter(request: &ExecRequest) -> Result<(), String> {
    match &request.seccomp {
        Some(filter) => libcontainer::seccomp::initialize_seccomp(filter).map(drop).map_err(|error| chain(&error)),
        None => Ok(()),
    }
}

fn stdio([stdin, stdout, stderr]: [&OwnedFd; 3]) -> rustix::io::Result<()> {
    rustix::stdio::dup2_stdin(stdin)?;
    rustix::stdio::dup2_stdout(stdout)?;
    rustix::stdio::dup2_stderr(stderr)
}

fn capability_set(numbers: &[u32]) -> CapabilitySet {
    numbers.iter().fold(CapabilitySet::empty(), |set, number| set | CapabilitySet::from_bits_retain(1 << number))
}

/// Takes everything else out of the bounding set.
fn bound(kept: CapabilitySet) -> Result<(), String> {
    for number in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The first number that this kernel does not know.
            Err(rustix::io::Errno::INVAL) => return Ok(()),
            Err(error) => return Err(format!("cannot drop capability {number}: {error}")),
        }
    }
    Ok(())
}

fn wait(child: i32) -> i32 {
    loop {
        let mut status = 0;
        // SAFETY: `child` is this process' child and the status a valid place.
        let result = unsafe { libc::waitpid(child, &mut status, 0) };
        if result == child {
            return exit_code(status);
        }
        if std::io::Error::last_os_error().kind() != std::io::ErrorKind::Interrupted {
            return 255;
        }
    }
}

fn exit_code(status: i32) -> i32 {
    if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) }
}
