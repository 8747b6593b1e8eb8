//! What a path of the API names, parsed: only what is parsed becomes part of a file's name.

use kminik_oci::Digest;

use crate::error::RegistryError;

/// Longest name of a repository; of a tag it is 128 by the specification.
const MAX_REPOSITORY: usize = 255;
const MAX_TAG: usize = 128;

/// `[a-z0-9]+` with single separators, in parts between slashes. No part begins with what is not a letter or digit, so none is
/// one of the registry's own names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Repository(String);

impl Repository {
    pub(crate) fn parse(text: &str) -> Result<Self, RegistryError> {
        let valid = text.len() <= MAX_REPOSITORY && text.split('/').all(is_part);
        if valid { Ok(Self(text.to_owned())) } else { Err(RegistryError::InvalidName(text.to_owned())) }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_part(part: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = part.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !word(*first) || !word(*last) {
        return false;
    }
    // Between words: one dot, one or two underscores, any number of dashes.
    let separators = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    separators.filter(|s| !s.is_empty()).all(|s| matches!(s, "." | "_" | "__") || s.bytes().all(|b| b == b'-'))
}

/// How a manifest is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reference {
    Tag(String),
    Digest(Digest),
}

impl Reference {
    pub(crate) fn parse(text: &str) -> Result<Self, RegistryError> {
        if text.contains(':') {
            return digest(text).map(Reference::Digest);
        }
        let start = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let rest = |byte: u8| start(byte) || byte == b'.' || byte == b'-';
        let valid = text.len() <= MAX_TAG && text.bytes().next().is_some_and(start) && text.bytes().all(rest);
        if valid { Ok(Reference::Tag(text.to_owned())) } else { Err(RegistryError::InvalidTag(text.to_owned())) }
    }
}

pub(crate) fn digest(text: &str) -> Result<Digest, RegistryError> {
    text.parse().map_err(|_| RegistryError::InvalidDigest(format!("{text:?} is not a sha256 digest")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories() {
        for good in ["a", "nginx", "a/b/c", "a.b_c__d-e---f", "0/1", "library/nginx"] {
            assert!(Repository::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "", "/", "a/", "/a", "a//b", "A", "..", "a/../b", "_tags", "a/_blobs", "a..b", "a___b", "-a", "a-", "a b",
            "ä",
        ] {
            assert!(Repository::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn references() {
        for good in ["latest", "v1.2-x", "_a", "A"] {
            assert!(matches!(Reference::parse(good), Ok(Reference::Tag(_))), "{good}");
        }
        for bad in ["", ".a", "-a", "a/b", "a b", "sha256:12", "sha512:12", &"x".repeat(129)] {
            assert!(Reference::parse(bad).is_err(), "{bad}");
        }
    }
}
