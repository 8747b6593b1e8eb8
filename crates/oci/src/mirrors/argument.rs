//! One mirror as users write it: `https://host[:port][/path]`, or `registry=https://…`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use url::Url;

/// The registry of a mirror that names none, as with Docker's own option.
const DEFAULT_REGISTRY: &str = "docker.io";
/// `*=https://…` serves every registry.
pub(super) const EVERY_REGISTRY: &str = "*";

/// A mirror of one registry (`docker.io` unless it names another), or with `*=` of all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MirrorArgument {
    registry: String,
    url: Url,
    /// The path with its placeholders, without slashes at its ends.
    path: String,
}

#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum MirrorError {
    #[error("mirror {0:?} is not a URL like https://mirror.example or docker.io=https://mirror.example/path")]
    NotAUrl(String),
    #[error("mirror {0:?} begins with neither http:// nor https://")]
    Scheme(String),
    #[error("mirror {0:?} has a query or fragment")]
    Query(String),
    #[error(
        "mirror {mirror:?} has the unknown placeholder {placeholder:?}, known are {{repository}}, {{name}}, {{registry}}"
    )]
    Placeholder { mirror: String, placeholder: String },
}

impl MirrorArgument {
    /// # Errors
    /// See [`MirrorError`].
    pub fn parse(text: &str) -> Result<MirrorArgument, MirrorError> {
        let (registry, address) = match text.split_once('=') {
            Some((registry, address)) if !registry.contains('/') => (registry, address),
            _ => (DEFAULT_REGISTRY, text),
        };
        let url = Url::parse(address).map_err(|_| MirrorError::NotAUrl(text.to_owned()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(MirrorError::Scheme(text.to_owned()));
        }
        if url.host_str().is_none_or(str::is_empty) || registry.is_empty() {
            return Err(MirrorError::NotAUrl(text.to_owned()));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(MirrorError::Query(text.to_owned()));
        }
        let path = url.path().replace("%7B", "{").replace("%7D", "}");
        // Registries are asked under /v2/, which some write into the address.
        let path = path.trim_matches('/');
        let path = path.strip_prefix("v2/").unwrap_or(if path == "v2" { "" } else { path }).to_owned();
        let mut rest = path.as_str();
        while let Some(start) = rest.find('{') {
            let tail = rest.get(start..).unwrap_or_default();
            let end = tail.find('}').map_or(tail.len(), |end| end + 1);
            let placeholder = tail.get(..end).unwrap_or_default();
            if !matches!(placeholder, "{repository}" | "{name}" | "{registry}") {
                return Err(MirrorError::Placeholder { mirror: text.to_owned(), placeholder: placeholder.to_owned() });
            }
            rest = tail.get(end..).unwrap_or_default();
        }
        Ok(MirrorArgument { registry: registry.to_owned(), url, path })
    }

    /// The registry whose images it serves; `*` is every one.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Its URL, as `mirrors.toml` has it.
    pub fn address(&self) -> String {
        let address = self.url.as_str().replace("%7B", "{").replace("%7D", "}");
        address.trim_end_matches('/').to_owned()
    }

    /// [`MirrorArgument::address`] without a password.
    pub fn shown(&self) -> String {
        let mut shown = self.clone();
        if shown.url.password().is_some() {
            // It has a host, so it can have a password.
            let _ = shown.url.set_password(Some("***"));
        }
        shown.address()
    }

    /// Whether images of this registry are asked of it.
    pub(super) fn serves(&self, registry: &str) -> bool {
        self.registry == registry || self.registry == EVERY_REGISTRY
    }

    /// Scheme, host and port alone.
    pub(super) fn base(&self) -> Url {
        let mut base = self.url.clone();
        base.set_path("");
        // Neither fails for a URL that has a host.
        let _ = base.set_username("");
        let _ = base.set_password(None);
        base
    }

    /// User and password of the URL.
    pub(super) fn login(&self) -> Option<(String, String)> {
        let user = self.url.username();
        (!user.is_empty()).then(|| (user.to_owned(), self.url.password().unwrap_or_default().to_owned()))
    }

    /// The repository as it is called there.
    pub(super) fn repository(&self, registry: &str, repository: &str) -> String {
        if self.path.is_empty() {
            return repository.to_owned();
        }
        if !self.path.contains("{repository}") && !self.path.contains("{name}") {
            let prefix = self.path.replace("{registry}", registry);
            return format!("{prefix}/{repository}");
        }
        let name = repository.rsplit('/').next().unwrap_or(repository);
        self.path.replace("{registry}", registry).replace("{repository}", repository).replace("{name}", name)
    }
}

impl FromStr for MirrorArgument {
    type Err = MirrorError;

    fn from_str(text: &str) -> Result<MirrorArgument, MirrorError> {
        MirrorArgument::parse(text)
    }
}

impl TryFrom<String> for MirrorArgument {
    type Error = MirrorError;

    fn try_from(text: String) -> Result<MirrorArgument, MirrorError> {
        MirrorArgument::parse(&text)
    }
}

impl From<MirrorArgument> for String {
    fn from(mirror: MirrorArgument) -> String {
        mirror.to_string()
    }
}

impl fmt::Display for MirrorArgument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.registry, self.address())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(mirror: &str, repository: &str) -> String {
        let mirror = MirrorArgument::parse(mirror).unwrap();
        format!("{} {}", mirror.base(), mirror.repository("quay.io", repository))
    }

    #[test]
    fn paths_are_rewritten() {
        assert_eq!(rewritten("https://m.example", "a/b"), "https://m.example/ a/b");
        assert_eq!(rewritten("https://m.example/", "a/b"), "https://m.example/ a/b");
        assert_eq!(rewritten("https://m.example/v2/", "a/b"), "https://m.example/ a/b");
        assert_eq!(rewritten("https://m.example/p/q/", "a/b"), "https://m.example/ p/q/a/b");
        assert_eq!(rewritten("http://m.example:81/x/{name}", "a/b"), "http://m.example:81/ x/b");
        assert_eq!(rewritten("https://m.example/{registry}", "a/b"), "https://m.example/ quay.io/a/b");
        assert_eq!(rewritten("https://m.example/{registry}/{repository}", "a/b"), "https://m.example/ quay.io/a/b");
    }

    #[test]
    fn a_login_is_taken_out_of_the_address() {
        let mirror = MirrorArgument::parse("docker.io=https://me:secret@m.example").unwrap();
        assert_eq!(mirror.login(), Some(("me".into(), "secret".into())));
        assert_eq!(mirror.base().as_str(), "https://m.example/");
        assert_eq!(mirror.shown(), "https://me:***@m.example");
    }

    #[test]
    fn text_round_trips() {
        for text in ["quay.io=https://m.example/x/{name}", "docker.io=http://m.example:5000", "*=https://m.example"] {
            assert_eq!(MirrorArgument::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_mirror_is_refused() {
        assert!(matches!(MirrorArgument::parse("mirror.example"), Err(MirrorError::NotAUrl(_))));
        assert!(matches!(MirrorArgument::parse("…"), Err(MirrorError::NotAUrl(_))));
        assert!(matches!(MirrorArgument::parse("ftp://mirror.example"), Err(MirrorError::Scheme(_))));
        assert!(matches!(MirrorArgument::parse("https://m.example?x=1"), Err(MirrorError::Query(_))));
        assert!(matches!(MirrorArgument::parse("https://m.example/{tag}"), Err(MirrorError::Placeholder { .. })));
    }
}
