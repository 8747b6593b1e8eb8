//! Which children belong to a controller object: by controller reference, adopted or released by selector.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kminik_client::{Informer, ObjectKey};
use kube::Resource;
use kube::api::Patch;
use kube::core::{Selector, SelectorExt};
use serde_json::json;

use crate::context::{Context, Kind};
use crate::error::Error;

/// The reference that makes `owner` the controller of a child.
pub(crate) fn controller_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The controller of an object, if it has one.
pub(crate) fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|reference| reference.controller == Some(true))
}

/// `owner` is the controller of the object.
pub(crate) fn is_controlled_by(meta: &ObjectMeta, owner: &ObjectMeta) -> bool {
    owner.uid.is_some() && controller_of(meta).is_some_and(|reference| Some(&reference.uid) == owner.uid.as_ref())
}

/// Pushes the key of a child's controller if that is of kind `K`.
pub(crate) fn push_controller<K: Resource<DynamicType = ()>>(child: &ObjectMeta, keys: &mut Vec<ObjectKey>) {
    if let Some(owner) = controller_of(child)
        && owner.kind == K::kind(&())
        && owner.api_version == K::api_version(&())
    {
        keys.push(ObjectKey::new(child.namespace.clone().unwrap_or_default(), owner.name.clone()));
    }
}

/// Reads a label selector; an empty one selects nothing that a controller may claim.
pub(crate) fn selector_of<K: Resource<DynamicType = ()>>(
    owner: &K,
    selector: &LabelSelector,
) -> Result<Selector, Error> {
    Selector::try_from(selector.clone())
        .map_err(|_| Error::Selector { kind: K::kind(&()).into_owned(), key: ObjectKey::of(owner) })
}

/// Whether a selector admits an object's labels.
pub(crate) fn selects(selector: &Selector, meta: &ObjectMeta) -> bool {
    match &meta.labels {
        Some(labels) => selector.matches(labels),
        None => selector.matches(&Default::default()),
    }
}

const BY_CONTROLLER: &str = "controller";

/// Makes [`candidates`] cheap for a kind: children are found by their controller, orphans by namespace.
pub(crate) fn index_by_controller<K: Kind>(informer: &Informer<K>) {
    informer.add_index(BY_CONTROLLER, |child| {
        vec![match controller_of(child.meta()) {
            Some(owner) => owner.uid.clone(),
            None => orphans_of(child.meta().namespace.as_deref().unwrap_or_default()),
        }]
    });
}

/// What `owner` may claim: the children it controls and the orphans of its namespace.
pub(crate) fn candidates<K: Kind>(informer: &Informer<K>, owner: &ObjectMeta) -> Vec<Arc<K>> {
    let mut found = controlled(informer, owner);
    found.extend(informer.by_index(BY_CONTROLLER, &orphans_of(owner.namespace.as_deref().unwrap_or_default())));
    found
}

/// The children that `owner` controls.
pub(crate) fn controlled<K: Kind>(informer: &Informer<K>, owner: &ObjectMeta) -> Vec<Arc<K>> {
    owner.uid.as_deref().map(|uid| informer.by_index(BY_CONTROLLER, uid)).unwrap_or_default()
}

fn orphans_of(namespace: &str) -> String {
    format!("orphans of {namespace}")
}

/// Pushes the keys of what a change of a child concerns: its controller of kind `K`, or, for an orphan, every owner in its namespace
/// whose selector (`selector_of` reads it) admits it.
pub(crate) fn push_claimants<K: Kind>(
    child: &ObjectMeta,
    owners: &Informer<K>,
    selector: impl Fn(&K) -> Option<&LabelSelector>,
    keys: &mut Vec<ObjectKey>,
) {
    push_controller::<K>(child, keys);
    if controller_of(child).is_some() || child.labels.is_none() {
        return;
    }
    for owner in owners.list_in(child.namespace.as_deref().unwrap_or_default()) {
        if let Some(Ok(selector)) = selector(&owner).map(|selector| selector_of(owner.as_ref(), selector))
            && selects(&selector, child)
        {
            keys.push(ObjectKey::of(owner.as_ref()));
        }
    }
}

/// What to do with one candidate child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    Keep,
    Adopt,
    Release,
    Ignore,
}

fn claim(owner: &ObjectMeta, child: &ObjectMeta, selected: bool) -> Claim {
    let owner_deleted = owner.deletion_timestamp.is_some();
    match controller_of(child) {
        Some(reference) if Some(&reference.uid) != owner.uid.as_ref() => Claim::Ignore,
        Some(_) if selected => Claim::Keep,
        Some(_) if owner_deleted => Claim::Ignore,
        Some(_) => Claim::Release,
        None if owner_deleted || !selected || child.deletion_timestamp.is_some() => Claim::Ignore,
        None => Claim::Adopt,
    }
}

/// The children of `owner` among `candidates`: those it controls, plus matching orphans, which are adopted; those it controls
/// but no longer selects are released. Before the first adoption the owner is read past the cache, so that a deleted owner, or
/// a later one of its name, adopts nothing.
pub(crate) async fn claim_children<O: Kind, K: Kind>(
    context: &Context,
    informer: &Informer<K>,
    owner: &O,
    selector: &Selector,
    candidates: Vec<Arc<K>>,
) -> Result<Vec<Arc<K>>, Error> {
    let key = ObjectKey::of(owner);
    let mut children = Vec::new();
    let mut may_adopt = None;
    for child in candidates {
        let target = ObjectKey::of(child.as_ref());
        match claim(owner.meta(), child.meta(), selects(selector, child.meta())) {
            Claim::Ignore => {}
            Claim::Keep => children.push(child),
            Claim::Adopt => {
                let allowed = match may_adopt {
                    Some(allowed) => allowed,
                    None => {
                        let live = context.read::<O>(&key).await?;
                        let same = live.is_some_and(|live| {
                            live.meta().uid == owner.meta().uid && live.meta().deletion_timestamp.is_none()
                        });
                        *may_adopt.insert(same)
                    }
                };
                if !allowed {
                    continue;
                }
                let mut references = child.meta().owner_references.clone().unwrap_or_default();
                references.push(controller_reference(owner));
                match patch_owners(context, &key, informer, child.as_ref(), &references).await {
                    Ok(adopted) => children.push(Arc::new(adopted)),
                    Err(error) if error.is_not_found() => {}
                    Err(error) => return Err(error),
                }
                tracing::debug!(controller = context.name, owner = %key, child = %target, "adopted");
            }
            Claim::Release => {
                let mut references = child.meta().owner_references.clone().unwrap_or_default();
                references.retain(|reference| Some(&reference.uid) != owner.meta().uid.as_ref());
                match patch_owners(context, &key, informer, child.as_ref(), &references).await {
                    Err(error) if !error.is_not_found() => return Err(error),
                    _ => {}
                }
                tracing::debug!(controller = context.name, owner = %key, child = %target, "released");
            }
        }
    }
    Ok(children)
}

async fn patch_owners<K: Kind>(
    context: &Context,
    key: &ObjectKey,
    informer: &Informer<K>,
    child: &K,
    references: &[OwnerReference],
) -> Result<K, Error> {
    let meta = child.meta();
    let patch = json!({"metadata": {
        "uid": meta.uid, "resourceVersion": meta.resource_version, "ownerReferences": references,
    }});
    context.patch(key, informer, &ObjectKey::of(child), None, &Patch::Merge(patch)).await
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn child(controller_uid: Option<&str>) -> ObjectMeta {
        ObjectMeta {
            owner_references: controller_uid.map(|uid| {
                vec![OwnerReference { uid: uid.into(), controller: Some(true), ..OwnerReference::default() }]
            }),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn children_are_claimed_by_controller_and_selector() {
        let owner = ObjectMeta { uid: Some("o".into()), ..ObjectMeta::default() };
        assert_eq!(claim(&owner, &child(Some("o")), true), Claim::Keep);
        assert_eq!(claim(&owner, &child(Some("o")), false), Claim::Release);
        assert_eq!(claim(&owner, &child(Some("x")), true), Claim::Ignore);
        assert_eq!(claim(&owner, &child(None), true), Claim::Adopt);
        assert_eq!(claim(&owner, &child(None), false), Claim::Ignore);

        let deleted = ObjectMeta { deletion_timestamp: Some(Time(Timestamp::UNIX_EPOCH)), ..owner };
        assert_eq!(claim(&deleted, &child(None), true), Claim::Ignore);
        assert_eq!(claim(&deleted, &child(Some("o")), false), Claim::Ignore);
    }
}
