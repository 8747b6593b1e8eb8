//! Objects of any kind, of which only the metadata is wanted.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::DynamicObject;
use kube::core::discovery::ApiResource;
use kube::core::{DynamicResourceScope, PartialObjectMeta};
use serde::{Deserialize, Deserializer};

/// An object's metadata without what only readers want; most of the memory of a large cluster's graph is this.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slim {
    pub(crate) metadata: ObjectMeta,
}

impl<'de> Deserialize<'de> for Slim {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let PartialObjectMeta::<DynamicObject> { metadata, .. } = PartialObjectMeta::deserialize(deserializer)?;
        Ok(Self {
            metadata: ObjectMeta {
                annotations: None,
                labels: None,
                managed_fields: None,
                creation_timestamp: None,
                generate_name: None,
                ..metadata
            },
        })
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
