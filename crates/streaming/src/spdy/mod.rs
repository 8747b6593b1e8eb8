//! SPDY/3.1: frames, the compressed header block, and sessions that multiplex streams in either role.
//!
//! What is implemented: SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS (initial window), PING, GOAWAY, HEADERS (ignored),
//! WINDOW_UPDATE, data; windows of streams and of the session in both directions. Priorities are ignored: a session
//! here carries the few streams of one command or one forwarded port.

mod frame;
mod headers;
mod session;
pub(crate) mod window;

pub use headers::Headers;
pub use session::{Role, Session, Stream};
