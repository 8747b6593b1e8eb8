//! What survives the node process: the ends of containers' streams and the exits of their processes, kept by PID 1.
//!
//! A *holding* has a key (a container's id), descriptors by name, and the process whose exit is awaited. PID 1 (see
//! [`crate::keeper`]) reaps that process, and keeps the exit until the holding is removed; so a node process that is killed and started
//! again finds every stream with what was written meanwhile, and every exit code.
//!
//! Protocol: a sequenced-packet unix socket; a message is one JSON value and its descriptors, each request gets one reply. After
//! [`Request::Subscribe`] the keeper sends an [`Exit`] for every holding whose process has exited, then for each new one.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;

pub use crate::sys::process::ProcessId;
use crate::sys::socket;
use crate::sys::watched::watched;

/// PID 1 answers from memory; an answer that takes longer never comes.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// 128 + signal when killed by one.
    pub code: i32,
    pub at: SystemTime,
}

/// The end of a holding's process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    pub key: String,
    pub process: ProcessId,
    pub status: ExitStatus,
}

/// What the keeper has under a key, without the descriptors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    pub key: String,
    pub names: Vec<String>,
    pub process: Option<ProcessId>,
    pub exit: Option<ExitStatus>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Replaces what is there. One descriptor a name, in order.
    Put {
        key: String,
        names: Vec<String>,
        process: Option<ProcessId>,
    },
    /// Replied with [`Reply::Holding`] and the descriptors.
    Get {
        key: String,
    },
    Keys {
        after: Option<String>,
    },
    Remove {
        key: String,
    },
    Subscribe,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Done,
    Holding(Option<Holding>),
    /// In order of keys; the last page is empty.
    Holdings {
        instance: String,
        page: Vec<Holding>,
    },
    Refused(Refusal),
}

/// Why the keeper does not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    #[error("the message is not understood")]
    Malformed,
    #[error("too many holdings")]
    Full,
}

#[derive(Debug, thiserror::Error)]
pub enum FdStoreError {
    #[error("the descriptor store at {path} cannot be reached")]
    Unreachable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the descriptor store refuses: {0}")]
    Refused(Refusal),
    #[error("the descriptor store answered something else")]
    Protocol,
}

/// Everything the keeper holds.
#[derive(Clone, Debug)]
pub struct Inventory {
    /// Of this life of PID 1: another value means that every process of before is dead.
    pub instance: String,
    pub holdings: Vec<Holding>,
}

/// A client. Calls block for as long as PID 1 needs to answer from memory, at most ten seconds.
#[derive(Debug)]
pub struct FdStore {
    path: PathBuf,
    connection: Mutex<Option<OwnedFd>>,
}

impl FdStore {
    /// `path` is the keeper's socket; connected to at the first call.
    pub fn new(path: impl Into<PathBuf>) -> FdStore {
        FdStore { path: path.into(), connection: Mutex::new(None) }
    }

    pub fn put(
        &self,
        key: &str,
        process: Option<ProcessId>,
        fds: &[(&str, BorrowedFd<'_>)],
    ) -> Result<(), FdStoreError> {
        let names = fds.iter().map(|(name, _)| (*name).to_owned()).collect();
        let descriptors: Vec<_> = fds.iter().map(|(_, fd)| *fd).collect();
        match self.call(&Request::Put { key: key.to_owned(), names, process }, &descriptors)? {
            (Reply::Done, _) => Ok(()),
            _ => Err(FdStoreError::Protocol),
        }
    }

    /// The holding and copies of its descriptors, in the order of its names.
    pub fn get(&self, key: &str) -> Result<Option<(Holding, Vec<OwnedFd>)>, FdStoreError> {
        match self.call(&Request::Get { key: key.to_owned() }, &[])? {
            (Reply::Holding(holding), fds) => Ok(holding.map(|holding| (holding, fds))),
            _ => Err(FdStoreError::Protocol),
        }
    }

    pub fn inventory(&self) -> Result<Inventory, FdStoreError> {
        let mut all = Vec::new();
        loop {
            let after = all.last().map(|holding: &Holding| holding.key.clone());
            match self.call(&Request::Keys { after }, &[])? {
                (Reply::Holdings { instance, page }, _) if page.is_empty() => {
                    return Ok(Inventory { instance, holdings: all });
                }
                (Reply::Holdings { page, .. }, _) => all.extend(page),
                _ => return Err(FdStoreError::Protocol),
            }
        }
    }

    /// Forgets a holding and closes its descriptors; succeeds if there is none.
    pub fn remove(&self, key: &str) -> Result<(), FdStoreError> {
        match self.call(&Request::Remove { key: key.to_owned() }, &[])? {
            (Reply::Done, _) => Ok(()),
            _ => Err(FdStoreError::Protocol),
        }
    }

    /// The exits, from those that are there now on.
    pub fn subscribe(&self) -> Result<Exits, FdStoreError> {
        let unreachable = |source| FdStoreError::Unreachable { path: self.path.clone(), source };
        let connection = socket::connect(&self.path, ANSWER_LIMIT).map_err(unreachable)?;
        exchange(&connection, &Request::Subscribe, &[]).map_err(unreachable)?;
        crate::sys::pipe::set_nonblocking(&connection).map_err(unreachable)?;
        Ok(Exits { connection: watched(connection).map_err(unreachable)?, path: self.path.clone() })
    }

    fn call(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<(Reply, Vec<OwnedFd>), FdStoreError> {
        let mut slot = self.connection.lock();
        let connection = match slot.take() {
            Some(connection) => connection,
            None => connect(&self.path)?,
        };
        match exchange(&connection, request, fds) {
            Ok((Reply::Refused(refusal), _)) => {
                *slot = Some(connection);
                Err(FdStoreError::Refused(refusal))
            }
            Ok(answer) => {
                *slot = Some(connection);
                Ok(answer)
            }
            Err(source) => Err(FdStoreError::Unreachable { path: self.path.clone(), source }),
        }
    }
}

fn connect(path: &Path) -> Result<OwnedFd, FdStoreError> {
    socket::connect(path, ANSWER_LIMIT).map_err(|source| FdStoreError::Unreachable { path: path.to_owned(), source })
}

fn exchange(connection: &OwnedFd, request: &Request, fds: &[BorrowedFd<'_>]) -> io::Result<(Reply, Vec<OwnedFd>)> {
    socket::send(connection, &serde_json::to_vec(request)?, fds)?;
    let (bytes, fds) = socket::receive(connection)?.ok_or(io::ErrorKind::ConnectionReset)?;
    Ok((serde_json::from_slice(&bytes)?, fds))
}

/// A subscription.
#[derive(Debug)]
pub struct Exits {
    connection: AsyncFd<OwnedFd>,
    path: PathBuf,
}

impl Exits {
    /// The next exit. Cancel safe. An error means that the subscription is over: subscribe again, what was missed comes first.
    pub async fn next(&mut self) -> Result<Exit, FdStoreError> {
        let unreachable = |source| FdStoreError::Unreachable { path: self.path.clone(), source };
        loop {
            let mut ready = self.connection.readable().await.map_err(unreachable)?;
            match ready.try_io(|connection| socket::receive(connection.get_ref().as_fd())) {
                Ok(Ok(Some((bytes, _)))) => return serde_json::from_slice(&bytes).map_err(|_| FdStoreError::Protocol),
                Ok(Ok(None)) => return Err(unreachable(io::ErrorKind::ConnectionReset.into())),
                Ok(Err(source)) => return Err(unreachable(source)),
                Err(_would_block) => {}
            }
        }
    }
}
