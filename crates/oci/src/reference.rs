//! Image names, normalised as Docker does: `nginx` is `docker.io/library/nginx:latest`.

use std::fmt;
use std::str::FromStr;

use oci_client::Reference;

use crate::{Digest, ImageError};

/// A normalised name: registry, repository, and a tag, a digest, or both.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImageName(Reference);

impl ImageName {
    /// Host, with its port if it has one, e.g. `docker.io`.
    pub fn registry(&self) -> &str {
        self.0.registry()
    }

    /// E.g. `library/nginx`.
    pub fn repository(&self) -> &str {
        self.0.repository()
    }

    pub fn tag(&self) -> Option<&str> {
        self.0.tag()
    }

    /// Checked when the name was parsed.
    pub fn digest(&self) -> Option<Digest> {
        self.0.digest().and_then(|digest| digest.parse().ok())
    }

    /// `registry/repository:tag`, without a digest; `None` if it has no tag.
    pub fn tagged(&self) -> Option<String> {
        self.tag().map(|tag| format!("{}/{}:{tag}", self.registry(), self.repository()))
    }

    /// `registry/repository@digest`.
    pub fn with_digest(&self, digest: &Digest) -> String {
        format!("{}/{}@{digest}", self.registry(), self.repository())
    }
}

impl FromStr for ImageName {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<ImageName, ImageError> {
        let invalid = |detail: String| ImageError::InvalidName { name: text.to_owned(), detail };
        let reference: Reference = text.parse().map_err(|error| invalid(format!("{error}")))?;
        if let Some(digest) = reference.digest() {
            digest.parse::<Digest>().map_err(|error| invalid(error.to_string()))?;
        }
        Ok(ImageName(reference))
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.whole())
    }
}

/// How a stored image is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    Name(ImageName),
    /// Its whole id, or the first digits (12 at least) of it.
    Id(String),
}

/// Fewest digits of an abbreviated id; fewer are taken for a name.
const MIN_ID_DIGITS: usize = 12;

impl FromStr for Query {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Query, ImageError> {
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let is_hex = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if is_hex && (MIN_ID_DIGITS..=64).contains(&digits.len()) {
            return Ok(Query::Id(digits.to_owned()));
        }
        text.parse().map(Query::Name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dockers() {
        for (text, wanted) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
            ("anjone/kicbase", "docker.io/anjone/kicbase:latest"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/x/y:z", "localhost:5000/x/y:z"),
            ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
        ] {
            assert_eq!(text.parse::<ImageName>().unwrap().to_string(), wanted);
        }
    }

    #[test]
    fn a_digest_replaces_the_default_tag() {
        let digest = Digest::of(b"x");
        let name: ImageName = format!("nginx@{digest}").parse().unwrap();
        assert_eq!((name.tag(), name.digest()), (None, Some(digest.clone())));
        let both: ImageName = format!("nginx:1@{digest}").parse().unwrap();
        assert_eq!((both.tag(), both.digest()), (Some("1"), Some(digest)));
    }

    #[test]
    fn bad_names_are_refused() {
        for bad in ["", "Nginx", "a b", "nginx:", "nginx@sha256:12", "../x", "x@md5:d41d8cd98f00b204e9800998ecf8427e"] {
            assert!(matches!(bad.parse::<ImageName>(), Err(ImageError::InvalidName { .. })), "{bad}");
        }
    }

    #[test]
    fn ids_are_told_from_names() {
        assert!(matches!("0123456789ab".parse(), Ok(Query::Id(digits)) if digits == "0123456789ab"));
        assert!(matches!("abc123".parse(), Ok(Query::Name(_))));
        let id = Digest::of(b"x");
        assert!(matches!(id.as_str().parse(), Ok(Query::Id(digits)) if digits == id.hex()));
    }
}
