//! Framing of streams over one upgraded connection: remote command (exec, attach), port-forward, and bodies one way.
//!
//! Owns the wire formats and nothing else: WebSocket channel subprotocols (`v5`, `v4`, unversioned, and their base64
//! forms), SPDY/3.1 with its header dictionary and flow control, and SPDY tunnelled through WebSocket. Both ends are
//! here: [`remotecommand`] and [`portforward`] are what a server uses, [`remotecommand::client`] runs a command on one.
//!
//! How a server uses it: [`remotecommand::upgrade`] looks at the request and gives the `101` response to return and a
//! future to spawn; the future ends with the streams once the client has opened them.
//!
//! **Invariant:** knows no pod, container or authorisation: only the names the protocols themselves carry.
//! **Invariant:** every buffer is limited in bytes; a peer that does not read stops its own streams and nothing else
//! than its own connection.
//! **Invariant:** no task outlives its connection, and no connection outlives the value that was handed out for it.

pub mod oneway;
mod outbound;
pub mod portforward;
pub mod remotecommand;
pub mod spdy;
mod upgrade;
pub mod websocket;

pub use upgrade::{StreamingError, UpgradeError};

use tokio::io::{AsyncRead, AsyncWrite};

/// What arrives on one stream; ends when the peer closes it.
pub type Input = Box<dyn AsyncRead + Send + Unpin>;
/// What is sent on one stream; shutting down or dropping it closes the stream, not the connection.
pub type Output = Box<dyn AsyncWrite + Send + Unpin>;

/// Any bidirectional byte stream.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Most bytes that wait in one stream for a slow reader.
const STREAM_BUFFER_BYTES: usize = 256 * 1024;
/// Most bytes one connection holds that the peer has not taken yet.
const OUTBOUND_BUFFER_BYTES: usize = 256 * 1024;
/// Largest piece of data put into one frame or message.
const CHUNK_BYTES: usize = 32 * 1024;
/// How long a client may take to open its streams.
const STREAM_CREATION_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);
/// How long a closing connection waits for the peer to have read everything.
const LINGER: std::time::Duration = std::time::Duration::from_secs(5);
