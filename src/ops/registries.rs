//! From what the user has said of registries (arguments, files of the home directory, the environment) to what pulls go by,
//! on the host and in the nodes; and the user's logins.

use std::path::Path;

use kminik_base::{atomic_file, tls};
use kminik_oci::credentials::{DockerConfig, HelperUser};
use kminik_oci::mirrors::{FilePlace, Presets, Resolver};
use kminik_oci::{Credential, Digest, Files, Limit, MirrorArgument, ResolverConfig};
use url::Url;

use super::addons;
use crate::env;
use crate::home::Home;
use crate::printer::Printer;
use crate::profile::{Profile, REGISTRY_CA, Registries};
use crate::reason::{Failure, INET_BAD_CA, INET_BAD_MIRROR, INET_CREDENTIALS, OrFail, Outcome, Reason};

const LIMIT_BYTES: u64 = 1 << 20;

fn text(path: &Path) -> Outcome<Option<String>> {
    let bytes = atomic_file::read_optional(path, LIMIT_BYTES);
    let bytes = bytes.or_fail(&INET_BAD_MIRROR, format_args!("cannot read {}", path.display()))?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// The text of the user's mirrors file, if there is one.
pub fn mirrors_file(home: &Home) -> Outcome<Option<String>> {
    text(&home.mirrors_file())
}

/// The text of the list of mirrors by country that replaces the built-in one, if there is one.
pub fn presets_file(home: &Home) -> Outcome<Option<String>> {
    text(&home.presets_file())
}

/// Whether this can be a mirror.
///
/// # Errors
/// `INET_BAD_MIRROR`.
pub fn check_mirror(text: &str) -> Outcome<()> {
    MirrorArgument::parse(text).map(drop).or_fail(&INET_BAD_MIRROR, "--registry-mirror cannot be used")
}

/// Countries with a list of mirrors; none where the list cannot be read.
pub fn countries(home: &Home) -> Vec<String> {
    let presets = presets_file(home).ok().and_then(|text| Presets::parse(text.as_deref()).ok());
    presets.map(|presets| presets.countries().iter().map(ToString::to_string).collect()).unwrap_or_default()
}

/// What pulls of the host go by; of a profile's, with the registries it was given.
///
/// # Errors
/// `INET_BAD_MIRROR` or `INET_BAD_CA`, naming what cannot be used.
pub fn on_host(home: &Home, profile: Option<&Profile>) -> Outcome<ResolverConfig> {
    let none = Registries::default();
    let registries = profile.map_or(&none, |profile| &profile.registries);
    let mirrors = registries.mirrors.iter().map(|text| MirrorArgument::parse(text)).collect::<Result<_, _>>();
    let mut roots = home_roots(home)?;
    if let Some(profile) = profile {
        roots.push_str(&text(&home.profile(&profile.name).join(REGISTRY_CA))?.unwrap_or_default());
    }
    Ok(ResolverConfig {
        country: registries.country.clone(),
        presets_toml: presets_file(home)?,
        mirrors_toml: mirrors_file(home)?,
        mirrors: mirrors.or_fail(&INET_BAD_MIRROR, "--registry-mirror cannot be used")?,
        image_repository: registries.repository.clone(),
        insecure: registries.insecure.clone(),
        extra_roots_pem: (!roots.is_empty()).then_some(roots),
        ..ResolverConfig::default()
    })
}

/// What fetches files that hosts publish.
///
/// # Errors
/// As [`on_host`].
pub fn files(home: &Home, profile: Option<&Profile>) -> Outcome<Files> {
    Files::new(&on_host(home, profile)?).or_fail(&INET_BAD_MIRROR, "the mirrors cannot be used")
}

/// A file that hosts publish, to be kept.
pub struct Download<'a> {
    pub urls: &'a [Url],
    pub digest: &'a Digest,
    /// Of one place.
    pub limit: Limit,
    pub to: &'a Path,
    pub mode: u32,
}

impl Download<'_> {
    /// Fetches it, from where an earlier attempt broke off, and keeps it.
    ///
    /// # Errors
    /// `reason` with what every place said, `cannot` before it; what the home says.
    pub async fn run(&self, home: &Home, files: &Files, reason: &'static Reason, cannot: &str) -> Outcome<Vec<u8>> {
        let places: Vec<FilePlace> = self.urls.iter().flat_map(|url| files.places(url)).collect();
        let kept = self.to.with_extension("part");
        if let Some(directory) = kept.parent() {
            home.make_dir(directory)?;
        }
        let fetched = files.fetch("it", &places, self.digest, self.limit, &kept).await;
        home.give(&kept)?;
        let fetched = fetched.or_fail(reason, cannot)?;
        home.write(self.to, &fetched, self.mode)?;
        Ok(fetched)
    }
}

/// What pulls of the profile's nodes go by: addresses as nodes reach them, the authorities that this machine trusts, its cache.
///
/// # Errors
/// As [`on_host`].
pub fn on_node(home: &Home, profile: &Profile) -> Outcome<ResolverConfig> {
    let mut config = on_host(home, Some(profile))?;
    config.mirrors.splice(..0, addons::mirrors(home, profile)?);
    let roots = format!("{}{}", config.extra_roots_pem.as_deref().unwrap_or_default(), tls::own_roots_pem());
    Ok(ResolverConfig {
        extra_roots_pem: (!roots.is_empty()).then_some(roots),
        host_loopback: Some(profile.host_loopback()),
        cache: profile.cache(),
        ..config
    })
}

/// Ports of this machine's loopback that the profile's nodes need.
///
/// # Errors
/// As [`on_host`].
pub fn loopback_ports(home: &Home, profile: &Profile) -> Outcome<Vec<u16>> {
    let resolver = Resolver::new(&on_host(home, Some(profile))?);
    let mut ports = resolver.or_fail(&INET_BAD_MIRROR, "the mirrors cannot be used")?.loopback_ports();
    ports.extend(env::loopback_proxies());
    Ok(ports)
}

/// PEM of the home's own authorities.
fn home_roots(home: &Home) -> Outcome<String> {
    let Ok(entries) = std::fs::read_dir(home.certs()) else { return Ok(String::new()) };
    let mut paths: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    paths.sort();
    let is_certificate = |path: &Path| path.extension().is_some_and(|e| e == "pem" || e == "crt" || e == "cer");
    let mut all = String::new();
    for path in paths.iter().filter(|path| is_certificate(path)) {
        all.push_str(&authority(path)?);
    }
    Ok(all)
}

/// The certificates of a PEM file.
///
/// # Errors
/// `INET_BAD_CA` for a file without one.
pub fn authority(path: &Path) -> Outcome<String> {
    let cannot = || format!("{} cannot be used as an authority", path.display());
    let bytes = std::fs::read(path).or_fail(&INET_BAD_CA, cannot())?;
    let text = String::from_utf8(bytes).or_fail(&INET_BAD_CA, cannot())?;
    if !text.contains("-----BEGIN CERTIFICATE-----") {
        return Err(Failure::new(&INET_BAD_CA, format!("{}: it has no certificate in PEM form", cannot())));
    }
    Ok(format!("{}\n", text.trim_end()))
}

/// The user's logins for these hosts: of Docker's configuration and of the helpers that it names.
///
/// # Errors
/// `INET_CREDENTIALS` for a configuration that cannot be read; a helper that fails is a warning, for the image may be public.
pub async fn credentials(hosts: &[String], printer: &Printer) -> Outcome<Vec<Credential>> {
    let path = env::docker_config();
    let config = DockerConfig::load(&path).or_fail(&INET_CREDENTIALS, format_args!("cannot use {}", path.display()))?;
    let user = env::user();
    let (logins, problems) = config.logins_for(hosts, &HelperUser { home: user.home, owner: user.owner }).await;
    for problem in problems {
        printer.warning(&problem);
    }
    Ok(logins)
}
