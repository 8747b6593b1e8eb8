//! The two versions: kminik's own and that of the Kubernetes it serves.

use crate::reason::{Failure, K8S_VERSION_UNAVAILABLE, Outcome};

pub const KMINIK: &str = env!("CARGO_PKG_VERSION");
/// As the API reports it, without the build's suffix.
pub const KUBERNETES: &str = "v1.35.0";

/// Checks a requested version: `stable`, `latest`, `v1.35`, `v1.35.N` with or without `v` are the one served.
///
/// # Errors
/// `K8S_VERSION_UNAVAILABLE` for any other, with the command that works.
pub fn check(requested: &str, command: &str) -> Outcome<()> {
    let wanted = requested.trim().trim_start_matches('v');
    let served = KUBERNETES.trim_start_matches('v');
    let minor = served.rsplit_once('.').map_or(served, |(minor, _)| minor);
    let patch_of_minor =
        wanted.strip_prefix(minor).and_then(|rest| rest.strip_prefix('.')).is_some_and(|n| n.parse::<u16>().is_ok());
    if matches!(wanted, "" | "stable" | "latest") || wanted == minor || patch_of_minor {
        return Ok(());
    }
    Err(Failure::new(
        &K8S_VERSION_UNAVAILABLE,
        format!("Kubernetes {requested} is not available: this kminik serves {KUBERNETES}"),
    )
    .advise(format!("Run: {command} --kubernetes-version={KUBERNETES}   (or --force to go on with {KUBERNETES})")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_served() {
        for good in ["stable", "latest", "v1.35", "1.35", "v1.35.0", "1.35.7"] {
            assert!(check(good, "kminik start").is_ok(), "{good}");
        }
        for bad in ["v1.23.8", "1.36", "v1.350", "1.35.x", "1.3", "newest"] {
            assert_eq!(check(bad, "kminik start").unwrap_err().reason.id, "K8S_VERSION_UNAVAILABLE", "{bad}");
        }
    }
}
