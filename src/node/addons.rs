//! Applies the manifests of the enabled addons by server-side apply, once at each start of the node process.

use std::sync::Arc;

use futures::future::BoxFuture;
use kminik_base::component::{BoxError, Component, Ready};
use kube::api::{Patch, PatchParams};
use kube::core::{DynamicObject, GroupVersionKind};
use kube::discovery::ApiResource;
use kube::{Api, Client};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::addons::{TABLE, Values, render};

/// Field manager of everything applied.
const MANAGER: &str = "kminik-addons";

pub struct AddonManager {
    pub client: Client,
    pub enabled: Vec<String>,
    pub values: Values,
}

#[derive(Debug, thiserror::Error)]
enum AddonError {
    #[error("manifest of the addon {addon} is damaged")]
    Manifest {
        addon: &'static str,
        #[source]
        source: serde_yaml::Error,
    },
    #[error("a manifest of the addon {addon} has no {what}")]
    Incomplete { addon: &'static str, what: &'static str },
    #[error("cannot apply {kind} {name} of the addon {addon}")]
    Apply {
        addon: &'static str,
        kind: String,
        name: String,
        #[source]
        source: Box<kube::Error>,
    },
}

impl AddonManager {
    async fn apply_all(&self) -> Result<(), AddonError> {
        for addon in TABLE.iter().filter(|a| self.enabled.iter().any(|e| e == a.name)) {
            for object in objects(addon.name, &render(addon, &self.values))? {
                self.apply(addon.name, object).await?;
            }
            tracing::info!(addon = addon.name, "addon applied");
        }
        Ok(())
    }

    async fn apply(&self, addon: &'static str, object: DynamicObject) -> Result<(), AddonError> {
        let missing = |what| AddonError::Incomplete { addon, what };
        let types = object.types.clone().ok_or_else(|| missing("kind"))?;
        let name = object.metadata.name.clone().ok_or_else(|| missing("name"))?;
        let kind = GroupVersionKind::try_from(&types).map_err(|_| missing("valid apiVersion"))?;
        let resource = ApiResource::from_gvk(&kind);
        let api: Api<DynamicObject> = match &object.metadata.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        let parameters = PatchParams::apply(MANAGER).force();
        api.patch(&name, &parameters, &Patch::Apply(&object)).await.map_err(|source| AddonError::Apply {
            addon,
            kind: kind.kind,
            name,
            source: Box::new(source),
        })?;
        Ok(())
    }
}

fn objects(addon: &'static str, manifests: &str) -> Result<Vec<DynamicObject>, AddonError> {
    serde_yaml::Deserializer::from_str(manifests)
        .map(|document| DynamicObject::deserialize(document).map_err(|source| AddonError::Manifest { addon, source }))
        .collect()
}

impl Component for AddonManager {
    fn name(&self) -> &'static str {
        "addons"
    }

    fn run(self: Arc<Self>, stop: CancellationToken, ready: Ready) -> BoxFuture<'static, Result<(), BoxError>> {
        Box::pin(async move {
            self.apply_all().await?;
            ready.set_ready();
            stop.cancelled().await;
            Ok(())
        })
    }
}
