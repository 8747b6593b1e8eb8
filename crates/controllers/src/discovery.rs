//! Which resources the API serves, for the controllers that walk over all of them.

use std::collections::BTreeSet;

use kube::core::discovery::{ApiResource, v2, verbs};

use crate::error::Error;

/// A resource, in the first of its group's versions that has it.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub(crate) resource: ApiResource,
    pub(crate) namespaced: bool,
    /// Every version of its group that has it.
    pub(crate) versions: BTreeSet<String>,
    verbs: Vec<String>,
}

impl Served {
    /// A resource of the core group for tests.
    #[cfg(test)]
    pub(crate) fn test(plural: &str, namespaced: bool) -> Self {
        let resource = ApiResource {
            group: String::new(),
            version: "v1".into(),
            api_version: "v1".into(),
            kind: plural.into(),
            plural: plural.into(),
        };
        Self { resource, namespaced, versions: BTreeSet::new(), verbs: Vec::new() }
    }

    pub(crate) fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|own| own == verb)
    }

    /// `pods`, or `deployments.apps`.
    pub(crate) fn name(&self) -> String {
        match self.resource.group.as_str() {
            "" => self.resource.plural.clone(),
            group => format!("{}.{group}", self.resource.plural),
        }
    }

    /// The path of its collection, in a namespace if it is namespaced.
    pub(crate) fn path(&self, namespace: &str) -> String {
        let ApiResource { group, version, plural, .. } = &self.resource;
        let root = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
        if self.namespaced { format!("{root}/namespaces/{namespace}/{plural}") } else { format!("{root}/{plural}") }
    }
}

/// What the API says it serves.
#[derive(Debug, Default)]
pub(crate) struct Discovered {
    /// All resources that can be listed and deleted.
    pub(crate) served: Vec<Served>,
    /// Versions of groups, as `metrics.k8s.io/v1beta1`, whose server does not answer: what they hold is not known.
    pub(crate) stale: BTreeSet<String>,
}

impl Discovered {
    fn add(&mut self, group: v2::APIGroupDiscovery) {
        let name = group.metadata.and_then(|metadata| metadata.name).unwrap_or_default();
        let first = self.served.len();
        // The preferred version comes first; a resource that it does not have is in a later one.
        for version in group.versions {
            let Some(number) = version.version else { continue };
            let api_version = if name.is_empty() { number.clone() } else { format!("{name}/{number}") };
            // What such a server last said of itself is out of date, and nobody answers for it: upstream's clients leave it out.
            if version.freshness.as_deref() == Some("Stale") {
                self.stale.insert(api_version);
                continue;
            }
            for resource in version.resources {
                let kind = resource.response_kind.and_then(|kind| kind.kind);
                let (Some(plural), Some(kind)) = (resource.resource, kind) else { continue };
                let has = |verb: &str| resource.verbs.iter().any(|own| own == verb);
                if !has(verbs::LIST) || !has(verbs::DELETE) {
                    continue;
                }
                let of_group = self.served.get_mut(first..).unwrap_or_default();
                if let Some(known) = of_group.iter_mut().find(|known| known.resource.plural == plural) {
                    known.versions.insert(number.clone());
                    continue;
                }
                let (group, version, api_version) = (name.clone(), number.clone(), api_version.clone());
                self.served.push(Served {
                    resource: ApiResource { group, version, api_version, kind, plural },
                    namespaced: resource.scope.as_deref() == Some("Namespaced"),
                    versions: [number.clone()].into(),
                    verbs: resource.verbs,
                });
            }
        }
    }

    /// What is wrong, if some groups could not be read; upstream's words.
    pub(crate) fn failure(&self) -> Option<String> {
        let stale: Vec<_> =
            self.stale.iter().map(|one| format!("{one}: stale GroupVersion discovery: {one}")).collect();
        (!stale.is_empty()).then(|| {
            let (count, all) = (stale.len(), stale.join(", "));
            format!(
                "Discovery failed for some groups, {count} failing: unable to retrieve the complete list of server APIs: {all}"
            )
        })
    }
}

/// All resources that can be listed and deleted.
pub(crate) async fn deletable(client: &kube::Client) -> Result<Discovered, Error> {
    let failed = |source| Error::Discovery { source: Box::new(source) };
    let core = client.list_core_api_versions_aggregated().await.map_err(failed)?;
    let groups = client.list_api_groups_aggregated().await.map_err(failed)?;
    let mut found = Discovered::default();
    core.items.into_iter().chain(groups.items).for_each(|group| found.add(group));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_resource_is_found_in_whichever_version_has_it() {
        let resource = |plural: &str, verbs: &[&str]| json!({"resource": plural, "responseKind": {"kind": "K"}, "scope": "Namespaced", "verbs": verbs});
        let group = json!({"metadata": {"name": "example.com"}, "versions": [
            {"version": "v1", "freshness": "Current", "resources": [resource("both", &["list", "delete"])]},
            {"version": "v1beta1", "resources": [
                resource("both", &["list", "delete"]), resource("old", &["list", "delete"]), resource("reviews", &["create"])]},
            {"version": "v1alpha1", "freshness": "Stale", "resources": [resource("unanswered", &["list", "delete"])]},
        ]});
        let mut found = Discovered::default();
        found.add(serde_json::from_value(group).unwrap());
        let paths: Vec<_> = found.served.iter().map(|served| served.path("n")).collect();
        assert_eq!(
            paths,
            ["/apis/example.com/v1/namespaces/n/both", "/apis/example.com/v1beta1/namespaces/n/old"],
            "each once, in the version that is preferred, and none of a server that does not answer"
        );
        assert_eq!(found.served[0].versions, ["v1", "v1beta1"].map(String::from).into());
        assert_eq!(
            found.failure().unwrap(),
            "Discovery failed for some groups, 1 failing: unable to retrieve the complete list of server APIs: \
             example.com/v1alpha1: stale GroupVersion discovery: example.com/v1alpha1"
        );
    }
}
