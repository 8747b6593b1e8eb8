//! Manifests that others publish: fetched through the mirrors, held to their digest, kept for the next time.

use kminik_base::atomic_file::{self, PUBLIC};
use kminik_oci::Digest;
use kminik_oci::mirrors::{Resolver, loopback_port};
use url::Url;

use crate::addons::{Addon, Choice, Published};
use crate::home::Home;
use crate::ops::registries;
use crate::printer::{DOWNLOAD, OPTION, Printer};
use crate::profile::Profile;
use crate::reason::{Failure, INET_ADDON, INET_BAD_MIRROR, MK_ADDON_BROKEN, OrFail, Outcome};

/// Largest manifest that is fetched.
const LIMIT_BYTES: usize = 16 << 20;
/// Bound on one fetch.
const FETCH: std::time::Duration = std::time::Duration::from_secs(60);

/// The texts of the addon's published manifests, from this machine's cache or from where they are. Digests that nobody has said
/// before are noted in the choice, which is to be saved.
///
/// # Errors
/// `INET_ADDON` with every place that was tried; `MK_ADDON_BROKEN` for a definition that cannot be used.
pub async fn texts(
    home: &Home,
    profile: &Profile,
    addon: &Addon,
    choice: &mut Choice,
    printer: &Printer,
) -> Outcome<Vec<String>> {
    let mut texts = Vec::new();
    for published in &addon.definition.published {
        let bytes = one(home, profile, addon, published, choice, printer).await?;
        let text = String::from_utf8(bytes);
        texts.push(text.or_fail(&MK_ADDON_BROKEN, format_args!("the manifest of {} is no text", addon.name))?);
    }
    Ok(texts)
}

async fn one(
    home: &Home,
    profile: &Profile,
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
    if let Some(digest) = &wanted
        && let Some(bytes) = cached(home, digest)
    {
        return Ok(bytes);
    }
    printer.info(DOWNLOAD, &format!("Fetching the manifest of {} {} ...", addon.name, published.version));
    let config = registries::on_host(home, Some(profile))?;
    let roots = config.extra_roots_pem.clone();
    let resolver = Resolver::new(&config).or_fail(&INET_BAD_MIRROR, "the mirrors cannot be used")?;
    let places: Vec<Url> = match wanted {
        Some(_) => urls.iter().flat_map(|url| resolver.files(url)).collect(),
        // Whoever serves it decides what is run: nobody but the publisher may.
        None if publisher.scheme() == "https" || loopback_port(publisher).is_some() => vec![publisher.clone()],
        None => return Err(broken("a manifest without a digest has to come by https")),
    };
    let mut tried = Vec::new();
    for place in &places {
        let get = kminik_oci::get(place.as_str(), roots.as_deref(), LIMIT_BYTES);
        let said = match tokio::time::timeout(FETCH, get).await {
            Ok(Ok(bytes)) => {
                let digest = Digest::of(&bytes);
                if wanted.as_ref().is_none_or(|wanted| *wanted == digest) {
                    return keep(home, publisher, &digest, wanted.is_none(), bytes, choice, printer);
                }
                format!("{place}: it serves {digest}, which is not what was published")
            }
            // It names the place.
            Ok(Err(error)) => kminik_base::component::chain(&error),
            Err(_) => format!("{place}: no answer within {} s", FETCH.as_secs()),
        };
        tried.push(said);
    }
    let message = format!("the manifest of {} cannot be fetched: {}", addon.name, tried.join("; "));
    Err(Failure::new(&INET_ADDON, message))
}

fn path(home: &Home, digest: &Digest) -> std::path::PathBuf {
    home.manifest_cache().join(digest.hex())
}

fn cached(home: &Home, digest: &Digest) -> Option<Vec<u8>> {
    // What cannot be read, or is not what it was, is fetched again.
    let bytes = atomic_file::read_optional(&path(home, digest), LIMIT_BYTES as u64).ok()??;
    (Digest::of(&bytes) == *digest).then_some(bytes)
}

fn keep(
    home: &Home,
    publisher: &Url,
    digest: &Digest,
    first: bool,
    bytes: Vec<u8>,
    choice: &mut Choice,
    printer: &Printer,
) -> Outcome<Vec<u8>> {
    home.write(&path(home, digest), &bytes, PUBLIC)?;
    if first {
        printer.info(OPTION, &format!("Its digest was not known before; from now on it has to be {digest}"));
        choice.published.insert(publisher.to_string(), digest.clone());
    }
    Ok(bytes)
}
