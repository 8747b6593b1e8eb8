//! Fetching one blob: it goes on from the byte reached, at the next place.
//!
//! ```text
//!   part file ──► resumed ──► bytes of place A ──(stall, cut)──► bytes of place B … ──► digest right ──► stored
//!                    ▲                                                                     │ wrong
//!                    └──────── from the first byte, each place alone ◄─────────────────────┘
//! ```
//! A wrong digest of bytes from one place convicts that place. Of bytes from several it convicts nobody: everything is
//! fetched again from one place at a time, so that one place with the right bytes is enough.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_RANGE;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::transport::{Refusal, Request, innermost};
use super::{Puller, short};
use crate::mirrors::Place;
use crate::{Attempt, Digest, Hasher, ImageError, ImageName};

/// Tries of one place that bring nothing, before it is given up for this blob.
const FRUITLESS_TRIES: u32 = 3;
/// Fewer bytes than this within the stall time are a stall too, while there is another place.
const MIN_BYTES_PER_STALL: u64 = 4 * 1024;

/// Most attempts told of when all fail; the last ones.
const MAX_ATTEMPTS: usize = 40;
/// Pause before a place that has just failed is asked again, doubled with each failure in a row.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// What one place is worth for this blob.
#[derive(Clone, Default)]
struct Trial {
    fruitless: u32,
    /// Failures of any kind; the place with the fewest is asked next.
    failures: u32,
    given_up: bool,
    /// It refuses ranges: it is asked for all of the blob.
    whole: bool,
    /// Bytes of it are in the file.
    contributed: bool,
}

impl Puller<'_> {
    pub(super) async fn blob(
        &self,
        name: &ImageName,
        places: &[Place],
        digest: &Digest,
        size: u64,
    ) -> Result<(), ImageError> {
        if self.layout.size_of(digest) == Some(size) {
            return Ok(());
        }
        let label = short(digest);
        let Some(mut part) = Part::open(self.layout.part(digest), self.layout.blob(digest), size).await? else {
            return Ok(());
        };
        self.progress.start(&label, size, part.length);
        let mut trials = vec![Trial::default(); places.len()];
        let mut attempts = Vec::new();
        // Bytes of an earlier process are of unknown origin.
        let mut mixed = part.length > 0;
        // After a wrong digest of mixed bytes, the one place that may add to the file.
        let mut alone: Option<usize> = None;
        loop {
            if part.length == size {
                let found = part.digest().await?;
                if found == *digest {
                    // Renamed while still locked: whoever waits for the lock finds the blob.
                    self.layout.commit(&self.layout.part(digest), digest)?;
                    part.close().await?;
                    self.progress.done(&label);
                    return Ok(());
                }
                let blamed: Vec<usize> =
                    (0..trials.len()).filter(|i| trials.get(*i).is_some_and(|t| t.contributed)).collect();
                if let ([only], false) = (blamed.as_slice(), mixed)
                    && let (Some(trial), Some(place)) = (trials.get_mut(*only), places.get(*only))
                {
                    trial.given_up = true;
                    self.health.failed(place);
                    let answer = "the bytes do not have the digest".to_owned();
                    self.progress.note(&format!("{}: {answer}", place.label()));
                    attempts.push(Attempt {
                        place: place.label(),
                        wanted: format!("layer {label}"),
                        answer,
                        elapsed: Duration::ZERO,
                    });
                    alone = None;
                }
                if blamed.is_empty() && !mixed {
                    let detail = format!("a blob of {size} bytes cannot have the digest {digest}");
                    return Err(super::bad(name, detail));
                }
                part.restart().await?;
                for trial in &mut trials {
                    trial.contributed = false;
                }
                if mixed || blamed.len() > 1 {
                    alone = self.next_place(places, &trials, 0, None).await;
                }
                mixed = false;
                continue;
            }
            let Some(index) = self.next_place(places, &trials, part.length, alone).await else {
                if alone.take().is_some() && trials.iter().any(|trial| !trial.given_up) {
                    part.restart().await?;
                    alone = self.next_place(places, &trials, 0, None).await;
                    continue;
                }
                return Err(ImageError::AllFailed { name: name.to_string(), attempts });
            };
            let (Some(place), Some(trial)) = (places.get(index), trials.get_mut(index)) else { continue };
            let started = Instant::now();
            let before = part.length;
            let lonely = places.len() == 1;
            let from = if trial.whole { 0 } else { before };
            let ended = self.fetch((place, from), digest, size, &mut part, &label, lonely).await;
            let got = part.length.saturating_sub(before);
            if got > 0 {
                trial.contributed = true;
                trial.fruitless = 0;
                self.health.measured(place, got, started.elapsed());
            }
            match ended {
                Ok(()) => self.health.ok(place),
                Err(Failure::Store(error)) => return Err(error),
                Err(Failure::Place(refusal)) => {
                    trial.failures += 1;
                    if got == 0 {
                        trial.fruitless += 1;
                    }
                    let of_range = from > 0 && refusal.may_be_of_range();
                    trial.whole |= of_range;
                    trial.given_up |= refusal.is_final() && !of_range || trial.fruitless >= FRUITLESS_TRIES;
                    match &refusal {
                        _ if of_range => self.health.ignores_ranges(place, true),
                        Refusal::Busy { retry_after, .. } => {
                            trial.given_up |= *retry_after > self.timeouts.retry_after;
                            self.health.busy_until(place, started + *retry_after);
                        }
                        _ => self.health.failed(place),
                    }
                    let answer = match part.length {
                        0 => refusal.to_string(),
                        reached => format!("{refusal} (at byte {reached} of {size})"),
                    };
                    tracing::debug!(place = place.label(), answer, blob = %digest, "blob interrupted");
                    self.progress.note(&format!("{}: {answer}", place.label()));
                    let wanted = format!("layer {label}");
                    if attempts.len() >= MAX_ATTEMPTS {
                        attempts.remove(0);
                    }
                    attempts.push(Attempt { place: place.label(), wanted, answer, elapsed: started.elapsed() });
                }
            }
        }
    }

    /// The place to ask next: one that need not be waited for, has failed least, and can go on from `offset`. A place
    /// that asked for patience is waited for when it is the only one left.
    async fn next_place(&self, places: &[Place], trials: &[Trial], offset: u64, alone: Option<usize>) -> Option<usize> {
        let usable = |index: &usize| {
            trials.get(*index).is_some_and(|trial| !trial.given_up) && alone.is_none_or(|alone| alone == *index)
        };
        let best = (0..places.len()).filter(usable).min_by_key(|index| {
            let (place, trial) = (places.get(*index), trials.get(*index));
            let wait = place.map(|place| self.health.wait(place)).unwrap_or_default();
            let resumes = offset == 0 || place.is_some_and(|place| self.health.can_resume(place));
            (wait, trial.map_or(0, |trial| trial.failures), !resumes, *index)
        })?;
        let asked = places.get(best).map(|place| self.health.wait(place)).unwrap_or_default();
        let pause = match trials.get(best) {
            Some(trial) if trial.fruitless > 0 => RETRY_PAUSE * (1 << trial.fruitless.min(FRUITLESS_TRIES)),
            _ => Duration::ZERO,
        };
        let wait = asked.max(pause);
        tokio::time::sleep(wait.min(self.timeouts.retry_after)).await;
        Some(best)
    }

    /// Adds to the file what one place sends, asked for it from this byte on, until it is whole or the place fails.
    async fn fetch(
        &self,
        (place, from): (&Place, u64),
        digest: &Digest,
        size: u64,
        part: &mut Part,
        label: &str,
        lonely: bool,
    ) -> Result<(), Failure> {
        let request = Request { kind: "blobs", reference: digest.as_str(), from };
        let mut response = self.transport.get(place, &request, self.credentials).await?;
        let mut skip = part.length - from;
        if from > 0 {
            let resumed = response.status() == StatusCode::PARTIAL_CONTENT;
            self.health.ignores_ranges(place, !resumed);
            if resumed {
                let wanted = format!("bytes {}-", part.length);
                let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
                if !range.is_some_and(|range| range.starts_with(&wanted)) {
                    return Err(Refusal::OtherRange.into());
                }
            } else {
                skip = part.length;
            }
        }
        let mut window = (Instant::now(), 0);
        loop {
            let piece = match tokio::time::timeout(self.timeouts.stall, response.chunk()).await {
                Err(_) => return Err(Refusal::Network("stalled".to_owned()).into()),
                Ok(Err(error)) => return Err(Refusal::Network(innermost(&error)).into()),
                Ok(Ok(None)) => return Err(Refusal::Network("the connection ended early".to_owned()).into()),
                Ok(Ok(Some(piece))) => piece,
            };
            window.1 += piece.len() as u64;
            if window.0.elapsed() > self.timeouts.stall {
                if window.1 < MIN_BYTES_PER_STALL && !lonely {
                    return Err(Refusal::Network("stalled".to_owned()).into());
                }
                window = (Instant::now(), 0);
            }
            let skipped = skip.min(piece.len() as u64);
            skip -= skipped;
            let new = piece.slice(skipped as usize..);
            if part.length + new.len() as u64 > size {
                return Err(Refusal::TooLarge.into());
            }
            if !new.is_empty() {
                self.progress.advance(label, new.len() as u64);
                part.append(new).await.map_err(Failure::Store)?;
            }
            if part.length == size {
                return Ok(());
            }
        }
    }
}

/// Whose fault it is.
enum Failure {
    Place(Refusal),
    Store(ImageError),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        Failure::Place(refusal)
    }
}

/// The file a blob grows in. A thread of its own hashes and writes; the file stays when the download is given up.
struct Part {
    length: u64,
    orders: Option<mpsc::Sender<Order>>,
    writer: Option<JoinHandle<Result<(), ImageError>>>,
}

enum Order {
    Append(Bytes),
    Restart,
    /// Sync, and tell the digest so far.
    Digest(tokio::sync::oneshot::Sender<Digest>),
}

/// Pieces that may wait for the disk.
const WRITE_QUEUE: usize = 16;

impl Part {
    /// Opens what an earlier download left, alone among all processes. `None` when, after waiting for another
    /// download of it, the blob is there.
    async fn open(path: PathBuf, blob: PathBuf, size: u64) -> Result<Option<Part>, ImageError> {
        let opened = tokio::task::spawn_blocking(move || open_locked(path, &blob, size)).await;
        let Some((file, path, hasher, length)) = opened.map_err(|_| ImageError::Cancelled)?? else { return Ok(None) };
        let (orders, receiver) = mpsc::channel(WRITE_QUEUE);
        let writer = tokio::task::spawn_blocking(move || write(file, path, hasher, receiver));
        Ok(Some(Part { length, orders: Some(orders), writer: Some(writer) }))
    }

    async fn append(&mut self, bytes: Bytes) -> Result<(), ImageError> {
        let length = bytes.len() as u64;
        self.order(Order::Append(bytes)).await?;
        self.length += length;
        Ok(())
    }

    async fn restart(&mut self) -> Result<(), ImageError> {
        self.order(Order::Restart).await?;
        self.length = 0;
        Ok(())
    }

    async fn digest(&mut self) -> Result<Digest, ImageError> {
        let (tell, told) = tokio::sync::oneshot::channel();
        self.order(Order::Digest(tell)).await?;
        match told.await {
            Ok(digest) => Ok(digest),
            Err(_) => Err(self.failure().await),
        }
    }

    async fn close(mut self) -> Result<(), ImageError> {
        self.orders = None;
        match self.writer.take() {
            Some(writer) => writer.await.map_err(|_| ImageError::Cancelled)?,
            None => Ok(()),
        }
    }

    async fn order(&mut self, order: Order) -> Result<(), ImageError> {
        let sent = match &self.orders {
            Some(orders) => orders.send(order).await.is_ok(),
            None => false,
        };
        if sent { Ok(()) } else { Err(self.failure().await) }
    }

    /// Why the writer has ended.
    async fn failure(&mut self) -> ImageError {
        self.orders = None;
        match self.writer.take() {
            Some(writer) => match writer.await {
                Ok(Err(error)) => error,
                Ok(Ok(())) | Err(_) => ImageError::Cancelled,
            },
            None => ImageError::Cancelled,
        }
    }
}

type Opened = (File, PathBuf, Hasher, u64);

fn open_locked(path: PathBuf, blob: &PathBuf, size: u64) -> Result<Option<Opened>, ImageError> {
    loop {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = match options.open(&path) {
            // Left by a process of another user, as sudo's: ours begins anew.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                std::fs::remove_file(&path).map_err(ImageError::io("open", &path))?;
                options.open(&path).map_err(ImageError::io("open", &path))?
            }
            opened => opened.map_err(ImageError::io("open", &path))?,
        };
        file.lock().map_err(ImageError::io("lock", &path))?;
        if std::fs::metadata(blob).is_ok_and(|metadata| metadata.len() == size) {
            drop(file);
            // Made by the open above, after the other download had renamed its own.
            let _ = std::fs::remove_file(&path);
            return Ok(None);
        }
        if !is_same_file(&file, &path) {
            continue;
        }
        let mut hasher = Hasher::default();
        let mut length = 0;
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let read = file.read(&mut buffer).map_err(ImageError::io("read", &path))?;
            if read == 0 {
                break;
            }
            hasher.update(buffer.get(..read).unwrap_or_default());
            length += read as u64;
        }
        if length > size {
            empty(&mut file).map_err(ImageError::io("empty", &path))?;
            (hasher, length) = (Hasher::default(), 0);
        }
        return Ok(Some((file, path, hasher, length)));
    }
}

/// The path still leads to the file that is locked.
fn is_same_file(file: &File, path: &PathBuf) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

fn empty(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0)).map(|_| ())
}

fn write(
    mut file: File,
    path: PathBuf,
    mut hasher: Hasher,
    mut orders: mpsc::Receiver<Order>,
) -> Result<(), ImageError> {
    while let Some(order) = orders.blocking_recv() {
        match order {
            Order::Append(bytes) => {
                hasher.update(&bytes);
                file.write_all(&bytes).map_err(ImageError::io("write", &path))?;
            }
            Order::Restart => {
                hasher = Hasher::default();
                empty(&mut file).map_err(ImageError::io("empty", &path))?;
            }
            Order::Digest(tell) => {
                file.sync_all().map_err(ImageError::io("sync", &path))?;
                // Nobody listens when the download was given up meanwhile.
                let _ = tell.send(hasher.clone().finish());
            }
        }
    }
    Ok(())
}
