//! Where an image may be fetched from: a pure function of presets, `mirrors.toml` and arguments.
//!
//! | input | places | order among the places of a registry |
//! |---|---|---|
//! | `--image-repository` | one, for the registries of Kubernetes' own images | first |
//! | `--registry-mirror` | as given | next, in the order given |
//! | `mirrors.toml` | as written | next |
//! | `--image-mirror-country` | the preset's | next |
//! | | the registry itself | last, unless `mirrors.toml` says `upstream = false` |
//!
//! The order is that of preference; a pull then ranks places of the same [`Rank`] by how they answer.

mod argument;
mod insecure;
mod loopback;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use url::Url;

pub use argument::{MirrorArgument, MirrorError};
pub use insecure::{Insecure, InsecureError};
pub use loopback::{HostLoopback, loopback_port};

use crate::{ImageError, ImageName};

const PRESETS: &str = include_str!("presets.toml");

/// Registries whose images `--image-repository` replaces.
const KUBERNETES_REGISTRIES: &[&str] = &["registry.k8s.io", "k8s.gcr.io"];
/// Like them, but only repositories below this one.
const KUBERNETES_PREFIX: (&str, &str) = ("gcr.io", "k8s-minikube/");

/// Where the registries that do not serve under their own name are.
const SERVED_BY: &[(&str, &str)] = &[("docker.io", "registry-1.docker.io")];

/// What decides where a pull asks. Can be handed to another process as JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResolverConfig {
    /// A country of the presets; `None` asks the registries themselves.
    pub country: Option<String>,
    /// The text of the user's `mirrors.toml`.
    pub mirrors_toml: Option<String>,
    /// `--registry-mirror`, in order.
    pub mirrors: Vec<MirrorArgument>,
    /// `--image-repository`: host and path, with or without a scheme.
    pub image_repository: Option<String>,
    /// `--insecure-registry`: hosts (with port) and CIDRs that may be reached without verified TLS or without TLS.
    /// Loopback always may.
    pub insecure: Vec<String>,
    /// More certificates to trust, PEM, beside the machine's and the built-in ones.
    pub extra_roots_pem: Option<String>,
    /// Where the loopback that these addresses mean is reached, if it is not this process' own.
    pub host_loopback: Option<HostLoopback>,
    pub timeouts: crate::Timeouts,
}

/// What `mirrors.toml` says, and each country of the presets.
type Table = BTreeMap<String, Registry>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Registry {
    #[serde(default)]
    mirrors: Vec<String>,
    /// Leave the country's preset out.
    #[serde(default)]
    replace: bool,
    /// Ask the registry itself.
    #[serde(default = "yes")]
    upstream: bool,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MirrorsFile {
    #[serde(default)]
    registry: Table,
}

/// Whose word a place is; a better rank is preferred whatever its speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// The user named it.
    Chosen,
    /// A preset, or the registry itself.
    Known,
}

/// One place to fetch a repository from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Scheme, host and port.
    pub base: Url,
    /// The repository there.
    pub repository: String,
    pub rank: Rank,
    /// The registry the name means; what it says of a tag is true.
    pub upstream: bool,
    /// Do not verify its certificate.
    pub unverified: bool,
    /// Sent to mirrors as `ns`, for those that serve several registries.
    pub namespace: Option<String>,
    /// From the URL of the mirror.
    pub login: Option<(String, String)>,
}

impl Place {
    /// How users are told of it.
    pub fn label(&self) -> String {
        format!("{}://{}/{}", self.base.scheme(), self.host(), self.repository)
    }

    /// Host, with the port where it is not the scheme's.
    pub fn host(&self) -> String {
        let host = self.base.host_str().unwrap_or_default();
        match self.base.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }
}

/// Turns names into places.
#[derive(Clone, Debug)]
pub struct Resolver {
    preset: Table,
    file: Table,
    mirrors: Vec<MirrorArgument>,
    image_repository: Option<MirrorArgument>,
    insecure: Insecure,
    host_loopback: Option<HostLoopback>,
}

/// A country of the presets.
pub fn is_country(name: &str) -> bool {
    presets().is_ok_and(|countries| countries.contains_key(name))
}

/// All countries of the presets.
pub fn countries() -> Vec<String> {
    presets().map(|countries| countries.into_keys().collect()).unwrap_or_default()
}

fn presets() -> Result<BTreeMap<String, Table>, ImageError> {
    toml::from_str(PRESETS).map_err(|error| bad("the built-in mirrors", &error))
}

fn bad(what: &str, error: &dyn std::fmt::Display) -> ImageError {
    ImageError::BadConfig { what: what.to_owned(), detail: error.to_string().trim_end().to_owned() }
}

impl Resolver {
    /// # Errors
    /// [`ImageError::BadConfig`] for an unknown country or any text that cannot be understood.
    pub fn new(config: &ResolverConfig) -> Result<Resolver, ImageError> {
        let preset = match &config.country {
            Some(country) => presets()?.remove(country).ok_or_else(|| {
                let known = countries().join(", ");
                bad(&format!("mirror country {country:?}"), &format!("known are: {known}"))
            })?,
            None => Table::new(),
        };
        let file: MirrorsFile = match &config.mirrors_toml {
            Some(text) => toml::from_str(text).map_err(|error| bad("mirrors.toml", &error))?,
            None => MirrorsFile { registry: Table::new() },
        };
        for mirror in file.registry.values().flat_map(|registry| &registry.mirrors) {
            MirrorArgument::parse(mirror).map_err(|error| bad("mirrors.toml", &error))?;
        }
        let image_repository = match &config.image_repository {
            Some(text) => {
                let url = if text.contains("://") { text.clone() } else { format!("https://{text}") };
                let url = format!("{}/{{name}}", url.trim_end_matches('/'));
                Some(MirrorArgument::parse(&url).map_err(|error| bad("the image repository", &error))?)
            }
            None => None,
        };
        let insecure = Insecure::parse(&config.insecure).map_err(|error| bad("insecure registries", &error))?;
        Ok(Resolver {
            preset,
            file: file.registry,
            mirrors: config.mirrors.clone(),
            image_repository,
            insecure,
            host_loopback: config.host_loopback.clone(),
        })
    }

    /// Ports of loopback at which a place may be.
    pub fn loopback_ports(&self) -> Vec<u16> {
        let file = self.file.values().flat_map(|row| &row.mirrors).filter_map(|text| MirrorArgument::parse(text).ok());
        let mirrors = self.mirrors.iter().chain(&self.image_repository).cloned().chain(file);
        let mut ports: Vec<u16> = mirrors.filter_map(|mirror| loopback_port(&mirror.base())).collect();
        ports.extend(self.insecure.loopback_ports());
        ports
    }

    /// The places of a name, preferred ones first, each once.
    pub fn places(&self, name: &ImageName) -> Vec<Place> {
        let registry = name.registry();
        let mut places = Vec::new();
        if let Some(repository) = &self.image_repository
            && is_kubernetes(name)
        {
            self.add(&mut places, repository, name, Rank::Chosen);
        }
        for mirror in self.mirrors.iter().filter(|mirror| mirror.serves(registry)) {
            self.add(&mut places, mirror, name, Rank::Chosen);
        }
        let file = self.file.get(registry);
        // The texts were parsed when the resolver was made.
        for mirror in file.iter().flat_map(|row| &row.mirrors).filter_map(|text| MirrorArgument::parse(text).ok()) {
            self.add(&mut places, &mirror, name, Rank::Chosen);
        }
        if !file.is_some_and(|row| row.replace) {
            let preset = self.preset.get(registry);
            for mirror in preset.iter().flat_map(|row| &row.mirrors).filter_map(|text| MirrorArgument::parse(text).ok())
            {
                self.add(&mut places, &mirror, name, Rank::Known);
            }
        }
        if file.is_none_or(|row| row.upstream) {
            self.add_upstream(&mut places, name);
        }
        places
    }

    fn add(&self, places: &mut Vec<Place>, mirror: &MirrorArgument, name: &ImageName, rank: Rank) {
        let place = Place {
            base: mirror.base(),
            repository: mirror.repository(name.registry(), name.repository()),
            rank,
            upstream: false,
            unverified: false,
            namespace: Some(name.registry().to_owned()),
            login: mirror.login(),
        };
        self.add_secured(places, place);
    }

    fn add_upstream(&self, places: &mut Vec<Place>, name: &ImageName) {
        let host = SERVED_BY.iter().find(|(registry, _)| *registry == name.registry());
        let host = host.map_or(name.registry(), |(_, host)| *host);
        let Ok(base) = Url::parse(&format!("https://{host}")) else { return };
        let place = Place {
            base,
            repository: name.repository().to_owned(),
            rank: Rank::Known,
            upstream: true,
            unverified: false,
            namespace: None,
            login: None,
        };
        self.add_secured(places, place);
    }

    /// A host that may be insecure is asked by TLS without verification, then, as Docker does, in plain text.
    fn add_secured(&self, places: &mut Vec<Place>, mut place: Place) {
        let mut push = |mut place: Place| {
            if let Some(host) = &self.host_loopback {
                host.translate(&mut place.base);
            }
            if !places.iter().any(|old| old.base == place.base && old.repository == place.repository) {
                places.push(place);
            }
        };
        if place.base.scheme() == "https" && self.insecure.contains(&place.base) {
            place.unverified = true;
            let mut plain = place.clone();
            push(place);
            let port = plain.base.port().unwrap_or(80);
            if plain.base.set_scheme("http").is_ok() && plain.base.set_port(Some(port)).is_ok() {
                push(plain);
            }
            return;
        }
        push(place);
    }
}

fn is_kubernetes(name: &ImageName) -> bool {
    let (registry, prefix) = KUBERNETES_PREFIX;
    KUBERNETES_REGISTRIES.contains(&name.registry())
        || (name.registry() == registry && name.repository().starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(config: &ResolverConfig, name: &str) -> Vec<String> {
        let resolver = Resolver::new(config).unwrap();
        resolver.places(&name.parse().unwrap()).iter().map(Place::label).collect()
    }

    #[test]
    fn without_inputs_the_registry_itself_is_asked() {
        let config = ResolverConfig::default();
        assert_eq!(labels(&config, "nginx"), ["https://registry-1.docker.io/library/nginx"]);
        assert_eq!(labels(&config, "quay.io/a/b:1"), ["https://quay.io/a/b"]);
    }

    #[test]
    fn every_preset_parses_and_names_known_registries() {
        for (country, table) in presets().unwrap() {
            for (registry, row) in table {
                assert!(registry.contains('.') && !row.mirrors.is_empty(), "{country} {registry}");
                for mirror in row.mirrors {
                    MirrorArgument::parse(&mirror).unwrap_or_else(|error| panic!("{country} {mirror}: {error}"));
                }
            }
        }
        assert!(is_country("cn") && is_country("global") && !is_country("xx"));
    }

    #[test]
    fn inputs_come_in_order_and_places_once() {
        let config = ResolverConfig {
            country: Some("cn".into()),
            mirrors_toml: Some("[registry.\"docker.io\"]\nmirrors = [\"https://file.example/p\"]\n".into()),
            mirrors: vec![
                MirrorArgument::parse("docker.io=http://a.example:5000").unwrap(),
                MirrorArgument::parse("https://b.example/x").unwrap(),
                MirrorArgument::parse("quay.io=https://c.example").unwrap(),
                MirrorArgument::parse("https://hub.rat.dev").unwrap(),
            ],
            ..ResolverConfig::default()
        };
        let wanted = [
            "http://a.example:5000/library/nginx",
            "https://b.example/x/library/nginx",
            "https://hub.rat.dev/library/nginx",
            "https://file.example/p/library/nginx",
            "https://docker.m.daocloud.io/library/nginx",
            "https://docker.1ms.run/library/nginx",
            "https://docker.nju.edu.cn/library/nginx",
            "https://registry-1.docker.io/library/nginx",
        ];
        assert_eq!(labels(&config, "nginx"), wanted);
    }

    #[test]
    fn the_file_can_replace_the_preset_and_forbid_the_registry() {
        let text = "[registry.\"docker.io\"]\nmirrors = [\"https://only.example\"]\nreplace = true\nupstream = false\n";
        let config =
            ResolverConfig { country: Some("cn".into()), mirrors_toml: Some(text.into()), ..Default::default() };
        assert_eq!(labels(&config, "nginx"), ["https://only.example/library/nginx"]);
    }

    #[test]
    fn the_image_repository_is_only_for_kubernetes_images() {
        let config = ResolverConfig { image_repository: Some("r.example/k8s/".into()), ..Default::default() };
        assert_eq!(labels(&config, "registry.k8s.io/coredns/coredns:v1")[0], "https://r.example/k8s/coredns");
        assert_eq!(
            labels(&config, "gcr.io/k8s-minikube/storage-provisioner:v5")[0],
            "https://r.example/k8s/storage-provisioner"
        );
        assert_eq!(labels(&config, "nginx"), ["https://registry-1.docker.io/library/nginx"]);
    }

    #[test]
    fn insecure_hosts_are_asked_by_tls_then_plain() {
        let config = ResolverConfig { insecure: vec!["10.0.0.0/8".into(), "reg.lan".into()], ..Default::default() };
        assert_eq!(labels(&config, "10.1.2.3:5000/x"), ["https://10.1.2.3:5000/x", "http://10.1.2.3:5000/x"]);
        assert_eq!(labels(&config, "reg.lan/x"), ["https://reg.lan/x", "http://reg.lan/x"]);
        assert_eq!(labels(&config, "localhost:5000/x"), ["https://localhost:5000/x", "http://localhost:5000/x"]);
        assert_eq!(labels(&config, "11.1.2.3:5000/x"), ["https://11.1.2.3:5000/x"]);
    }

    #[test]
    fn mirrors_on_the_users_loopback_are_asked_where_the_host_serves_it() {
        let config = ResolverConfig {
            mirrors: vec![MirrorArgument::parse("http://127.0.0.1:5000").unwrap()],
            insecure: vec!["localhost:5001".into()],
            ..Default::default()
        };
        let mut ports = Resolver::new(&config).unwrap().loopback_ports();
        ports.sort_unstable();
        assert_eq!(ports, [5000, 5001]);
        let address = std::net::Ipv4Addr::new(192, 168, 49, 1);
        let host_loopback = Some(HostLoopback { address, ports: [(5000, 25000), (5001, 25001)].into() });
        let config = ResolverConfig { host_loopback, ..config };
        assert_eq!(labels(&config, "nginx")[0], "http://192.168.49.1:25000/library/nginx");
        assert_eq!(
            labels(&config, "localhost:5001/x"),
            ["https://192.168.49.1:25001/x", "http://192.168.49.1:25001/x"]
        );
    }

    #[test]
    fn bad_inputs_are_named() {
        let bad = |config: ResolverConfig| Resolver::new(&config).unwrap_err().to_string();
        let text = bad(ResolverConfig { country: Some("mars".into()), ..Default::default() });
        assert_eq!(text, "mirror country \"mars\": known are: cn, global");
        assert!(
            bad(ResolverConfig { mirrors_toml: Some("[registry.x]\nmirror = 1".into()), ..Default::default() })
                .starts_with("mirrors.toml: ")
        );
        assert!(
            bad(ResolverConfig { insecure: vec!["10.0.0.0/64".into()], ..Default::default() })
                .starts_with("insecure registries: ")
        );
    }
}
