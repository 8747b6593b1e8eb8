//! Kernel parameters of the calling thread's network namespace.

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum SysctlError {
    #[error("kernel parameter {key} cannot be read")]
    Read {
        key: String,
        #[source]
        source: std::io::Error,
    },
    #[error("kernel parameter {key} cannot be set to {value}")]
    Write {
        key: String,
        value: String,
        #[source]
        source: std::io::Error,
    },
}

/// Reads `net/ipv4/ip_forward` and the like: slashes, for a link's name may hold dots.
pub(crate) fn get(key: &str) -> Result<String, SysctlError> {
    std::fs::read_to_string(path(key))
        .map(|value| value.trim().to_owned())
        .map_err(|source| SysctlError::Read { key: key.to_owned(), source })
}

/// Writes unless the value is there already, so that a read-only /proc/sys with the right values does.
pub(crate) fn set(key: &str, value: &str) -> Result<(), SysctlError> {
    if get(key).is_ok_and(|current| current == value) {
        return Ok(());
    }
    std::fs::write(path(key), value).map_err(|source| SysctlError::Write {
        key: key.to_owned(),
        value: value.to_owned(),
        source,
    })
}

fn path(key: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(key)
}
