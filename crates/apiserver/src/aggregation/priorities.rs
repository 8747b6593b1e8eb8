//! The order of groups and of their versions: that of upstream's kube-apiserver, and of everything that registers later.

/// Where a group version stands in discovery: higher comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Priority {
    /// Of the group; the highest of its versions counts.
    pub group: i64,
    /// Of the version within its group.
    pub version: i64,
}

/// Of group versions that custom resource definitions bring.
pub(super) const CUSTOM: Priority = Priority { group: 1000, version: 100 };

/// The groups of kube-apiserver.
const GROUPS: &[(&str, i64)] = &[
    ("", 18_000),
    ("apps", 17_800),
    ("events.k8s.io", 17_750),
    ("authentication.k8s.io", 17_700),
    ("authorization.k8s.io", 17_600),
    ("autoscaling", 17_500),
    ("batch", 17_400),
    ("certificates.k8s.io", 17_300),
    ("networking.k8s.io", 17_200),
    ("policy", 17_100),
    ("rbac.authorization.k8s.io", 17_000),
    ("storage.k8s.io", 16_800),
    ("apiextensions.k8s.io", 16_700),
    ("admissionregistration.k8s.io", 16_700),
    ("scheduling.k8s.io", 16_600),
    ("coordination.k8s.io", 16_500),
    ("node.k8s.io", 16_300),
    ("discovery.k8s.io", 16_200),
    ("flowcontrol.apiserver.k8s.io", 16_100),
    ("internal.apiserver.k8s.io", 16_000),
    ("resource.k8s.io", 15_900),
    ("storagemigration.k8s.io", 15_800),
];

/// Versions whose priority is not that of their stage.
const VERSIONS: &[(&str, &str, i64)] =
    &[("", "v1", 1), ("autoscaling", "v2", 30), ("flowcontrol.apiserver.k8s.io", "v1", 21)];

/// The priority of a group version of kube-apiserver; `None` for a group that is not one of its own.
pub(super) fn of_builtin(group: &str, version: &str) -> Option<Priority> {
    let (_, priority) = GROUPS.iter().find(|(name, _)| *name == group)?;
    let special = VERSIONS.iter().find(|(of, name, _)| *of == group && *name == version);
    let stage = match version {
        stable if !stable.contains("alpha") && !stable.contains("beta") => 15,
        beta if beta.contains("beta") => 12,
        _ => 9,
    };
    Some(Priority { group: *priority, version: special.map_or(stage, |(_, _, priority)| *priority) })
}

/// The priority of a group version about which no object says anything.
pub(crate) fn default(group: &str, version: &str) -> Priority {
    // The group of the registrations themselves has none, and is the first after the core group.
    let registration = Priority { group: 20_000, version: 0 };
    if group == super::GROUP { registration } else { of_builtin(group, version).unwrap_or(CUSTOM) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_stand_as_upstream_has_them() {
        assert!(default("apps", "v1") > default("batch", "v1"));
        assert!(default("autoscaling", "v2") > default("autoscaling", "v1"));
        assert!(default("batch", "v1") > default("example.com", "v1"));
        assert_eq!(of_builtin("example.com", "v1"), None);
        assert_eq!(of_builtin("", "v1"), Some(Priority { group: 18_000, version: 1 }));
    }
}
