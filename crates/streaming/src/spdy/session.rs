//! A session: one connection, its streams, one task that reads and one that writes.
//!
//! ```text
//!   peer ──► reader task ──► (bounded buffer a stream) ──► Stream::reader
//!   peer ◄── writer task ◄── (one queue, bounded in bytes) ◄── Stream::writer
//! ```
//! The reader stops while a stream's buffer is full, which is what holds back a peer that ignores windows.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::frame::{self, Control, Head};
use super::headers::{Decoder, Encoder, Headers};
use super::window::{INITIAL_WINDOW, Window};
use crate::outbound::{Outbound, Queued};
use crate::{CHUNK_BYTES, Input, LINGER, Output, STREAM_BUFFER_BYTES, StreamingError};

/// Most streams open at once.
const MAX_STREAMS: usize = 1024;
/// Answers (pings, refusals) that may wait for a peer which does not read; more ends the session.
const MAX_PENDING_ANSWERS: usize = 4096;

/// Which end of the connection this is: a client's streams are odd, a server's even.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Client,
    Server,
}

/// One stream, both directions. Dropping or shutting down `writer` half-closes it; dropping `reader` discards what
/// still arrives.
pub struct Stream {
    pub id: u32,
    pub headers: Headers,
    pub reader: Input,
    pub writer: Output,
}

/// A session. Dropping it ends the connection at once; [`Session::close`] lets everything sent arrive first.
pub struct Session {
    incoming: mpsc::Receiver<Stream>,
    outbound: Outbound<Frame>,
    shared: Arc<Shared>,
    gone: CancellationToken,
    _guard: DropGuard,
}

#[derive(Debug)]
enum Frame {
    Open {
        stream: u32,
        headers: Headers,
    },
    Reply {
        stream: u32,
    },
    Data {
        stream: u32,
        data: Bytes,
    },
    Fin {
        stream: u32,
    },
    Reset {
        stream: u32,
        status: u32,
    },
    Ping(u32),
    WindowUpdate {
        stream: u32,
        delta: u32,
    },
    /// Announces the end, flushes, closes the sending direction, and tells.
    Close(oneshot::Sender<()>),
}

struct Shared {
    state: Mutex<State>,
    session_window: Arc<Window>,
}

struct State {
    streams: HashMap<u32, Entry>,
    next: u32,
    last_received: u32,
    initial_window: i64,
    /// The peer has spoken of windows.
    windows_enforced: bool,
    pending_answers: usize,
}

struct Entry {
    /// Taken while the reader task writes into it; gone after the peer's end of the stream.
    inbound: Option<DuplexStream>,
    window: Arc<Window>,
    finished_here: bool,
    finished_there: bool,
}

impl Session {
    /// Takes over a connection that has been upgraded.
    pub fn start<Io>(io: Io, role: Role) -> Result<Session, StreamingError>
    where
        Io: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (outbound, frames) = Outbound::new();
        let (streams, incoming) = mpsc::channel(16);
        let gone = CancellationToken::new();
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                streams: HashMap::new(),
                next: if role == Role::Client { 1 } else { 2 },
                last_received: 0,
                initial_window: INITIAL_WINDOW,
                windows_enforced: false,
                pending_answers: 0,
            }),
            session_window: Arc::new(Window::new(INITIAL_WINDOW, false, None)),
        });
        let stop = CancellationToken::new();
        let (read, write) = tokio::io::split(io);
        let encoder = Encoder::new()?;

        let reader = Reader { io: read, role, outbound: outbound.clone(), shared: shared.clone(), streams };
        let (reader_stop, reader_gone, reader_outbound) = (stop.clone(), gone.clone(), outbound.clone());
        tokio::spawn(async move {
            let shared = reader.shared.clone();
            let ended = reader_stop.run_until_cancelled(reader.run()).await;
            if let Some(Err(error)) = ended {
                tracing::debug!(error = %error, "spdy session broke");
            }
            reader_outbound.close();
            shared.end();
            reader_gone.cancel();
        });
        let (writer_stop, writer_gone, writer_outbound) = (stop.clone(), gone.clone(), outbound.clone());
        let writer_shared = shared.clone();
        tokio::spawn(async move {
            // The queue is cut when the peer is gone or the session dropped, whichever comes first.
            let work = write_frames(write, frames, encoder, writer_shared);
            tokio::select! {
                _ = work => {}
                () = writer_stop.cancelled() => {}
                () = writer_gone.cancelled() => {}
            }
            writer_outbound.close();
        });
        Ok(Session { incoming, outbound, shared, gone, _guard: stop.drop_guard() })
    }

    /// The next stream the peer opens (already accepted); `None` when the connection is over.
    pub async fn accept(&mut self) -> Option<Stream> {
        self.incoming.recv().await
    }

    /// Opens a stream. Data may be written before the peer's reply.
    pub fn open(&self, headers: Headers) -> Result<Stream, StreamingError> {
        let id = {
            let mut state = self.shared.lock();
            let id = state.next;
            state.next += 2;
            id
        };
        if !self.outbound.send(Frame::Open { stream: id, headers: headers.clone() }) {
            return Err(StreamingError::Closed);
        }
        Ok(self.shared.add(id, headers, &self.outbound))
    }

    /// Cancelled when the connection is over.
    pub fn gone(&self) -> CancellationToken {
        self.gone.clone()
    }

    /// Says goodbye after everything written so far, and waits (bounded) until the peer has hung up.
    pub async fn close(self) {
        let (told, done) = oneshot::channel();
        if self.outbound.send(Frame::Close(told)) {
            let goodbye = async {
                let _ = done.await;
                self.gone.cancelled().await;
            };
            let _ = tokio::time::timeout(LINGER, goodbye).await;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(self: &Arc<Self>, id: u32, headers: Headers, outbound: &Outbound<Frame>) -> Stream {
        let (inbound, reader) = tokio::io::duplex(STREAM_BUFFER_BYTES);
        let mut state = self.lock();
        let window =
            Arc::new(Window::new(state.initial_window, state.windows_enforced, Some(self.session_window.clone())));
        let entry =
            Entry { inbound: Some(inbound), window: window.clone(), finished_here: false, finished_there: false };
        state.streams.insert(id, entry);
        drop(state);
        let reader = StreamReader { reader, stream: id, consumed: 0, outbound: outbound.clone() };
        let data = move |data| Frame::Data { stream: id, data };
        let writer = outbound.writer(data, Some(Frame::Fin { stream: id }), Some(window));
        Stream { id, headers, reader: Box::new(reader), writer: Box::new(writer) }
    }

    fn finish(&self, id: u32, here: bool) {
        let mut state = self.lock();
        if let Some(entry) = state.streams.get_mut(&id) {
            if here {
                entry.finished_here = true;
            } else {
                entry.finished_there = true;
                entry.inbound = None;
            }
            if entry.finished_here && entry.finished_there {
                state.streams.remove(&id);
            }
        }
    }

    fn reset(&self, id: u32) {
        if let Some(entry) = self.lock().streams.remove(&id) {
            entry.window.close();
        }
    }

    fn end(&self) {
        self.session_window.close();
        for (_, entry) in self.lock().streams.drain() {
            entry.window.close();
        }
    }
}

struct Reader<Io> {
    io: ReadHalf<Io>,
    role: Role,
    outbound: Outbound<Frame>,
    shared: Arc<Shared>,
    streams: mpsc::Sender<Stream>,
}

impl<Io: AsyncRead + AsyncWrite + Send + 'static> Reader<Io> {
    async fn run(mut self) -> Result<(), StreamingError> {
        let mut decoder = Decoder::new();
        let mut payload = Vec::new();
        loop {
            let mut head = [0; frame::HEAD_BYTES];
            match self.io.read_exact(&mut head).await {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                read => read?,
            };
            match Head::parse(head)? {
                Head::Data { stream, fin, length } => self.data(stream, fin, length, &mut payload).await?,
                Head::Control { kind, flags, length } => {
                    payload.resize(length, 0);
                    self.io.read_exact(&mut payload).await?;
                    self.control(Control::parse(kind, flags, &payload)?, &mut decoder).await?;
                }
            }
        }
    }

    async fn data(
        &mut self,
        stream: u32,
        fin: bool,
        mut length: usize,
        buffer: &mut Vec<u8>,
    ) -> Result<(), StreamingError> {
        let (mut inbound, known) = {
            let mut state = self.shared.lock();
            let entry = state.streams.get_mut(&stream);
            let known = entry.is_some();
            (entry.and_then(|entry| entry.inbound.take()), known)
        };
        if !known && stream > self.shared.lock().last_received {
            self.answer(Frame::Reset { stream, status: frame::RST_INVALID_STREAM })?;
        }
        while length > 0 {
            buffer.resize(length.min(CHUNK_BYTES), 0);
            self.io.read_exact(buffer).await?;
            length -= buffer.len();
            let delivered = match &mut inbound {
                Some(inbound) => inbound.write_all(buffer).await.is_ok(),
                None => false,
            };
            if !delivered {
                inbound = None;
                // Nobody counts these bytes as they are read, so the session's window is given back here.
                self.outbound.send(Frame::WindowUpdate { stream: 0, delta: buffer.len() as u32 });
            }
        }
        if fin {
            drop(inbound);
            self.shared.finish(stream, false);
        } else if let Some(entry) = self.shared.lock().streams.get_mut(&stream) {
            entry.inbound = inbound;
        }
        Ok(())
    }

    async fn control(&mut self, control: Control<'_>, decoder: &mut Decoder) -> Result<(), StreamingError> {
        match control {
            Control::SynStream { stream, fin, block } => {
                let headers = decoder.decode(block)?;
                self.opened(stream, fin, headers).await?;
            }
            Control::SynReply { stream, fin, block } | Control::Headers { stream, fin, block } => {
                decoder.decode(block)?;
                if fin {
                    self.shared.finish(stream, false);
                }
            }
            Control::Reset { stream } => self.shared.reset(stream),
            Control::InitialWindow(size) => {
                let mut state = self.shared.lock();
                let delta = i64::from(size) - state.initial_window;
                state.initial_window = i64::from(size);
                state.windows_enforced = true;
                for entry in state.streams.values() {
                    entry.window.grant(delta);
                }
            }
            Control::WindowUpdate { stream: 0, delta } => {
                if !self.shared.session_window.grant(i64::from(delta)) {
                    return Err(StreamingError::Spdy("session window overflow"));
                }
            }
            Control::WindowUpdate { stream, delta } => {
                let mut state = self.shared.lock();
                state.windows_enforced = true;
                let fits = state.streams.get(&stream).is_none_or(|entry| entry.window.grant(i64::from(delta)));
                drop(state);
                if !fits {
                    return Err(StreamingError::Spdy("stream window overflow"));
                }
            }
            // The parity tells whose ping it is; a reply to one of ours needs no answer.
            Control::Ping(ping) if (ping % 2 == 1) == (self.role == Role::Server) => self.answer(Frame::Ping(ping))?,
            Control::Ping(_) | Control::GoAway | Control::Ignored => {}
        }
        Ok(())
    }

    async fn opened(&mut self, id: u32, fin: bool, headers: Headers) -> Result<(), StreamingError> {
        {
            let mut state = self.shared.lock();
            let theirs = (id % 2 == 1) == (self.role == Role::Server);
            if !theirs || id <= state.last_received {
                return Err(StreamingError::Spdy("stream id out of order"));
            }
            state.last_received = id;
            if state.streams.len() >= MAX_STREAMS {
                drop(state);
                return self.answer(Frame::Reset { stream: id, status: frame::RST_REFUSED_STREAM });
            }
        }
        self.answer(Frame::Reply { stream: id })?;
        let stream = self.shared.add(id, headers, &self.outbound);
        if fin {
            self.shared.finish(id, false);
        }
        // A receiver that is gone takes no more streams; dropping the stream closes it.
        let _ = self.streams.send(stream).await;
        Ok(())
    }

    /// Queues an answer without waiting: waiting here for a peer that itself waits would be a deadlock.
    fn answer(&self, frame: Frame) -> Result<(), StreamingError> {
        let mut state = self.shared.lock();
        state.pending_answers += 1;
        if state.pending_answers > MAX_PENDING_ANSWERS {
            return Err(StreamingError::Spdy("the peer sends requests but reads no answers"));
        }
        drop(state);
        self.outbound.send(frame).then_some(()).ok_or(StreamingError::Closed)
    }
}

/// Writes queued frames, several at once where they wait, until closed or broken.
async fn write_frames<Io: AsyncRead + AsyncWrite + Send>(
    mut io: WriteHalf<Io>,
    mut frames: mpsc::UnboundedReceiver<Queued<Frame>>,
    mut encoder: Encoder,
    shared: Arc<Shared>,
) -> Result<(), StreamingError> {
    let mut out = Vec::with_capacity(CHUNK_BYTES + 64);
    while let Some(queued) = frames.recv().await {
        let mut held = Vec::new();
        let mut closing = None;
        let mut next = Some(queued);
        while let Some((frame, room)) = next {
            held.push(room);
            closing = encode(frame, &mut out, &mut encoder, &shared)?;
            if closing.is_some() || out.len() >= 2 * CHUNK_BYTES {
                break;
            }
            next = frames.try_recv().ok();
        }
        io.write_all(&out).await?;
        io.flush().await?;
        out.clear();
        drop(held);
        if let Some(told) = closing {
            io.shutdown().await?;
            let _ = told.send(());
            return Ok(());
        }
    }
    Ok(())
}

fn encode(
    frame: Frame,
    out: &mut Vec<u8>,
    encoder: &mut Encoder,
    shared: &Shared,
) -> Result<Option<oneshot::Sender<()>>, StreamingError> {
    match frame {
        Frame::Open { stream, headers } => frame::put_syn_stream(out, stream, &encoder.encode(&headers)?),
        Frame::Reply { stream } => {
            frame::put_syn_reply(out, stream, &encoder.encode(&Headers::default())?);
            answered(shared);
        }
        Frame::Data { stream, data } => {
            frame::put_data_head(out, stream, false, data.len());
            out.extend_from_slice(&data);
        }
        Frame::Fin { stream } => {
            frame::put_data_head(out, stream, true, 0);
            shared.finish(stream, true);
        }
        Frame::Reset { stream, status } => {
            frame::put_reset(out, stream, status);
            answered(shared);
        }
        Frame::Ping(ping) => {
            frame::put_ping(out, ping);
            answered(shared);
        }
        Frame::WindowUpdate { stream, delta } => {
            frame::put_window_update(out, stream, delta);
        }
        Frame::Close(told) => {
            let last = shared.lock().last_received;
            frame::put_goaway(out, last);
            return Ok(Some(told));
        }
    }
    Ok(None)
}

fn answered(shared: &Shared) {
    let mut state = shared.lock();
    state.pending_answers = state.pending_answers.saturating_sub(1);
}

/// The reading half: gives the peer its window back as the data is consumed.
struct StreamReader {
    reader: DuplexStream,
    stream: u32,
    consumed: u32,
    outbound: Outbound<Frame>,
}

impl AsyncRead for StreamReader {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.reader).poll_read(cx, buf);
        this.consumed += (buf.filled().len() - before) as u32;
        if i64::from(this.consumed) >= INITIAL_WINDOW / 2 {
            for stream in [this.stream, 0] {
                this.outbound.send(Frame::WindowUpdate { stream, delta: this.consumed });
            }
            this.consumed = 0;
        }
        polled
    }
}
