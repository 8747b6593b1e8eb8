//! One place, and whose word it is.

use serde::{Deserialize, Serialize};
use url::Url;

/// Whose word a place is; a better rank is preferred whatever its speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// The user named it.
    Chosen,
    /// A preset, or the registry itself.
    Known,
    /// What a name meant some time ago.
    Cached,
}

/// Where a place comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    Cache,
    ImageRepository,
    Argument,
    MirrorsFile,
    Preset,
    /// The registry the name means; what it says of a tag is true.
    Registry,
}

impl Source {
    pub fn rank(self) -> Rank {
        match self {
            Source::ImageRepository | Source::Argument | Source::MirrorsFile => Rank::Chosen,
            Source::Preset | Source::Registry => Rank::Known,
            Source::Cache => Rank::Cached,
        }
    }
}

/// One place to fetch a repository from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Scheme, host and port to ask.
    pub base: Url,
    /// Host as it was named, with the port where it is not the scheme's: what is on the user's loopback is asked elsewhere.
    pub host: String,
    /// The repository there.
    pub repository: String,
    pub source: Source,
    /// Do not verify its certificate.
    pub unverified: bool,
    /// Sent to mirrors as `ns`, for those that serve several registries.
    pub namespace: Option<String>,
    /// From the URL of the mirror.
    pub login: Option<(String, String)>,
    /// For a preset's: month of the last report that it worked.
    pub known: Option<String>,
}

/// One place to fetch a file from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePlace {
    /// Without user and password.
    pub url: Url,
    /// From the URL of the mirror.
    pub login: Option<(String, String)>,
    /// Do not verify its certificate.
    pub unverified: bool,
    /// [`Source::Registry`] is the file's own address.
    pub source: Source,
    /// As [`Place::known`].
    pub known: Option<String>,
}

/// A file's own address.
impl From<Url> for FilePlace {
    fn from(url: Url) -> Self {
        Self { url, login: None, unverified: false, source: Source::Registry, known: None }
    }
}

impl Place {
    pub(crate) fn rank(&self) -> Rank {
        self.source.rank()
    }

    pub(crate) fn is_upstream(&self) -> bool {
        self.source == Source::Registry
    }

    /// A host that may be insecure is asked by TLS without verification, then, as Docker does, in plain text.
    pub(crate) fn insecure(mut self) -> Vec<Place> {
        self.unverified = true;
        let mut plain = self.clone();
        let port = plain.base.port().unwrap_or(80);
        let known = plain.base.set_scheme("http").is_ok() && plain.base.set_port(Some(port)).is_ok();
        if known { vec![self, plain] } else { vec![self] }
    }

    /// How users are told of it.
    pub fn label(&self) -> String {
        if self.source == Source::Cache {
            return "this machine's cache".to_owned();
        }
        format!("{}://{}/{}", self.base.scheme(), self.host, self.repository)
    }
}

pub(super) fn host_of(base: &Url) -> String {
    let host = base.host_str().unwrap_or_default();
    match base.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}
