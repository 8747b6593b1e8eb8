//! What the user should know, a line each, in a file that `status` prints.

use std::collections::BTreeSet;
use std::path::PathBuf;

use parking_lot::Mutex;

use crate::home::Home;

/// The lines; the file follows every change of them.
pub(super) struct Notes {
    home: Home,
    path: PathBuf,
    lines: Mutex<BTreeSet<String>>,
}

impl Notes {
    /// Begins without any line.
    pub(super) fn new(home: Home, path: PathBuf) -> Self {
        let notes = Self { home, path, lines: Mutex::default() };
        notes.write(&BTreeSet::new());
        notes
    }

    pub(super) fn add(&self, line: &str) {
        let mut lines = self.lines.lock();
        if lines.insert(line.to_owned()) {
            tracing::warn!(note = line, "noted");
            self.write(&lines);
        }
    }

    pub(super) fn remove(&self, line: &str) {
        let mut lines = self.lines.lock();
        if lines.remove(line) {
            self.write(&lines);
        }
    }

    fn write(&self, lines: &BTreeSet<String>) {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        if let Err(failure) = self.home.write(&self.path, text.as_bytes(), 0o644) {
            tracing::warn!(%failure, "notes cannot be written");
        }
    }
}
