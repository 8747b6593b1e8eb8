//! Pumps between a container's descriptors, its log and its attached clients.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};

use super::journal::{Journal, digest};
use super::log::{LogWriter, MAX_LINE_BYTES, Rotation, Stream, format};
use crate::node::resize_terminal;
use crate::sys::pipe::{Peeker, discard, set_nonblocking};
use crate::sys::watched::watched;
use crate::{Streams, TerminalSize};

/// What is taken from a pipe at once.
const PIECE_BYTES: usize = 64 * 1024;
/// Pieces that wait for a slow client before the container does.
const CLIENT_PIECES: usize = 32;
/// A client that takes nothing for this long is let go, so that the container goes on.
const CLIENT_LIMIT: Duration = Duration::from_secs(10);

/// The node's ends of a container's streams.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
    pub terminal: Option<OwnedFd>,
}

impl Ends {
    pub(crate) fn from_names(names: &[String], fds: Vec<OwnedFd>) -> Ends {
        let mut ends = Ends::default();
        for (name, fd) in names.iter().zip(fds) {
            match name.as_str() {
                "stdin" => ends.stdin = Some(fd),
                "stdout" => ends.stdout = Some(fd),
                "stderr" => ends.stderr = Some(fd),
                "terminal" => ends.terminal = Some(fd),
                _ => {}
            }
        }
        ends
    }

    pub(crate) fn named(&self) -> Vec<(&'static str, std::os::fd::BorrowedFd<'_>)> {
        let all =
            [("stdin", &self.stdin), ("stdout", &self.stdout), ("stderr", &self.stderr), ("terminal", &self.terminal)];
        all.into_iter().filter_map(|(name, fd)| fd.as_ref().map(|fd| (name, fd.as_fd()))).collect()
    }
}

#[derive(Clone, Debug)]
pub(crate) struct IoConfig {
    pub log_path: PathBuf,
    pub rotation: Rotation,
    pub journal_path: PathBuf,
    pub stdin_once: bool,
}

struct Sink {
    log: LogWriter,
    journal: Journal,
    peeker: Peeker,
    piece: Vec<u8>,
    records: Vec<u8>,
}

struct Client {
    pieces: mpsc::Sender<(Stream, Bytes)>,
}

/// The streams of a running container.
pub(crate) struct ContainerIo {
    sink: Mutex<Sink>,
    clients: Mutex<Vec<Client>>,
    stdin: tokio::sync::Mutex<Option<AsyncFd<OwnedFd>>>,
    terminal: Option<AsyncFd<OwnedFd>>,
    stdin_once: bool,
    /// Streams that have not ended.
    open: watch::Sender<usize>,
    /// Told when stdin was closed for good.
    stdin_closed: watch::Sender<bool>,
}

impl ContainerIo {
    /// Starts to log. Goes on where a killed process left off.
    pub(crate) fn start(config: &IoConfig, ends: Ends) -> io::Result<Arc<ContainerIo>> {
        let mut sink = Sink {
            log: LogWriter::open(&config.log_path, config.rotation)?,
            journal: Journal::open(&config.journal_path)?,
            peeker: Peeker::new()?,
            piece: Vec::new(),
            records: Vec::new(),
        };
        sink.recover(&ends)?;
        let register = |fd: OwnedFd| set_nonblocking(&fd).and_then(|()| watched(fd));
        let stdin = ends.stdin.map(register).transpose()?;
        let terminal = ends.terminal.map(register).transpose()?;
        let pipes = [(Stream::Stdout, ends.stdout), (Stream::Stderr, ends.stderr)];
        let mut readers = Vec::new();
        for (stream, fd) in pipes {
            if let Some(fd) = fd {
                readers.push((stream, register(fd)?));
            }
        }
        let count = readers.len() + usize::from(terminal.is_some());
        let io = Arc::new(ContainerIo {
            sink: Mutex::new(sink),
            clients: Mutex::default(),
            stdin: tokio::sync::Mutex::new(stdin),
            terminal,
            stdin_once: config.stdin_once,
            open: watch::Sender::new(count),
            stdin_closed: watch::Sender::new(false),
        });
        for (stream, fd) in readers {
            let io = io.clone();
            tokio::spawn(async move {
                if let Err(error) = io.pump_pipe(stream, fd).await {
                    tracing::warn!(%error, "a container's output cannot be read any further");
                }
                io.ended();
            });
        }
        if io.terminal.is_some() {
            let io = io.clone();
            tokio::spawn(async move {
                if let Err(error) = io.pump_terminal().await {
                    tracing::warn!(%error, "a container's terminal cannot be read any further");
                }
                io.ended();
            });
        }
        Ok(io)
    }

    fn ended(&self) {
        self.open.send_modify(|open| *open -= 1);
        if *self.open.borrow() == 0 {
            // Attached clients see the end.
            self.clients.lock().clear();
        }
    }

    /// Returns when all that the container wrote is in the log, after its end.
    pub(crate) async fn drained(&self) {
        // The sender lives as long as this.
        let _ = self.open.subscribe().wait_for(|open| *open == 0).await;
    }

    /// Becomes true when stdin was closed for good.
    pub(crate) fn stdin_closed(&self) -> watch::Receiver<bool> {
        self.stdin_closed.subscribe()
    }

    async fn pump_pipe(&self, stream: Stream, pipe: AsyncFd<OwnedFd>) -> io::Result<()> {
        // Bytes at the pipe's head that clients have seen: a line that has not ended stays in the pipe.
        let mut seen = 0;
        loop {
            let mut ready = pipe.readable().await?;
            let no_writers = ready.ready().is_read_closed();
            let step = self.sink.lock().step(stream, pipe.get_ref(), no_writers, &mut seen)?;
            match step {
                Step::Wait => ready.clear_ready(),
                Step::More(fresh) => self.tell(stream, fresh).await,
                Step::End => return Ok(()),
            }
        }
    }

    async fn pump_terminal(&self) -> io::Result<()> {
        let Some(terminal) = &self.terminal else { return Ok(()) };
        let mut buffer = vec![0; PIECE_BYTES];
        let mut line = Vec::new();
        loop {
            let mut ready = terminal.readable().await?;
            let read = match ready.try_io(|terminal| Ok(rustix::io::read(terminal.get_ref(), &mut buffer[..])?)) {
                // The last process has closed its side.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => 0,
                Ok(read) => read?,
                Err(_would_block) => continue,
            };
            let fresh = buffer.get(..read).unwrap_or_default();
            line.extend_from_slice(fresh);
            let taken = self.sink.lock().write_plain(&line, read == 0);
            line.drain(..taken);
            if read == 0 {
                return Ok(());
            }
            self.tell(Stream::Stdout, Bytes::copy_from_slice(fresh)).await;
        }
    }

    /// Gives clients what is new; waits for slow ones for a while.
    async fn tell(&self, stream: Stream, fresh: Bytes) {
        if fresh.is_empty() {
            return;
        }
        let clients: Vec<_> = self.clients.lock().iter().map(|client| client.pieces.clone()).collect();
        let mut gone = false;
        for client in &clients {
            gone |= client.send_timeout((stream, fresh.clone()), CLIENT_LIMIT).await.is_err();
        }
        if gone {
            // One that is only slow is let go too: what it missed cannot be made good.
            self.clients.lock().retain(|client| !client.pieces.is_closed() && client.pieces.capacity() > 0);
        }
    }

    /// Connects a client until the container ends or the client goes.
    pub(crate) async fn attach(self: &Arc<Self>, streams: Streams) {
        let Streams { stdin, mut stdout, mut stderr, resize } = streams;
        let (pieces, mut incoming) = mpsc::channel(CLIENT_PIECES);
        if *self.open.borrow() > 0 {
            self.clients.lock().push(Client { pieces });
        } else {
            drop(pieces);
        }
        let output = async {
            while let Some((stream, piece)) = incoming.recv().await {
                let out = match stream {
                    Stream::Stdout => &mut stdout,
                    Stream::Stderr => &mut stderr,
                };
                if let Some(out) = out
                    && (out.write_all(&piece).await.is_err() || out.flush().await.is_err())
                {
                    return;
                }
            }
        };
        let input = async {
            if let Some(stdin) = stdin {
                self.feed(stdin).await;
            }
            std::future::pending::<()>().await
        };
        let sizes = async {
            if let Some(resize) = resize {
                self.follow_size(resize).await;
            }
            std::future::pending::<()>().await
        };
        tokio::select! {
            () = output => {}
            () = input => {}
            () = sizes => {}
        }
    }

    async fn feed(&self, mut from: Box<dyn tokio::io::AsyncRead + Send + Unpin>) {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let read = from.read(&mut buffer).await.unwrap_or(0);
            let bytes = buffer.get(..read).unwrap_or_default();
            if read == 0 || self.write_stdin(bytes).await.is_err() {
                break;
            }
        }
        if self.stdin_once && self.terminal.is_none() {
            self.stdin.lock().await.take();
            self.stdin_closed.send_replace(true);
        }
    }

    async fn write_stdin(&self, bytes: &[u8]) -> io::Result<()> {
        if let Some(terminal) = &self.terminal {
            return write_all(terminal, bytes).await;
        }
        match self.stdin.lock().await.as_ref() {
            Some(stdin) => write_all(stdin, bytes).await,
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    async fn follow_size(&self, mut sizes: mpsc::Receiver<TerminalSize>) {
        while let Some(size) = sizes.recv().await {
            if let Some(terminal) = &self.terminal
                && let Err(error) = resize_terminal(terminal.get_ref(), size.width, size.height)
            {
                tracing::debug!(%error, "terminal not resized");
            }
        }
    }
}

pub(crate) async fn write_all(fd: &AsyncFd<OwnedFd>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let mut ready = fd.writable().await?;
        match ready.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), bytes)?)) {
            Ok(written) => bytes = bytes.get(written?..).unwrap_or_default(),
            Err(_would_block) => {}
        }
    }
    Ok(())
}

enum Step {
    /// Nothing new until the pipe is ready again.
    Wait,
    /// What clients have not seen yet.
    More(Bytes),
    End,
}

impl Sink {
    /// One piece from a pipe into the log, by the steps of the journal.
    fn step(&mut self, stream: Stream, pipe: &OwnedFd, no_writers: bool, seen: &mut usize) -> io::Result<Step> {
        match self.peeker.peek(pipe, &mut self.piece, PIECE_BYTES)? {
            None => return Ok(Step::Wait),
            Some(0) => return Ok(Step::End),
            Some(_) => {}
        }
        let known = (*seen).min(self.piece.len());
        let fresh = Bytes::copy_from_slice(self.piece.get(known..).unwrap_or_default());
        // A line without an end is final when nobody can go on with it.
        let last = no_writers && self.piece.len() < MAX_LINE_BYTES;
        self.records.clear();
        let taken = format(stream, Timestamp::now(), &self.piece, last, &mut self.records);
        *seen = self.piece.len() - taken;
        if taken == 0 {
            return Ok(if fresh.is_empty() { Step::Wait } else { Step::More(fresh) });
        }
        let piece = self.piece.get(..taken).unwrap_or_default();
        if let Err(error) = write_records(&mut self.log, &self.journal, stream, piece, &self.records) {
            tracing::warn!(%error, "lines of a container's log are lost");
        }
        discard(pipe, self.piece.get_mut(..taken).unwrap_or_default())?;
        self.journal.clear()?;
        Ok(Step::More(fresh))
    }

    /// A terminal cannot be looked at without taking, so a kill may lose what was just read. Returns the bytes taken.
    fn write_plain(&mut self, text: &[u8], last: bool) -> usize {
        self.records.clear();
        let taken = format(Stream::Stdout, Timestamp::now(), text, last, &mut self.records);
        let written = self.log.rotate_if_due().and_then(|()| self.log.write(&self.records));
        if let Err(error) = written {
            tracing::warn!(%error, "lines of a container's log are lost");
        }
        taken
    }

    /// Takes back what a killed process had not finished.
    fn recover(&mut self, ends: &Ends) -> io::Result<()> {
        let Some(intent) = self.journal.pending()? else { return Ok(()) };
        let pipe = match intent.stream {
            Stream::Stdout => &ends.stdout,
            Stream::Stderr => &ends.stderr,
        };
        let length = usize::try_from(intent.length).unwrap_or(0).min(PIECE_BYTES);
        if let Some(pipe) = pipe
            && self.peeker.peek(pipe, &mut self.piece, length)? == Some(length)
            && digest(&self.piece) == intent.digest
        {
            self.log.cut(intent.position)?;
        }
        self.journal.clear()
    }
}

fn write_records(
    log: &mut LogWriter,
    journal: &Journal,
    stream: Stream,
    piece: &[u8],
    records: &[u8],
) -> io::Result<()> {
    log.rotate_if_due()?;
    journal.note(stream, log.position()?, piece)?;
    log.write(records)
}
