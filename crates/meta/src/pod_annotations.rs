//! Names of annotations that mean something for a pod.
//!
//! Source: upstream's `core/annotation_key_constants.go`.

/// Of a mirror pod, which stands for one that a kubelet runs by itself.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
/// The old name of a pod's seccomp profile.
pub const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
/// The old name of a container's seccomp profile, before the container's name.
pub const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
/// The old name of a container's AppArmor profile, before the container's name.
pub const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
