//! A connection of the node's for who has no way to its network: standard streams, joined with an address.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncWriteExt, copy};
use tokio::net::TcpStream;

const CONNECT: Duration = Duration::from_secs(5);

/// Until the address' side ends; the end of stdin is passed on.
pub async fn join(address: SocketAddr) -> io::Result<()> {
    let stream = tokio::time::timeout(CONNECT, TcpStream::connect(address)).await??;
    stream.set_nodelay(true)?;
    let (mut from, mut to) = stream.into_split();
    tokio::spawn(async move {
        // A reset is an end too.
        let _ = copy(&mut crate::terminal::stream(rustix::stdio::stdin())?, &mut to).await;
        to.shutdown().await
    });
    let mut out = crate::terminal::stream(rustix::stdio::stdout())?;
    copy(&mut from, &mut out).await?;
    out.flush().await
}
