//! Port forward over WebSocket channels: data on 2·n and errors on 2·n+1 for the n-th port; both begin with the port.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::sync::CancellationToken;

use super::{ErrorStream, Forward, PortForward};
use crate::STREAM_BUFFER_BYTES;
use crate::outbound::Outbound;
use crate::remotecommand::{channel_message, parse_channel};

/// Most ports of one connection: the channel's number is one byte.
const MAX_PORTS: usize = 64;

pub(super) async fn accept<Io>(io: Io, base64: bool, ports: &[u16]) -> PortForward
where
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sink, mut source) = crate::websocket::over(io, Role::Server).await.split();
    let (outbound, mut frames) = Outbound::<(u8, Bytes)>::new();
    let (gone, stop) = (CancellationToken::new(), CancellationToken::new());
    let (sender, requests) = mpsc::channel(MAX_PORTS);

    let mut inbound: Vec<Option<DuplexStream>> = Vec::new();
    for (number, port) in ports.iter().copied().take(MAX_PORTS).enumerate() {
        let channel = (2 * number) as u8;
        for first in [channel, channel + 1] {
            outbound.send((first, Bytes::copy_from_slice(&port.to_le_bytes())));
        }
        let (write, read) = tokio::io::duplex(STREAM_BUFFER_BYTES);
        inbound.push(Some(write));
        let data = outbound.writer(move |data| (channel, data), None, None);
        let error = outbound.writer(move |data| (channel + 1, data), None, None);
        let data = Box::new(tokio::io::join(read, data));
        // The queue has room for every port.
        let _ = sender.try_send(Forward { port, data, error: ErrorStream(Box::new(error)) });
    }

    let (reader_stop, reader_gone, reader_outbound) = (stop.clone(), gone.clone(), outbound.clone());
    tokio::spawn(async move {
        let read = async {
            while let Some(Ok(message)) = source.next().await {
                let Some((channel, data)) = parse_channel(base64, message) else { continue };
                let Some(slot) = inbound.get_mut(usize::from(channel / 2)).filter(|_| channel % 2 == 0) else {
                    continue;
                };
                if let Some(stream) = slot
                    && stream.write_all(&data).await.is_err()
                {
                    *slot = None;
                }
            }
        };
        reader_stop.run_until_cancelled(read).await;
        drop(sender);
        reader_outbound.close();
        reader_gone.cancel();
    });
    let (writer_stop, writer_gone) = (stop.clone(), gone.clone());
    tokio::spawn(async move {
        let write = async {
            while let Some(((channel, data), _room)) = frames.recv().await {
                sink.send(channel_message(base64, channel, &data)).await?;
            }
            Ok::<(), Error>(())
        };
        tokio::select! {
            _ = write => {}
            () = writer_stop.cancelled() => {}
            () = writer_gone.cancelled() => {}
        }
        outbound.close();
    });
    PortForward { requests, gone, _guard: stop.drop_guard() }
}
