//! Port forward over WebSocket channels: data on 2·n and errors on 2·n+1 for the n-th port; both begin with the port.
//! The connection ends when all of them have ended, for a channel alone cannot.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Error;
use tokio_util::sync::CancellationToken;

use super::{ErrorStream, Forward, PortForward};
use crate::outbound::Outbound;
use crate::remotecommand::{channel_message, parse_channel};
use crate::{LINGER, STREAM_BUFFER_BYTES};

/// Most ports of one connection: the channel's number is one byte.
const MAX_PORTS: usize = 64;

pub(super) async fn accept<Io>(io: Io, base64: bool, ports: &[u16]) -> PortForward
where
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    // A frame that is `None` is the end of one of the streams.
    let (socket, goodbye) = crate::websocket::serve(io).await;
    let (mut sink, mut source) = socket.split();
    let (outbound, mut frames) = Outbound::<Option<(u8, Bytes)>>::new();
    let (gone, stop) = (CancellationToken::new(), CancellationToken::new());
    let (sender, requests) = mpsc::channel(MAX_PORTS);

    let mut open = 0_usize;
    let mut inbound: Vec<Option<DuplexStream>> = Vec::new();
    for (number, port) in ports.iter().copied().take(MAX_PORTS).enumerate() {
        let channel = (2 * number) as u8;
        for first in [channel, channel + 1] {
            outbound.send(Some((first, Bytes::copy_from_slice(&port.to_le_bytes()))));
            open += 1;
        }
        let (write, read) = tokio::io::duplex(STREAM_BUFFER_BYTES);
        inbound.push(Some(write));
        let data = outbound.writer(move |data| Some((channel, data)), Some(None), None);
        let error = outbound.writer(move |data| Some((channel + 1, data)), Some(None), None);
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
            while open > 0
                && let Some((frame, _room)) = frames.recv().await
            {
                match frame {
                    Some((channel, data)) => sink.send(channel_message(base64, channel, &data)).await?,
                    None => open -= 1,
                }
            }
            goodbye.say(&mut sink).await?;
            // What the client still says is read until it has said goodbye too.
            let _ = tokio::time::timeout(LINGER, writer_gone.cancelled()).await;
            writer_stop.cancel();
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
