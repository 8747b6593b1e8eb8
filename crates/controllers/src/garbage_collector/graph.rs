//! Who owns whom, by uid: pure bookkeeping over what the watches tell.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kminik_client::ObjectKey;

use crate::discovery::Served;

/// Deleting waits until dependents that block it are gone.
pub(super) const FOREGROUND: &str = "foregroundDeletion";
/// Dependents stay, without this owner.
pub(super) const ORPHAN: &str = "orphan";

/// An object as far as ownership goes.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) resource: Arc<Served>,
    pub(super) key: ObjectKey,
    pub(super) owners: Vec<OwnerReference>,
    pub(super) deleting: bool,
    pub(super) foreground: bool,
    pub(super) orphan: bool,
}

impl Member {
    pub(super) fn new(resource: Arc<Served>, meta: &ObjectMeta) -> Self {
        let has = |finalizer: &str| meta.finalizers.iter().flatten().any(|own| own == finalizer);
        let deleting = meta.deletion_timestamp.is_some();
        Self {
            resource,
            key: ObjectKey::from(meta),
            owners: meta.owner_references.clone().unwrap_or_default(),
            deleting,
            foreground: deleting && has(FOREGROUND),
            orphan: deleting && has(ORPHAN),
        }
    }
}

#[derive(Default)]
pub(super) struct Graph {
    members: HashMap<String, Member>,
    dependents: HashMap<String, BTreeSet<String>>,
}

impl Graph {
    pub(super) fn get(&self, uid: &str) -> Option<&Member> {
        self.members.get(uid)
    }

    /// Uids of the objects that name this one as an owner.
    pub(super) fn dependents(&self, uid: &str) -> Vec<String> {
        self.dependents.get(uid).into_iter().flatten().cloned().collect()
    }

    /// An object was added or changed. Returns the uids to look at.
    pub(super) fn set(&mut self, uid: String, member: Member) -> Vec<String> {
        let mut look = Vec::new();
        let before = self.members.remove(&uid);
        for owner in before.iter().flat_map(|before| &before.owners) {
            let kept = member.owners.iter().find(|own| own.uid == owner.uid);
            if kept.is_none() {
                self.unlink(&owner.uid, &uid);
            }
            // An owner in foreground deletion may have waited for this reference alone.
            let unblocked = owner.block_owner_deletion == Some(true)
                && kept.is_none_or(|own| own.block_owner_deletion != Some(true));
            if unblocked && self.members.get(&owner.uid).is_some_and(|owner| owner.foreground) {
                look.push(owner.uid.clone());
            }
        }
        let mut check_self = false;
        for owner in &member.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
            let known_before =
                before.as_ref().is_some_and(|before| before.owners.iter().any(|own| own.uid == owner.uid));
            // An owner that is not there, or waits for its dependents, decides about this object.
            check_self |= !known_before && self.members.get(&owner.uid).is_none_or(|owner| owner.foreground);
        }
        let starts = |is: fn(&Member) -> bool| is(&member) && !before.as_ref().is_some_and(is);
        if starts(|member| member.foreground) {
            look.extend(self.dependents(&uid));
            check_self = true;
        }
        check_self |= starts(|member| member.orphan);
        if check_self {
            look.push(uid.clone());
        }
        self.members.insert(uid, member);
        look
    }

    /// An object is gone. Returns the uids to look at: its dependents, and owners that wait for it.
    pub(super) fn remove(&mut self, uid: &str) -> Vec<String> {
        let mut look = self.dependents(uid);
        let Some(member) = self.members.remove(uid) else { return look };
        for owner in member.owners {
            self.unlink(&owner.uid, uid);
            if self.members.get(&owner.uid).is_some_and(|owner| owner.foreground) {
                look.push(owner.uid);
            }
        }
        look
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn member(value: Value) -> Member {
        let resource = Served::test("pods", true);
        Member::new(Arc::new(resource), &serde_json::from_value(value).unwrap())
    }

    fn owned_by(uid: &str, block: bool) -> Value {
        json!({"ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": uid, "uid": uid, "blockOwnerDeletion": block}]})
    }

    fn foreground() -> Value {
        json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["foregroundDeletion"]})
    }

    #[test]
    fn a_deleted_owner_brings_its_dependents() {
        let mut graph = Graph::default();
        assert!(graph.set("o".into(), member(json!({}))).is_empty());
        assert!(graph.set("d".into(), member(owned_by("o", true))).is_empty());
        assert_eq!(graph.remove("o"), ["d"]);
        assert_eq!(graph.set("e".into(), member(owned_by("o", true))), ["e"], "an owner nobody knows is looked for");
    }

    #[test]
    fn foreground_deletion_waits_for_blocking_dependents() {
        let mut graph = Graph::default();
        graph.set("o".into(), member(json!({})));
        graph.set("d".into(), member(owned_by("o", true)));
        assert_eq!(graph.set("o".into(), member(foreground())), ["d", "o"]);
        assert!(graph.set("o".into(), member(foreground())).is_empty(), "only the change counts");
        assert_eq!(graph.set("d".into(), member(owned_by("o", false))), ["o"]);
        assert_eq!(graph.remove("d"), ["o"]);
        assert!(graph.dependents("o").is_empty());
    }
}
