//! The part of PID 1 that reaps, remembers, and restarts: one thread, one poll, no timer that is not needed.
//!
//! It reaps every process that nobody else waits for, keeps the descriptors and exits of the [`crate::fdstore`], and keeps one program
//! (the node process) running. It needs to be PID 1 or a child subreaper, so that containers' processes become its children.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, WaitId, WaitIdOptions};

use crate::fdstore::{Exit, ExitStatus, Holding, Refusal, Reply, Request};
use crate::sys::process::ProcessId;
use crate::sys::signals::{Signals, raw};
use crate::sys::socket;

/// Holdings, so that a runaway client cannot use up PID 1's descriptors.
const MAX_HOLDINGS: usize = 8192;
const MAX_CLIENTS: usize = 32;
/// Exits of processes that have no holding yet: one may end between its start and the message about it.
const MAX_UNCLAIMED: usize = 1024;
/// Holdings in one reply.
const PAGE: usize = 128;
const RESTART_FIRST: Duration = Duration::from_millis(100);
const RESTART_LIMIT: Duration = Duration::from_secs(10);
/// A program that ran this long starts at the first delay again.
const RESTART_RESET: Duration = Duration::from_secs(60);

/// What to keep running, and where to be reached.
#[derive(Clone, Debug)]
pub struct KeeperConfig {
    /// The socket of the descriptor store.
    pub socket: PathBuf,
    /// Program and arguments; its output goes where the keeper's goes.
    pub program: Vec<String>,
    pub env: Vec<(String, String)>,
    /// How long the program has after SIGTERM before it is killed.
    pub stop_limit: Duration,
    /// Start it again when it ends; else the keeper ends with it.
    pub restart: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    #[error("there is no program to run")]
    NoProgram,
    #[error("cannot {step}")]
    Io {
        step: &'static str,
        #[source]
        source: io::Error,
    },
}

fn step(step: &'static str) -> impl FnOnce(io::Error) -> KeeperError {
    move |source| KeeperError::Io { step, source }
}

/// Runs until SIGTERM, SIGINT, SIGPWR or SIGRTMIN+3 has been received and the program has ended (or, without `restart`, until it
/// has ended); returns the program's last exit code. Must be called before the process has a second thread.
pub fn run(config: &KeeperConfig) -> Result<i32, KeeperError> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|error| step("become the reaper of orphans")(error.into()))?;
    let signals = Signals::block(&[raw::CHLD, raw::TERM, raw::INT, raw::PWR, raw::rtmin_plus_3()])
        .map_err(step("block signals"))?;
    let listener = socket::listen(&config.socket).map_err(step("listen for the node process"))?;
    let mut keeper = Keeper {
        config: config.clone(),
        instance: instance()?,
        holdings: BTreeMap::new(),
        unclaimed: VecDeque::new(),
        clients: Vec::new(),
        program: Program::Waiting { until: Instant::now() },
        delay: RESTART_FIRST,
        stopping: None,
        last_code: 0,
    };
    loop {
        if let Some(code) = keeper.advance()? {
            return Ok(code);
        }
        keeper.wait(&signals, &listener).map_err(step("wait"))?;
    }
}

enum Program {
    Waiting { until: Instant },
    Running { pid: i32, since: Instant },
    Ended,
}

struct Held {
    names: Vec<String>,
    fds: Vec<OwnedFd>,
    process: Option<ProcessId>,
    exit: Option<ExitStatus>,
}

struct Client {
    socket: OwnedFd,
    subscribed: bool,
}

struct Keeper {
    config: KeeperConfig,
    instance: String,
    holdings: BTreeMap<String, Held>,
    unclaimed: VecDeque<(ProcessId, ExitStatus)>,
    clients: Vec<Client>,
    program: Program,
    delay: Duration,
    /// Since when, once asked to stop.
    stopping: Option<Instant>,
    last_code: i32,
}

impl Keeper {
    /// Starts, kills or gives up the program as it is time to; `Some` ends the keeper.
    fn advance(&mut self) -> Result<Option<i32>, KeeperError> {
        let now = Instant::now();
        match (&self.program, self.stopping) {
            (Program::Ended, _) | (Program::Waiting { .. }, Some(_)) => return Ok(Some(self.last_code)),
            (Program::Running { pid, .. }, Some(since)) if now >= since + self.config.stop_limit => {
                signal(*pid, rustix::process::Signal::KILL);
            }
            (Program::Waiting { until }, None) if now >= *until => {
                self.program = match self.spawn() {
                    Ok(pid) => Program::Running { pid, since: now },
                    Err(error) if self.config.restart => {
                        tracing::error!(%error, "cannot start the node process");
                        Program::Waiting { until: now + self.next_delay() }
                    }
                    Err(error) => return Err(error),
                };
            }
            _ => {}
        }
        Ok(None)
    }

    fn spawn(&self) -> Result<i32, KeeperError> {
        let (name, args) = self.config.program.split_first().ok_or(KeeperError::NoProgram)?;
        let mut command = Command::new(name);
        command.args(args).envs(self.config.env.iter().cloned()).stdin(Stdio::null());
        // SAFETY: the function makes calls only that are safe between fork and exec.
        unsafe {
            std::os::unix::process::CommandExt::pre_exec(&mut command, || {
                crate::sys::signals::reset();
                Ok(())
            });
        }
        let child = command.spawn().map_err(step("start the node process"))?;
        Ok(child.id().cast_signed())
    }

    fn next_delay(&mut self) -> Duration {
        let delay = self.delay;
        self.delay = (delay * 2).min(RESTART_LIMIT);
        delay
    }

    fn timeout(&self) -> Option<Timespec> {
        let at = match (&self.program, self.stopping) {
            (Program::Waiting { until }, _) => Some(*until),
            (Program::Running { .. }, Some(since)) => Some(since + self.config.stop_limit),
            _ => None,
        }?;
        // A killed program takes a moment to end: never spin on a time that has passed.
        let left = at.saturating_duration_since(Instant::now()).max(Duration::from_millis(10));
        Timespec::try_from(left).ok()
    }

    fn wait(&mut self, signals: &Signals, listener: &OwnedFd) -> io::Result<()> {
        let mut polls = vec![PollFd::new(signals, PollFlags::IN), PollFd::new(listener, PollFlags::IN)];
        polls.extend(self.clients.iter().map(|client| PollFd::new(&client.socket, PollFlags::IN)));
        match rustix::event::poll(&mut polls, self.timeout().as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = polls.iter().map(|poll| !poll.revents().is_empty()).collect();
        drop(polls);
        // Requests first: a holding put just before its process ended then claims the exit.
        for index in (0..self.clients.len()).rev() {
            if ready.get(index + 2) == Some(&true) && !self.serve(index) {
                self.clients.swap_remove(index);
            }
        }
        if ready.first() == Some(&true) {
            for number in signals.take()? {
                if number == raw::CHLD {
                    continue;
                }
                self.stop();
            }
            self.reap()?;
        }
        if ready.get(1) == Some(&true) {
            self.accept(listener);
        }
        Ok(())
    }

    fn stop(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(Instant::now());
        if let Program::Running { pid, .. } = self.program {
            signal(pid, rustix::process::Signal::TERM);
        }
    }

    fn accept(&mut self, listener: &OwnedFd) {
        let flags = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
        // A client that is gone already, or one too many, is closed by not being kept.
        if let Ok(socket) = rustix::net::accept_with(listener, flags)
            && self.clients.len() < MAX_CLIENTS
        {
            self.clients.push(Client { socket, subscribed: false });
        }
    }

    /// One request of a client; false if it is to be closed.
    fn serve(&mut self, index: usize) -> bool {
        let Some(client) = self.clients.get_mut(index) else { return false };
        let (bytes, fds) = match socket::receive(&client.socket) {
            Ok(Some(message)) => message,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
            Ok(None) | Err(_) => return false,
        };
        let request = serde_json::from_slice(&bytes);
        if matches!(request, Ok(Request::Subscribe)) {
            client.subscribed = true;
        }
        let (reply, key) = match request {
            Ok(request) => self.answer(request, fds),
            Err(_) => (Reply::Refused(Refusal::Malformed), None),
        };
        let held = key.and_then(|key| self.holdings.get(&key));
        let fds: Vec<_> = held.map(|held| held.fds.iter().map(AsFd::as_fd).collect()).unwrap_or_default();
        let Some(client) = self.clients.get(index) else { return false };
        let Ok(body) = serde_json::to_vec(&reply) else { return false };
        if socket::send(&client.socket, &body, &fds).is_err() {
            return false;
        }
        // A new subscriber first hears what it missed.
        !matches!(reply, Reply::Done) || !client.subscribed || self.exits().all(|exit| tell(client, &exit))
    }

    /// The reply, and the key whose descriptors go with it.
    fn answer(&mut self, request: Request, fds: Vec<OwnedFd>) -> (Reply, Option<String>) {
        match request {
            Request::Subscribe => (Reply::Done, None),
            Request::Put { key, names, process } => (self.put(key, names, process, fds), None),
            Request::Remove { key } => {
                self.holdings.remove(&key);
                (Reply::Done, None)
            }
            Request::Get { key } => match self.holdings.get(&key) {
                Some(held) => (Reply::Holding(Some(held.describe(&key))), Some(key)),
                None => (Reply::Holding(None), None),
            },
            Request::Keys { after } => {
                use std::ops::Bound::{Excluded, Unbounded};
                let from = after.map_or(Unbounded, Excluded);
                let page = self.holdings.range((from, Unbounded)).take(PAGE);
                let page = page.map(|(key, held)| held.describe(key)).collect();
                (Reply::Holdings { instance: self.instance.clone(), page }, None)
            }
        }
    }

    fn put(&mut self, key: String, names: Vec<String>, process: Option<ProcessId>, fds: Vec<OwnedFd>) -> Reply {
        if names.len() != fds.len() {
            return Reply::Refused(Refusal::Malformed);
        }
        if self.holdings.len() >= MAX_HOLDINGS && !self.holdings.contains_key(&key) {
            return Reply::Refused(Refusal::Full);
        }
        let claimed = process.and_then(|process| self.unclaimed.iter().position(|(id, _)| *id == process));
        let exit = claimed.and_then(|index| self.unclaimed.remove(index)).map(|(_, exit)| exit);
        // Put again with other descriptors, it is still the same process.
        let before = self.holdings.get(&key).filter(|held| held.process == process);
        let exit = exit.or(before.and_then(|held| held.exit));
        self.holdings.insert(key.clone(), Held { names, fds, process, exit });
        if let (Some(process), Some(status)) = (process, exit) {
            self.publish(&Exit { key, process, status });
        }
        Reply::Done
    }

    fn exits(&self) -> impl Iterator<Item = Exit> {
        self.holdings
            .iter()
            .filter_map(|(key, held)| Some(Exit { key: key.clone(), process: held.process?, status: held.exit? }))
    }

    /// A subscriber that does not keep up is dropped; it subscribes again and hears everything.
    fn publish(&mut self, exit: &Exit) {
        self.clients.retain(|client| !client.subscribed || tell(client, exit));
    }

    /// Reaps all that have ended.
    fn reap(&mut self) -> io::Result<()> {
        loop {
            // Looked at first and reaped after: the start time is readable as long as it is a zombie.
            let Some(raw_pid) = crate::sys::process::any_exited()? else { return Ok(()) };
            let Some(pid) = Pid::from_raw(raw_pid) else { return Ok(()) };
            let process = ProcessId::of(raw_pid.cast_unsigned());
            let Ok(Some(status)) = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED) else { continue };
            let code =
                status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal)).unwrap_or(255);
            self.ended(raw_pid, process.ok(), ExitStatus { code, at: SystemTime::now() });
        }
    }

    fn ended(&mut self, pid: i32, process: Option<ProcessId>, status: ExitStatus) {
        if let Program::Running { pid: program, since } = self.program
            && program == pid
        {
            self.last_code = status.code;
            if since.elapsed() >= RESTART_RESET {
                self.delay = RESTART_FIRST;
            }
            self.program = if self.config.restart && self.stopping.is_none() {
                let delay = self.next_delay();
                tracing::warn!(code = status.code, ?delay, "the node process ended, it is started again");
                Program::Waiting { until: Instant::now() + delay }
            } else {
                Program::Ended
            };
            return;
        }
        let Some(process) = process else { return };
        let held = self.holdings.iter_mut().find(|(_, held)| held.process == Some(process));
        match held {
            Some((key, held)) => {
                held.exit = Some(status);
                let exit = Exit { key: key.clone(), process, status };
                self.publish(&exit);
            }
            None => {
                if self.unclaimed.len() >= MAX_UNCLAIMED {
                    self.unclaimed.pop_front();
                }
                self.unclaimed.push_back((process, status));
            }
        }
    }
}

impl Held {
    fn describe(&self, key: &str) -> Holding {
        Holding { key: key.to_owned(), names: self.names.clone(), process: self.process, exit: self.exit }
    }
}

fn tell(client: &Client, exit: &Exit) -> bool {
    serde_json::to_vec(exit).is_ok_and(|body| socket::send(&client.socket, &body, &[]).is_ok())
}

fn signal(pid: i32, signal: rustix::process::Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // It may have ended already.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Tells this life from every other.
fn instance() -> Result<String, KeeperError> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/uuid").map_err(step("draw a random number"))?;
    Ok(text.trim().to_owned())
}
