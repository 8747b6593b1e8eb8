//! What `addon.toml` says, the same for those of the binary and those of the user.

use std::collections::BTreeMap;

use serde::Deserialize;

/// When an addon is there without a word of the user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Install {
    /// In every cluster; it may be disabled afterwards.
    Always,
    /// In clusters that are not made with `--install-addons=false`.
    Default,
    /// When it is enabled.
    #[default]
    Asked,
}

/// One row: the text of an `addon.toml`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// What it is, in a line.
    pub title: String,
    /// Who answers for it.
    #[serde(default)]
    pub maintainer: String,
    /// Where to read about it.
    #[serde(default)]
    pub docs: String,
    #[serde(default)]
    pub install: Install,
    /// Name for `--images` and `--registries` → reference, as it stands in the manifests.
    #[serde(default)]
    pub images: BTreeMap<String, String>,
    /// Name of an image → the reference to use in place of that of the manifests, unless the user wants another.
    #[serde(default)]
    pub pins: BTreeMap<String, String>,
    /// Manifests that somebody publishes, beside those of the folder.
    #[serde(default)]
    pub published: Vec<Published>,
    /// What `addons configure` changes; in manifests `{{setting.NAME}}`.
    #[serde(default)]
    pub settings: BTreeMap<String, Setting>,
    /// Makes it an image registry of the user's.
    #[serde(default)]
    pub registry: Option<RegistryEndpoint>,
    /// The Service that `addons open` shows.
    #[serde(default)]
    pub open: Option<Endpoint>,
}

/// A manifest that is fetched.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// Of what it installs.
    pub version: String,
    /// The first is the publisher's, the others serve the same bytes.
    pub urls: Vec<String>,
    /// Of its bytes. Without it the digest of what the publisher serves at the first time holds from then on.
    #[serde(default)]
    pub sha256: Option<String>,
}

/// One thing that can be set.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// What it is, as the user is asked for it.
    pub title: String,
    pub default: String,
    #[serde(default)]
    pub kind: Kind,
}

/// What may be the value of a setting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One line.
    #[default]
    Text,
    /// 1 to 65535.
    Port,
    /// `24h`, `90m`; `0` is never.
    Duration,
}

/// A registry that a port of the user's loopback leads to, and that nodes pull `localhost:<port>/…` from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistryEndpoint {
    /// The setting that is the port.
    pub setting: String,
    pub namespace: String,
    /// With a node port, and `{{registryAddress}}` as its address.
    pub service: String,
    /// Of the Service's ports.
    pub port: u16,
}

/// A Service to be opened in a browser.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    pub namespace: String,
    pub service: String,
    /// Of the Service's ports; the first if it is not named.
    #[serde(default)]
    pub port: Option<String>,
    #[serde(default)]
    pub https: bool,
}

impl Kind {
    /// What the value has to be, if it is not that.
    pub fn check(self, value: &str) -> Result<(), &'static str> {
        let (fits, wanted) = match self {
            Kind::Text => (!value.chars().any(char::is_control), "one line of text"),
            Kind::Port => (value.parse::<u16>().is_ok_and(|port| port > 0), "a port, 1 to 65535"),
            Kind::Duration => {
                (value == "0" || crate::ops::units::duration(value).is_ok(), "a duration like 90m or 24h, 0 for never")
            }
        };
        if fits { Ok(()) } else { Err(wanted) }
    }
}
