//! Trying places: every place of some images is asked for the manifest and the beginning of a layer, side by side.

use std::collections::HashMap;
use std::time::Duration;

use oci_client::manifest::OciManifest;
use serde::Serialize;
use tokio::time::Instant;

use super::transport::{Refusal, Request, Transport, innermost, limited};
use super::{Credential, Health, parse};
use crate::image::select_platform;
use crate::layout::MAX_DOCUMENT_BYTES;
use crate::mirrors::{Place, Resolver, Source};
use crate::{Digest, ImageName, Platform};

/// A place's speed is measured over so much of a layer, or so long.
const SAMPLE_BYTES: u64 = 8 * 1024 * 1024;
const SAMPLE_TIME: Duration = Duration::from_secs(5);

/// What one place did with one image.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    pub image: String,
    /// `https://host/repository`
    pub place: String,
    pub source: Source,
    /// Month of the last report that it worked, of a preset's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub known: Option<String>,
    /// From the request to the whole manifest.
    pub milliseconds: u64,
    /// What it serves under the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Over the beginning of the image's largest layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// Whether the digest is the registry's own, or where that does not answer, what most places serve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agrees: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Asks all places of all names at once; each is bounded by the timeouts. What they do is remembered for pulls.
pub(crate) async fn probe(
    resolver: &Resolver,
    transport: &Transport,
    health: &Health,
    names: &[ImageName],
    credentials: &[Credential],
) -> Vec<Probe> {
    let platform = Platform::here();
    let mut all = Vec::new();
    for name in names {
        let places = super::lookup::secured(resolver, resolver.places(name)).await;
        all.extend(places.into_iter().map(|place| (name, place)));
    }
    let tried = all.into_iter().map(|(name, place)| {
        let platform = &platform;
        async move {
            let trial = Trial { name, place: &place, transport, credentials, platform };
            let started = Instant::now();
            let answered = trial.manifest(&reference(name)).await;
            let milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            let speed = match &answered {
                Ok(body) => trial.speed(body).await,
                Err(refusal) => Err(refusal.to_string()),
            };
            match &speed {
                Ok(speed) => {
                    health.ok(&place);
                    health.measured(&place, speed.unwrap_or_default(), Duration::from_secs(1));
                }
                Err(_) => health.failed(&place),
            }
            Probe {
                image: name.to_string(),
                place: place.label(),
                source: place.source,
                known: place.known.clone(),
                milliseconds,
                digest: answered.ok().map(|body| Digest::of(&body)),
                bytes_per_second: speed.as_ref().ok().copied().flatten(),
                agrees: None,
                error: speed.err(),
            }
        }
    });
    let mut rows = futures::future::join_all(tried).await;
    compare(&mut rows);
    health.save();
    rows
}

fn reference(name: &ImageName) -> String {
    match (name.digest(), name.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or("latest").to_owned(),
    }
}

fn compare(rows: &mut [Probe]) {
    let mut right: HashMap<String, (Source, Digest)> = HashMap::new();
    for row in rows.iter() {
        let Some(digest) = &row.digest else { continue };
        let same = |digest: &Digest| {
            rows.iter().filter(|other| other.image == row.image && other.digest.as_ref() == Some(digest)).count()
        };
        let better = match right.get(&row.image) {
            Some((Source::Registry, _)) => false,
            Some((_, known)) => row.source == Source::Registry || same(digest) > same(known),
            None => true,
        };
        if better {
            right.insert(row.image.clone(), (row.source, digest.clone()));
        }
    }
    for row in rows {
        row.agrees = row.digest.as_ref().map(|digest| right.get(&row.image).is_some_and(|(_, known)| known == digest));
    }
}

struct Trial<'a> {
    name: &'a ImageName,
    place: &'a Place,
    transport: &'a Transport,
    credentials: &'a [Credential],
    platform: &'a Platform,
}

impl Trial<'_> {
    async fn manifest(&self, reference: &str) -> Result<Vec<u8>, Refusal> {
        let request = Request { kind: "manifests", reference, from: 0 };
        let response = self.transport.get(self.place, &request, self.credentials).await?;
        let body = tokio::time::timeout(SAMPLE_TIME, limited(response, MAX_DOCUMENT_BYTES as usize)).await;
        let body = body.unwrap_or(Err(Refusal::NoAnswer(SAMPLE_TIME)))?;
        match parse(self.name, &body) {
            Ok(_) => Ok(body),
            Err(_) => Err(Refusal::Network("the answer is no manifest".to_owned())),
        }
    }

    /// `None` for an image without layers.
    async fn speed(&self, body: &[u8]) -> Result<Option<u64>, String> {
        let (name, text) = (self.name, |refusal: Refusal| refusal.to_string());
        let manifest = match parse(name, body).map_err(|error| error.to_string())? {
            OciManifest::Image(manifest) => manifest,
            OciManifest::ImageIndex(index) => {
                let entry = select_platform(&name.to_string(), &index.manifests, self.platform);
                let digest = entry.map_err(|error| error.to_string())?.digest.clone();
                let body = self.manifest(&digest).await.map_err(text)?;
                match parse(name, &body).map_err(|error| error.to_string())? {
                    OciManifest::Image(manifest) => manifest,
                    OciManifest::ImageIndex(_) => return Err("an index within an index".to_owned()),
                }
            }
        };
        let Some(layer) = manifest.layers.iter().max_by_key(|layer| layer.size) else { return Ok(None) };
        let request = Request { kind: "blobs", reference: &layer.digest, from: 0 };
        let started = Instant::now();
        let mut response = self.transport.get(self.place, &request, self.credentials).await.map_err(text)?;
        let mut bytes = 0;
        while bytes < SAMPLE_BYTES && started.elapsed() < SAMPLE_TIME {
            match tokio::time::timeout(SAMPLE_TIME, response.chunk()).await {
                Err(_) => return Err("its layer stalls".to_owned()),
                Ok(Err(error)) => return Err(innermost(&error)),
                Ok(Ok(None)) => break,
                Ok(Ok(Some(piece))) => bytes += piece.len() as u64,
            }
        }
        Ok(Some((bytes as f64 / started.elapsed().as_secs_f64().max(0.001)) as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(source: Source, content: &str) -> Probe {
        Probe {
            image: "docker.io/library/x:1".into(),
            place: "https://x".into(),
            source,
            known: None,
            milliseconds: 1,
            digest: (!content.is_empty()).then(|| Digest::of(content.as_bytes())),
            bytes_per_second: None,
            agrees: None,
            error: None,
        }
    }

    #[test]
    fn the_registry_is_right_and_without_it_most() {
        let mut rows = [row(Source::Preset, "old"), row(Source::Argument, "old"), row(Source::Registry, "new")];
        compare(&mut rows);
        assert_eq!(rows.clone().map(|row| row.agrees), [Some(false), Some(false), Some(true)]);
        rows[2].digest = None;
        rows[0].digest = Some(Digest::of(b"odd"));
        let mut rows = [&rows[..], &[row(Source::Preset, "old")]].concat();
        compare(&mut rows);
        let agree: Vec<_> = rows.iter().map(|row| row.agrees).collect();
        assert_eq!(agree, [Some(false), Some(true), None, Some(true)]);
    }
}
