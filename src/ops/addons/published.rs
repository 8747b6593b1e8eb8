//! Manifests that others publish: fetched through the mirrors, held to their digest, kept for the next time.

use std::collections::BTreeMap;

use kminik_base::atomic_file::{self, PUBLIC};
use kminik_oci::mirrors::loopback_port;
use kminik_oci::{Attached, Digest, Limit};
use url::Url;

use crate::addons::{Addon, Catalogue, Choice, Published};
use crate::home::Home;
use crate::ops::registries::{self, Download};
use crate::printer::{DOWNLOAD, OPTION, Printer};
use crate::profile::{Lock, Profile};
use crate::reason::{Failure, GUEST_CACHE_LOAD, INET_ADDON, MK_ADDON_BROKEN, MK_INTERNAL, OrFail, Outcome};

/// Of a manifest that is fetched, from one place.
const MANIFEST: Limit = Limit { bytes: 16 << 20, time: std::time::Duration::from_secs(60) };
const TABLE_BYTES: u64 = 1 << 20;

/// The texts of the addon's published manifests, from this machine's cache or from where they are. Digests that nobody has said
/// before are noted in the choice, which is to be saved.
///
/// # Errors
/// `INET_ADDON` with every place that was tried; `MK_ADDON_BROKEN` for a definition that cannot be used.
pub async fn texts(
    home: &Home,
    profile: Option<&Profile>,
    addon: &Addon,
    choice: &mut Choice,
    printer: &Printer,
) -> Outcome<Vec<String>> {
    let mut texts = Vec::new();
    for (_, bytes) in gather(home, profile, addon, choice, printer).await? {
        let text = String::from_utf8(bytes);
        texts.push(text.or_fail(&MK_ADDON_BROKEN, format_args!("the manifest of {} is no text", addon.name))?);
    }
    Ok(texts)
}

/// As [`texts`], each with the URL that its publisher has it at.
pub async fn gather(
    home: &Home,
    profile: Option<&Profile>,
    addon: &Addon,
    choice: &mut Choice,
    printer: &Printer,
) -> Outcome<Vec<(String, Vec<u8>)>> {
    let mut manifests = Vec::new();
    for published in &addon.definition.published {
        let bytes = one(home, profile, addon, published, choice, printer).await?;
        manifests.push((published.urls.first().cloned().unwrap_or_default(), bytes));
    }
    Ok(manifests)
}

/// Why manifests of a bundle cannot be taken in: they are none of a URL, or not what an addon says is published there.
pub fn check_manifests(catalogue: &Catalogue, manifests: &Attached) -> Result<(), String> {
    let published = || catalogue.addons.iter().flat_map(|addon| &addon.definition.published);
    for (url, bytes) in manifests {
        if !Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "https" | "http")) {
            return Err(format!("{url:?} is no URL that a manifest is published at"));
        }
        let digest = Digest::of(bytes);
        let theirs = published().filter(|published| published.urls.first() == Some(url));
        if theirs.filter_map(|published| published.sha256.as_deref()).any(|wanted| wanted != digest.hex()) {
            return Err(format!("the manifest of {url} is not the one that is published"));
        }
    }
    Ok(())
}

/// Keeps manifests of a bundle by what they are published as: they are what their publishers serve where nobody has said more.
pub async fn take_in(home: &Home, manifests: &Attached) -> Outcome<()> {
    if manifests.is_empty() {
        return Ok(());
    }
    let _lock = Lock::of_home(home).await?;
    let mut known = bundled(home);
    for (url, bytes) in manifests {
        let digest = Digest::of(bytes);
        home.write(&path(home, &digest), bytes, PUBLIC)?;
        known.insert(url.clone(), digest);
    }
    let table = serde_json::to_vec_pretty(&known).or_fail(&MK_INTERNAL, "cannot write the table of manifests")?;
    if table.len() as u64 > TABLE_BYTES {
        return Err(Failure::new(&GUEST_CACHE_LOAD, "bundles have brought more manifests than are remembered"));
    }
    home.write(&table_of(home), &table, PUBLIC)
}

/// Digests of what bundles have brought, by URL; a table that cannot be read says nothing.
fn bundled(home: &Home) -> BTreeMap<String, Digest> {
    let table = atomic_file::read_optional(&table_of(home), TABLE_BYTES).ok().flatten().unwrap_or_default();
    serde_json::from_slice(&table).unwrap_or_default()
}

fn table_of(home: &Home) -> std::path::PathBuf {
    home.manifest_cache().join("bundled.json")
}

async fn one(
    home: &Home,
    profile: Option<&Profile>,
    addon: &Addon,
    published: &Published,
    choice: &mut Choice,
    printer: &Printer,
) -> Outcome<Vec<u8>> {
    let broken = |why: &str| Failure::new(&MK_ADDON_BROKEN, format!("the addon {}: {why}", addon.name));
    let urls: Vec<Url> = published.urls.iter().filter_map(|url| Url::parse(url).ok()).collect();
    let Some(publisher) = urls.first().filter(|_| urls.len() == published.urls.len()) else {
        return Err(broken("what it names as published is no URL"));
    };
    let wanted = match &published.sha256 {
        Some(hex) => Some(format!("sha256:{hex}").parse::<Digest>().map_err(|_| broken("its sha256 is none"))?),
        None => choice.published.get(publisher.as_str()).cloned(),
    };
    let brought = || bundled(home).remove(published.urls.first()?);
    if wanted.is_none()
        && let Some(digest) = brought()
        && let Some(bytes) = cached(home, &digest)
    {
        choice.published.insert(publisher.to_string(), digest);
        return Ok(bytes);
    }
    if let Some(digest) = &wanted
        && let Some(bytes) = cached(home, digest)
    {
        return Ok(bytes);
    }
    printer.info(DOWNLOAD, &format!("Fetching the manifest of {} {} ...", addon.name, published.version));
    let files = registries::files(home, profile)?;
    let cannot = || format!("the manifest of {} cannot be fetched", addon.name);
    let bytes = match &wanted {
        Some(digest) => {
            let to = path(home, digest);
            let manifest = Download { urls: &urls, digest, limit: MANIFEST, to: &to, mode: PUBLIC };
            return manifest.run(home, &files, &INET_ADDON, &cannot()).await;
        }
        // Whoever serves it decides what is run: nobody but the publisher may.
        None if publisher.scheme() == "https" || loopback_port(publisher).is_some() => {
            let served = files.ask(&publisher.clone().into(), MANIFEST).await;
            served.map_err(|attempt| Failure::new(&INET_ADDON, format!("{}: {attempt}", cannot())))?
        }
        None => return Err(broken("a manifest without a digest has to come by https")),
    };
    let digest = Digest::of(&bytes);
    home.write(&path(home, &digest), &bytes, PUBLIC)?;
    printer.info(OPTION, &format!("Its digest was not known before; from now on it has to be {digest}"));
    choice.published.insert(publisher.to_string(), digest);
    Ok(bytes)
}

fn path(home: &Home, digest: &Digest) -> std::path::PathBuf {
    home.manifest_cache().join(digest.hex())
}

fn cached(home: &Home, digest: &Digest) -> Option<Vec<u8>> {
    // What cannot be read, or is not what it was, is fetched again.
    let bytes = atomic_file::read_optional(&path(home, digest), MANIFEST.bytes as u64).ok()??;
    (Digest::of(&bytes) == *digest).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn bundles_that_are_loaded_at_once_lose_no_manifest() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::at(directory.path());
        let bring = |number: u8| {
            let manifests = Attached::from([(format!("https://files.example/{number}"), vec![number; 10])]);
            let home = home.clone();
            async move { take_in(&home, &manifests).await }
        };
        // Who has the home's lock is waited for.
        let lock = Lock::of_home(&home).await.unwrap();
        let mut waiting = Box::pin(bring(0));
        assert!(tokio::time::timeout(Duration::from_millis(200), &mut waiting).await.is_err());
        assert!(bundled(&home).is_empty());
        drop(lock);
        waiting.await.unwrap();
        let all = futures::future::join_all((1..8).map(bring)).await;
        assert!(all.iter().all(Result::is_ok), "{all:?}");
        let known = bundled(&home);
        assert_eq!(known.len(), 8);
        for number in 0..8_u8 {
            let digest = &known[&format!("https://files.example/{number}")];
            assert_eq!(cached(&home, digest).unwrap(), [number; 10]);
        }
    }
}
