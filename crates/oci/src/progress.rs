//! What a long operation tells while it runs.

/// Told of a pull's or import's progress; must not block. All methods default to silence.
pub trait Progress: Send + Sync {
    /// A blob of this size is wanted; `already` bytes of it are here.
    fn start(&self, _blob: &str, _size_bytes: u64, _already: u64) {}
    /// More bytes of it arrived.
    fn advance(&self, _blob: &str, _bytes: u64) {}
    /// It is whole and checked.
    fn done(&self, _blob: &str) {}
    /// A place failed, another is tried.
    fn note(&self, _message: &str) {}
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProgress;

impl Progress for NoProgress {}
