//! Why a request is refused, with the codes of the specification.

use std::io;

use http::StatusCode;
use kminik_oci::Digest;

/// A request that is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistryError {
    #[error("{0:?} is no name for a repository")]
    InvalidName(String),
    #[error("{0:?} is no tag")]
    InvalidTag(String),
    #[error("{0}")]
    InvalidDigest(String),
    #[error("{0}")]
    InvalidManifest(String),
    #[error("the manifest needs {0}, which the repository does not have")]
    MissingPart(Digest),
    #[error("there is no repository {0:?}")]
    UnknownRepository(String),
    #[error("there is no manifest {0}")]
    UnknownManifest(String),
    #[error("there is no blob {0}")]
    UnknownBlob(Digest),
    #[error("there is no upload of this name")]
    UnknownUpload,
    /// A piece that does not begin where the upload has come to.
    #[error("the upload is at byte {at}")]
    OutOfOrder { at: u64 },
    #[error("{0}")]
    InvalidUpload(String),
    #[error("it is larger than {limit_bytes} bytes")]
    TooLarge { limit_bytes: u64 },
    #[error("too many uploads are open")]
    TooMany,
    #[error("the blob has {size} bytes")]
    Range { size: u64 },
    #[error("the registry does not do this")]
    Unsupported,
    #[error("404 page not found")]
    NoSuchPage,
    #[error("the client has sent nothing for too long")]
    Stalled,
    /// The client's connection broke.
    #[error("the body broke off")]
    Broken,
    #[error("the disk is full")]
    NoSpace,
    #[error("the registry's disk does not work")]
    Io(#[source] io::Error),
}

impl From<io::Error> for RegistryError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace,
            _ => Self::Io(error),
        }
    }
}

impl From<kminik_base::atomic_file::FileError> for RegistryError {
    fn from(error: kminik_base::atomic_file::FileError) -> Self {
        error.source.into()
    }
}

impl RegistryError {
    /// Status and code of the answer.
    pub(crate) fn answer(&self) -> (StatusCode, &'static str) {
        match self {
            Self::InvalidName(_) => (StatusCode::BAD_REQUEST, "NAME_INVALID"),
            Self::InvalidTag(_) => (StatusCode::BAD_REQUEST, "TAG_INVALID"),
            Self::InvalidDigest(_) => (StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
            Self::InvalidManifest(_) => (StatusCode::BAD_REQUEST, "MANIFEST_INVALID"),
            Self::MissingPart(_) => (StatusCode::NOT_FOUND, "MANIFEST_BLOB_UNKNOWN"),
            Self::UnknownRepository(_) => (StatusCode::NOT_FOUND, "NAME_UNKNOWN"),
            Self::UnknownManifest(_) => (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
            Self::UnknownBlob(_) => (StatusCode::NOT_FOUND, "BLOB_UNKNOWN"),
            Self::UnknownUpload => (StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN"),
            Self::OutOfOrder { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID"),
            Self::InvalidUpload(_) => (StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID"),
            Self::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID"),
            Self::TooMany => (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS"),
            Self::Range { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UNKNOWN"),
            Self::Unsupported => (StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
            Self::NoSuchPage => (StatusCode::NOT_FOUND, "UNSUPPORTED"),
            Self::Stalled => (StatusCode::REQUEST_TIMEOUT, "BLOB_UPLOAD_INVALID"),
            Self::Broken => (StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID"),
            Self::NoSpace => (StatusCode::INSUFFICIENT_STORAGE, "UNKNOWN"),
            Self::Io(_) => (StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN"),
        }
    }
}
