//! Security contexts of pod and container merged, as the runtime takes them.

use std::path::Path;

use k8s_openapi::api::core::v1::{Container, PodSpec, SeccompProfile};
use kminik_runtime::{Seccomp, Security, User};

/// What forbids a container to be created; the text is upstream's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum SecurityError {
    #[error("container's runAsUser breaks non-root policy (pod: \"{pod}\", container: {container})")]
    RootUser { pod: String, container: String },
    #[error("container has runAsNonRoot and image will run as root (pod: \"{pod}\", container: {container})")]
    RootImage { pod: String, container: String },
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root (pod: \"{pod}\", container: {container})"
    )]
    NamedUser { user: String, pod: String, container: String },
}

/// The user of the process; `fs_group` of the pod is among its groups.
///
/// # Errors
/// When the container must not run as root and would, or when that cannot be known.
pub(crate) fn user(spec: &PodSpec, container: &Container, image_user: &str, pod: &str) -> Result<User, SecurityError> {
    let pod_context = spec.security_context.as_ref();
    let own = container.security_context.as_ref();
    let uid = own.and_then(|c| c.run_as_user).or(pod_context.and_then(|c| c.run_as_user));
    let gid = own.and_then(|c| c.run_as_group).or(pod_context.and_then(|c| c.run_as_group));
    let non_root = own.and_then(|c| c.run_as_non_root).or(pod_context.and_then(|c| c.run_as_non_root));
    if non_root == Some(true) {
        let (pod, container) = (pod.to_string(), container.name.clone());
        let name = image_user.split(':').next().unwrap_or_default();
        match uid {
            Some(0) => return Err(SecurityError::RootUser { pod, container }),
            Some(_) => {}
            None if name.is_empty() || name.parse() == Ok(0_u32) => {
                return Err(SecurityError::RootImage { pod, container });
            }
            None if name.parse::<u32>().is_err() => {
                return Err(SecurityError::NamedUser { user: name.to_string(), pod, container });
            }
            None => {}
        }
    }
    let mut groups: Vec<u32> =
        pod_context.and_then(|c| c.supplemental_groups.as_ref()).into_iter().flatten().filter_map(|g| id(*g)).collect();
    groups.extend(pod_context.and_then(|c| c.fs_group).and_then(id));
    Ok(User {
        image_user: image_user.to_string(),
        uid: uid.and_then(id),
        gid: gid.and_then(id),
        supplemental_gids: groups,
        strict_supplemental: pod_context.and_then(|c| c.supplemental_groups_policy.as_deref()) == Some("Strict"),
    })
}

fn id(value: i64) -> Option<u32> {
    u32::try_from(value).ok()
}

/// Capabilities, privileges, seccomp. `seccomp_dir` holds Localhost profiles.
pub(crate) fn security(spec: &PodSpec, container: &Container, seccomp_dir: &Path) -> Security {
    let own = container.security_context.as_ref();
    let privileged = own.and_then(|c| c.privileged).unwrap_or(false);
    let capabilities = own.and_then(|c| c.capabilities.as_ref());
    let names = |list: Option<&Vec<String>>| -> Vec<String> {
        list.into_iter().flatten().map(|name| name.trim_start_matches("CAP_").to_ascii_uppercase()).collect()
    };
    let profile = own
        .and_then(|c| c.seccomp_profile.as_ref())
        .or(spec.security_context.as_ref().and_then(|c| c.seccomp_profile.as_ref()));
    let unmasked = own.and_then(|c| c.proc_mount.as_deref()) == Some("Unmasked");
    Security {
        privileged,
        add_capabilities: names(capabilities.and_then(|c| c.add.as_ref())),
        drop_capabilities: names(capabilities.and_then(|c| c.drop.as_ref())),
        read_only_rootfs: own.and_then(|c| c.read_only_root_filesystem).unwrap_or(false),
        no_new_privileges: own.and_then(|c| c.allow_privilege_escalation) == Some(false),
        seccomp: if privileged { Seccomp::Unconfined } else { seccomp(profile, seccomp_dir) },
        masked_paths: unmasked.then(Vec::new),
        readonly_paths: unmasked.then(Vec::new),
    }
}

/// Without a profile the container is unconfined, as upstream's default (`seccompDefault: false`).
fn seccomp(profile: Option<&SeccompProfile>, dir: &Path) -> Seccomp {
    match profile.map(|p| (p.type_.as_str(), p.localhost_profile.as_deref())) {
        Some(("RuntimeDefault", _)) => Seccomp::RuntimeDefault,
        Some(("Localhost", Some(file))) => Seccomp::Localhost(dir.join(file)),
        _ => Seccomp::Unconfined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user_of(pod: serde_json::Value, own: serde_json::Value, image: &str) -> Result<User, SecurityError> {
        let spec = serde_json::json!({"securityContext": pod, "containers": [{"name": "c", "securityContext": own}]});
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        user(&spec, &spec.containers[0], image, "p")
    }

    #[test]
    fn container_wins_over_pod() {
        let user = user_of(
            serde_json::json!({"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4]}),
            serde_json::json!({"runAsUser": 9}),
            "",
        );
        let user = user.unwrap();
        assert_eq!((user.uid, user.gid, user.supplemental_gids), (Some(9), Some(2), vec![4, 3]));
    }

    #[test]
    fn non_root_is_held() {
        let non_root = serde_json::json!({"runAsNonRoot": true});
        let none = serde_json::json!({});
        assert!(matches!(user_of(non_root.clone(), none.clone(), ""), Err(SecurityError::RootImage { .. })));
        assert!(matches!(user_of(non_root.clone(), none.clone(), "0:5"), Err(SecurityError::RootImage { .. })));
        assert!(matches!(user_of(non_root.clone(), none.clone(), "www"), Err(SecurityError::NamedUser { .. })));
        assert!(matches!(
            user_of(non_root.clone(), serde_json::json!({"runAsUser": 0}), "5"),
            Err(SecurityError::RootUser { .. })
        ));
        assert!(user_of(non_root, none, "1000").is_ok());
    }
}
