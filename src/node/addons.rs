//! Applies the binary's own addons that the node's configuration names: at each start of the node process, and when the cluster
//! becomes one of several nodes, or of one again.

use std::sync::Arc;

use futures::future::{BoxFuture, try_join_all};
use k8s_openapi::api::core::v1::Node;
use kminik_base::component::{BoxError, Component, Ready};
use kminik_client::Informer;
use kube::Client;
use tokio_util::sync::CancellationToken;

use super::labels::is_machine;
use crate::addons::{Addon, Applier, ApplyError, Catalogue, Choice, Choices, ManifestError, State, Values};

pub struct AddonManager {
    pub client: Client,
    pub nodes: Informer<Node>,
    /// Name of the cluster, whose machines are its nodes.
    pub cluster: String,
    pub enabled: Vec<String>,
    pub choices: Choices,
    /// Of a cluster of one node.
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
    /// By the same rule as on the host, which counts machines.
    fn is_of_several(&self, nodes: &[Arc<Node>]) -> bool {
        nodes.iter().filter(|node| is_machine(node, &self.cluster)).count() > 1
    }

    async fn apply(&self, applier: &Applier, addon: &Addon, values: &Values) -> Result<(), AddonError> {
        let none = Choice::default();
        let objects = addon
            .render(self.choices.get(&addon.name).unwrap_or(&none), values, &[])
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
            let enabled: Vec<&Addon> = own.filter(|addon| self.enabled.contains(&addon.name)).collect();
            if stop.run_until_cancelled(self.nodes.wait_synced()).await.is_none() {
                return Ok(());
            }
            loop {
                let several = self.is_of_several(&self.nodes.list());
                let values = self.values.clone().of_several(several);
                try_join_all(enabled.iter().map(|addon| self.apply(&applier, addon, &values))).await?;
                ready.set_ready();
                let changed = self.nodes.wait_for(|nodes| self.is_of_several(nodes) != several);
                // An informer that has ended is the control plane's end.
                if stop.run_until_cancelled(changed).await != Some(true) {
                    stop.cancelled().await;
                    return Ok(());
                }
            }
        })
    }
}
