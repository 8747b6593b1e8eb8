//! Where an image may be fetched from: a pure function of presets, `mirrors.toml` and arguments.
//!
//! | input | places | order among the places of a registry |
//! |---|---|---|
//! | `--image-repository` | one, for the registries of Kubernetes' own images | first |
//! | `--registry-mirror` | as given | next, in the order given |
//! | `mirrors.toml` | as written | next |
//! | `--image-mirror-country` | the preset's | next |
//! | (the machine) | a cache of the host's | for blobs first of all, for what a tag means last |
//! | | the registry itself | last, unless `mirrors.toml` says `upstream = false` |
//!
//! The order is that of preference; a pull then ranks places of the same [`Rank`] by how they answer.

mod argument;
mod config;
mod insecure;
mod loopback;
mod place;
mod presets;
mod user_file;

use std::collections::BTreeMap;
use std::net::IpAddr;

use url::Url;

pub use argument::{MirrorArgument, MirrorError};
pub use config::{CACHE_USER, CacheAddress, ResolverConfig};
pub use insecure::{Insecure, InsecureError};
pub use loopback::{HostLoopback, loopback_port};
pub use place::{FilePlace, Place, Rank, Source};
pub use presets::{KnownMirror, Presets};
pub use user_file::MirrorsFile;

use crate::{ImageError, ImageName};
use argument::EVERY_REGISTRY;
use place::host_of;

/// Registries whose images `--image-repository` replaces.
const KUBERNETES_REGISTRIES: &[&str] = &["registry.k8s.io", "k8s.gcr.io"];
/// Like them, but only repositories below this one.
const KUBERNETES_PREFIX: (&str, &str) = ("gcr.io", "k8s-minikube/");

/// Where the registries that do not serve under their own name are.
const SERVED_BY: &[(&str, &str)] = &[("docker.io", "registry-1.docker.io")];

/// Turns names into places.
#[derive(Clone, Debug)]
pub struct Resolver {
    preset: BTreeMap<String, Vec<KnownMirror>>,
    /// Of hosts of files.
    preset_files: BTreeMap<String, Vec<KnownMirror>>,
    file: BTreeMap<String, user_file::Registry>,
    mirrors: Vec<MirrorArgument>,
    /// By what their repository is called, and, as mirrors that are flat have them, by its last part.
    image_repository: Vec<MirrorArgument>,
    insecure: Insecure,
    host_loopback: Option<HostLoopback>,
    cache: Option<CacheAddress>,
}

fn bad(what: &str, error: &dyn std::fmt::Display) -> ImageError {
    ImageError::BadConfig { what: what.to_owned(), detail: error.to_string().trim_end().to_owned() }
}

impl Resolver {
    /// # Errors
    /// [`ImageError::BadConfig`] for an unknown country or any text that cannot be understood.
    pub fn new(config: &ResolverConfig) -> Result<Resolver, ImageError> {
        let (preset, preset_files) = match &config.country {
            Some(country) => {
                let presets = Presets::parse(config.presets_toml.as_deref())?;
                (presets.of(country)?, presets.files_of(country))
            }
            None => Default::default(),
        };
        let image_repository = config.image_repository.iter().flat_map(|text| {
            let url = if text.contains("://") { text.clone() } else { format!("https://{text}") };
            ["{repository}", "{name}"].map(|called| format!("{}/{called}", url.trim_end_matches('/')))
        });
        let image_repository = image_repository.map(|url| MirrorArgument::parse(&url)).collect::<Result<_, _>>();
        let image_repository = image_repository.map_err(|error| bad("the image repository", &error))?;
        let insecure = Insecure::parse(&config.insecure).map_err(|error| bad("insecure registries", &error))?;
        Ok(Resolver {
            preset,
            preset_files,
            file: user_file::parse(config.mirrors_toml.as_deref())?,
            mirrors: config.mirrors.clone(),
            image_repository,
            insecure,
            host_loopback: config.host_loopback.clone(),
            cache: config.cache.clone(),
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

    /// Registries of which more than themselves is known.
    pub fn registries(&self) -> Vec<String> {
        let arguments = self.mirrors.iter().map(|mirror| mirror.registry().to_owned());
        let mut names: Vec<String> = self.preset.keys().chain(self.file.keys()).cloned().chain(arguments).collect();
        names.retain(|name| name != EVERY_REGISTRY);
        names.sort();
        names.dedup();
        names
    }

    /// The places of a name, preferred ones first, each once.
    pub fn places(&self, name: &ImageName) -> Vec<Place> {
        let registry = name.registry();
        let mut places = Vec::new();
        if let Some(cache) = &self.cache
            && let Ok(base) = Url::parse(&format!("http://{}", cache.address))
        {
            places.push(Place {
                host: host_of(&base),
                base,
                repository: name.repository().to_owned(),
                source: Source::Cache,
                unverified: false,
                namespace: Some(registry.to_owned()),
                login: Some((CACHE_USER.to_owned(), cache.token.clone())),
                known: None,
            });
        }
        for repository in self.image_repository.iter().filter(|_| is_kubernetes(name)) {
            self.add(&mut places, repository, name, Source::ImageRepository, None);
        }
        for mirror in self.mirrors.iter().filter(|mirror| mirror.serves(registry)) {
            self.add(&mut places, mirror, name, Source::Argument, None);
        }
        let file = || [registry, EVERY_REGISTRY].into_iter().filter_map(|registry| self.file.get(registry));
        // The texts were parsed when the resolver was made.
        for mirror in file().flat_map(|row| &row.mirrors).filter_map(|text| MirrorArgument::parse(text).ok()) {
            self.add(&mut places, &mirror, name, Source::MirrorsFile, None);
        }
        if !file().any(|row| row.replace) {
            for known in self.preset.get(registry).into_iter().flatten() {
                if let Ok(mirror) = MirrorArgument::parse(&known.url) {
                    self.add(&mut places, &mirror, name, Source::Preset, known.known.clone());
                }
            }
        }
        if file().all(|row| row.upstream) {
            places.extend(self.upstream(name).into_iter().filter(|new| !is_among(&places, new)).collect::<Vec<_>>());
        }
        places
    }

    /// Hosts of files that the country's list has mirrors of.
    pub fn file_hosts(&self) -> impl Iterator<Item = &str> {
        self.preset_files.keys().map(String::as_str)
    }

    /// Where a file may be fetched from: the mirrors of its host in the order of preference, with its path as they name it, then
    /// its own address. Mirrors of every registry (`*=`) are none of a host that is no registry.
    pub fn files(&self, url: &Url) -> Vec<FilePlace> {
        let host = host_of(url);
        let path = url.path().trim_start_matches('/');
        let file = self.file.get(&host);
        let parsed = |text: &String| MirrorArgument::parse(text).ok();
        let from_file = file.into_iter().flat_map(|row| &row.mirrors).filter_map(parsed);
        let preset = self.preset_files.get(&host).filter(|_| !file.is_some_and(|row| row.replace));
        let preset = preset.into_iter().flatten().filter_map(|known| Some((parsed(&known.url)?, known.known.clone())));
        let mirrors = self.mirrors.iter().filter(|mirror| mirror.registry() == host).cloned();
        let argument = mirrors.map(|mirror| (mirror, Source::Argument, None));
        let from_file = from_file.map(|mirror| (mirror, Source::MirrorsFile, None));
        let preset = preset.map(|(mirror, known)| (mirror, Source::Preset, known));
        let mut places = Vec::new();
        for (mirror, source, known) in argument.chain(from_file).chain(preset) {
            let mut url = mirror.base();
            let unverified = url.scheme() == "https" && self.insecure.contains(&url);
            url.set_path(&mirror.repository(&host, path));
            if let Some(loopback) = &self.host_loopback {
                loopback.translate(&mut url);
            }
            places.push(FilePlace { url, login: mirror.login(), unverified, source, known });
        }
        if file.is_none_or(|row| row.upstream) {
            let unverified = url.scheme() == "https" && self.insecure.contains(url);
            places.push(FilePlace { unverified, ..url.clone().into() });
        }
        places
    }

    /// The registry that a name means: where a push goes.
    pub fn upstream(&self, name: &ImageName) -> Vec<Place> {
        let mut places = Vec::new();
        let host = SERVED_BY.iter().find(|(registry, _)| *registry == name.registry());
        let host = host.map_or(name.registry(), |(_, host)| *host);
        if let Ok(base) = Url::parse(&format!("https://{host}")) {
            let repository = name.repository().to_owned();
            let source = Source::Registry;
            let place = Place {
                host: host_of(&base),
                base,
                repository,
                source,
                unverified: false,
                namespace: None,
                login: None,
                known: None,
            };
            self.add_secured(&mut places, place);
        }
        places
    }

    fn add(
        &self,
        places: &mut Vec<Place>,
        mirror: &MirrorArgument,
        name: &ImageName,
        source: Source,
        known: Option<String>,
    ) {
        let base = mirror.base();
        let place = Place {
            host: host_of(&base),
            base,
            repository: mirror.repository(name.registry(), name.repository()),
            source,
            unverified: false,
            namespace: Some(name.registry().to_owned()),
            login: mirror.login(),
            known,
        };
        self.add_secured(places, place);
    }

    fn add_secured(&self, places: &mut Vec<Place>, place: Place) {
        let insecure = place.base.scheme() == "https" && self.insecure.contains(&place.base);
        for mut place in if insecure { place.insecure() } else { vec![place] } {
            if let Some(host) = &self.host_loopback {
                host.translate(&mut place.base);
            }
            if !is_among(places, &place) {
                places.push(place);
            }
        }
    }

    /// Whether some hosts may be insecure by the range their address is in.
    pub(crate) fn has_insecure_ranges(&self) -> bool {
        self.insecure.has_ranges()
    }

    /// Whether a host that has these addresses may be insecure.
    pub(crate) fn is_insecure(&self, addresses: &[IpAddr]) -> bool {
        addresses.iter().any(|address| self.insecure.contains_address(*address))
    }
}

fn is_among(places: &[Place], place: &Place) -> bool {
    places.iter().any(|old| old.base == place.base && old.repository == place.repository)
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
            "https://docker.1panel.live/library/nginx",
            "https://m.daocloud.io/docker.io/library/nginx",
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
        assert_eq!(
            labels(&config, "registry.k8s.io/coredns/coredns:v1")[..2],
            ["https://r.example/k8s/coredns/coredns", "https://r.example/k8s/coredns"]
        );
        assert_eq!(
            labels(&config, "registry.k8s.io/pause:3"),
            ["https://r.example/k8s/pause", "https://registry.k8s.io/pause"]
        );
        assert_eq!(
            labels(&config, "gcr.io/k8s-minikube/storage-provisioner:v5")[1],
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
        let places = |name: &str| -> Vec<(String, String)> {
            let places = Resolver::new(&config).unwrap().places(&name.parse().unwrap());
            places.into_iter().map(|place| (place.base.to_string(), place.label())).collect()
        };
        let row = |base: &str, label: &str| (base.to_owned(), label.to_owned());
        assert_eq!(places("nginx")[0], row("http://192.168.49.1:25000/", "http://127.0.0.1:5000/library/nginx"));
        let both = [
            row("https://192.168.49.1:25001/", "https://localhost:5001/x"),
            row("http://192.168.49.1:25001/", "http://localhost:5001/x"),
        ];
        assert_eq!(places("localhost:5001/x"), both);
    }

    #[test]
    fn files_come_from_mirrors_of_their_host_first() {
        let text = "[registry.\"files.example\"]\nmirrors = [\"https://b.example/x/{registry}/{repository}\"]\n";
        let config = ResolverConfig {
            mirrors: vec![
                MirrorArgument::parse("files.example=http://a.example").unwrap(),
                MirrorArgument::parse("*=http://every.example").unwrap(),
                MirrorArgument::parse("https://docker.example").unwrap(),
            ],
            mirrors_toml: Some(text.into()),
            country: Some("cn".into()),
            presets_toml: Some(
                "format = 1\nupdated = \"2026-11\"\n[country.cn]\n[files.cn]\n\
                 \"files.example\" = [{ url = \"https://c.example/{registry}/\" }]\n"
                    .into(),
            ),
            ..Default::default()
        };
        let url = Url::parse("https://files.example/A/b-1.yaml").unwrap();
        let urls: Vec<String> =
            Resolver::new(&config).unwrap().files(&url).iter().map(|place| place.url.to_string()).collect();
        let wanted = [
            "http://a.example/A/b-1.yaml",
            "https://b.example/x/files.example/A/b-1.yaml",
            "https://c.example/files.example/A/b-1.yaml",
            "https://files.example/A/b-1.yaml",
        ];
        assert_eq!(urls, wanted);
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
