//! Leadership by Lease: of several processes that could do a work, one does it.
//!
//! ```text
//!  following ──(no holder, or it has not renewed for the lease's duration)──► leading ── renewed every sixth of the duration ──┐
//!      ▲                                                                         │  ▲───────────────────────────────────────┘
//!      └───────────────(not renewed for two thirds of the duration: the work is stopped)──┘      stop: the lease is given back
//! ```
//! Whether a holder still renews is judged by when its renewals are *seen*, not by the times it writes: clocks may differ.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::describe;
use crate::informers::{Informers, Selection};
use crate::key::ObjectKey;

/// Which lease, and who asks for it.
#[derive(Clone, Debug)]
pub struct Leadership {
    pub namespace: String,
    pub name: String,
    /// Different for every process; stands in the lease.
    pub identity: String,
    /// How long a leader that has vanished is waited for. Default 15 s.
    pub duration: Duration,
}

impl Leadership {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>, identity: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            duration: Duration::from_secs(15),
        }
    }

    /// Runs `work` whenever this process leads, until `stop`. The token given to `work` is cancelled when leadership is lost;
    /// another may lead as soon as `work` has returned or the lease has run out, so `work` must then end promptly.
    pub async fn run<F, R>(&self, client: &kube::Client, stop: &CancellationToken, work: F)
    where
        F: Fn(CancellationToken) -> R,
        R: Future<Output = ()>,
    {
        let watching = stop.child_token();
        let _guard = watching.clone().drop_guard();
        let informers = Informers::new(client.clone(), watching);
        let selection = Selection {
            namespace: Some(self.namespace.clone()),
            ..Selection::fields(format!("metadata.name={}", self.name))
        };
        let leases = informers.get_with::<Lease>(selection);
        let mut changes = leases.progress();
        let api: Api<Lease> = Api::namespaced(client.clone(), &self.namespace);
        let key = ObjectKey::new(self.namespace.clone(), self.name.clone());
        let mut seen: Option<(Option<String>, Instant)> = None;
        if stop.run_until_cancelled(leases.wait_synced()).await.is_none() {
            return;
        }
        while !stop.is_cancelled() {
            let lease = leases.get(&key);
            let revision = lease.as_ref().map(|lease| lease.metadata.resource_version.clone());
            if let Some(revision) = revision
                && seen.as_ref().is_none_or(|(known, _)| *known != revision)
            {
                seen = Some((revision, Instant::now()));
            }
            let spec = lease.as_ref().and_then(|lease| lease.spec.as_ref());
            let holder = spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
            let since = seen.as_ref().map_or_else(Instant::now, |(_, at)| *at);
            let left = self.duration.saturating_sub(since.elapsed());
            if !holder.is_empty() && holder != self.identity && !left.is_zero() {
                let _ = stop.run_until_cancelled(tokio::time::timeout(left, changes.changed())).await;
                continue;
            }
            match self.take(&api, lease.as_deref()).await {
                Ok(()) => {
                    tracing::info!(namespace = self.namespace, name = self.name, "leading");
                    self.lead(&api, stop, &work).await;
                }
                Err(error) => {
                    tracing::debug!(
                        namespace = self.namespace,
                        name = self.name,
                        error = describe(&error),
                        "lease not taken"
                    );
                    // Another was faster, or the API does not answer.
                    let pause = tokio::time::timeout(self.duration / 6, changes.changed());
                    let _ = stop.run_until_cancelled(pause).await;
                }
            }
        }
    }

    async fn take(&self, api: &Api<Lease>, lease: Option<&Lease>) -> Result<(), kube::Error> {
        let now = MicroTime(Timestamp::now());
        let Some(lease) = lease else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
                spec: Some(LeaseSpec {
                    holder_identity: Some(self.identity.clone()),
                    lease_duration_seconds: i32::try_from(self.duration.as_secs()).ok(),
                    acquire_time: Some(now.clone()),
                    renew_time: Some(now),
                    lease_transitions: Some(0),
                    ..LeaseSpec::default()
                }),
            };
            return api.create(&PostParams::default(), &lease).await.map(|_| ());
        };
        let transitions = lease.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or(0);
        let patch = json!({
            "metadata": {"resourceVersion": lease.metadata.resource_version},
            "spec": {
                "holderIdentity": self.identity, "leaseDurationSeconds": self.duration.as_secs(),
                "acquireTime": now, "renewTime": now, "leaseTransitions": transitions + 1,
            },
        });
        api.patch(&self.name, &PatchParams::default(), &Patch::Merge(&patch)).await.map(|_| ())
    }

    /// Does the work and renews the lease, until either ends.
    async fn lead<F, R>(&self, api: &Api<Lease>, stop: &CancellationToken, work: &F)
    where
        F: Fn(CancellationToken) -> R,
        R: Future<Output = ()>,
    {
        let leading = stop.child_token();
        let renewing = async {
            let mut renewed = Instant::now();
            while renewed.elapsed() < self.duration * 2 / 3 {
                tokio::time::sleep(self.duration / 6).await;
                let patch =
                    json!({"spec": {"holderIdentity": self.identity, "renewTime": MicroTime(Timestamp::now())}});
                let request = self.write_as_holder(api, &patch);
                match tokio::time::timeout(self.duration / 6, request).await {
                    Ok(Ok(true)) => renewed = Instant::now(),
                    // Someone else holds it: the work must end at once.
                    Ok(Ok(false)) => break,
                    Ok(Err(_)) | Err(_) => {}
                }
            }
            tracing::warn!(namespace = self.namespace, name = self.name, "leadership lost");
            leading.cancel();
        };
        let working = work(leading.clone());
        tokio::pin!(renewing, working);
        tokio::select! {
            () = &mut working => {}
            () = &mut renewing => working.await,
        }
        if stop.is_cancelled() {
            let patch = json!({"spec": {"holderIdentity": "", "leaseDurationSeconds": 1}});
            let _ = tokio::time::timeout(self.duration / 6, self.write_as_holder(api, &patch)).await;
        }
    }

    /// Patches the lease if this process holds it; `false` if another does.
    async fn write_as_holder(&self, api: &Api<Lease>, patch: &serde_json::Value) -> Result<bool, kube::Error> {
        let lease = api.get(&self.name).await?;
        if lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()) != Some(&self.identity) {
            return Ok(false);
        }
        let mut patch = patch.clone();
        patch["metadata"] = json!({"resourceVersion": lease.metadata.resource_version});
        api.patch(&self.name, &PatchParams::default(), &Patch::Merge(&patch)).await.map(|_| true)
    }
}
