//! Files that hosts publish, held to their digest: from the mirrors of their host, then from the host itself.

use std::time::Duration;

use tokio::time::Instant;
use url::Url;

use super::transport::Transport;
use crate::mirrors::Resolver;
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
    pub fn places(&self, url: &Url) -> Vec<Url> {
        self.resolver.files(url).into_iter().map(|place| place.url).collect()
    }

    /// What one place serves.
    ///
    /// # Errors
    /// What it said instead.
    pub async fn ask(&self, place: &Url, limit: Limit) -> Result<Vec<u8>, Attempt> {
        let started = Instant::now();
        let body = self.transport.body(place, limit).await;
        body.map_err(|refusal| attempt(place, refusal.to_string(), started))
    }

    /// The file, from the first of the places that serves the bytes of this digest. `name` is how users are told of it.
    ///
    /// # Errors
    /// [`ImageError::NoFile`] with what every place said.
    pub async fn fetch(
        &self,
        name: &str,
        places: &[Url],
        digest: &Digest,
        limit: Limit,
    ) -> Result<Vec<u8>, ImageError> {
        let mut attempts = Vec::new();
        for place in places {
            let started = Instant::now();
            match self.ask(place, limit).await {
                Ok(bytes) => {
                    let found = Digest::of(&bytes);
                    if found == *digest {
                        return Ok(bytes);
                    }
                    let answer = format!("it serves {found}, which is not what was published");
                    attempts.push(attempt(place, answer, started));
                }
                Err(attempt) => attempts.push(attempt),
            }
        }
        Err(ImageError::NoFile { name: name.to_owned(), attempts })
    }
}

fn attempt(place: &Url, answer: String, started: Instant) -> Attempt {
    Attempt { place: place.to_string(), wanted: "file".to_owned(), answer, elapsed: started.elapsed() }
}
