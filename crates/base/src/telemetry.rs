//! Where `tracing` goes: one line an event, to a file or to stderr.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// Environment variable with the filter, `info` if unset; `tracing_subscriber`'s directives.
pub const FILTER_VARIABLE: &str = "KMINIK_LOG";

fn filter() -> EnvFilter {
    EnvFilter::try_from_env(FILTER_VARIABLE).unwrap_or_else(|_| EnvFilter::new("info"))
}

/// Logs to stderr from now on; later calls have no effect.
pub fn to_stderr() {
    let _ =
        tracing_subscriber::fmt().with_env_filter(filter()).with_ansi(false).with_writer(std::io::stderr).try_init();
}

/// Appends to the file at `path` from now on; later calls have no effect.
///
/// # Errors
/// When the file cannot be opened.
pub fn to_file(path: &Path) -> std::io::Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let file: File = OpenOptions::new().create(true).append(true).open(path)?;
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter())
        .with_ansi(false)
        .with_span_events(FmtSpan::NONE)
        .with_writer(Mutex::new(file))
        .try_init();
    Ok(())
}
