//! Pairs the `error` and `data` streams of a request.

use std::collections::HashMap;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{ErrorStream, Forward, PortForward};
use crate::spdy::{Role, Session, Stream};
use crate::{STREAM_CREATION_TIMEOUT, StreamingError};

/// Half of a request, waiting for the other.
struct Half {
    stream: Stream,
    is_data: bool,
    since: Instant,
}

pub(super) fn accept<Io>(io: Io) -> Result<PortForward, StreamingError>
where
    Io: AsyncRead + AsyncWrite + Send + 'static,
{
    let mut session = Session::start(io, Role::Server)?;
    let gone = session.gone();
    let stop = CancellationToken::new();
    let (sender, requests) = mpsc::channel(16);
    let task_stop = stop.clone();
    tokio::spawn(async move {
        task_stop.run_until_cancelled(pair(&mut session, sender)).await;
    });
    Ok(PortForward { requests, gone, _guard: stop.drop_guard() })
}

async fn pair(session: &mut Session, sender: mpsc::Sender<Forward>) {
    let mut halves: HashMap<String, Half> = HashMap::new();
    while let Some(stream) = session.accept().await {
        halves.retain(|_, half| half.since.elapsed() < STREAM_CREATION_TIMEOUT);
        let is_data = match stream.headers.get("streamtype") {
            Some("data") => true,
            Some("error") => false,
            // A stream that is dropped is closed.
            _ => continue,
        };
        // Clients from before request ids open the data stream right after its error stream.
        let request = match stream.headers.get("requestid") {
            Some(id) => id.to_owned(),
            None if is_data => stream.id.saturating_sub(2).to_string(),
            None => stream.id.to_string(),
        };
        let Some(first) = halves.remove(&request) else {
            halves.insert(request, Half { stream, is_data, since: Instant::now() });
            continue;
        };
        if first.is_data == is_data {
            continue;
        }
        let (data, error) = if is_data { (stream, first.stream) } else { (first.stream, stream) };
        let Some(port) = data.headers.get("port").and_then(|port| port.parse().ok()).filter(|port| *port != 0) else {
            let asked = data.headers.get("port").unwrap_or_default().to_owned();
            ErrorStream(error.writer).fail(&format!("unable to parse {asked:?} as a port")).await;
            continue;
        };
        let data = Box::new(tokio::io::join(data.reader, data.writer));
        if sender.send(Forward { port, data, error: ErrorStream(error.writer) }).await.is_err() {
            return;
        }
    }
}
