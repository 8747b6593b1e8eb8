//! Role-based access control: roles and bindings decide who may do what.

mod aggregate;
mod bootstrap;
mod escalation;
mod roles;
mod rows;
mod rules;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use kminik_meta::Object;
use serde_json::Value;

pub use self::bootstrap::bootstrap;
pub use self::escalation::EscalationCheck;
pub(in crate::auth) use self::roles::NODE_RULES;
pub(in crate::auth) use self::rows::RuleRow;
pub use self::rules::{Rule, uncovered};
use super::service_account::user_name;
use super::{Attributes, Authorizer, Decision, RuleSummary, UserInfo};
use crate::storage::cache::Cache;

/// API group of roles and bindings.
pub const GROUP: &str = "rbac.authorization.k8s.io";

const CLUSTER_ROLES: &str = "rbac.authorization.k8s.io/clusterroles";
const CLUSTER_ROLE_BINDINGS: &str = "rbac.authorization.k8s.io/clusterrolebindings";
const ROLES: &str = "rbac.authorization.k8s.io/roles";
const ROLE_BINDINGS: &str = "rbac.authorization.k8s.io/rolebindings";
const SOURCES: [&str; 4] = [CLUSTER_ROLES, CLUSTER_ROLE_BINDINGS, ROLES, ROLE_BINDINGS];

/// The authorizer over the stored roles. Its index is rebuilt when one of them has changed since it was last asked.
pub struct Rbac {
    cache: Arc<Cache>,
    index: ArcSwap<Index>,
}

/// Roles by name, and bindings by the users and groups they are for.
#[derive(Default)]
struct Index {
    /// The newest change of each source that is in here.
    built_from: [u64; 4],
    roles: HashMap<RoleKey, Arc<[Rule]>>,
    by_user: HashMap<String, Vec<Arc<Grant>>>,
    by_group: HashMap<String, Vec<Arc<Grant>>>,
}

/// A role: its namespace (`None` for cluster roles) and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RoleKey {
    pub namespace: Option<String>,
    pub name: String,
}

/// A binding seen from its subjects.
struct Grant {
    /// Where it holds; `None` is everywhere.
    namespace: Option<String>,
    binding: String,
    role: RoleKey,
    /// Whom the binding names, in upstream's words (`User "alice"`).
    subject: String,
}

impl Rbac {
    pub fn new(cache: Arc<Cache>) -> Self {
        Rbac { cache, index: ArcSwap::from_pointee(Index::default()) }
    }

    /// The rules of a role, `None` if there is no such role.
    pub fn rules_of(&self, role: &RoleKey) -> Option<Arc<[Rule]>> {
        self.index().roles.get(role).cloned()
    }

    /// All rules that hold for the user in the namespace (empty: cluster-wide ones only).
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> Vec<Rule> {
        let index = self.index();
        let rules = index.grants(user, namespace).filter_map(|grant| index.roles.get(&grant.role));
        rules.flat_map(|rules| rules.iter().cloned()).collect()
    }

    fn index(&self) -> Arc<Index> {
        let newest = SOURCES.map(|source| self.cache.resource(source).last_changed());
        let index = self.index.load_full();
        if index.built_from == newest {
            return index;
        }
        let index = Arc::new(self.build(newest));
        self.index.store(index.clone());
        index
    }

    /// `built_from` was read before the objects, so a change in between only leads to another rebuild.
    fn build(&self, built_from: [u64; 4]) -> Index {
        let mut index = Index { built_from, ..Index::default() };
        for (source, namespaced) in [(CLUSTER_ROLES, false), (ROLES, true)] {
            for role in self.objects(source) {
                let namespace = namespaced.then(|| role.namespace().to_owned());
                let key = RoleKey { namespace, name: role.name().to_owned() };
                index.roles.insert(key, Rule::of_role(&role).into());
            }
        }
        for (source, namespaced) in [(CLUSTER_ROLE_BINDINGS, false), (ROLE_BINDINGS, true)] {
            for binding in self.objects(source) {
                let namespace = namespaced.then(|| binding.namespace().to_owned());
                let Some(role) = role_of(&binding) else { continue };
                for subject in binding.array(&["subjects"]) {
                    index.add(subject, &binding, namespace.as_deref(), &role);
                }
            }
        }
        index
    }

    fn objects(&self, source: &str) -> Vec<Arc<Object>> {
        let snapshot = self.cache.snapshot(source);
        snapshot.entries.values().filter_map(|entry| entry.object().ok()).collect()
    }
}

impl Index {
    fn add(&mut self, subject: &Value, binding: &Object, namespace: Option<&str>, role: &RoleKey) {
        let text = |key: &str| subject.get(key).and_then(Value::as_str).unwrap_or_default();
        let (kind, name) = (text("kind"), text("name"));
        let (map, user, named) = match kind {
            "User" => (&mut self.by_user, name.to_owned(), name.to_owned()),
            "Group" => (&mut self.by_group, name.to_owned(), name.to_owned()),
            "ServiceAccount" => {
                let own = Some(text("namespace")).filter(|ns| !ns.is_empty()).unwrap_or(binding.namespace());
                (&mut self.by_user, user_name(own, name), format!("{name}/{own}"))
            }
            _ => return,
        };
        let grant = Grant {
            namespace: namespace.map(str::to_owned),
            binding: binding.name().to_owned(),
            role: role.clone(),
            subject: format!("{kind} {named:?}"),
        };
        map.entry(user).or_default().push(Arc::new(grant));
    }

    /// The bindings for the user that hold in the namespace.
    fn grants<'a>(&'a self, user: &'a UserInfo, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Grant>> {
        let own = self.by_user.get(&user.name).into_iter();
        let groups = user.groups.iter().filter_map(|group| self.by_group.get(group));
        own.chain(groups).flatten().filter(move |grant| grant.namespace.as_deref().is_none_or(|ns| ns == namespace))
    }
}

/// The role that a binding refers to, `None` if it names no kind of role.
pub(super) fn role_of(binding: &Object) -> Option<RoleKey> {
    let name = binding.str(&["roleRef", "name"])?.to_owned();
    match binding.str(&["roleRef", "kind"])? {
        "ClusterRole" => Some(RoleKey { namespace: None, name }),
        "Role" => Some(RoleKey { namespace: Some(binding.namespace().to_owned()), name }),
        _ => None,
    }
}

#[async_trait]
impl Authorizer for Rbac {
    async fn authorize(&self, attributes: &Attributes) -> Decision {
        let index = self.index();
        let namespace = if attributes.resource_request { attributes.namespace.as_str() } else { "" };
        for grant in index.grants(&attributes.user, namespace) {
            let Some(rules) = index.roles.get(&grant.role) else { continue };
            if rules.iter().any(|rule| rule.allows(attributes)) {
                return Decision::Allow { reason: grant.reason() };
            }
        }
        Decision::NoOpinion { reason: String::new() }
    }

    async fn rules(&self, user: &UserInfo, namespace: &str) -> Vec<RuleSummary> {
        self.rules_for(user, namespace).iter().map(Rule::summary).collect()
    }
}

impl Grant {
    fn reason(&self) -> String {
        let (kind, binding) = match &self.namespace {
            None => ("ClusterRoleBinding", self.binding.clone()),
            Some(namespace) => ("RoleBinding", format!("{}/{namespace}", self.binding)),
        };
        let role = match &self.role.namespace {
            None => format!("ClusterRole {:?}", self.role.name),
            Some(_) => format!("Role {:?}", self.role.name),
        };
        format!("RBAC: allowed by {kind} {binding:?} of {role} to {}", self.subject)
    }
}
