//! Objects of which only a part is wanted: the metadata of any kind, and of definitions which versions they serve.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::DynamicObject;
use kube::core::discovery::ApiResource;
use kube::core::{ClusterResourceScope, DynamicResourceScope, PartialObjectMeta};
use serde::{Deserialize, Deserializer};

/// An object's metadata without what only readers want; most of the memory of a large cluster's graph is this.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slim {
    pub(crate) metadata: ObjectMeta,
}

impl<'de> Deserialize<'de> for Slim {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let PartialObjectMeta::<DynamicObject> { metadata, .. } = PartialObjectMeta::deserialize(deserializer)?;
        Ok(Self { metadata: slimmed(metadata) })
    }
}

fn slimmed(metadata: ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        annotations: None,
        labels: None,
        managed_fields: None,
        creation_timestamp: None,
        generate_name: None,
        ..metadata
    }
}

impl kube::Resource for Slim {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn metadata_api() -> bool {
        true
    }

    fn kind(resource: &ApiResource) -> std::borrow::Cow<'_, str> {
        resource.kind.as_str().into()
    }

    fn group(resource: &ApiResource) -> std::borrow::Cow<'_, str> {
        resource.group.as_str().into()
    }

    fn version(resource: &ApiResource) -> std::borrow::Cow<'_, str> {
        resource.version.as_str().into()
    }

    fn plural(resource: &ApiResource) -> std::borrow::Cow<'_, str> {
        resource.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Which versions a CustomResourceDefinition says are served; its schemas are not kept.
#[derive(Clone, Debug)]
pub(crate) struct Definition {
    metadata: ObjectMeta,
    pub(crate) served: BTreeSet<String>,
}

impl Definition {
    /// `certificates.cert-manager.io`.
    pub(crate) fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }
}

impl<'de> Deserialize<'de> for Definition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Whole {
            metadata: ObjectMeta,
            spec: Spec,
        }
        #[derive(Deserialize)]
        struct Spec {
            versions: Vec<Version>,
        }
        #[derive(Deserialize)]
        struct Version {
            name: String,
            served: bool,
        }
        let Whole { metadata, spec } = Whole::deserialize(deserializer)?;
        let served = spec.versions.into_iter().filter(|version| version.served).map(|version| version.name).collect();
        Ok(Self { metadata: slimmed(metadata), served })
    }
}

impl kube::Resource for Definition {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind((): &()) -> std::borrow::Cow<'_, str> {
        "CustomResourceDefinition".into()
    }

    fn group((): &()) -> std::borrow::Cow<'_, str> {
        "apiextensions.k8s.io".into()
    }

    fn version((): &()) -> std::borrow::Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> std::borrow::Cow<'_, str> {
        "customresourcedefinitions".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
