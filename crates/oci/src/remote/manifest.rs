//! Finding a name: all places are asked side by side.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;

use super::Puller;
use super::ranking::{Answer, Standing, order, truth};
use super::transport::{Refusal, Request, limited};
use crate::layout::MAX_DOCUMENT_BYTES;
use crate::mirrors::{Place, Rank, Source};
use crate::{Attempt, Digest, ImageError, ImageName};

/// Most places asked for one name.
const MAX_PLACES: usize = 16;

/// What a name is, and where to fetch the rest.
pub(super) struct Found {
    pub(super) digest: Digest,
    pub(super) body: Vec<u8>,
    /// Best first.
    pub(super) places: Vec<Place>,
}

impl Puller<'_> {
    /// Asks for the manifest. With a digest in the name only its bytes count; with a tag the registry's own word wins
    /// over its mirrors' while it answers in time.
    pub(super) async fn find(&self, name: &ImageName, mut places: Vec<Place>) -> Result<Found, ImageError> {
        places.truncate(MAX_PLACES);
        let pinned = name.digest();
        let reference = match (&pinned, name.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.to_owned(),
            (None, None) => "latest".to_owned(),
        };
        let started = Instant::now();
        let mut standings: Vec<Standing> = places
            .iter()
            .map(|place| Standing {
                source: place.source,
                answer: Answer::Silent,
                megabyte: self.health.megabyte(place),
            })
            .collect();
        let mut bodies: Vec<Option<Vec<u8>>> = vec![None; places.len()];
        let mut attempts = Vec::new();
        let mut asked: FuturesUnordered<_> = places
            .iter()
            .enumerate()
            .map(|(index, place)| {
                let (reference, pinned) = (reference.as_str(), pinned.as_ref());
                async move { (index, self.ask(place, reference, pinned).await) }
            })
            .collect();
        let mut deadline: Option<Instant> = None;
        loop {
            let next = match deadline {
                None => asked.next().await,
                Some(_) if !self.worth_waiting(&places, &standings, pinned.is_some()) => break,
                Some(deadline) => match tokio::time::timeout_at(deadline, asked.next()).await {
                    Ok(next) => next,
                    Err(_) => {
                        // The next pull does not wait for them again.
                        let silent = places.iter().zip(&standings).filter(|(_, s)| s.answer == Answer::Silent);
                        silent.for_each(|(place, _)| self.health.failed(place));
                        break;
                    }
                },
            };
            let Some((index, answer)) = next else { break };
            let (Some(place), Some(standing)) = (places.get(index), standings.get_mut(index)) else { continue };
            match answer {
                Ok(body) => {
                    self.health.ok(place);
                    standing.answer = Answer::Served { digest: Digest::of(&body), after: started.elapsed() };
                    if let Some(slot) = bodies.get_mut(index) {
                        *slot = Some(body);
                    }
                    // Of a cache's word on a tag there may be a newer one: patience as for a connection.
                    let patience = match place.source {
                        Source::Cache if pinned.is_none() => self.timeouts.settle.max(self.timeouts.connect),
                        _ => self.timeouts.settle,
                    };
                    let until = Instant::now() + patience;
                    deadline = Some(deadline.map_or(until, |earlier| earlier.min(until)));
                }
                Err(refusal) => {
                    if refusal.is_final() {
                        standing.answer = Answer::Refused;
                    } else {
                        self.health.failed(place);
                    }
                    let answer = refusal.to_string();
                    tracing::debug!(place = place.label(), answer, "no manifest");
                    let wanted = "manifest".to_owned();
                    attempts.push(Attempt { place: place.label(), wanted, answer, elapsed: started.elapsed() });
                }
            }
        }
        drop(asked);

        let Some(digest) = pinned.or_else(|| truth(&standings)) else {
            return Err(ImageError::AllFailed { name: name.to_string(), attempts });
        };
        let is_it = |standing: &Standing| matches!(&standing.answer, Answer::Served { digest: d, .. } if *d == digest);
        let body = standings.iter().position(is_it).and_then(|index| bodies.get_mut(index)).and_then(Option::take);
        let Some(body) = body else {
            return Err(ImageError::AllFailed { name: name.to_string(), attempts });
        };
        for (place, standing) in places.iter().zip(&standings) {
            if let Answer::Served { digest: other, .. } = &standing.answer
                && *other != digest
                && place.source != Source::Cache
            {
                self.progress.note(&format!("{}: serves another digest of {name}, left out", place.label()));
                tracing::warn!(place = place.label(), image = %name, served = %other, wanted = %digest, "stale mirror");
            }
        }
        let places = order(&standings, &digest).into_iter().filter_map(|index| places.get(index).cloned()).collect();
        Ok(Found { digest, body, places })
    }

    /// Something is still to be heard of places that matter more than what is there: those the user chose, a cache, and for a
    /// tag the registry itself; and anybody's word on a tag that only a cache has served.
    fn worth_waiting(&self, places: &[Place], standings: &[Standing], pinned: bool) -> bool {
        let served = |standing: &&Standing| matches!(standing.answer, Answer::Served { .. });
        let only_cached = standings.iter().filter(served).all(|standing| standing.source == Source::Cache);
        if only_cached && pinned {
            return false;
        }
        places.iter().zip(standings).any(|(place, standing)| {
            let rank = place.rank();
            let matters = only_cached || rank != Rank::Known || (place.is_upstream() && !pinned);
            standing.answer == Answer::Silent && matters && !self.health.is_unwell(place)
        })
    }

    async fn ask(&self, place: &Place, reference: &str, pinned: Option<&Digest>) -> Result<Vec<u8>, Refusal> {
        let wait = self.health.wait(place);
        if wait > Duration::ZERO {
            // It has asked not to be asked; it is only waited for while nobody else answers.
            tokio::time::sleep(wait.min(self.timeouts.retry_after)).await;
        }
        let body = match self.manifest_body(place, reference).await {
            Err(Refusal::Busy { retry_after, .. }) if retry_after <= self.timeouts.retry_after => {
                self.health.busy_until(place, Instant::now() + retry_after);
                tokio::time::sleep(retry_after).await;
                self.manifest_body(place, reference).await?
            }
            other => other?,
        };
        match pinned {
            Some(wanted) if Digest::of(&body) != *wanted => Err(Refusal::Network("bytes of another digest".to_owned())),
            _ => Ok(body),
        }
    }

    async fn manifest_body(&self, place: &Place, reference: &str) -> Result<Vec<u8>, Refusal> {
        let request = Request { kind: "manifests", reference, from: 0 };
        let response = self.transport.get(place, &request, self.credentials).await?;
        let promised = response.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
        let promised: Option<Digest> = promised.and_then(|text| text.parse().ok());
        let bound = self.timeouts.answer;
        let body = tokio::time::timeout(bound, limited(response, MAX_DOCUMENT_BYTES as usize)).await;
        let body = body.unwrap_or(Err(Refusal::NoAnswer(bound)))?;
        if promised.is_some_and(|promised| promised != Digest::of(&body)) {
            return Err(Refusal::Network("the manifest is not what its digest header says".to_owned()));
        }
        if serde_json::from_slice::<oci_client::manifest::OciManifest>(&body).is_err() {
            // Login pages and error pages of proxies come with status 200.
            return Err(Refusal::Network("the answer is no manifest".to_owned()));
        }
        Ok(body)
    }

    /// A document by digest from one place.
    pub(super) async fn fetch_document(
        &self,
        place: &Place,
        digest: &Digest,
        kind: &'static str,
    ) -> Result<Vec<u8>, Refusal> {
        let request = Request { kind, reference: digest.as_str(), from: 0 };
        let response = self.transport.get(place, &request, self.credentials).await?;
        let bound = self.timeouts.answer;
        let body = tokio::time::timeout(bound, limited(response, MAX_DOCUMENT_BYTES as usize)).await;
        body.unwrap_or(Err(Refusal::NoAnswer(bound)))
    }
}
