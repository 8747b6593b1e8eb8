//! Names of API types: group and version, kind, resource.

use std::fmt;

/// An API group and version; the core group is the empty string.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersion {
    /// API group, `""` for the core group.
    pub group: String,
    /// Version within the group, such as `v1`.
    pub version: String,
}

impl GroupVersion {
    /// Joins a group and a version.
    pub fn new(group: impl Into<String>, version: impl Into<String>) -> Self {
        Self { group: group.into(), version: version.into() }
    }

    /// Parses an `apiVersion` value: `v1` or `apps/v1`. `None` when it holds more than one slash or is empty.
    pub fn parse(api_version: &str) -> Option<Self> {
        match api_version.split_once('/') {
            None if api_version.is_empty() => None,
            None => Some(Self::new("", api_version)),
            Some((group, version)) if !version.is_empty() && !version.contains('/') => Some(Self::new(group, version)),
            Some(_) => None,
        }
    }

    /// Adds a kind.
    pub fn kind(&self, kind: impl Into<String>) -> Gvk {
        Gvk::new(&self.group, &self.version, kind)
    }
}

impl fmt::Display for GroupVersion {
    /// Writes the `apiVersion` form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() { f.write_str(&self.version) } else { write!(f, "{}/{}", self.group, self.version) }
    }
}

/// Group, version and kind of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gvk {
    /// API group, `""` for the core group.
    pub group: String,
    /// Version within the group.
    pub version: String,
    /// Kind, such as `Pod`.
    pub kind: String,
}

impl Gvk {
    /// Joins group, version and kind.
    pub fn new(group: impl Into<String>, version: impl Into<String>, kind: impl Into<String>) -> Self {
        Self { group: group.into(), version: version.into(), kind: kind.into() }
    }

    /// The value of `apiVersion`: `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        self.group_version().to_string()
    }

    /// The group and version part.
    pub fn group_version(&self) -> GroupVersion {
        GroupVersion::new(&self.group, &self.version)
    }

    /// `Deployment.apps`, or `Pod` in the core group: how messages name a kind.
    pub fn qualified_kind(&self) -> String {
        qualified(&self.kind, &self.group)
    }
}

impl fmt::Display for Gvk {
    /// Writes upstream's `group/version, Kind=kind`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}, Kind={}", self.group, self.version, self.kind)
    }
}

/// Group, version and plural resource name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gvr {
    /// API group, `""` for the core group.
    pub group: String,
    /// Version within the group.
    pub version: String,
    /// Plural lower-case resource name, such as `pods`.
    pub resource: String,
}

impl Gvr {
    /// Joins group, version and resource.
    pub fn new(group: impl Into<String>, version: impl Into<String>, resource: impl Into<String>) -> Self {
        Self { group: group.into(), version: version.into(), resource: resource.into() }
    }

    /// The group and version part.
    pub fn group_version(&self) -> GroupVersion {
        GroupVersion::new(&self.group, &self.version)
    }

    /// `deployments.apps`, or `pods` in the core group: how messages name a resource.
    pub fn qualified_resource(&self) -> String {
        qualified(&self.resource, &self.group)
    }
}

impl fmt::Display for Gvr {
    /// Writes upstream's `group/version, Resource=resource`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}, Resource={}", self.group, self.version, self.resource)
    }
}

/// `name.group`, or `name` alone in the core group.
pub(crate) fn qualified(name: &str, group: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_versions_parse_and_print() {
        assert_eq!(GroupVersion::parse("v1"), Some(GroupVersion::new("", "v1")));
        assert_eq!(GroupVersion::parse("apps/v1").unwrap().to_string(), "apps/v1");
        assert_eq!(GroupVersion::parse("a/b/c"), None);
        assert_eq!(GroupVersion::parse(""), None);
        assert_eq!(Gvk::new("apps", "v1", "Deployment").qualified_kind(), "Deployment.apps");
        assert_eq!(Gvk::new("", "v1", "Pod").to_string(), "/v1, Kind=Pod");
    }
}
