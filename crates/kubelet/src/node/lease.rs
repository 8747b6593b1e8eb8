//! The node's Lease: renewed every 10 s, so that a dead node is noticed without a write of its status.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use k8s_openapi::jiff::Timestamp;
use kminik_base::backoff::Backoff;
use kminik_client::{Informer, ObjectKey, is_already_exists, is_not_found};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio_util::sync::CancellationToken;

const NAMESPACE: &str = "kube-node-lease";
const DURATION_SECONDS: i32 = 40;
const RENEW: Duration = Duration::from_secs(10);

/// Renews until told to stop.
pub(crate) async fn keep(client: kube::Client, name: String, own: Informer<Node>, stop: CancellationToken) {
    let leases: Api<Lease> = Api::namespaced(client, NAMESPACE);
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(7));
    loop {
        let pause = match renew(&leases, &name, &own).await {
            Ok(()) => {
                backoff.reset();
                RENEW
            }
            Err(error) => {
                tracing::debug!(%error, "node lease not renewed");
                backoff.next_delay()
            }
        };
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
    }
}

async fn renew(leases: &Api<Lease>, name: &str, own: &Informer<Node>) -> Result<(), kube::Error> {
    let now = MicroTime(Timestamp::now());
    let change = json!({"spec": {"holderIdentity": name, "leaseDurationSeconds": DURATION_SECONDS, "renewTime": now}});
    match leases.patch(name, &PatchParams::default(), &Patch::Merge(change)).await {
        Err(error) if is_not_found(&error) => {}
        other => return other.map(drop),
    }
    let owner =
        own.get(&ObjectKey::cluster(name)).and_then(|node| node.metadata.uid.clone()).map(|uid| OwnerReference {
            api_version: "v1".into(),
            kind: "Node".into(),
            name: name.to_string(),
            uid,
            ..OwnerReference::default()
        });
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name.to_string()),
            namespace: Some(NAMESPACE.into()),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(name.to_string()),
            lease_duration_seconds: Some(DURATION_SECONDS),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    };
    match leases.create(&PostParams::default(), &lease).await {
        Err(error) if is_already_exists(&error) => Ok(()),
        other => other.map(drop),
    }
}
