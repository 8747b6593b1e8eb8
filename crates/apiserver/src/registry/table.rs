//! The immutable table of all rows. A change makes a new table; a request uses the one it began with.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::def::{ResourceDef, Storage, VersionDef};
use crate::aggregation::{self, Priority, Remote};

/// Two rows claim one name, or a row contradicts itself.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    #[error("resource {resource} is defined twice in group {group:?}")]
    Duplicate { group: String, resource: String },
    #[error("resource {resource} stores {count} versions instead of one")]
    StoredVersions { resource: String, count: usize },
}

/// A served version of an API group with its resources in order.
#[derive(Clone)]
pub struct GroupVersion {
    pub group: String,
    pub version: String,
    pub resources: Vec<Arc<ResourceDef>>,
    /// Who serves it, if it is not this server; then `resources` is empty.
    pub remote: Option<Arc<Remote>>,
}

/// All rows, indexed.
pub struct ResourceTable {
    rows: Vec<Arc<ResourceDef>>,
    by_name: HashMap<(String, String), Arc<ResourceDef>>,
    /// Groups in order of discovery, each with its versions, the preferred first.
    groups: Vec<(String, Vec<GroupVersion>)>,
    /// Field selectors etc. of stored objects are computed by the row that owns the prefix.
    by_prefix: HashMap<String, Arc<ResourceDef>>,
    remotes: Vec<Arc<Remote>>,
}

impl ResourceTable {
    /// Builds the table. Groups are served in the order in which their first row stands.
    ///
    /// # Errors
    /// When rows contradict each other.
    pub fn new(rows: Vec<Arc<ResourceDef>>) -> Result<Self, TableError> {
        let mut by_name = HashMap::new();
        let mut by_prefix = HashMap::new();
        let mut order: Vec<String> = Vec::new();
        let mut versions: BTreeMap<(String, String), Vec<Arc<ResourceDef>>> = BTreeMap::new();
        for row in &rows {
            if by_name.insert((row.group.to_string(), row.plural.to_string()), row.clone()).is_some() {
                return Err(TableError::Duplicate { group: row.group.to_string(), resource: row.plural.to_string() });
            }
            if let Storage::Stored { prefix, .. } = &row.storage {
                let count = row.versions.iter().filter(|version| version.stored).count();
                if count > 1 {
                    return Err(TableError::StoredVersions { resource: row.qualified(), count });
                }
                by_prefix.entry(prefix.to_string()).or_insert_with(|| row.clone());
            }
            if !order.contains(&row.group.to_string()) {
                order.push(row.group.to_string());
            }
            for version in row.versions.iter().filter(|version| version.served) {
                let of_version = versions.entry((row.group.to_string(), version.name.to_string())).or_default();
                of_version.push(row.in_version(&version.name));
            }
        }
        let groups = order
            .into_iter()
            .map(|group| {
                let mut served: Vec<GroupVersion> = versions
                    .iter()
                    .filter(|((of, _), _)| *of == group)
                    .map(|((_, version), resources)| GroupVersion {
                        group: group.clone(),
                        version: version.clone(),
                        resources: resources.clone(),
                        remote: None,
                    })
                    .collect();
                served.sort_by_key(|served| Reverse(version_priority(&served.version)));
                (group, served)
            })
            .collect();
        Ok(ResourceTable { rows, by_name, groups, by_prefix, remotes: Vec::new() })
    }

    /// Adds what other servers serve, and puts groups and versions in their order: by priority, then by name or maturity.
    pub fn arranged(mut self, remotes: Vec<Arc<Remote>>, priorities: &HashMap<(String, String), Priority>) -> Self {
        for remote in &remotes {
            let served = GroupVersion {
                group: remote.group.clone(),
                version: remote.version.clone(),
                resources: Vec::new(),
                remote: Some(remote.clone()),
            };
            match self.groups.iter_mut().find(|(group, _)| *group == remote.group) {
                None => self.groups.push((remote.group.clone(), vec![served])),
                Some((_, versions)) => match versions.iter_mut().find(|own| own.version == remote.version) {
                    Some(own) => *own = served,
                    None => versions.push(served),
                },
            }
        }
        let priority = |group: &str, version: &str| {
            let said = priorities.get(&(group.to_owned(), version.to_owned()));
            said.copied().unwrap_or_else(|| aggregation::priorities::default(group, version))
        };
        for (group, versions) in &mut self.groups {
            versions.sort_by_key(|served| {
                Reverse((priority(group, &served.version).version, version_priority(&served.version)))
            });
        }
        self.groups.sort_by_cached_key(|(group, versions)| {
            let highest = versions.iter().map(|served| priority(group, &served.version).group).max();
            (Reverse(highest), group.clone())
        });
        self.remotes = remotes;
        self
    }

    /// All group versions that other servers serve.
    pub fn remotes(&self) -> &[Arc<Remote>] {
        &self.remotes
    }

    /// The server behind a path (`/apis/GROUP/VERSION…` or its OpenAPI document), if it is not this one.
    pub fn remote_of(&self, path: &str) -> Option<&Arc<Remote>> {
        if self.remotes.is_empty() {
            return None;
        }
        let mut parts = path.split('/').filter(|part| !part.is_empty());
        let mut root = parts.next()?;
        if root == "openapi" && parts.next() == Some("v3") {
            root = parts.next()?;
        }
        let (group, version) = match root {
            "apis" => (parts.next()?, parts.next()?),
            "api" => ("", parts.next()?),
            _ => return None,
        };
        self.group_version(group, version)?.remote.as_ref()
    }

    pub fn rows(&self) -> &[Arc<ResourceDef>] {
        &self.rows
    }

    /// The row of a group's plural.
    pub fn row(&self, group: &str, plural: &str) -> Option<&Arc<ResourceDef>> {
        self.by_name.get(&(group.to_owned(), plural.to_owned()))
    }

    /// The row and served version a URL names, the row as that version has it.
    pub fn resolve(&self, group: &str, version: &str, plural: &str) -> Option<(Arc<ResourceDef>, VersionDef)> {
        let row = self.row(group, plural)?;
        let version = row.version(version)?;
        Some((row.in_version(&version.name), version.clone()))
    }

    /// The row that owns a storage prefix (`core/pods`).
    pub fn by_prefix(&self, prefix: &str) -> Option<&Arc<ResourceDef>> {
        self.by_prefix.get(prefix)
    }

    /// The row of a kind, in any of its served versions.
    pub fn by_kind(&self, group: &str, kind: &str) -> Option<&Arc<ResourceDef>> {
        self.rows.iter().find(|row| row.group == group && row.kind == kind)
    }

    /// The groups in the order of discovery, the core group (empty name) included, each with its versions.
    pub fn groups(&self) -> &[(String, Vec<GroupVersion>)] {
        &self.groups
    }

    /// A group's version, if anything is served in it.
    pub fn group_version(&self, group: &str, version: &str) -> Option<&GroupVersion> {
        self.groups.iter().find(|(name, _)| name == group)?.1.iter().find(|served| served.version == version)
    }
}

/// Order of versions as upstream's: v2 before v1, v1 before v1beta2 before v1beta1 before v1alpha1, then all else.
pub fn version_priority(version: &str) -> (u8, u32, u32) {
    let Some(rest) = version.strip_prefix('v') else { return (0, 0, 0) };
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (major, suffix) = rest.split_at(digits);
    let Ok(major) = major.parse::<u32>() else { return (0, 0, 0) };
    let (stage, minor) = if suffix.is_empty() {
        (3, "0")
    } else if let Some(minor) = suffix.strip_prefix("beta") {
        (2, minor)
    } else if let Some(minor) = suffix.strip_prefix("alpha") {
        (1, minor)
    } else {
        return (0, 0, 0);
    };
    minor.parse().map_or((0, 0, 0), |minor| (stage, major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_maturity() {
        let mut versions = ["v1alpha1", "foo", "v1beta2", "v2", "v1", "v1beta10", "v11"];
        versions.sort_by_key(|version| Reverse(version_priority(version)));
        assert_eq!(versions, ["v11", "v2", "v1", "v1beta10", "v1beta2", "v1alpha1", "foo"]);
    }

    #[test]
    fn a_name_stands_once() {
        let row = || Arc::new(ResourceDef::new("", "v1", "configmaps", "ConfigMap"));
        assert!(matches!(ResourceTable::new(vec![row(), row()]), Err(TableError::Duplicate { .. })));
        let table = ResourceTable::new(vec![row()]).unwrap();
        assert!(table.resolve("", "v1", "configmaps").is_some());
        assert!(table.resolve("", "v2", "configmaps").is_none());
    }
}
