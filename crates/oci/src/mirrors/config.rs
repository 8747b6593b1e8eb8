//! The resolver's inputs.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{HostLoopback, MirrorArgument};

/// What decides where a pull asks. Can be handed to another process as JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResolverConfig {
    /// A country of the presets; `None` asks the registries themselves.
    pub country: Option<String>,
    /// The text of a list of mirrors by country that replaces the built-in one.
    pub presets_toml: Option<String>,
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
    /// A cache of the machine's that is asked for everything first; what it lacks comes from elsewhere.
    pub cache: Option<CacheAddress>,
    pub timeouts: crate::Timeouts,
}

/// A cache, and how it knows that it is asked by those it serves.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct CacheAddress {
    pub address: SocketAddr,
    pub token: String,
}

impl std::fmt::Debug for CacheAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The token is a secret.
        write!(f, "CacheAddress({})", self.address)
    }
}

/// The user that a cache is asked as.
pub const CACHE_USER: &str = "kminik";
