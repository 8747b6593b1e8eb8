//! API aggregation: group versions that extension servers in the cluster serve, behind this server's door.
//!
//! An APIService names a group version and the Service that serves it. It becomes a [`Remote`] of the table; requests below
//! its path are authenticated and authorised here and then passed on under this server's front-proxy certificate, which
//! says in headers who asks. What this server serves itself has an APIService too, made by [`local`].
//!
//! ```text
//!  APIService ──► source ──► Remote in the table ──► proxy (requests), discovery, OpenAPI
//!      ▲                        │
//!      └── condition ◄── availability (checks, and the documents that discovery and OpenAPI merge)
//! ```
//!
//! **Invariant:** a client's own credentials and claims about identity never reach an extension server.

pub(crate) mod availability;
mod convert;
pub(crate) mod local;
pub(crate) mod merge;
pub(crate) mod priorities;
pub(crate) mod proxy;
mod source;

use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::Value;

pub use self::priorities::Priority;
pub use self::source::ApiServiceSource;
pub(crate) use self::source::is_available;
use crate::outbound::Peer;

/// API group of the objects.
pub const GROUP: &str = "apiregistration.k8s.io";
/// Plural of the objects.
pub const PLURAL: &str = "apiservices";
/// Storage prefix of the objects.
pub const STORED: &str = "apiregistration.k8s.io/apiservices";

/// A group version that another server serves.
#[derive(Debug)]
pub struct Remote {
    /// Of the APIService: `<version>.<group>`.
    pub name: String,
    pub group: String,
    pub version: String,
    /// Its server.
    pub peer: Peer,
    /// Whether the last check of its server passed.
    pub available: bool,
    /// What its server last said of itself.
    pub documents: Arc<Documents>,
}

/// What an extension server says of itself, kept while it cannot be asked.
#[derive(Debug, Default)]
pub struct Documents(ArcSwap<Fetched>);

/// One state of [`Documents`].
#[derive(Clone, Debug, Default)]
pub struct Fetched {
    /// The resources as aggregated discovery lists them.
    pub resources: Arc<Vec<Value>>,
    /// Whether the server answered when it was last asked.
    pub fresh: bool,
    /// Hash of the OpenAPI v3 document; empty if the server has none.
    pub openapi_v3: String,
    /// The OpenAPI v2 document with its hash, if the server has one.
    pub openapi_v2: Option<(String, Arc<Value>)>,
}

impl Documents {
    pub fn get(&self) -> Arc<Fetched> {
        self.0.load_full()
    }

    fn set(&self, fetched: Fetched) {
        self.0.store(Arc::new(fetched));
    }
}
