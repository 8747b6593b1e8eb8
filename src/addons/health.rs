//! Whether what an addon runs works.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use kminik_client::Selection;
use kube::{Api, Client};
use serde::de::DeserializeOwned;

use super::apply::{ObjectId, Record};

/// How an addon is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    Healthy,
    /// What is amiss, a text for each workload.
    Unhealthy(Vec<String>),
}

/// Something that has replicas: how many are wanted and available, if its controller has seen its last change.
trait Workload {
    fn replicas(&self) -> Option<(i32, i32)>;

    /// How many are to be waited for.
    fn needed(&self) -> i32 {
        self.replicas().map_or(1, |(wanted, _)| wanted)
    }
}

impl Workload for Deployment {
    fn replicas(&self) -> Option<(i32, i32)> {
        let status = self.status.as_ref().filter(|s| s.observed_generation >= self.metadata.generation)?;
        let wanted = self.spec.as_ref()?.replicas.unwrap_or(1);
        Some((wanted, status.available_replicas.unwrap_or(0).min(status.updated_replicas.unwrap_or(0))))
    }
}

impl Workload for StatefulSet {
    fn replicas(&self) -> Option<(i32, i32)> {
        let status = self.status.as_ref().filter(|s| s.observed_generation >= self.metadata.generation)?;
        Some((self.spec.as_ref()?.replicas.unwrap_or(1), status.available_replicas.unwrap_or(0)))
    }
}

impl Workload for DaemonSet {
    fn replicas(&self) -> Option<(i32, i32)> {
        let status = self.status.as_ref().filter(|s| s.observed_generation >= self.metadata.generation)?;
        Some((status.desired_number_scheduled, status.number_available.unwrap_or(0)))
    }

    /// One, if it is for any: others may be stopped, or about to be started.
    fn needed(&self) -> i32 {
        self.replicas().map_or(1, |(wanted, _)| wanted.min(1))
    }
}

fn works(replicas: Option<(i32, i32)>) -> bool {
    replicas.is_some_and(|(wanted, available)| available >= wanted)
}

fn suffices(workload: &impl Workload) -> bool {
    workload.replicas().is_some_and(|(_, available)| available >= workload.needed())
}

/// Whether a set's pods are available on one node at least, if it is for any.
pub fn is_on_nodes(set: &DaemonSet) -> bool {
    suffices(set)
}

fn amiss(id: &ObjectId, replicas: Option<(i32, i32)>) -> String {
    let name = format!("{} {}/{}", id.kind.to_lowercase(), id.namespace(), id.name);
    match replicas {
        Some((wanted, available)) => format!("{name}: {available} of {wanted} available"),
        None => format!("{name}: not begun"),
    }
}

async fn look<K>(client: &Client, id: &ObjectId, wait: bool) -> Result<Option<String>, kube::Error>
where
    K: Workload + kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    K: Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
{
    let api: Api<K> = Api::namespaced(client.clone(), id.namespace());
    if wait {
        let selection = Selection { namespace: Some(id.namespace().to_owned()), ..Selection::object(&id.name) };
        kminik_client::until::<K>(client, &(), &selection, |found| found.iter().any(|k| suffices(k.as_ref()))).await;
    }
    let Some(found) = api.get_opt(&id.name).await? else {
        return Ok(Some(format!("{} {} is gone", id.kind.to_lowercase(), id.name)));
    };
    let replicas = found.replicas();
    let is_well = if wait { suffices(&found) } else { works(replicas) };
    Ok((!is_well).then(|| amiss(id, replicas)))
}

async fn all(client: &Client, record: &Record, wait: bool) -> Result<Health, kube::Error> {
    let looks = record.objects.iter().map(|id| async move {
        match id.kind.as_str() {
            "Deployment" => look::<Deployment>(client, id, wait).await,
            "StatefulSet" => look::<StatefulSet>(client, id, wait).await,
            "DaemonSet" => look::<DaemonSet>(client, id, wait).await,
            _ => Ok(None),
        }
    });
    let found = futures::future::try_join_all(looks).await?;
    let amiss: Vec<String> = found.into_iter().flatten().collect();
    Ok(if amiss.is_empty() { Health::Healthy } else { Health::Unhealthy(amiss) })
}

/// How the workloads of a record are now.
pub async fn health(client: &Client, record: &Record) -> Result<Health, kube::Error> {
    all(client, record, false).await
}

/// As [`health`], once all of them work: the caller bounds it.
pub async fn healthy(client: &Client, record: &Record) -> Result<Health, kube::Error> {
    all(client, record, true).await
}
