//! What can go wrong, each with its values.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::Platform;

/// One place that was asked, what it said, and how long that took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub place: String,
    /// What was wanted of it, e.g. `manifest` or `layer 3f1a…`.
    pub wanted: String,
    pub answer: String,
    pub elapsed: Duration,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.answer)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("couldn't parse image name {name:?}: {detail}")]
    InvalidName { name: String, detail: String },
    #[error("no image {0:?} is stored")]
    NotFound(String),
    #[error("{0:?} is the beginning of more than one image id")]
    Ambiguous(String),
    /// No place could serve it.
    #[error("no registry could serve {name}:\n{}", Table(.attempts))]
    AllFailed { name: String, attempts: Vec<Attempt> },
    /// The registry took no push.
    #[error("{name} cannot be pushed:\n{}", Table(.attempts))]
    NotTaken { name: String, attempts: Vec<Attempt> },
    /// The image exists, for other machines.
    #[error("image {name} is for {}, this machine needs {wanted}", List(.found))]
    WrongPlatform { name: String, wanted: Platform, found: Vec<Platform> },
    #[error("{what} of {name} is not understood: {detail}")]
    BadDocument { what: &'static str, name: String, detail: String },
    #[error("the archive is refused: {0}")]
    BadArchive(String),
    /// Of what goes into an archive.
    #[error("{name} would be more than the {limit_mib} MiB that an archive may have of it")]
    TooLarge { name: String, limit_mib: u64 },
    #[error("the archive cannot be read")]
    ReadArchive(#[source] std::io::Error),
    #[error("the archive cannot be written")]
    WriteArchive(#[source] std::io::Error),
    #[error("{what}: {detail}")]
    BadConfig { what: String, detail: String },
    #[error("no space left in {}", .0.display())]
    NoSpace(PathBuf),
    #[error("cannot {step} {}", path.display())]
    Io {
        step: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    File(#[from] kminik_base::atomic_file::FileError),
    /// No place has the bytes of a file that its digest is of.
    #[error("no place has {name}:\n{}", Table(.attempts))]
    NoFile { name: String, attempts: Vec<Attempt> },
    #[error("the TLS or HTTP client cannot be made: {0}")]
    Client(String),
    #[error("the work was cancelled")]
    Cancelled,
}

impl ImageError {
    /// For `map_err` on I/O: names the step and the file; a full disk gets its own variant.
    pub(crate) fn io(step: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> ImageError {
        let path = path.into();
        move |source| match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ImageError::NoSpace(path),
            _ => ImageError::Io { step, path, source },
        }
    }
}

struct List<'a>(&'a [Platform]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, platform) in self.0.iter().enumerate() {
            let separator = if number == 0 { "" } else { ", " };
            write!(f, "{separator}{platform}")?;
        }
        Ok(())
    }
}

struct Table<'a>(&'a [Attempt]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.0.iter().map(|attempt| attempt.place.len()).max().unwrap_or(0);
        let wanted = self.0.iter().map(|attempt| attempt.wanted.len()).max().unwrap_or(0);
        for (number, attempt) in self.0.iter().enumerate() {
            let end = if number + 1 == self.0.len() { "" } else { "\n" };
            let seconds = attempt.elapsed.as_secs_f64();
            write!(
                f,
                "  {:place$}  {:wanted$}  {:6.1}s  {}{end}",
                attempt.place, attempt.wanted, seconds, attempt.answer
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_place_answer_and_time() {
        let attempt = |place: &str, answer: &str| Attempt {
            place: place.into(),
            wanted: "manifest".into(),
            answer: answer.into(),
            elapsed: Duration::from_millis(1500),
        };
        let attempts = vec![attempt("https://a.example", "404 Not Found"), attempt("https://mirror.b", "timed out")];
        let text = ImageError::AllFailed { name: "docker.io/library/x:1".into(), attempts }.to_string();
        let wanted = "no registry could serve docker.io/library/x:1:\n  https://a.example  manifest     1.5s  404 Not Found\n  https://mirror.b   manifest     1.5s  timed out";
        assert_eq!(text, wanted);
    }
}
