//! Applies the binary's own addons that the node's configuration names, once at each start of the node process.

use std::sync::Arc;

use futures::future::{BoxFuture, try_join_all};
use kminik_base::component::{BoxError, Component, Ready};
use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::addons::{Addon, Applier, ApplyError, Catalogue, Choice, Choices, ManifestError, State, Values};

pub struct AddonManager {
    pub client: Client,
    pub enabled: Vec<String>,
    pub choices: Choices,
    pub values: Values,
}

#[derive(Debug, thiserror::Error)]
enum AddonError {
    #[error("manifest of the addon {addon} is damaged")]
    Manifest {
        addon: String,
        #[source]
        source: ManifestError,
    },
    #[error("cannot apply the addon {addon}")]
    Apply {
        addon: String,
        #[source]
        source: ApplyError,
    },
}

impl AddonManager {
    async fn apply(&self, applier: &Applier, addon: &Addon) -> Result<(), AddonError> {
        let none = Choice::default();
        let objects = addon
            .render(self.choices.get(&addon.name).unwrap_or(&none), &self.values, &[])
            .map_err(|source| AddonError::Manifest { addon: addon.name.clone(), source })?;
        let apply = async {
            // The configuration is of the node's start; what was disabled since then stays so.
            let record = applier.record(&addon.name).await?;
            if record.is_some_and(|record| record.state == State::Disabled) {
                return Ok(());
            }
            applier.apply(&addon.name, &objects).await.map(drop)
        };
        apply.await.map_err(|source| AddonError::Apply { addon: addon.name.clone(), source })?;
        tracing::info!(addon = addon.name, "addon applied");
        Ok(())
    }
}

impl Component for AddonManager {
    fn name(&self) -> &'static str {
        "addons"
    }

    fn run(self: Arc<Self>, stop: CancellationToken, ready: Ready) -> BoxFuture<'static, Result<(), BoxError>> {
        Box::pin(async move {
            let applier = Applier::new(self.client.clone());
            let catalogue = Catalogue::built_in()?;
            let own = catalogue.addons.iter().filter(|addon| addon.is_the_nodes());
            let enabled = own.filter(|addon| self.enabled.contains(&addon.name));
            try_join_all(enabled.map(|addon| self.apply(&applier, addon))).await?;
            ready.set_ready();
            stop.cancelled().await;
            Ok(())
        })
    }
}
