//! How far a transfer is, drawn on stderr.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use kminik_oci::Progress;
use parking_lot::Mutex;

/// Of a digest 12 digits come; of an image's name more may be shown.
const PREFIX_CHARS: usize = 40;

/// A bar a blob, on stderr where it is a terminal.
pub struct Bars {
    all: MultiProgress,
    each: Mutex<std::collections::HashMap<String, ProgressBar>>,
}

impl Bars {
    pub fn new(shown: bool) -> Self {
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self { all: MultiProgress::with_draw_target(target), each: Mutex::default() }
    }
}

impl Progress for Bars {
    fn start(&self, blob: &str, size_bytes: u64, already: u64) {
        let bar = self.all.add(ProgressBar::new(size_bytes));
        if let Ok(style) = ProgressStyle::with_template("    {prefix} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}") {
            bar.set_style(style);
        }
        bar.set_prefix(blob.chars().take(PREFIX_CHARS).collect::<String>());
        bar.set_position(already);
        self.each.lock().insert(blob.to_owned(), bar);
    }

    fn advance(&self, blob: &str, bytes: u64) {
        if let Some(bar) = self.each.lock().get(blob) {
            bar.inc(bytes);
        }
    }

    fn done(&self, blob: &str) {
        if let Some(bar) = self.each.lock().remove(blob) {
            bar.finish_and_clear();
        }
    }

    fn note(&self, message: &str) {
        // Only a hint: what failed in the end is in the error.
        let _ = self.all.println(format!("    ▪ {message}"));
    }
}
