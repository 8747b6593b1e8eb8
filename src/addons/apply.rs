//! Objects into a cluster by server-side apply, what is no longer among them out of it, and a record of what is there.
//!
//! The record of an addon is the ConfigMap `kminik-addon-<name>` in kube-system. It names every object that may be there, before
//! the first of them is made and until the last is gone, so that a broken apply is mended by the next.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kminik_base::component::chain;
use kminik_client::{Selection, until};
use kminik_oci::Digest;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::{DynamicObject, GroupVersion};
use kube::discovery::{ApiResource, Scope, pinned_group};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, ResourceExt};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::objects;

/// Field manager of everything applied.
const MANAGER: &str = "kminik-addons";
/// On every object of an addon: its name.
pub(super) const LABEL: &str = "kminik.dev/addon";
/// On the records.
const RECORD_LABEL: &str = "kminik.dev/addon-record";
const RECORD_NAMESPACE: &str = "kube-system";
const RECORD_PREFIX: &str = "kminik-addon-";
/// They are the cluster's, whoever applies them.
const NEVER_REMOVED: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];
/// How the API says that a field cannot be changed.
const FIXED: [&str; 2] = ["field is immutable", "are forbidden"];
/// Kinds whose objects cannot be changed, and that nothing is lost with: others name them only when they are made.
const REPLACED: &[&str] = &["StorageClass"];
/// How long a new kind may take to be served.
const KIND_SERVED: Duration = Duration::from_secs(20);
/// How long objects may take to go.
const GONE: Duration = Duration::from_secs(60);

/// An object of an addon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectId {
    pub api_version: String,
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    pub name: String,
}

/// Whether the addon is meant to be in the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    #[default]
    Enabled,
    /// By the user's word: the node does not apply it again.
    Disabled,
}

/// What is in the cluster of an addon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub state: State,
    /// Of the objects as they were applied; `None` until all of them are.
    pub digest: Option<Digest>,
    pub objects: Vec<ObjectId>,
}

/// Why an addon is not in the cluster, or not out of it.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("cannot read what is in the cluster")]
    ReadRecord(#[source] Box<kube::Error>),
    #[error("cannot write down what is in the cluster")]
    WriteRecord(#[source] Box<kube::Error>),
    #[error("the cluster does not serve {kind} of {api_version}")]
    UnknownKind { api_version: String, kind: String },
    #[error("cannot ask the cluster for the kinds of {api_version}")]
    Kinds {
        api_version: String,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("cannot apply {kind} {name}")]
    Apply {
        kind: String,
        name: String,
        #[source]
        source: Box<Said>,
    },
    #[error("cannot remove {kind} {name}")]
    Remove {
        kind: String,
        name: String,
        #[source]
        source: Box<Said>,
    },
    #[error("{kind} {name} was to be gone within {} s", GONE.as_secs())]
    StillThere { kind: String, name: String },
}

/// What the API said against an object: its own words, without what kube makes of them.
#[derive(Debug)]
pub struct Said(kube::Error);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            kube::Error::Api(status) => f.write_str(&status.message),
            other => f.write_str(&chain(other)),
        }
    }
}

impl std::error::Error for Said {}

impl ObjectId {
    fn of(object: &DynamicObject) -> Self {
        let types = object.types.clone().unwrap_or_default();
        Self {
            api_version: types.api_version,
            kind: types.kind,
            namespace: object.metadata.namespace.clone(),
            name: object.name_any(),
        }
    }

    /// The same object, in whatever version.
    fn is(&self, other: &ObjectId) -> bool {
        fn group(id: &ObjectId) -> Option<&str> {
            id.api_version.split_once('/').map(|(group, _)| group)
        }
        (&self.kind, &self.name, self.namespace(), group(self))
            == (&other.kind, &other.name, other.namespace(), group(other))
    }

    /// Where it is, if its kind is in namespaces.
    pub(super) fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or("default")
    }
}

fn is_established(definition: &CustomResourceDefinition) -> bool {
    let conditions = definition.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Established" && condition.status == "True")
}

/// Which of the old are not among the new.
fn superfluous(old: &[ObjectId], new: &[ObjectId]) -> Vec<ObjectId> {
    old.iter().filter(|old| !new.iter().any(|new| new.is(old))).cloned().collect()
}

/// The kinds of a group's version, with their scope.
type Kinds = Vec<(ApiResource, Scope)>;

/// Changes the addons of one cluster.
pub struct Applier {
    client: Client,
    kinds: Mutex<HashMap<String, Kinds>>,
}

impl Applier {
    /// The client has to be allowed everything.
    pub fn new(client: Client) -> Self {
        Self { client, kinds: Mutex::default() }
    }

    fn records(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), RECORD_NAMESPACE)
    }

    /// Every record, by the addon's name.
    pub async fn all(&self) -> Result<Vec<(String, Record)>, ApplyError> {
        let list = self.records().list(&ListParams::default().labels(RECORD_LABEL)).await;
        let list = list.map_err(|error| ApplyError::ReadRecord(Box::new(error)))?;
        let named = |map: ConfigMap| Some((map.name_any().strip_prefix(RECORD_PREFIX)?.to_owned(), Record::of(&map)));
        Ok(list.items.into_iter().filter_map(named).collect())
    }

    /// An addon's record; `None` if it was never in the cluster.
    pub async fn record(&self, addon: &str) -> Result<Option<Record>, ApplyError> {
        let found = self.records().get_opt(&format!("{RECORD_PREFIX}{addon}")).await;
        Ok(found.map_err(|error| ApplyError::ReadRecord(Box::new(error)))?.as_ref().map(Record::of))
    }

    async fn write(&self, addon: &str, record: &Record) -> Result<(), ApplyError> {
        let name = format!("{RECORD_PREFIX}{addon}");
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": name, "labels": { RECORD_LABEL: "true" } },
            "data": {
                "state": record.state,
                "digest": record.digest.as_ref().map_or("", Digest::as_str),
                "objects": serde_json::to_string(&record.objects).unwrap_or_default(),
            },
        });
        let written = self.records().patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(map)).await;
        written.map(drop).map_err(|error| ApplyError::WriteRecord(Box::new(error)))
    }

    /// Brings the addon's objects to what is given. What stood there by an earlier call and is not given goes.
    ///
    /// # Errors
    /// With the first object that cannot be applied; those before it are.
    pub async fn apply(&self, addon: &str, objects: &[DynamicObject]) -> Result<Record, ApplyError> {
        let old = self.record(addon).await?.unwrap_or_default();
        let new: Vec<ObjectId> = objects.iter().map(ObjectId::of).collect();
        let superfluous = superfluous(&old.objects, &new);
        let digest = objects::digest(objects);
        let during = Record { objects: [new.as_slice(), &superfluous].concat(), ..Record::default() };
        if old.state != during.state || old.objects != during.objects {
            self.write(addon, &during).await?;
        }
        for object in objects {
            self.apply_one(object).await?;
        }
        self.remove_all(addon, &superfluous).await?;
        let record = Record { state: State::Enabled, digest: Some(digest), objects: new };
        if old != record {
            self.write(addon, &record).await?;
        }
        Ok(record)
    }

    /// Takes the addon's objects out of the cluster and waits until they are gone. None there is success.
    ///
    /// # Errors
    /// With the first object that cannot be removed, or that has not gone within a minute.
    pub async fn remove(&self, addon: &str) -> Result<(), ApplyError> {
        let old = self.record(addon).await?.unwrap_or_default();
        let during = Record { state: State::Disabled, digest: None, objects: old.objects };
        self.write(addon, &during).await?;
        let removed = self.remove_all(addon, &during.objects).await?;
        for (api, id, uid) in removed {
            let gone = await_condition(api, &id.name, conditions::is_deleted(&uid));
            // A watch that breaks is looked after by the bound's caller: the record still names the object.
            if tokio::time::timeout(GONE, gone).await.is_err() {
                return Err(ApplyError::StillThere { kind: id.kind, name: id.name });
            }
        }
        self.write(addon, &Record { state: State::Disabled, ..Record::default() }).await
    }

    async fn apply_one(&self, object: &DynamicObject) -> Result<(), ApplyError> {
        let id = ObjectId::of(object);
        let api = self.api(&id).await?;
        let parameters = PatchParams::apply(MANAGER).force();
        let mut applied = api.patch(&id.name, &parameters, &Patch::Apply(object)).await;
        if is_fixed(&applied) && REPLACED.contains(&id.kind.as_str()) {
            let _ = api.delete(&id.name, &DeleteParams::default()).await;
            applied = api.patch(&id.name, &parameters, &Patch::Apply(object)).await;
        }
        applied.map_err(|source| ApplyError::Apply {
            kind: id.kind.clone(),
            name: id.name.clone(),
            source: Box::new(Said(source)),
        })?;
        if is_definition(object) {
            let selection = Selection::object(&id.name);
            let established = |found: &[Arc<CustomResourceDefinition>]| found.iter().any(|found| is_established(found));
            let served = until(&self.client, &(), &selection, established);
            // One that is refused is said by what needs it.
            let _ = tokio::time::timeout(KIND_SERVED, served).await;
        }
        Ok(())
    }

    /// Deletes those that are still the addon's, the last made first; what was deleted, with its uid.
    async fn remove_all(
        &self,
        addon: &str,
        ids: &[ObjectId],
    ) -> Result<Vec<(Api<DynamicObject>, ObjectId, String)>, ApplyError> {
        let mut removed = Vec::new();
        for id in ids.iter().rev() {
            if id.kind == "Namespace" && NEVER_REMOVED.contains(&id.name.as_str()) {
                continue;
            }
            let failed = |source| ApplyError::Remove {
                kind: id.kind.clone(),
                name: id.name.clone(),
                source: Box::new(Said(source)),
            };
            let api = match self.served(id).await? {
                // With its kind the object has gone too.
                None => continue,
                Some(api) => api,
            };
            let Some(found) = api.get_metadata_opt(&id.name).await.map_err(failed)? else { continue };
            // What somebody else has put in its place is theirs.
            let Some(uid) = found.uid().filter(|_| found.labels().get(LABEL).is_some_and(|owner| owner == addon))
            else {
                continue;
            };
            let parameters = DeleteParams {
                propagation_policy: Some(PropagationPolicy::Background),
                preconditions: Some(Preconditions { uid: Some(uid.clone()), resource_version: None }),
                ..DeleteParams::default()
            };
            match api.delete(&id.name, &parameters).await {
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
                outcome => drop(outcome.map_err(failed)?),
            }
            removed.push((api, id.clone(), uid));
        }
        Ok(removed)
    }

    /// Where such an object is; waits for a kind that was defined a moment ago.
    async fn api(&self, id: &ObjectId) -> Result<Api<DynamicObject>, ApplyError> {
        let mut pause = Duration::from_millis(10);
        let find = async {
            // What is served is not to be watched, only asked.
            loop {
                if let Some(api) = self.served(id).await? {
                    return Ok(api);
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
        };
        let unknown = || ApplyError::UnknownKind { api_version: id.api_version.clone(), kind: id.kind.clone() };
        tokio::time::timeout(KIND_SERVED, find).await.unwrap_or_else(|_| Err(unknown()))
    }

    async fn served(&self, id: &ObjectId) -> Result<Option<Api<DynamicObject>>, ApplyError> {
        Ok(self.kind(id).await?.map(|(resource, scope)| match scope {
            Scope::Cluster => Api::all_with(self.client.clone(), &resource),
            Scope::Namespaced => Api::namespaced_with(self.client.clone(), id.namespace(), &resource),
        }))
    }

    /// `None` if the cluster does not serve it.
    async fn kind(&self, id: &ObjectId) -> Result<Option<(ApiResource, Scope)>, ApplyError> {
        let find = |kinds: &Kinds| kinds.iter().find(|(resource, _)| resource.kind == id.kind).cloned();
        if let Some(known) = self.kinds.lock().get(&id.api_version).and_then(find) {
            return Ok(Some(known));
        }
        let failed = |source| ApplyError::Kinds { api_version: id.api_version.clone(), source: Box::new(source) };
        let unknown = || ApplyError::UnknownKind { api_version: id.api_version.clone(), kind: id.kind.clone() };
        let version: GroupVersion = id.api_version.parse().map_err(|_| unknown())?;
        let group = match pinned_group(&self.client, &version).await {
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
            Err(kube::Error::Discovery(_)) => return Ok(None),
            group => group.map_err(failed)?,
        };
        let all = group.versioned_resources(&version.version);
        let kinds: Kinds = all.into_iter().map(|(resource, abilities)| (resource, abilities.scope)).collect();
        let found = find(&kinds);
        self.kinds.lock().insert(id.api_version.clone(), kinds);
        Ok(found)
    }
}

fn is_definition(object: &DynamicObject) -> bool {
    objects::kind(object) == "CustomResourceDefinition"
}

impl Record {
    fn of(map: &ConfigMap) -> Self {
        let data = |key: &str| map.data.as_ref().and_then(|data| data.get(key)).map_or("", String::as_str);
        Self {
            state: if data("state") == "disabled" { State::Disabled } else { State::Enabled },
            digest: data("digest").parse().ok(),
            objects: serde_json::from_str(data("objects")).unwrap_or_default(),
        }
    }
}

/// Whether it was refused because it changes what cannot be changed.
fn is_fixed(applied: &kube::Result<DynamicObject>) -> bool {
    let Err(kube::Error::Api(status)) = applied else { return false };
    status.code == 422 && FIXED.iter().any(|said| status.message.contains(said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_of_another_version_is_the_same() {
        let id = |api_version: &str, name: &str| ObjectId {
            api_version: api_version.into(),
            kind: "Thing".into(),
            namespace: None,
            name: name.into(),
        };
        let old = [id("x.dev/v1", "a"), id("x.dev/v1", "b"), id("y.dev/v1", "a")];
        assert_eq!(superfluous(&old, &[id("x.dev/v2", "a")]), [id("x.dev/v1", "b"), id("y.dev/v1", "a")]);
    }
}
