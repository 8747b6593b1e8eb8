//! Remote command over WebSocket: each message begins with the number of its channel.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Exit, Options, Outcome, RemoteCommand, Transport, pump_sizes};
use crate::outbound::{Outbound, Queued};
use crate::websocket::Goodbye;
use crate::{Input, LINGER, Output, STREAM_BUFFER_BYTES};

pub(super) const STDIN: u8 = 0;
pub(super) const STDOUT: u8 = 1;
pub(super) const STDERR: u8 = 2;
pub(super) const ERROR: u8 = 3;
pub(super) const RESIZE: u8 = 4;
/// v5: the next byte names a channel on which the sender is done.
pub(super) const CLOSE: u8 = 255;

/// What differs between the subprotocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Protocol {
    base64: bool,
    json_status: bool,
    half_close: bool,
}

impl Protocol {
    pub(super) const UNNAMED: Protocol = Protocol { base64: false, json_status: false, half_close: false };
}

pub(super) const V5: &str = "v5.channel.k8s.io";

pub(super) const PROTOCOLS: &[(&str, Protocol)] = &[
    (V5, Protocol { base64: false, json_status: true, half_close: true }),
    ("v4.channel.k8s.io", Protocol { base64: false, json_status: true, half_close: false }),
    ("v4.base64.channel.k8s.io", Protocol { base64: true, json_status: true, half_close: false }),
    ("channel.k8s.io", Protocol { base64: false, json_status: false, half_close: false }),
    ("base64.channel.k8s.io", Protocol { base64: true, json_status: false, half_close: false }),
];

enum Frame {
    Channel(u8, Bytes),
    Close(oneshot::Sender<()>),
}

pub(super) struct Closer {
    outbound: Outbound<Frame>,
    protocol: Protocol,
    gone: CancellationToken,
    _guard: DropGuard,
}

impl Closer {
    pub(super) async fn finish(self, outcome: Outcome) {
        let status = if self.protocol.json_status { outcome.to_json() } else { outcome.to_text() };
        if !status.is_empty() {
            self.outbound.send(Frame::Channel(ERROR, Bytes::from(status)));
        }
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

pub(super) async fn accept<Io>(io: Io, protocol: Protocol, options: Options) -> RemoteCommand
where
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (socket, goodbye) = crate::websocket::serve(io).await;
    let (mut sink, source) = socket.split();
    let (outbound, mut frames) = Outbound::new();
    let (gone, stop) = (CancellationToken::new(), CancellationToken::new());

    let (stdin_inbound, stdin) = input(options.stdin);
    let (resize_inbound, resize) = input(options.tty);
    let resize = resize.map(|bytes| {
        let (sender, receiver) = mpsc::channel(4);
        tokio::spawn(pump_sizes(bytes, sender));
        receiver
    });
    let writer = |wanted: bool, channel: u8| -> Option<Output> {
        wanted.then(|| Box::new(outbound.writer(move |data| Frame::Channel(channel, data), None, None)) as Output)
    };
    let stdout = writer(options.stdout, STDOUT);
    let stderr = writer(options.stderr && !options.tty, STDERR);

    if !protocol.half_close {
        // Before v5 a server tells with an empty message that the command's streams are connected.
        let first = if options.stdout {
            STDOUT
        } else if options.stderr {
            STDERR
        } else {
            ERROR
        };
        outbound.send(Frame::Channel(first, Bytes::new()));
    }

    let mut channels = Channels { protocol, stdin: stdin_inbound, resize: resize_inbound };
    let (reader_stop, reader_gone, reader_outbound) = (stop.clone(), gone.clone(), outbound.clone());
    tokio::spawn(async move {
        let ended = reader_stop.run_until_cancelled(channels.read(source)).await;
        if let Some(Err(error)) = ended {
            tracing::debug!(error = %error, "websocket broke");
        }
        reader_outbound.close();
        reader_gone.cancel();
    });
    let (writer_stop, writer_gone, writer_outbound) = (stop.clone(), gone.clone(), outbound.clone());
    tokio::spawn(async move {
        tokio::select! {
            _ = write(&mut sink, &mut frames, protocol, goodbye) => {}
            () = writer_stop.cancelled() => {}
            () = writer_gone.cancelled() => {}
        }
        writer_outbound.close();
    });
    let closer = Closer { outbound, protocol, gone: gone.clone(), _guard: stop.drop_guard() };
    RemoteCommand { stdin, stdout, stderr, resize, gone, exit: Exit(Transport::WebSocket(closer)) }
}

fn input(wanted: bool) -> (Option<DuplexStream>, Option<Input>) {
    if !wanted {
        return (None, None);
    }
    let (inbound, reader) = tokio::io::duplex(STREAM_BUFFER_BYTES);
    (Some(inbound), Some(Box::new(reader)))
}

async fn write<S>(
    sink: &mut S,
    frames: &mut mpsc::UnboundedReceiver<Queued<Frame>>,
    protocol: Protocol,
    goodbye: Goodbye,
) -> Result<(), Error>
where
    S: futures::Sink<Message, Error = Error> + Unpin,
{
    while let Some(queued) = frames.recv().await {
        let mut next = Some(queued);
        let mut held = Vec::new();
        while let Some((frame, room)) = next {
            match frame {
                Frame::Channel(channel, data) => sink.feed(message(protocol.base64, channel, &data)).await?,
                Frame::Close(told) => {
                    goodbye.say(sink).await?;
                    let _ = told.send(());
                    // The reading side ends the connection when the peer has answered.
                    return std::future::pending().await;
                }
            }
            held.push(room);
            next = frames.try_recv().ok();
        }
        sink.flush().await?;
    }
    Ok(())
}

/// A message on a channel; in base64 protocols the number is a digit and the data is encoded.
pub(crate) fn message(base64: bool, channel: u8, data: &[u8]) -> Message {
    if base64 {
        let mut text = String::with_capacity(1 + data.len() * 4 / 3 + 4);
        text.push(char::from(b'0' + channel));
        BASE64_STANDARD.encode_string(data, &mut text);
        return Message::Text(text.into());
    }
    let mut bytes = Vec::with_capacity(1 + data.len());
    bytes.push(channel);
    bytes.extend_from_slice(data);
    Message::Binary(bytes.into())
}

/// The channel and data of a message; `None` for what is no data of these protocols.
pub(crate) fn parse(base64: bool, message: Message) -> Option<(u8, Bytes)> {
    let mut bytes = match message {
        Message::Binary(bytes) if !base64 => bytes,
        Message::Binary(bytes) => return decode(&bytes),
        Message::Text(text) if base64 => return decode(text.as_bytes()),
        Message::Text(text) => Bytes::from(text),
        _ => return None,
    };
    let channel = *bytes.first()?;
    let data = bytes.split_off(1);
    Some((channel, data))
}

fn decode(text: &[u8]) -> Option<(u8, Bytes)> {
    let (digit, encoded) = text.split_first()?;
    let channel = digit.checked_sub(b'0').filter(|channel| *channel <= 9)?;
    Some((channel, BASE64_STANDARD.decode(encoded).ok()?.into()))
}

struct Channels {
    protocol: Protocol,
    stdin: Option<DuplexStream>,
    resize: Option<DuplexStream>,
}

impl Channels {
    async fn read<Io>(&mut self, mut source: futures::stream::SplitStream<WebSocketStream<Io>>) -> Result<(), Error>
    where
        Io: AsyncRead + AsyncWrite + Unpin,
    {
        while let Some(message) = source.next().await {
            let Some((channel, data)) = parse(self.protocol.base64, message?) else { continue };
            match (channel, data.first()) {
                (CLOSE, Some(&closed)) if self.protocol.half_close => self.close(closed),
                (STDIN, _) => deliver(&mut self.stdin, &data).await,
                (RESIZE, _) => deliver(&mut self.resize, &data).await,
                _ => {}
            }
        }
        Ok(())
    }

    fn close(&mut self, channel: u8) {
        match channel {
            STDIN => self.stdin = None,
            RESIZE => self.resize = None,
            _ => {}
        }
    }
}

/// Waits while the stream's buffer is full; a reader that is gone discards what comes.
async fn deliver(inbound: &mut Option<DuplexStream>, data: &[u8]) {
    if let Some(stream) = inbound
        && stream.write_all(data).await.is_err()
    {
        *inbound = None;
    }
}
