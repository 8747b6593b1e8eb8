//! Container images: a registry client over ordered mirrors, and a content-addressed store on disk.
//!
//! It owns one directory (see [`layout`]): an OCI image layout with partial downloads and what is remembered of each
//! registry beside it. Several processes may use the directory at once.
//!
//! [`ImageStore`] is the whole of it: pull, push, import, list, get, tag, remove, export. Where a pull asks is decided by
//! [`mirrors::Resolver`], a pure table of places made from presets, `mirrors.toml` and arguments. [`serve`] offers a store to
//! others over HTTP, [`transfer`] brings to such a store what it lacks.
//!
//! **Invariant:** no byte enters `blobs/` before its digest has been checked.
//! **Invariant:** a name in the index leads to an image that is complete, also after a power cut.
//! **Invariant:** credentials for one registry are never sent to another host.
//! **Invariant:** knows nothing of what runs the images.

mod archive;
mod cache_server;
pub mod credentials;
mod digest;
mod error;
mod image;
pub mod layout;
mod listen;
pub mod mirrors;
mod progress;
mod reference;
mod remote;
mod room;
pub mod serve;
mod store;
pub mod transfer;

pub use archive::{Attached, Outgoing};
pub use cache_server::serve_cache;
pub use digest::{Digest, Hasher};
pub use error::{Attempt, ImageError};
pub use image::{Compression, Image, ImageConfig, Layer, Platform, Summary};
pub use listen::listen;
pub use mirrors::{HostLoopback, MirrorArgument, ResolverConfig};
pub use progress::{NoProgress, Progress};
pub use reference::{ImageName, Query};
pub use remote::{Credential, Experience, Files, Limit, Probe, Timeouts};
pub use room::{Room, Usage};
pub use store::ImageStore;
