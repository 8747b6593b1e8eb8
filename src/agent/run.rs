//! placeholder, not landed
use crate::home::Home; use crate::profile::Profile; use crate::reason::Outcome; use tokio_util::sync::CancellationToken;
pub async fn run(_h: Home, _p: Profile, stop: CancellationToken) -> Outcome<()> { stop.cancelled().await; Ok(()) }
