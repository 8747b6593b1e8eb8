//! Addons: a folder each, with `addon.toml` (its row) and manifests. Those of the binary are in [`TABLE`]; the user's are folders
//! in `~/.kminik/addons`. Both are the same from there on.
//!
//! ```text
//! folder ─► Addon ──render(choice, values)──► objects ──► Applier ─► the cluster, and a record of what is in it
//!           (definition)   (images, settings)              (server-side apply, prune)
//! ```
//! What the user has chosen is kept in the profile ([`Choice`]). The node applies the binary's own addons when it starts, from the
//! names in its configuration; everything else, and every change, is applied by the command line. A record (a ConfigMap an addon)
//! says what stands in the cluster, so that both may, in any order.

mod apply;
mod definition;
mod health;
mod objects;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use apply::{Applier, ApplyError, Record, State};
pub use definition::{Definition, Install, Published};
pub use health::{Health, health, healthy, is_on_nodes};
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Service;
use kminik_oci::Digest;
use kube::core::DynamicObject;
pub use objects::{ManifestError, digest, of_kind};
use serde::{Deserialize, Serialize};

use crate::networking::{dns_of, registry_of};

/// Largest file of a user's folder, and all of its manifests together.
const LIMIT_BYTES: u64 = 8 << 20;
const LIMIT_TOTAL_BYTES: usize = 32 << 20;

/// A folder of the binary.
struct Embedded {
    name: &'static str,
    definition: &'static str,
    manifests: &'static [&'static str],
}

macro_rules! table {
    ($($name:literal: $($file:literal)?;)*) => {
        /// The binary's own addons.
        const TABLE: &[Embedded] = &[$(Embedded {
            name: $name,
            definition: include_str!(concat!($name, "/addon.toml")),
            manifests: &[$(include_str!(concat!($name, "/", $file)))?],
        }),*];
    };
}

table! {
    "cert-manager": ;
    "coredns": "manifests.yaml";
    "default-storageclass": "manifests.yaml";
    "headlamp": "manifests.yaml";
    "istio": ;
    "portainer": ;
    "registry": "manifests.yaml";
    "storage-provisioner": "manifests.yaml";
}

/// What others publish: for which addon, in which version, where, and its digest.
const PUBLISHED: &str = include_str!("published.toml");

/// Name of the image that the binary itself is, as pods of the cluster call it.
pub fn built_in_image() -> String {
    format!("kminik.local/node:v{}", crate::version::KMINIK)
}

/// What the user has said of an addon, kept in the profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Choice {
    /// `None` is as the addon's definition has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Name of an image → the reference to use instead.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, String>,
    /// Name of an image → the registry to take it from.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub registries: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
    /// The publisher's URL of a manifest → its digest when it was fetched first, where nobody had said it before.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub published: BTreeMap<String, Digest>,
}

/// What the user has said of all addons, by name.
pub type Choices = BTreeMap<String, Choice>;

/// What manifests may name of the cluster.
#[derive(Clone, Debug)]
pub struct Values {
    pub cluster_dns: String,
    pub cluster_domain: String,
    /// Of a Service that is the user's registry.
    pub registry_address: String,
    /// When the default class gives a claim its volume.
    pub binding_mode: &'static str,
}

impl Values {
    /// Of a cluster of one node, with this network of Services.
    pub fn new(services: Ipv4Net, cluster_domain: &str) -> Self {
        Self {
            cluster_dns: dns_of(services).to_string(),
            cluster_domain: cluster_domain.to_owned(),
            registry_address: registry_of(services).to_string(),
            binding_mode: "Immediate",
        }
    }

    /// Of a cluster of several nodes, if it is one: where a volume is decides there which pods come together, so it waits for
    /// the first of them.
    pub fn of_several(self, several: bool) -> Self {
        Self { binding_mode: if several { "WaitForFirstConsumer" } else { "Immediate" }, ..self }
    }
}

/// A port of the user's loopback that leads to a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    pub port: u16,
    pub namespace: String,
    pub service: String,
    /// Of the Service's ports.
    pub service_port: u16,
}

impl HostPort {
    /// Whether it leads to this port of this Service.
    pub fn leads_to(&self, service: &Service, port: i32) -> bool {
        let metadata = &service.metadata;
        metadata.namespace.as_ref() == Some(&self.namespace)
            && metadata.name.as_ref() == Some(&self.service)
            && port == i32::from(self.service_port)
    }
}

/// One addon.
#[derive(Clone, Debug)]
pub struct Addon {
    pub name: String,
    pub definition: Definition,
    /// YAML documents; `{{image}}` and the like are filled in by [`Addon::render`].
    manifests: Vec<String>,
    /// Of the binary, and not of the user's folder.
    pub is_built_in: bool,
}

/// All addons, by name.
#[derive(Debug, Default)]
pub struct Catalogue {
    pub addons: Vec<Addon>,
    /// Folders of the user that cannot be used, and why.
    pub problems: Vec<String>,
}

/// Why a folder is no addon.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} is larger than {limit_bytes} bytes", path.display())]
    TooLarge { path: PathBuf, limit_bytes: u64 },
    #[error("{} cannot be understood", path.display())]
    Definition {
        path: PathBuf,
        #[source]
        source: toml::de::Error,
    },
    #[error("{} has no manifest (*.yaml), and names none that is published", path.display())]
    Empty { path: PathBuf },
    #[error("{name:?} is no name for an addon: lower-case letters, digits and inner dashes, 50 at most")]
    Name { name: String },
    #[error("kminik has an addon {name:?} of its own")]
    Taken { name: String },
}

impl Catalogue {
    /// The binary's own.
    ///
    /// # Errors
    /// Never for a binary whose tests have run.
    pub fn built_in() -> Result<Self, toml::de::Error> {
        let mut published: BTreeMap<String, Vec<Published>> = toml::from_str(PUBLISHED)?;
        let addons = TABLE.iter().map(|folder| {
            let mut definition: Definition = toml::from_str(folder.definition)?;
            definition.published = published.remove(folder.name).unwrap_or_default();
            Ok(Addon {
                name: folder.name.to_owned(),
                definition,
                manifests: folder.manifests.iter().map(|&text| text.to_owned()).collect(),
                is_built_in: true,
            })
        });
        Ok(Self { addons: addons.collect::<Result<_, _>>()?, problems: Vec::new() })
    }

    /// With the folders below `dir`; a folder that cannot be used is one of [`Catalogue::problems`].
    ///
    /// # Errors
    /// As [`Catalogue::built_in`].
    pub fn with_folders(dir: &Path) -> Result<Self, toml::de::Error> {
        let mut all = Self::built_in()?;
        let entries = std::fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
        let mut folders: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
        folders.sort();
        for folder in folders {
            match read_folder(&folder) {
                Ok(addon) if all.find(&addon.name).is_some() => {
                    all.problems.push(format!("{}: {}", folder.display(), FolderError::Taken { name: addon.name }));
                }
                Ok(addon) => all.addons.push(addon),
                Err(error) => {
                    all.problems.push(format!("{}: {}", folder.display(), kminik_base::component::chain(&error)));
                }
            }
        }
        all.addons.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    pub fn find(&self, name: &str) -> Option<&Addon> {
        self.addons.iter().find(|addon| addon.name == name)
    }

    /// Those that are to be in a cluster whose user has made these choices.
    pub fn enabled<'a>(&'a self, choices: &'a Choices) -> impl Iterator<Item = &'a Addon> {
        self.addons.iter().filter(|addon| addon.is_enabled(choices.get(&addon.name)))
    }
}

fn is_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=50).contains(&name.len()) && name.bytes().all(inner) && !name.starts_with('-') && !name.ends_with('-')
}

fn read_file(path: &Path) -> Result<String, FolderError> {
    let failed = |source| FolderError::Read { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(failed)?.len() > LIMIT_BYTES {
        return Err(FolderError::TooLarge { path: path.to_owned(), limit_bytes: LIMIT_BYTES });
    }
    std::fs::read_to_string(path).map_err(failed)
}

fn read_folder(folder: &Path) -> Result<Addon, FolderError> {
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    if !is_name(&name) {
        return Err(FolderError::Name { name });
    }
    let path = folder.join("addon.toml");
    let definition =
        toml::from_str(&read_file(&path)?).map_err(|source| FolderError::Definition { path: path.clone(), source })?;
    let listed = std::fs::read_dir(folder).map_err(|source| FolderError::Read { path: folder.to_owned(), source })?;
    let is_manifest = |path: &PathBuf| path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
    let mut files: Vec<PathBuf> = listed.filter_map(Result::ok).map(|entry| entry.path()).filter(is_manifest).collect();
    files.sort();
    let manifests = files.iter().map(|path| read_file(path)).collect::<Result<Vec<_>, _>>()?;
    let definition: Definition = definition;
    if manifests.is_empty() && definition.published.is_empty() {
        return Err(FolderError::Empty { path: folder.to_owned() });
    }
    if manifests.iter().map(String::len).sum::<usize>() > LIMIT_TOTAL_BYTES {
        return Err(FolderError::TooLarge { path: folder.to_owned(), limit_bytes: LIMIT_TOTAL_BYTES as u64 });
    }
    Ok(Addon { name, definition, manifests, is_built_in: false })
}

impl Addon {
    pub fn is_enabled(&self, choice: Option<&Choice>) -> bool {
        choice.and_then(|choice| choice.enabled).unwrap_or(self.definition.install != Install::Asked)
    }

    /// Applied by the node itself when it starts: all that is needed for that is in the binary.
    pub fn is_the_nodes(&self) -> bool {
        self.is_built_in && self.definition.published.is_empty()
    }

    /// Not of kminik's makers or Kubernetes'.
    pub fn is_third_party(&self) -> bool {
        !matches!(self.definition.maintainer.as_str(), "kminik" | "Kubernetes") && self.is_built_in
    }

    /// Where to read about it, or else what it is.
    pub fn docs(&self) -> &str {
        let definition = &self.definition;
        if definition.docs.is_empty() { &definition.title } else { &definition.docs }
    }

    /// The value of a setting: the user's, or the default.
    pub fn setting<'a>(&'a self, name: &str, choice: &'a Choice) -> Option<&'a str> {
        let setting = self.definition.settings.get(name)?;
        Some(choice.settings.get(name).unwrap_or(&setting.default))
    }

    /// Where the registry that it is, if it is one, is found on the user's loopback.
    pub fn registry(&self, choice: &Choice) -> Option<HostPort> {
        let endpoint = self.definition.registry.as_ref()?;
        Some(HostPort {
            port: self.setting(&endpoint.setting, choice)?.parse().ok()?,
            namespace: endpoint.namespace.clone(),
            service: endpoint.service.clone(),
            service_port: endpoint.port,
        })
    }

    /// Name of an image, the reference that stands in the manifests, the reference that is used.
    pub fn images<'a>(&'a self, choice: &'a Choice) -> impl Iterator<Item = (&'a str, &'a str, String)> {
        self.definition.images.iter().map(|(name, written)| {
            let base = choice.images.get(name).or_else(|| self.definition.pins.get(name)).unwrap_or(written);
            let used = match choice.registries.get(name) {
                Some(registry) => objects::with_registry(base, registry),
                None => base.clone(),
            };
            (name.as_str(), written.as_str(), used)
        })
    }

    /// The addon's objects, labelled as its own, in the order of their making. `published` are the texts of
    /// [`Definition::published`], in which nothing is filled in.
    ///
    /// # Errors
    /// [`ManifestError`] for a manifest that is no list of objects.
    pub fn render(
        &self,
        choice: &Choice,
        values: &Values,
        published: &[String],
    ) -> Result<Vec<DynamicObject>, ManifestError> {
        let mut filled: Vec<(String, String)> = vec![
            ("{{image}}".to_owned(), built_in_image()),
            ("{{clusterDNS}}".to_owned(), values.cluster_dns.clone()),
            ("{{clusterDomain}}".to_owned(), values.cluster_domain.clone()),
            ("{{registryAddress}}".to_owned(), values.registry_address.clone()),
            ("{{bindingMode}}".to_owned(), values.binding_mode.to_owned()),
        ];
        for name in self.definition.settings.keys() {
            let value = self.setting(name, choice).unwrap_or_default().to_owned();
            filled.push((format!("{{{{setting.{name}}}}}"), value));
        }
        let mut all = Vec::new();
        for text in published {
            objects::parse(text, &mut all)?;
        }
        for text in &self.manifests {
            let text = filled.iter().fold(text.clone(), |text, (mark, value)| text.replace(mark, value));
            objects::parse(&text, &mut all)?;
        }
        let replaced: Vec<(String, String)> = self
            .images(choice)
            .filter(|(_, written, used)| written != used)
            .map(|(_, written, used)| (written.to_owned(), used))
            .collect();
        for object in &mut all {
            objects::replace(&mut object.data, &replaced);
            object.metadata.labels.get_or_insert_default().insert(apply::LABEL.to_owned(), self.name.clone());
        }
        objects::order(&mut all);
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Values {
        Values::new("10.96.0.0/12".parse().unwrap(), "cluster.local")
    }

    #[test]
    fn the_binarys_own_are_whole() {
        let catalogue = Catalogue::built_in().unwrap();
        for addon in &catalogue.addons {
            assert!(is_name(&addon.name) && !addon.definition.title.is_empty(), "{}", addon.name);
            let choice = Choice::default();
            let text = serde_json::to_string(&addon.render(&choice, &values(), &[]).unwrap()).unwrap();
            assert!(!text.contains("{{"), "{}: something is not filled in", addon.name);
            for published in &addon.definition.published {
                assert!(published.urls.iter().all(|url| url.starts_with("https://")), "{}", addon.name);
                assert!(published.sha256.iter().all(|hex| format!("sha256:{hex}").parse::<Digest>().is_ok()));
                assert!(published.sha256.is_some() || published.urls.len() == 1, "{}: whose bytes?", addon.name);
            }
            for (name, written, _) in addon.images(&choice) {
                assert!(!addon.is_the_nodes() || text.contains(written), "{}: {written}", addon.name);
                assert!(addon.definition.pins.keys().all(|pin| addon.definition.images.contains_key(pin)), "{name}");
            }
            for (name, setting) in &addon.definition.settings {
                assert_eq!(setting.kind.check(&setting.default), Ok(()), "{}: {name}", addon.name);
            }
        }
        let nothing_said = Choices::new();
        let names: Vec<&str> = catalogue.enabled(&nothing_said).map(|addon| addon.name.as_str()).collect();
        assert_eq!(names, ["coredns", "default-storageclass", "storage-provisioner"]);
    }

    #[test]
    fn a_folder_of_the_user_is_an_addon_and_a_bad_one_a_problem() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let toml =
            "title = 'Mine'\nimages = { Web = 'nginx:1' }\nsettings = { who = { title = 'Who', default = 'me' } }";
        write("mine/addon.toml", toml);
        write(
            "mine/a.yaml",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {who: '{{setting.who}} {{.x}}'}",
        );
        write(
            "mine/b.yml",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: b}\nspec: {containers: [{image: 'nginx:1', args: [--run=nginx:1]}]}",
        );
        write("bare/addon.toml", "title = 'x'");
        write("Bad/addon.toml", "title = 'x'");
        write("odd/addon.toml", "titel = 'x'");
        write("coredns/addon.toml", "title = 'x'");
        write("coredns/a.yaml", "");
        let catalogue = Catalogue::with_folders(dir.path()).unwrap();
        assert_eq!(catalogue.problems.len(), 4, "{:?}", catalogue.problems);
        let mine = catalogue.find("mine").unwrap();
        assert!(!mine.is_enabled(None));
        let choice = Choice {
            registries: [("Web".to_owned(), "r.example:5000".to_owned())].into(),
            settings: [("who".to_owned(), "you".to_owned())].into(),
            ..Choice::default()
        };
        let text = serde_json::to_string(&mine.render(&choice, &values(), &[]).unwrap()).unwrap();
        assert!(text.contains(r#""who":"you {{.x}}""#), "{text}");
        assert!(text.contains(r#""image":"r.example:5000/library/nginx:1""#), "{text}");
        assert!(text.contains("--run=r.example:5000/library/nginx:1"), "{text}");
    }
}
