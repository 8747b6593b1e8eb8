//! PID 1 of a node: sets the machine up, then reaps, keeps what must survive the node process, and keeps that process running.
//!
//! One thread and no runtime: it holds little memory and cannot fail by what the node process does. It ends on SIGTERM, SIGINT, SIGPWR or SIGRTMIN+3: the node
//! process is asked to stop, then every process gets SIGTERM and, a moment later, SIGKILL; then the data is synced.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use kminik_base::atomic_file;
use kminik_runtime::keeper::{self, KeeperConfig};
use kminik_runtime::machine::{self, MachineConfig};

/// Where the node process finds the descriptor store.
pub const SOCKET: &str = "/run/kminik/init.sock";
/// The control group below which pods are.
pub const PODS_CGROUP: &str = "/pods";
/// What pods leave to the API server, the store and the node agent.
const RESERVED_MEMORY_BYTES: u64 = 256 << 20;
/// How long the node process may take to stop: it tells the API and syncs the store.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// How long containers have between SIGTERM and SIGKILL.
const TERM_LIMIT: Duration = Duration::from_secs(2);

/// `kminik init`. Must be called before the process has a second thread.
pub fn main() -> ExitCode {
    if std::process::id() != 1 {
        report("kminik init runs as PID 1 of a node");
        return ExitCode::from(64);
    }
    log_to_console();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the node cannot run");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    machine::prepare(&machine_config()).context("cannot set the machine up")?;
    let socket = PathBuf::from(SOCKET);
    for directory in ["/run/kminik", "/var/lib/kminik", "/var/log/kminik"] {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot make {directory}"))?;
    }
    machine_id().context("cannot give the machine an identity")?;
    hostname();
    let program = vec!["/bin/kminik".to_owned(), "node".to_owned()];
    let env = vec![
        ("PATH".to_owned(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
        ("HOME".to_owned(), "/root".to_owned()),
    ];
    keeper::run(&KeeperConfig { socket, program, env, stop_limit: STOP_LIMIT, restart: true })?;
    // What stands still cannot end.
    if let Err(error) = kminik_runtime::freezer::thaw_all(Path::new(PODS_CGROUP)) {
        tracing::warn!(%error, "paused containers may not end");
    }
    end_all();
    rustix::fs::sync();
    Ok(())
}

/// What pods leave to the node.
pub fn machine_config() -> MachineConfig {
    MachineConfig { pods_cgroup: PODS_CGROUP.into(), reserved_memory_bytes: RESERVED_MEMORY_BYTES }
}

/// The same identity for the life of the data directory, also where the root filesystem is made anew.
fn machine_id() -> std::io::Result<()> {
    let kept = Path::new("/var/lib/kminik/machine-id");
    // What a power cut has left may be empty.
    if !std::fs::read_to_string(kept).is_ok_and(|id| !id.trim().is_empty()) {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?.replace('-', "");
        atomic_file::write(kept, id.as_bytes(), atomic_file::PUBLIC).map_err(std::io::Error::other)?;
    }
    let shown = Path::new("/etc/machine-id");
    // A root filesystem that cannot be written to goes without.
    if let Err(error) = std::fs::copy(kept, shown) {
        tracing::debug!(%error, "machine id not shown in /etc");
    }
    Ok(())
}

/// Shows the host's name where programs look for it; an engine has done so already.
fn hostname() {
    let shown = Path::new("/etc/hostname");
    let name = format!("{}\n", rustix::system::uname().nodename().to_string_lossy());
    if std::fs::read_to_string(shown).is_ok_and(|old| old == name) {
        return;
    }
    if let Err(error) = std::fs::write(shown, name) {
        tracing::debug!(%error, "host name not shown in /etc");
    }
}

/// Ends every other process of the node.
fn end_all() {
    use nix::sys::signal::{Signal, kill};
    use rustix::process::{WaitOptions, wait};
    // To the kernel, -1 is everybody but PID 1.
    let all = |signal| kill(nix::unistd::Pid::from_raw(-1), signal).is_ok();
    let deadline = Instant::now() + TERM_LIMIT;
    let mut alive = all(Signal::SIGTERM);
    while alive && Instant::now() < deadline {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => std::thread::sleep(Duration::from_millis(10)),
            Err(_no_children) => alive = false,
        }
    }
    all(Signal::SIGKILL);
    while wait(WaitOptions::empty()).is_ok() {}
}

fn log_to_console() {
    tracing_subscriber::fmt().with_ansi(false).with_target(false).with_writer(std::io::stderr).init();
}

fn report(text: &str) {
    use std::io::Write;
    // Nobody is left to hear that nobody hears.
    let _ = writeln!(std::io::stderr(), "{text}");
}
