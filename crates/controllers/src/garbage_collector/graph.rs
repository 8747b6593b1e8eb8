//! Who owns whom, by uid: pure bookkeeping over what the watches tell.

use std::collections::{BTreeSet, HashMap, HashSet};
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

    /// Whether a reference in an object of this namespace means this object, as far as it is not its uid that says so.
    pub(super) fn is_meant(&self, owner: &OwnerReference, namespace: &str) -> bool {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let resource = &self.resource.resource;
        (resource.group.as_str(), &resource.kind, &self.key.name) == (group, &owner.kind, &owner.name)
            && !self.is_elsewhere(namespace)
    }

    /// It is in another namespace, so objects of this one cannot be owned by it.
    pub(super) fn is_elsewhere(&self, namespace: &str) -> bool {
        self.resource.namespaced && self.key.namespace != namespace
    }
}

#[derive(Default)]
pub(super) struct Graph {
    members: HashMap<String, Member>,
    dependents: HashMap<String, BTreeSet<String>>,
    /// Owners that are known to be gone, while somebody names them: their kind may be gone as well, and not be asked.
    gone: HashSet<String>,
    /// The owner in another namespace that was last told of, by dependent.
    told: HashMap<String, String>,
}

impl Graph {
    pub(super) fn get(&self, uid: &str) -> Option<&Member> {
        self.members.get(uid)
    }

    /// Uids of the objects that name this one as an owner.
    pub(super) fn dependents(&self, uid: &str) -> Vec<String> {
        self.dependents.get(uid).into_iter().flatten().cloned().collect()
    }

    /// It was there and is no more.
    pub(super) fn is_gone(&self, uid: &str) -> bool {
        self.gone.contains(uid)
    }

    /// Whether it is news that an owner of this object is in another namespace. The second time it is not.
    pub(super) fn tell_elsewhere(&mut self, uid: &str, owner: &str) -> bool {
        self.members.contains_key(uid) && self.told.insert(uid.to_string(), owner.to_string()).as_deref() != Some(owner)
    }

    /// Uids of the objects that name an owner which is not in the graph.
    pub(super) fn unowned(&self) -> Vec<String> {
        let unknown = |owner: &OwnerReference| !self.members.contains_key(&owner.uid);
        let unowned = self.members.iter().filter(|(_, member)| member.owners.iter().any(unknown));
        unowned.map(|(uid, _)| uid.clone()).collect()
    }

    /// A kind is no longer followed; `gone` tells whether its objects are gone. Returns the uids to look at.
    pub(super) fn leave(&mut self, name: &str, gone: bool) -> Vec<String> {
        let of_kind = self.members.iter().filter(|(_, member)| member.resource.name() == name);
        let uids: Vec<String> = of_kind.map(|(uid, _)| uid.clone()).collect();
        let mut look = Vec::new();
        for uid in uids {
            if gone { look.extend(self.remove(&uid)) } else { self.forget(&uid, &mut look) }
        }
        look
    }

    /// An object was added or changed. Returns the uids to look at.
    pub(super) fn set(&mut self, uid: String, member: Member) -> Vec<String> {
        let mut look = Vec::new();
        self.gone.remove(&uid);
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
            // An owner that is not there, waits for its dependents or is another than is meant decides about this object.
            let decides = |there: &Member| there.foreground || !there.is_meant(owner, &member.key.namespace);
            check_self |= !known_before && self.members.get(&owner.uid).is_none_or(decides);
        }
        let starts = |is: fn(&Member) -> bool| is(&member) && !before.as_ref().is_some_and(is);
        if starts(|member| member.foreground) {
            look.extend(self.dependents(&uid));
            check_self = true;
        }
        check_self |= starts(|member| member.orphan);
        if before.is_none() {
            look.extend(self.dependents(&uid).into_iter().filter(|dependent| self.mistakes(dependent, &uid, &member)));
        }
        if check_self {
            look.push(uid.clone());
        }
        self.members.insert(uid, member);
        look
    }

    /// An object is gone. Returns the uids to look at: its dependents, and owners that wait for it.
    pub(super) fn remove(&mut self, uid: &str) -> Vec<String> {
        let mut look = self.dependents(uid);
        if !look.is_empty() {
            self.gone.insert(uid.to_string());
        }
        self.forget(uid, &mut look);
        look
    }

    /// Takes an object out; owners that wait for it are to be looked at.
    fn forget(&mut self, uid: &str, look: &mut Vec<String>) {
        let Some(member) = self.members.remove(uid) else { return };
        self.told.remove(uid);
        for owner in member.owners {
            self.unlink(&owner.uid, uid);
            if self.members.get(&owner.uid).is_some_and(|owner| owner.foreground) {
                look.push(owner.uid);
            }
        }
    }

    /// The dependent means another object by this uid than the one it is.
    fn mistakes(&self, dependent: &str, uid: &str, owner: &Member) -> bool {
        let Some(member) = self.members.get(dependent) else { return false };
        member.owners.iter().any(|own| own.uid == uid && !owner.is_meant(own, &member.key.namespace))
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(owner);
                self.gone.remove(owner);
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
        json!({"namespace": "n", "ownerReferences": [
            {"apiVersion": "v1", "kind": "pods", "name": uid, "uid": uid, "blockOwnerDeletion": block}]})
    }

    fn owner(namespace: &str) -> Value {
        json!({"name": "o", "namespace": namespace})
    }

    fn foreground() -> Value {
        json!({"name": "o", "namespace": "n", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["foregroundDeletion"]})
    }

    #[test]
    fn a_deleted_owner_brings_its_dependents() {
        let mut graph = Graph::default();
        assert!(graph.set("o".into(), member(owner("n"))).is_empty());
        assert!(graph.set("d".into(), member(owned_by("o", true))).is_empty());
        assert!(graph.unowned().is_empty());
        assert_eq!(graph.remove("o"), ["d"]);
        assert!(graph.is_gone("o"));
        assert_eq!(graph.unowned(), ["d"]);
        assert!(graph.remove("d").is_empty());
        assert!(!graph.is_gone("o"), "nobody names it");
        assert_eq!(graph.set("e".into(), member(owned_by("o", true))), ["e"], "an owner nobody knows is looked for");
    }

    #[test]
    fn foreground_deletion_waits_for_blocking_dependents() {
        let mut graph = Graph::default();
        graph.set("o".into(), member(owner("n")));
        graph.set("d".into(), member(owned_by("o", true)));
        assert_eq!(graph.set("o".into(), member(foreground())), ["d", "o"]);
        assert!(graph.set("o".into(), member(foreground())).is_empty(), "only the change counts");
        assert_eq!(graph.set("d".into(), member(owned_by("o", false))), ["o"]);
        assert_eq!(graph.remove("d"), ["o"]);
        assert!(graph.dependents("o").is_empty());
    }

    #[test]
    fn an_owner_in_another_namespace_is_not_the_one_that_is_meant() {
        let mut graph = Graph::default();
        graph.set("o".into(), member(owner("other")));
        assert_eq!(graph.set("d".into(), member(owned_by("o", true))), ["d"]);
        let mut later = Graph::default();
        assert_eq!(later.set("d".into(), member(owned_by("o", true))), ["d"]);
        assert_eq!(later.set("o".into(), member(owner("other"))), ["d"]);
        assert!(later.set("o".into(), member(owner("other"))).is_empty(), "once");
    }

    #[test]
    fn a_kind_that_is_left_takes_its_objects_along() {
        let mut graph = Graph::default();
        let other = |value: Value| {
            let resource = Served::test("widgets", true);
            Member::new(Arc::new(resource), &serde_json::from_value(value).unwrap())
        };
        graph.set("o".into(), other(owner("n")));
        graph.set("d".into(), member(owned_by("o", true)));
        assert!(graph.leave("pods.example.com", true).is_empty());
        assert!(graph.leave("widgets", false).is_empty(), "out of sight is not gone");
        assert!(graph.get("o").is_none() && !graph.is_gone("o"));
        graph.set("o".into(), other(owner("n")));
        assert_eq!(graph.leave("widgets", true), ["d"]);
        assert!(graph.is_gone("o"));
    }
}
