//! Container logs: their format, and reading them with tail, since, limit and follow.

pub(crate) mod format;
mod watch;

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use k8s_openapi::jiff::Timestamp;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, SeekFrom};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::format::{Line, parse_line};
use self::watch::DirectoryWatch;

/// Bytes read at once, and at most in one chunk of the answer.
const CHUNK: usize = 32 * 1024;
/// Chunks that wait for a slow reader.
const WAITING: usize = 4;
/// A line that is longer is dealt out in pieces.
const LONGEST_LINE: usize = 256 * 1024;

/// Which of a container's streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stream {
    #[default]
    All,
    Stdout,
    Stderr,
}

/// What of a log is wanted; the default is all that is there.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// Of the run before.
    pub previous: bool,
    /// Goes on until the container ends.
    pub follow: bool,
    /// Puts the time before each line.
    pub timestamps: bool,
    /// Only the last lines.
    pub tail_lines: Option<u64>,
    /// Only lines from then on.
    pub since: Option<Timestamp>,
    pub limit_bytes: Option<u64>,
    pub stream: Stream,
}

/// Chunks of a log, in order; ends after an error.
pub type LogStream = tokio_stream::wrappers::ReceiverStream<io::Result<Bytes>>;

/// Starts to read. `ended` is cancelled when the container has ended; the reader cancels it when nobody listens any more.
pub(crate) async fn read(path: PathBuf, options: LogOptions, ended: CancellationToken) -> io::Result<LogStream> {
    let watch = if options.follow { path.parent().map(DirectoryWatch::new).transpose()? } else { None };
    let mut file = File::open(&path).await?;
    if let Some(lines) = options.tail_lines {
        let start = tail_offset(&mut file, lines).await?;
        file.seek(SeekFrom::Start(start)).await?;
    }
    let (chunks, stream) = mpsc::channel(WAITING);
    let limit = options.limit_bytes.unwrap_or(u64::MAX);
    let reader = Reader { path, file, options, limit, chunks, at_line_start: [true; 2], pending: Vec::new() };
    tokio::spawn(async move {
        let closed = reader.chunks.clone();
        tokio::select! {
            () = reader.run(watch, &ended) => {}
            () = closed.closed() => {}
        }
        ended.cancel();
    });
    Ok(stream.into())
}

struct Reader {
    path: PathBuf,
    file: File,
    options: LogOptions,
    limit: u64,
    chunks: mpsc::Sender<io::Result<Bytes>>,
    /// Whether the next text of stdout and stderr begins a line.
    at_line_start: [bool; 2],
    /// A line of the file that is not complete yet.
    pending: Vec<u8>,
}

impl Reader {
    async fn run(mut self, watch: Option<DirectoryWatch>, ended: &CancellationToken) {
        let result = self.copy(watch, ended).await;
        if let Err(error) = result {
            // Nobody listens any more if this fails.
            let _ = self.chunks.send(Err(error)).await;
        }
    }

    async fn copy(&mut self, watch: Option<DirectoryWatch>, ended: &CancellationToken) -> io::Result<()> {
        loop {
            let over = ended.is_cancelled();
            if !self.drain().await? {
                return Ok(());
            }
            let Some(watch) = &watch else { return Ok(()) };
            if self.reopen().await? {
                continue;
            }
            // All that was written before the end has been read.
            if over {
                return Ok(());
            }
            tokio::select! {
                changed = watch.changed() => changed?,
                () = ended.cancelled() => {}
            }
        }
    }

    /// Deals out what the file has now; false when the limit is reached or nobody listens.
    async fn drain(&mut self) -> io::Result<bool> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = self.file.read(&mut buffer).await?;
            if read == 0 {
                return Ok(true);
            }
            self.pending.extend_from_slice(&buffer[..read]);
            let Some(end) = self.pending.iter().rposition(|b| *b == b'\n').map(|at| at + 1) else {
                if self.pending.len() > LONGEST_LINE {
                    self.pending.clear();
                }
                continue;
            };
            let complete: Vec<u8> = self.pending.drain(..end).collect();
            let mut out = Vec::with_capacity(complete.len());
            for line in complete.split_inclusive(|b| *b == b'\n').filter_map(parse_line) {
                self.put(&line, &mut out);
            }
            let fits = usize::try_from(self.limit).unwrap_or(usize::MAX).min(out.len());
            let full = fits < out.len() || self.limit == out.len() as u64;
            out.truncate(fits);
            self.limit -= fits as u64;
            if !out.is_empty() && self.chunks.send(Ok(Bytes::from(out))).await.is_err() {
                return Ok(false);
            }
            if full {
                return Ok(false);
            }
        }
    }

    fn put(&mut self, line: &Line<'_>, out: &mut Vec<u8>) {
        let wanted = match self.options.stream {
            Stream::All => true,
            Stream::Stdout => !line.stderr,
            Stream::Stderr => line.stderr,
        };
        if !wanted || self.options.since.is_some_and(|since| line.at().is_none_or(|at| at < since)) {
            return;
        }
        let start = &mut self.at_line_start[usize::from(line.stderr)];
        if self.options.timestamps && *start {
            out.extend_from_slice(line.time);
            out.push(b' ');
        }
        *start = line.text.ends_with(b"\n");
        out.extend_from_slice(line.text);
    }

    /// Goes on with the new file after a rotation; true if there is one.
    async fn reopen(&mut self) -> io::Result<bool> {
        use std::os::unix::fs::MetadataExt;
        let now = match tokio::fs::metadata(&self.path).await {
            Ok(now) => now,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let own = self.file.metadata().await?;
        if (own.dev(), own.ino()) == (now.dev(), now.ino()) {
            return Ok(false);
        }
        // What was written to the old file until it was moved away.
        if !self.drain().await? {
            return Ok(false);
        }
        self.file = File::open(&self.path).await?;
        Ok(true)
    }
}

/// Where the last `lines` lines of a file begin.
async fn tail_offset(file: &mut File, lines: u64) -> io::Result<u64> {
    let size = file.metadata().await?.len();
    if lines == 0 {
        return Ok(size);
    }
    let (mut at, mut seen) = (size, 0);
    let mut buffer = vec![0; CHUNK];
    while at > 0 {
        let part = at.min(CHUNK as u64);
        at -= part;
        file.seek(SeekFrom::Start(at)).await?;
        let part = usize::try_from(part).unwrap_or(CHUNK);
        file.read_exact(&mut buffer[..part]).await?;
        for (index, _) in buffer[..part].iter().enumerate().rev().filter(|(_, b)| **b == b'\n') {
            let after = at + index as u64 + 1;
            // The break that ends the file begins no line.
            if after == size {
                continue;
            }
            seen += 1;
            if seen == lines {
                return Ok(after);
            }
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    fn line(second: u32, stream: &str, tag: &str, text: &str) -> String {
        format!("2026-01-01T00:00:{second:02}.000000000Z {stream} {tag} {text}\n")
    }

    async fn collect(content: &str, options: LogOptions) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, content).unwrap();
        let chunks: Vec<_> = read(path, options, CancellationToken::new()).await.unwrap().collect().await;
        chunks.into_iter().map(|c| String::from_utf8(c.unwrap().to_vec()).unwrap()).collect()
    }

    #[tokio::test]
    async fn options() {
        let content = [
            line(1, "stdout", "F", "a"),
            line(2, "stderr", "P", "b"),
            line(3, "stderr", "F", "c"),
            line(4, "stdout", "F", "d"),
        ]
        .concat();
        let get = |options| collect(&content, options);
        assert_eq!(get(LogOptions::default()).await, "a\nbc\nd\n");
        assert_eq!(get(LogOptions { tail_lines: Some(1), ..Default::default() }).await, "d\n");
        assert_eq!(get(LogOptions { tail_lines: Some(9), ..Default::default() }).await, "a\nbc\nd\n");
        assert_eq!(get(LogOptions { tail_lines: Some(0), ..Default::default() }).await, "");
        assert_eq!(get(LogOptions { limit_bytes: Some(3), ..Default::default() }).await, "a\nb");
        assert_eq!(get(LogOptions { stream: Stream::Stderr, ..Default::default() }).await, "bc\n");
        let since = "2026-01-01T00:00:04Z".parse().ok();
        assert_eq!(get(LogOptions { since, ..Default::default() }).await, "d\n");
        let stamped = get(LogOptions { timestamps: true, ..Default::default() }).await;
        assert_eq!(stamped.lines().nth(1).unwrap(), "2026-01-01T00:00:02.000000000Z bc");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn follows_through_a_rotation_to_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, line(1, "stdout", "F", "one")).unwrap();
        let ended = CancellationToken::new();
        let options = LogOptions { follow: true, ..LogOptions::default() };
        let mut stream = read(path.clone(), options, ended.clone()).await.unwrap();
        let mut next = async || stream.next().await.map(|c| String::from_utf8(c.unwrap().to_vec()).unwrap());
        assert_eq!(next().await.unwrap(), "one\n");
        std::fs::rename(&path, dir.path().join("0.log.1")).unwrap();
        std::fs::write(&path, line(2, "stdout", "F", "two")).unwrap();
        assert_eq!(next().await.unwrap(), "two\n");
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        std::io::Write::write_all(&mut file, line(3, "stdout", "F", "three").as_bytes()).unwrap();
        ended.cancel();
        assert_eq!(next().await.unwrap(), "three\n");
        assert_eq!(next().await, None);
    }
}
