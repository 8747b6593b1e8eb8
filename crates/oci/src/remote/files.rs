//! Files that hosts publish, held to their digest: from the mirrors of their host, then from the host itself; what broke off is gone
//! on with, here or in a later process.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;
use url::Url;

use super::transport::{Refusal, Transport};
use crate::digest::Hasher;
use crate::mirrors::{FilePlace, Resolver};
use crate::{Attempt, Digest, ImageError, ResolverConfig};

/// What is taken of one place, and how long it may take to send it.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    pub bytes: usize,
    pub time: Duration,
}

/// Fetches files by the places of a configuration.
pub struct Files {
    resolver: Resolver,
    transport: Transport,
}

impl Files {
    /// # Errors
    /// [`ImageError::BadConfig`] when the configuration cannot be understood.
    pub fn new(config: &ResolverConfig) -> Result<Files, ImageError> {
        let transport = Transport::new(config.timeouts, config.extra_roots_pem.as_deref())?;
        Ok(Files { resolver: Resolver::new(config)?, transport })
    }

    /// Where a file may be fetched from, preferred places first; the last is mostly its own address.
    pub fn places(&self, url: &Url) -> Vec<FilePlace> {
        self.resolver.files(url)
    }

    /// What one place serves.
    ///
    /// # Errors
    /// What it said instead.
    pub async fn ask(&self, place: &FilePlace, limit: Limit) -> Result<Vec<u8>, Attempt> {
        let started = Instant::now();
        let mut part = Part::default();
        let outcome = self.transport.more(place, limit, &mut part).await;
        outcome.map(|()| part.bytes).map_err(|refusal| attempt(&place.url, refusal.to_string(), started))
    }

    /// The file, from the first of the places that serves the bytes of this digest. `name` is how users are told of it. What has come
    /// is in the file `kept` until all has.
    ///
    /// # Errors
    /// [`ImageError::NoFile`] with what every place said.
    pub async fn fetch(
        &self,
        name: &str,
        places: &[FilePlace],
        digest: &Digest,
        limit: Limit,
        kept: &Path,
    ) -> Result<Vec<u8>, ImageError> {
        let mut attempts = Vec::new();
        let mut part = Part::open(kept, limit.bytes);
        if part.digest() == *digest {
            return Ok(part.finish());
        }
        for place in places {
            let started = Instant::now();
            let mut own = part.bytes.is_empty();
            let mut asked_for_all = false;
            loop {
                let before = part.bytes.len();
                let outcome = self.transport.more(place, limit, &mut part).await;
                let reached = part.digest();
                if reached == *digest {
                    return Ok(part.finish());
                }
                let answer = match outcome {
                    Ok(()) => format!("it serves {reached}, which is not what was published"),
                    // As long as it goes on with every answer.
                    Err(refusal) if part.bytes.len() > before && started.elapsed() < limit.time => {
                        tracing::debug!(place = %place.url, %refusal, reached = part.bytes.len(), "file interrupted");
                        continue;
                    }
                    // It may serve no ranges, and all of the file: that is asked for once.
                    Err(refusal) if before > 0 && !asked_for_all && refusal.may_be_of_range() => {
                        asked_for_all = true;
                        own = true;
                        part.restart();
                        continue;
                    }
                    // Of another file than was published: nothing of it is the beginning of that.
                    Err(refusal @ Refusal::TooLarge) => refusal.to_string(),
                    Err(refusal) => {
                        attempts.push(attempt(&place.url, refusal.to_string(), started));
                        break;
                    }
                };
                // What was begun elsewhere may be what is wrong.
                part.restart();
                if own {
                    attempts.push(attempt(&place.url, answer, started));
                    break;
                }
                own = true;
            }
        }
        if part.bytes.is_empty() {
            part.finish();
        }
        Err(ImageError::NoFile { name: name.to_owned(), attempts })
    }
}

/// The beginning of a file, in memory and, where that can be, on the disk.
#[derive(Default)]
pub(super) struct Part {
    pub(super) bytes: Vec<u8>,
    /// Of `bytes`: a large file is hashed as it comes, so that others on the thread need not wait for it.
    hasher: Hasher,
    kept: Option<(PathBuf, File)>,
}

impl Part {
    /// What an earlier download has left. One that another process is at is let be.
    fn open(path: &Path, limit: usize) -> Part {
        let open = || {
            let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
            file.try_lock()?;
            let mut bytes = Vec::new();
            (&mut file).take(limit as u64).read_to_end(&mut bytes)?;
            let mut hasher = Hasher::default();
            hasher.update(&bytes);
            Ok(Part { bytes, hasher, kept: Some((path.to_owned(), file)) })
        };
        let opened: std::io::Result<Part> = open();
        opened.unwrap_or_default()
    }

    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.hasher.update(bytes);
        self.keep(|file| file.write_all(bytes));
    }

    pub(super) fn restart(&mut self) {
        self.bytes.clear();
        self.hasher = Hasher::default();
        self.keep(|file| file.set_len(0));
    }

    fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// A disk that does not take it takes nothing more: what is on it stays a beginning.
    fn keep(&mut self, change: impl FnOnce(&mut File) -> std::io::Result<()>) {
        if let Some((_, file)) = &mut self.kept
            && change(file).is_err()
        {
            self.kept = None;
        }
    }

    fn finish(self) -> Vec<u8> {
        if let Some((path, _)) = self.kept {
            // What stays is checked when it is gone on with.
            let _ = std::fs::remove_file(path);
        }
        self.bytes
    }
}

fn attempt(place: &Url, answer: String, started: Instant) -> Attempt {
    Attempt { place: place.to_string(), wanted: "file".to_owned(), answer, elapsed: started.elapsed() }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Answers each request by its head, which is in small letters, and closes the connection.
    fn serve(mut answer: impl FnMut(&str) -> Vec<u8> + Send + 'static) -> Url {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/file", listener.local_addr().unwrap()).parse().unwrap();
        std::thread::spawn(move || {
            for mut client in listener.incoming().map_while(Result::ok) {
                let head = head_of(&mut client);
                client.write_all(&answer(&head)).unwrap();
            }
        });
        url
    }

    /// An answer with these further headers, each with its end of line.
    fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n");
        [head.as_bytes(), body].concat()
    }

    fn whole() -> Vec<u8> {
        answer("200 OK", "", b"file")
    }

    /// Serves `content` on from the byte asked for, at most `most` bytes an answer; notes the bytes asked for.
    fn server(content: &'static [u8], most: usize) -> (Url, Arc<Mutex<Vec<usize>>>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = asked.clone();
        let url = serve(move |head| {
            let range = head.split("bytes=").nth(1).and_then(|rest| rest.split('-').next()?.parse::<usize>().ok());
            let from = range.unwrap_or(0);
            noted.lock().unwrap().push(from);
            let rest = &content[from..];
            let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
            let range = format!("Content-Range: bytes {from}-{}/{}\r\n", content.len() - 1, content.len());
            let mut answer = answer(status, &range, rest);
            answer.truncate(answer.len() - rest.len().saturating_sub(most));
            answer
        });
        (url, asked)
    }

    /// What is asked for, in small letters.
    fn head_of(client: &mut TcpStream) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            head.extend(byte);
        }
        String::from_utf8(head).unwrap().to_lowercase()
    }

    #[tokio::test]
    async fn mirrors_of_files_are_asked_with_their_login() {
        let url = serve(|head| {
            // base64 of me:secret
            let known = head.contains("authorization: basic bwu6c2vjcmv0");
            if known { whole() } else { answer("401 Unauthorized", "", b"") }
        });
        let mirror = format!("files.example=http://me:secret@{}/", url.authority());
        let config = ResolverConfig { mirrors: vec![mirror.parse().unwrap()], ..ResolverConfig::default() };
        let files = Files::new(&config).unwrap();
        let url = "https://files.example/file".parse().unwrap();
        let places = files.places(&url);
        let limit = Limit { bytes: 1 << 20, time: Duration::from_secs(30) };
        assert_eq!(files.ask(&places[0], limit).await.unwrap(), b"file");
        assert!(!places[0].url.as_str().contains("secret"), "it is shown to users");
        let insecure = ResolverConfig { insecure: vec!["files.example".into()], ..config };
        let places = Files::new(&insecure).unwrap().places(&url);
        assert_eq!(places.iter().map(|place| place.unverified).collect::<Vec<_>>(), [false, true]);
    }

    #[tokio::test]
    async fn who_serves_no_ranges_is_asked_for_all() {
        let files = Files::new(&ResolverConfig::default()).unwrap();
        let limit = Limit { bytes: 1 << 20, time: Duration::from_secs(30) };
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("file.part");
        for refusal in [
            answer("416 Range Not Satisfiable", "", b""),
            answer("206 Partial Content", "Content-Range: bytes 0-3/4\r\n", b"file"),
        ] {
            let stubborn = serve(move |head| if head.contains("range:") { refusal.clone() } else { whole() });
            std::fs::write(&kept, "fi").unwrap();
            let fetched = files.fetch("it", &[stubborn.into()], &Digest::of(b"file"), limit, &kept).await.unwrap();
            assert!(fetched == b"file" && !kept.exists());
        }
        // Nothing is kept of what is larger than a file of that name may be.
        let (large, _) = server(&[1; 3000], 3000);
        let limit = Limit { bytes: 1000, ..limit };
        let failed =
            files.fetch("it", &[large.into()], &Digest::of(b"file"), limit, &kept).await.unwrap_err().to_string();
        assert!(failed.contains("too large") && !kept.exists(), "{failed}");
    }

    /// Breaks off after two bytes, as often as this, and refuses to go on.
    fn fragile(refusal: &'static str, mut breaks: usize) -> Url {
        serve(move |head| match (head.contains("range:"), breaks) {
            (true, _) => answer(refusal, "", b""),
            (false, 0) => whole(),
            (false, _) => {
                breaks -= 1;
                let mut half = whole();
                half.truncate(half.len() - 2);
                half
            }
        })
    }

    #[tokio::test]
    async fn who_breaks_off_and_serves_no_ranges_is_asked_for_all_once() {
        let files = Files::new(&ResolverConfig::default()).unwrap();
        let limit = Limit { bytes: 1 << 20, time: Duration::from_secs(30) };
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("file.part");
        for refusal in ["416 Range Not Satisfiable", "400 Bad Request", "501 Not Implemented"] {
            let fetched = files.fetch("it", &[fragile(refusal, 1).into()], &Digest::of(b"file"), limit, &kept).await;
            assert_eq!(fetched.unwrap(), b"file", "{refusal}");
            // Not again; what it sent is the next place's to go on with.
            let (next, asked) = server(b"file", 4);
            let places = [fragile(refusal, usize::MAX), next].map(FilePlace::from);
            let fetched = files.fetch("it", &places, &Digest::of(b"file"), limit, &kept).await;
            assert_eq!((fetched.unwrap().as_slice(), asked.lock().unwrap().as_slice()), (&b"file"[..], &[2][..]));
        }
    }

    #[tokio::test]
    async fn what_broke_off_is_gone_on_with() {
        static CONTENT: [u8; 3500] = [7; 3500];
        let files = Files::new(&ResolverConfig::default()).unwrap();
        let digest = Digest::of(&CONTENT);
        let limit = Limit { bytes: 1 << 20, time: Duration::from_secs(30) };
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("file.part");
        for (begun, expected) in [
            (Vec::new(), vec![0, 1000, 2000, 3000]),
            // Of an earlier process, right, and wrong.
            (vec![7; 1500], vec![1500, 2500]),
            (vec![8; 3400], vec![3400, 0, 1000, 2000, 3000]),
        ] {
            let (url, asked) = server(&CONTENT, 1000);
            std::fs::write(&kept, begun).unwrap();
            let fetched = files.fetch("it", &[url.into()], &digest, limit, &kept).await.unwrap();
            assert!(fetched == CONTENT && !kept.exists());
            assert_eq!(*asked.lock().unwrap(), expected);
        }
        // Given up by one place, gone on with at the next; nobody has it in the end, and what came stays.
        let (other, _) = server(&[9; 100], 100);
        let ((short, _), (url, asked)) = (server(&CONTENT[..2000], 2000), server(&CONTENT, 4000));
        let fetched = files.fetch("it", &[short, url].map(FilePlace::from), &digest, limit, &kept).await.unwrap();
        assert!(fetched == CONTENT && *asked.lock().unwrap() == [0], "wrong bytes are not gone on with");
        let failed = files.fetch("it", &[other.into()], &digest, limit, &kept).await.unwrap_err().to_string();
        assert!(failed.contains("not what was published"), "{failed}");
    }
}
