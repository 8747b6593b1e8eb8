//! One agent a profile: started detached, held by a lock on `agent.lock` that carries its pid, ended by a signal.
//!
//! `agent.wanted` lies beside it while the cluster is meant to run: made before an agent is started, removed before one is
//! ended. So one that was just being started when `stop` looked for it finds that nobody wants it any more, and ends.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use kminik_base::atomic_file::PUBLIC;
use kminik_base::file_lock;
use kminik_runtime::watched;
use rustix::fs::inotify;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::run;
use crate::home::{Home, put_aside};
use crate::profile::Profile;
use crate::reason::{MK_INTERNAL, OrFail, Outcome};

const LOCK: &str = "agent.lock";
const LOG: &str = "agent.log";
const WANTED: &str = "agent.wanted";
/// A line for each thing the user should know: a port that is taken.
pub(super) const NOTES: &str = "agent.notes";
/// As after this machine's reboot, when an engine has brought back the node.
const ABSENT: &str =
    "The agent does not run: node ports are not on localhost, nodes ask no resolver; 'kminik start' mends it";
/// How often the log's length is looked at while the agent runs.
const LOG_CHECK: Duration = Duration::from_secs(3600);
/// Bounds on a stop: asked, then killed.
const GRACE: Duration = Duration::from_secs(5);

/// Starts the agent unless it runs, from `binary` or else this process' own. Returns at once; what it does then is in `agent.log`.
pub fn spawn(home: &Home, profile: &Profile, binary: Option<PathBuf>) -> Outcome<()> {
    let dir = home.profile(&profile.name);
    home.write(&dir.join(WANTED), b"", PUBLIC)?;
    if holder(&dir) != Holder::Nobody {
        return Ok(());
    }
    let log_path = dir.join(LOG);
    put_aside(&log_path);
    let log = open_log(&log_path).or_fail(&MK_INTERNAL, "cannot open the agent's log")?;
    home.give(&log_path)?;
    let errors = log.try_clone().or_fail(&MK_INTERNAL, "cannot open the agent's log")?;
    let exe = match binary {
        Some(binary) => binary,
        None => std::env::current_exe().or_fail(&MK_INTERNAL, "cannot find the running binary")?,
    };
    Command::new(exe)
        .args(["agent", "-p", &profile.name])
        .env(crate::env::HOME, home.root())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .or_fail(&MK_INTERNAL, "cannot start the agent")?;
    Ok(())
}

fn open_log(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Keeps the log short while the agent runs: what is written after it was put aside goes into a new one.
async fn keep_log(home: Home, path: PathBuf) {
    loop {
        tokio::time::sleep(LOG_CHECK).await;
        if !put_aside(&path) {
            continue;
        }
        let renewed = open_log(&path).and_then(|log| {
            rustix::stdio::dup2_stdout(&log)?;
            Ok(rustix::stdio::dup2_stderr(&log)?)
        });
        let given = home.give(&path);
        if let Err(error) = renewed.map_err(|error| error.to_string()).and(given.map_err(|e| e.to_string())) {
            tracing::warn!(error, "the log is not begun anew");
        }
    }
}

/// Whether the profile in this directory is meant to run: its last `start` has come to its agent, and no `stop` since.
pub fn is_wanted(dir: &Path) -> bool {
    dir.join(WANTED).exists()
}

/// Ends the agent of the profile in this directory, and has one that comes up later end at once; nothing running is success.
pub async fn stop(dir: &Path) {
    // Where it cannot be removed nothing else of the profile can be either, which the caller meets next.
    let _ = std::fs::remove_file(dir.join(WANTED));
    let Some(exit) = running(dir).await else { return };
    for signal in [Signal::TERM, Signal::KILL] {
        // It may have ended by itself.
        let _ = pidfd_send_signal(exit.get_ref(), signal);
        if tokio::time::timeout(GRACE, exit.readable()).await.is_ok() {
            break;
        }
    }
    let _ = std::fs::remove_file(dir.join(NOTES));
}

/// Has the agent of the profile in this directory read its profile again; nothing running is success.
pub async fn reload(dir: &Path) {
    let Some(exit) = running(dir).await else { return };
    // It may have ended by itself.
    let _ = pidfd_send_signal(exit.get_ref(), Signal::HUP);
}

/// A handle of a process that is readable once it has exited.
pub fn exit_watch(pid: Pid) -> std::io::Result<AsyncFd<OwnedFd>> {
    watched(pidfd_open(pid, PidfdFlags::NONBLOCK)?)
}

/// What the agent wants the user to know; of one that should run and does not, that.
pub async fn notes(dir: &Path) -> Vec<String> {
    if is_wanted(dir) && !comes_up(dir).await {
        return vec![ABSENT.to_owned()];
    }
    let text = std::fs::read_to_string(dir.join(NOTES)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// `kminik agent`: takes the lock, works until SIGTERM.
pub fn main(home: Home, name: &str) -> Outcome<()> {
    kminik_base::telemetry::to_stderr();
    // A session of its own: the terminal's Ctrl-C and hang-up are not meant for it. Started by hand it may lead one already.
    let _ = rustix::process::setsid();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .or_fail(&MK_INTERNAL, "cannot start the agent")?;
    runtime.block_on(async {
        // Before the lock shows who may be sent them.
        let listen = |kind| signal(kind).or_fail(&MK_INTERNAL, "cannot listen for signals");
        let (mut terminate, mut hangup) = (listen(SignalKind::terminate())?, listen(SignalKind::hangup())?);
        let Some(_lock) = take(&home.profile(name)).await? else { return Ok(()) };
        // Who stops the cluster takes the mark away first, then looks who has the lock.
        if !is_wanted(&home.profile(name)) {
            return Ok(());
        }
        let profile = Profile::load(&home, name)?;
        let stop = CancellationToken::new();
        let child = stop.clone();
        let directory = home.profile(name);
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                // Nobody could find this process any more to end it.
                () = removed(&directory) => tracing::warn!("the profile's directory is gone"),
            }
            child.cancel();
        });
        tokio::spawn(keep_log(home.clone(), home.profile(name).join(LOG)));
        let (reload, profiles) = watch::channel(profile);
        let (files, name) = (home.clone(), name.to_owned());
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                match Profile::load(&files, &name) {
                    Ok(profile) => drop(reload.send_replace(profile)),
                    Err(failure) => tracing::warn!(%failure, "the profile cannot be read again"),
                }
            }
        });
        while run::run(home.clone(), profiles.clone(), stop.clone()).await? == run::End::Renewed {}
        Ok(())
    })
}

/// Waits until a directory is gone; for ever where the kernel watches no more files. It is looked for from above: what this process has
/// open in it keeps it from ending.
async fn removed(dir: &Path) {
    let is_gone = || (!dir.exists()).then_some(());
    let events = inotify::WatchFlags::DELETE | inotify::WatchFlags::MOVED_FROM;
    if noticed(dir.parent().unwrap_or(dir), events, is_gone).await.is_err() {
        std::future::pending().await
    }
}

/// The lock, with our pid in the file; `None` if another agent has it.
async fn take(dir: &Path) -> Outcome<Option<File>> {
    /// Who looks for an agent has the lock for a moment.
    const PATIENCE: Duration = Duration::from_millis(200);
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(false).read(true).write(true).open(dir.join(LOCK));
    let mut file = file.or_fail(&MK_INTERNAL, "cannot open the agent's lock")?;
    if file_lock::acquire(&file, PATIENCE).await.is_err() {
        return Ok(None);
    }
    file.set_len(0).or_fail(&MK_INTERNAL, "cannot write the agent's lock")?;
    write!(file, "{}", std::process::id()).or_fail(&MK_INTERNAL, "cannot write the agent's lock")?;
    Ok(Some(file))
}

/// Who has the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    Nobody,
    Agent(Pid),
    /// An agent that has taken it a moment ago and not written its pid yet.
    Unnamed,
}

fn holder(dir: &Path) -> Holder {
    let Ok(mut file) = File::open(dir.join(LOCK)) else { return Holder::Nobody };
    if file.try_lock_shared().is_ok() {
        return Holder::Nobody;
    }
    let mut text = String::new();
    let pid = file.read_to_string(&mut text).ok().and_then(|_| Pid::from_raw(text.trim().parse().ok()?));
    pid.map_or(Holder::Unnamed, Holder::Agent)
}

/// Whether the lock is held, by one that has just been started too.
async fn comes_up(dir: &Path) -> bool {
    let is_held = || (holder(dir) != Holder::Nobody).then_some(());
    seen(dir, Duration::from_millis(500), is_held).await.is_some()
}

/// What is to be seen in the profile's directory, looked for when a file there is written, as an agent does that has taken the
/// lock; `None` if it does not come within the bound.
async fn seen<T>(dir: &Path, bound: Duration, look: impl Fn() -> Option<T>) -> Option<T> {
    match tokio::time::timeout(bound, noticed(dir, inotify::WatchFlags::MODIFY, &look)).await {
        Ok(Ok(found)) => Some(found),
        // The kernel watches no more files.
        Ok(Err(_)) => {
            tokio::time::sleep(bound).await;
            look()
        }
        Err(_) => None,
    }
}

/// What `look` finds, looked for at once and after each of these events in a directory.
///
/// # Errors
/// Where the kernel watches no more files.
async fn noticed<T>(dir: &Path, events: inotify::WatchFlags, look: impl Fn() -> Option<T>) -> std::io::Result<T> {
    let changes = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    inotify::add_watch(&changes, dir, events)?;
    let changes = watched(changes)?;
    let mut read = [0_u8; 4096];
    loop {
        // Before what comes next is waited for.
        if let Some(found) = look() {
            return Ok(found);
        }
        let mut ready = changes.readable().await?;
        while rustix::io::read(changes.get_ref(), &mut read).is_ok() {}
        ready.clear_ready();
    }
}

/// A handle of the agent that holds the lock.
async fn running(dir: &Path) -> Option<AsyncFd<OwnedFd>> {
    let pid = named_holder(dir).await?;
    let exit = exit_watch(pid).ok()?;
    // Between reading the pid and opening it another process could have got the number: the lock tells.
    (holder(dir) == Holder::Agent(pid)).then_some(exit)
}

/// The process that holds the lock, once it has said which it is.
async fn named_holder(dir: &Path) -> Option<Pid> {
    let named = || match holder(dir) {
        Holder::Nobody => Some(None),
        Holder::Agent(pid) => Some(Some(pid)),
        Holder::Unnamed => None,
    };
    seen(dir, Duration::from_secs(1), named).await.flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_is_put_aside_before_the_agent_writes() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::at(directory.path());
        let profile: Profile = serde_json::from_str(include_str!("../../tests/formats/profile-3-a.json")).unwrap();
        let log = home.profile(&profile.name).join(LOG);
        std::fs::create_dir_all(log.parent().unwrap()).unwrap();
        let length = 5 << 20;
        File::create(&log).unwrap().set_len(length).unwrap();
        spawn(&home, &profile, Some("/bin/true".into())).unwrap();
        let of = |path: &Path| std::fs::metadata(path).unwrap().len();
        assert_eq!((of(&log), of(&log.with_extension("log.1"))), (0, length));
    }

    #[tokio::test]
    async fn who_waits_for_an_agent_sees_it_come_up() {
        let directory = tempfile::tempdir().unwrap();
        let dir = directory.path();
        assert!(!comes_up(dir).await, "nobody comes");
        let (lock, came) = tokio::join!(
            async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                take(dir).await.unwrap()
            },
            comes_up(dir)
        );
        assert!(came && lock.is_some());
        assert_eq!(named_holder(dir).await, Some(rustix::process::getpid()));
        assert!(take(dir).await.unwrap().is_none(), "it is held");
        drop(lock);
        // A program that another test starts just now has it a moment longer.
        for _ in 0..100 {
            if named_holder(dir).await.is_none() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it is still held");
    }
}
