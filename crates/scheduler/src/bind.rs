//! Carries out decisions: binds claims and pods, writes what became of a pod, removes victims.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::jiff::Timestamp;
use kminik_client::claims::{BOUND_BY_CONTROLLER, SELECTED_NODE};
use kminik_client::{Informer, ObjectKey, describe, is_not_found};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::{Value, json};

use crate::info::PodInfo;
use crate::plugins::volumes::Bindings;

/// How long a pod waits for its claims to be bound before it is decided anew.
const VOLUMES_WITHIN: Duration = Duration::from_secs(600);

/// A decision that could not be carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    #[error("cannot give volume {volume} to claim {claim}")]
    GiveVolume {
        volume: String,
        claim: ObjectKey,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("volume {volume} is gone or has been given to another claim")]
    VolumeTaken { volume: String },
    #[error("cannot ask for a volume for claim {claim}")]
    AskVolume {
        claim: ObjectKey,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("the claims of the pod were not bound within {0:?}")]
    VolumesNotBound(Duration),
    #[error("claim {claim} is gone")]
    ClaimGone { claim: ObjectKey },
    #[error("cannot encode the binding")]
    Encode(#[source] serde_json::Error),
    #[error("cannot bind the pod to {node}")]
    Bind {
        node: String,
        #[source]
        source: Box<kube::Error>,
    },
}

/// Writes under the scheduler's identity.
#[derive(Clone)]
pub(crate) struct Binder {
    pub(crate) client: kube::Client,
    pub(crate) claims: Informer<PersistentVolumeClaim>,
    pub(crate) volumes: Informer<PersistentVolume>,
}

impl Binder {
    /// Binds the pod's claims, waits until they are bound, then binds the pod.
    pub(crate) async fn bind(&self, pod: &PodInfo, node: &str, bindings: &Bindings) -> Result<(), BindError> {
        self.bind_volumes(pod, node, bindings).await?;
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding",
            "metadata": {"name": pod.key.name, "namespace": pod.key.namespace, "uid": pod.uid()},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        let body = serde_json::to_vec(&binding).map_err(BindError::Encode)?;
        let request = kube::core::Request::new(<Pod as kube::Resource>::url_path(&(), Some(&pod.key.namespace)))
            .create_subresource("binding", &pod.key.name, &PostParams::default(), body)
            .map_err(kube::Error::BuildRequest);
        let answer = match request {
            Ok(request) => self.client.request::<Value>(request).await,
            Err(error) => Err(error),
        };
        answer.map_err(|source| BindError::Bind { node: node.to_string(), source: Box::new(source) })?;
        Ok(())
    }

    async fn bind_volumes(&self, pod: &PodInfo, node: &str, bindings: &Bindings) -> Result<(), BindError> {
        if bindings.bind.is_empty() && bindings.provision.is_empty() {
            return Ok(());
        }
        for (key, volume) in &bindings.bind {
            let claim = self.claims.get(key).ok_or_else(|| BindError::ClaimGone { claim: key.clone() })?;
            let gone = || BindError::VolumeTaken { volume: volume.clone() };
            let free = self.volumes.get(&ObjectKey::cluster(volume)).ok_or_else(gone)?;
            if free.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_some()) {
                return Err(gone());
            }
            let patch = json!({
                "metadata": {
                    "resourceVersion": free.metadata.resource_version,
                    "annotations": {BOUND_BY_CONTROLLER: "yes"},
                },
                "spec": {"claimRef": {
                    "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": key.namespace, "name": key.name,
                    "uid": claim.metadata.uid, "resourceVersion": claim.metadata.resource_version,
                }},
            });
            let api: Api<PersistentVolume> = Api::all(self.client.clone());
            api.patch(volume, &PatchParams::default(), &Patch::Merge(&patch)).await.map_err(|source| {
                BindError::GiveVolume { volume: volume.clone(), claim: key.clone(), source: Box::new(source) }
            })?;
        }
        for key in &bindings.provision {
            let patch = json!({"metadata": {"annotations": {SELECTED_NODE: node}}});
            let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &key.namespace);
            api.patch(&key.name, &PatchParams::default(), &Patch::Merge(&patch))
                .await
                .map_err(|source| BindError::AskVolume { claim: key.clone(), source: Box::new(source) })?;
        }
        self.wait_bound(pod).await
    }

    async fn wait_bound(&self, pod: &PodInfo) -> Result<(), BindError> {
        let changed = Arc::new(tokio::sync::Notify::new());
        let notify = changed.clone();
        let _subscription = self.claims.subscribe(move |_| notify.notify_one());
        let keys = pod.claims();
        let bound = async {
            loop {
                let mut all = true;
                for key in &keys {
                    let claim = self.claims.get(key).ok_or_else(|| BindError::ClaimGone { claim: key.clone() })?;
                    all &= claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
                }
                if all {
                    return Ok(());
                }
                changed.notified().await;
            }
        };
        tokio::time::timeout(VOLUMES_WITHIN, bound).await.unwrap_or(Err(BindError::VolumesNotBound(VOLUMES_WITHIN)))
    }

    /// Says in the pod's status why it has no node, and which one it waits for, if that is news.
    pub(crate) async fn tell_unscheduled(&self, pod: &Pod, reason: &str, message: &str, nominated: Option<&str>) {
        const KIND: &str = "PodScheduled";
        let status = pod.status.as_ref();
        let current = status.and_then(|status| status.conditions.iter().flatten().find(|own| own.type_ == KIND));
        let same = current.is_some_and(|current| {
            current.status == "False"
                && current.reason.as_deref() == Some(reason)
                && current.message.as_deref() == Some(message)
        });
        let waits_for = status.and_then(|status| status.nominated_node_name.as_deref());
        if same && (nominated.is_none() || nominated == waits_for) {
            return;
        }
        let since = current
            .filter(|current| current.status == "False")
            .and_then(|current| current.last_transition_time.as_ref().map(|time| time.0));
        let since = since.unwrap_or_else(Timestamp::now).as_second();
        let since = Timestamp::from_second(since).unwrap_or_default();
        let mut patch = json!({
            "metadata": {"uid": pod.metadata.uid},
            "status": {"conditions": [{
                "type": KIND, "status": "False", "reason": reason, "message": message, "lastProbeTime": null,
                "lastTransitionTime": since.to_string(), "observedGeneration": pod.metadata.generation,
            }]},
        });
        if let Some(node) = nominated {
            patch["status"]["nominatedNodeName"] = json!(node);
        }
        self.patch_status(&ObjectKey::of(pod), patch).await;
    }

    /// Deletes a pod to make room, saying so in its status first.
    pub(crate) async fn evict(&self, victim: &PodInfo, preemptor: &PodInfo) {
        let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
        let patch = json!({
            "metadata": {"uid": victim.uid()},
            "status": {"conditions": [{
                "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
                "message": "default-scheduler: preempting to accommodate a higher priority pod",
                "lastTransitionTime": now.to_string(), "observedGeneration": victim.pod.metadata.generation,
            }]},
        });
        self.patch_status(&victim.key, patch).await;
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &victim.key.namespace);
        let preconditions = Preconditions { uid: Some(victim.uid().to_string()), ..Preconditions::default() };
        let params = DeleteParams::default().preconditions(preconditions);
        match api.delete(&victim.key.name, &params).await {
            Err(error) if !is_not_found(&error) => {
                tracing::info!(pod = %victim.key, preemptor = %preemptor.key, error = describe(&error), "victim not deleted");
            }
            _ => {}
        }
    }

    async fn patch_status(&self, key: &ObjectKey, patch: Value) {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        match api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(&patch)).await {
            Err(error) if !is_not_found(&error) => {
                tracing::info!(pod = %key, error = describe(&error), "pod status not written");
            }
            _ => {}
        }
    }
}
