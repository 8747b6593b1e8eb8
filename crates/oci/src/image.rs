//! What is known of a stored image, and the choice among the platforms of an index.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use oci_client::manifest::{ImageIndexEntry, OciImageManifest};
use serde::{Deserialize, Deserializer, Serialize};

use crate::{Digest, ImageError};

/// Operating system and architecture, in the image specification's words.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    pub variant: Option<String>,
}

impl Platform {
    /// Of Linux on this machine.
    pub fn here() -> Platform {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Platform { os: "linux".to_owned(), architecture: architecture.to_owned(), variant: None }
    }

    /// An image for `self` runs where `wanted` is asked for. A variant matters only when both name one, and `v8` is
    /// what every arm64 is.
    pub(crate) fn runs_on(&self, wanted: &Platform) -> bool {
        let variant = |platform: &Platform| platform.variant.clone().filter(|variant| variant != "v8");
        let variants = match (variant(self), variant(wanted)) {
            (Some(have), Some(want)) => have == want,
            _ => true,
        };
        self.os == wanted.os && self.architecture == wanted.architecture && variants
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

/// How a layer's tar is compressed, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    pub(crate) fn of(head: &[u8]) -> Compression {
        match head {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
            _ => Compression::None,
        }
    }
}

/// One layer, bottom first in an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Of the uncompressed tar, as the configuration says (whoever unpacks it must check).
    pub diff_id: Digest,
    pub blob: PathBuf,
    pub compression: Compression,
    pub size_bytes: u64,
}

/// A complete stored image.
#[derive(Clone, Debug)]
pub struct Image {
    /// Of the configuration: the image's id.
    pub id: Digest,
    pub manifest: Digest,
    /// Normalised names, e.g. `docker.io/library/nginx:latest`.
    pub repo_tags: Vec<String>,
    /// `registry/repository@sha256:…` as the registry served it; empty for an image from an archive.
    pub repo_digests: Vec<String>,
    /// Of the configuration and all layers as stored.
    pub size_bytes: u64,
    pub platform: Platform,
    pub config: ImageConfig,
    pub layers: Vec<Layer>,
}

/// One line of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    pub id: Digest,
    pub repo_tags: Vec<String>,
    /// Those of its names that no registry has given: of archives, or given here.
    pub local_tags: Vec<String>,
    pub repo_digests: Vec<String>,
    pub size_bytes: u64,
}

/// The part of the configuration that says how the image is run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    #[serde(deserialize_with = "or_default")]
    pub entrypoint: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub cmd: Vec<String>,
    /// `KEY=value`.
    #[serde(deserialize_with = "or_default")]
    pub env: Vec<String>,
    /// `user`, `uid`, `user:group` or `uid:gid`; empty is root.
    #[serde(deserialize_with = "or_default")]
    pub user: String,
    #[serde(deserialize_with = "or_default")]
    pub working_dir: String,
    pub stop_signal: Option<String>,
    #[serde(deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "keys")]
    pub volumes: Vec<String>,
    #[serde(deserialize_with = "keys")]
    pub exposed_ports: Vec<String>,
}

/// The whole configuration, as far as it is read. Builders write `null` for what is empty.
#[derive(Debug, Deserialize)]
pub(crate) struct ConfigFile {
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default)]
    pub(crate) architecture: String,
    pub(crate) variant: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) config: ImageConfig,
    pub(crate) rootfs: RootFs,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RootFs {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) diff_ids: Vec<Digest>,
}

impl ConfigFile {
    pub(crate) fn parse(name: &str, bytes: &[u8]) -> Result<ConfigFile, ImageError> {
        serde_json::from_slice(bytes).map_err(|error| ImageError::BadDocument {
            what: "the configuration",
            name: name.to_owned(),
            detail: error.to_string(),
        })
    }

    /// Images from before the field existed are taken for this machine's.
    pub(crate) fn platform(&self) -> Platform {
        let here = Platform::here();
        let or = |value: &str, default: String| if value.is_empty() { default } else { value.to_owned() };
        Platform {
            os: or(&self.os, here.os),
            architecture: or(&self.architecture, here.architecture),
            variant: self.variant.clone().filter(|variant| !variant.is_empty()),
        }
    }

    /// Refuses an image for another machine.
    pub(crate) fn check_platform(&self, name: &str, wanted: &Platform) -> Result<(), ImageError> {
        let found = self.platform();
        if found.runs_on(wanted) {
            return Ok(());
        }
        Err(ImageError::WrongPlatform { name: name.to_owned(), wanted: wanted.clone(), found: vec![found] })
    }

    /// Refuses a configuration that does not fit its manifest.
    pub(crate) fn check_layers(&self, name: &str, manifest: &OciImageManifest) -> Result<(), ImageError> {
        let (have, want) = (manifest.layers.len(), self.rootfs.diff_ids.len());
        if have == want {
            return Ok(());
        }
        let detail = format!("it names {want} layers, the manifest {have}");
        Err(ImageError::BadDocument { what: "the configuration", name: name.to_owned(), detail })
    }
}

/// The entry of an index that runs on `wanted`; attestations (platform `unknown`) are never one.
pub(crate) fn select_platform<'a>(
    name: &str,
    entries: &'a [ImageIndexEntry],
    wanted: &Platform,
) -> Result<&'a ImageIndexEntry, ImageError> {
    let mut found = Vec::new();
    for entry in entries {
        let Some(platform) = &entry.platform else {
            if let [only] = entries {
                // A single entry without a platform: its configuration decides.
                return Ok(only);
            }
            continue;
        };
        let platform = Platform {
            os: platform.os.to_string(),
            architecture: platform.architecture.to_string(),
            variant: platform.variant.clone(),
        };
        if platform.runs_on(wanted) {
            return Ok(entry);
        }
        if platform.os != "unknown" {
            found.push(platform);
        }
    }
    Err(ImageError::WrongPlatform { name: name.to_owned(), wanted: wanted.clone(), found })
}

fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

fn keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let map = Option::<BTreeMap<String, serde::de::IgnoredAny>>::deserialize(deserializer)?;
    Ok(map.unwrap_or_default().into_keys().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(architecture: &str, variant: Option<&str>) -> Platform {
        Platform { os: "linux".into(), architecture: architecture.into(), variant: variant.map(str::to_owned) }
    }

    #[test]
    fn variants_decide_only_where_both_name_one() {
        assert!(platform("arm64", Some("v8")).runs_on(&platform("arm64", None)));
        assert!(platform("arm", Some("v7")).runs_on(&platform("arm", Some("v7"))));
        assert!(!platform("arm", Some("v6")).runs_on(&platform("arm", Some("v7"))));
        assert!(!platform("arm64", None).runs_on(&platform("amd64", None)));
    }

    #[test]
    fn nulls_of_old_builders_are_empty() {
        let text = br#"{"os":"linux","architecture":"amd64","created":"","config":{"Env":null,"Cmd":["sh"],"Entrypoint":null,
            "Volumes":{"/data":{}},"Labels":null,"User":null,"ExposedPorts":{"80/tcp":{}}},"rootfs":{"type":"layers","diff_ids":null}}"#;
        let config = ConfigFile::parse("x", text).unwrap();
        assert_eq!(config.config.cmd, ["sh"]);
        assert_eq!((config.config.volumes, config.config.exposed_ports), (vec!["/data".into()], vec!["80/tcp".into()]));
        assert!(config.rootfs.diff_ids.is_empty());
    }

    #[test]
    fn attestations_and_other_machines_are_not_chosen() {
        let text = r#"[
            {"mediaType":"m","digest":"a","size":1,"platform":{"os":"unknown","architecture":"unknown"}},
            {"mediaType":"m","digest":"b","size":1,"platform":{"os":"linux","architecture":"s390x"}},
            {"mediaType":"m","digest":"c","size":1,"platform":{"os":"linux","architecture":"arm64","variant":"v8"}}]"#;
        let entries: Vec<ImageIndexEntry> = serde_json::from_str(text).unwrap();
        assert_eq!(select_platform("x", &entries, &platform("arm64", None)).unwrap().digest, "c");
        let error = select_platform("x", &entries, &platform("amd64", None)).unwrap_err();
        assert_eq!(error.to_string(), "image x is for linux/s390x, linux/arm64/v8, this machine needs linux/amd64");
    }
}
