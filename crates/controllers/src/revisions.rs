//! Earlier templates of an object, kept as ControllerRevisions: which one is current, which pods are of which, what can be rolled back to.
//!
//! A revision's data is the patch that restores its template, as `kubectl rollout undo` applies it. Two templates are the same if these patches
//! are. Going back to an earlier template makes its revision the newest again instead of a new one.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kminik_client::{Informer, ObjectKey};
use kube::ResourceExt;
use kube::api::DeleteParams;
use kube::core::Selector;
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::context::{Context, Kind};
use crate::error::Error;
use crate::owners::{candidates, claim_children, controller_reference, is_controlled_by};

/// The label that tells of which revision a pod is.
pub(crate) const HASH_LABEL: &str = "controller-revision-hash";
/// Without vowels and look-alikes, as upstream: no name says a word.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
const LENGTH: usize = 10;

/// A name-safe hash of a value; `collisions` tells apart values that would get the same.
pub(crate) fn hash(value: &impl Serialize, collisions: i32) -> String {
    let text = serde_json::to_vec(value).unwrap_or_default();
    let digest = Sha256::new().chain_update(&text).chain_update(collisions.to_le_bytes()).finalize();
    digest.iter().take(LENGTH).map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()])).collect()
}

/// The revisions of one object.
pub(crate) struct History {
    /// The one of its present template.
    pub(crate) update: Arc<ControllerRevision>,
    /// All others, oldest first.
    pub(crate) earlier: Vec<Arc<ControllerRevision>>,
}

impl History {
    /// A revision by name.
    pub(crate) fn find(&self, name: &str) -> Option<&Arc<ControllerRevision>> {
        std::iter::once(&self.update).chain(&self.earlier).find(|revision| revision.name_any() == name)
    }
}

/// The value of [`HASH_LABEL`] on pods of a revision.
pub(crate) fn label(revision: &ControllerRevision) -> String {
    revision.labels().get(HASH_LABEL).cloned().unwrap_or_else(|| revision.name_any())
}

/// The template that a revision keeps.
pub(crate) fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    kminik_client::typed(&template).ok()
}

fn data(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).unwrap_or_default();
    template["$patch"] = json!("replace");
    json!({"spec": {"template": template}})
}

/// The revisions of `owner`, with one of its present template, made if need be. A name taken by another raises `collisions` and fails, to
/// be retried.
pub(crate) async fn history<O: Kind>(
    context: &Context,
    informer: &Informer<ControllerRevision>,
    owner: &O,
    selector: &Selector,
    template: &PodTemplateSpec,
    collisions: &mut Option<i32>,
) -> Result<History, Error> {
    let key = ObjectKey::of(owner);
    let found = candidates(informer, owner.meta());
    let mut revisions = claim_children(context, informer, owner, selector, found).await?;
    revisions.sort_by_key(|revision| (revision.revision, revision.name_any()));
    let next = revisions.last().map_or(1, |newest| newest.revision + 1);
    let data = data(template);
    let same = revisions.iter().rposition(|revision| revision.data.as_ref().is_some_and(|own| own.0 == data));
    if let Some(at) = same {
        let mut update = revisions.remove(at);
        if update.revision + 1 != next {
            let renewed = ControllerRevision { revision: next, ..update.as_ref().clone() };
            if let Some(written) = context.update(&key, informer, &update, &renewed).await? {
                update = Arc::new(written);
            }
        }
        return Ok(History { update, earlier: revisions });
    }
    let hash = hash(&data, collisions.unwrap_or(0));
    let mut labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
    labels.insert(HASH_LABEL.into(), hash.clone());
    let revision = ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", key.name)),
            namespace: Some(key.namespace.clone()),
            labels: Some(labels),
            annotations: owner.meta().annotations.clone(),
            owner_references: Some(vec![controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data.clone())),
        revision: next,
    };
    match context.create(&key, informer, &revision).await {
        Ok(update) => Ok(History { update: Arc::new(update), earlier: revisions }),
        Err(error) if error.is_already_exists() => {
            let live = context.read::<ControllerRevision>(&ObjectKey::of(&revision)).await?;
            match live {
                Some(live)
                    if is_controlled_by(&live.metadata, owner.meta())
                        && live.data.as_ref().is_some_and(|own| own.0 == data) =>
                {
                    Ok(History { update: Arc::new(live), earlier: revisions })
                }
                _ => {
                    *collisions = Some(collisions.unwrap_or(0) + 1);
                    Err(error)
                }
            }
        }
        Err(error) => Err(error),
    }
}

/// Deletes the oldest revisions beyond `limit` that no pod (by label) and nothing in `used` (by name) is of.
pub(crate) async fn clean_up<O: Kind>(
    context: &Context,
    informer: &Informer<ControllerRevision>,
    owner: &O,
    history: &History,
    used: &BTreeSet<String>,
    limit: i32,
) -> Result<(), Error> {
    let idle: Vec<_> = history
        .earlier
        .iter()
        .filter(|revision| !used.contains(&revision.name_any()) && !used.contains(&label(revision)))
        .collect();
    let surplus = idle.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    for revision in idle.into_iter().take(surplus) {
        context.delete(&ObjectKey::of(owner), informer, revision.as_ref(), DeleteParams::default()).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_gives_its_template_back() {
        let made: PodTemplateSpec = serde_json::from_value(
            json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c"}]}}),
        )
        .unwrap();
        let revision = ControllerRevision { data: Some(RawExtension(data(&made))), ..ControllerRevision::default() };
        assert_eq!(template(&revision), Some(made.clone()));
        assert_eq!(hash(&data(&made), 0), hash(&data(&made), 0));
        assert_ne!(hash(&data(&made), 0), hash(&data(&made), 1));
    }
}
