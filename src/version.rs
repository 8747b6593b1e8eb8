//! The two versions: kminik's own and that of the Kubernetes it serves.

use crate::reason::{Failure, K8S_VERSION_UNAVAILABLE, MK_PROFILE_NEWER, Outcome};

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

/// Refuses to start what a newer kminik has started: its node may have written what this one cannot read.
///
/// # Errors
/// `MK_PROFILE_NEWER`, naming both versions.
pub fn check_downgrade(started_by: &str, profile: &str) -> Outcome<()> {
    if numbers(started_by) <= numbers(KMINIK) {
        return Ok(());
    }
    let message = format!("the cluster {profile:?} was started by kminik {started_by}, this is {KMINIK}");
    Err(Failure::new(&MK_PROFILE_NEWER, message))
}

/// What is no version is none.
fn numbers(version: &str) -> Option<(u32, u32, u32)> {
    let mut parts = version.split('-').next()?.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??, parts.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_one_s_cluster_is_refused() {
        for older in ["", KMINIK, "0.0.9", "nonsense"] {
            assert!(check_downgrade(older, "x").is_ok(), "{older}");
        }
        for newer in ["99.0.0", "0.10000.0", "0.1.9999-rc1"] {
            assert_eq!(check_downgrade(newer, "x").unwrap_err().reason.id, "MK_PROFILE_NEWER", "{newer}");
        }
    }

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
