//! Which resources the API serves, for the controllers that walk over all of them.

use kube::core::discovery::{ApiResource, Scope, verbs};
use kube::discovery::Discovery;

use crate::error::Error;

/// A resource in its group's preferred version.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub(crate) resource: ApiResource,
    pub(crate) namespaced: bool,
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
        Self { resource, namespaced, verbs: Vec::new() }
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

/// All resources that can be listed and deleted.
pub(crate) async fn deletable(client: &kube::Client) -> Result<Vec<Served>, Error> {
    let found = Discovery::new(client.clone()).run_aggregated().await;
    let found = found.map_err(|source| Error::Discovery { source: Box::new(source) })?;
    let mut served = Vec::new();
    for group in found.groups() {
        for (resource, capabilities) in group.recommended_resources() {
            if capabilities.supports_operation(verbs::LIST) && capabilities.supports_operation(verbs::DELETE) {
                served.push(Served {
                    resource,
                    namespaced: capabilities.scope == Scope::Namespaced,
                    verbs: capabilities.operations,
                });
            }
        }
    }
    Ok(served)
}
