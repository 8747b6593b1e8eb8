//! Admission: plugins that may change or refuse what is about to be written, in one ordered table.
//!
//! Every write of every resource passes here; there is no other way into the store for a client.

mod default_storage_class;
mod default_toleration_seconds;
mod namespace_lifecycle;
mod node_restriction;
mod priority;
mod service_account;
mod storage_object_in_use_protection;
mod taint_nodes_by_condition;

use async_trait::async_trait;
use kminik_meta::{Object, StatusError};

use self::default_storage_class::DefaultStorageClass;
use self::default_toleration_seconds::DefaultTolerationSeconds;
use self::namespace_lifecycle::NamespaceLifecycle;
use self::node_restriction::NodeRestriction;
use self::priority::Priority;
use self::service_account::ServiceAccount;
use self::storage_object_in_use_protection::StorageObjectInUseProtection;
use self::taint_nodes_by_condition::TaintNodesByCondition;
use crate::auth::rbac::EscalationCheck;
use crate::auth::{Auth, UserInfo};
use crate::registry::Registry;
use crate::registry::def::{ResourceDef, VersionDef};

/// What the request does to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

/// A request as plugins see it. Objects are in the row's stored version.
pub struct Attributes<'a> {
    pub registry: &'a Registry,
    pub row: &'a ResourceDef,
    /// The version of the request.
    pub version: &'a VersionDef,
    pub operation: Operation,
    pub user: &'a UserInfo,
    /// Empty for cluster-scoped resources.
    pub namespace: &'a str,
    /// Empty while a name is not yet generated.
    pub name: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// Before the change; on create `None`.
    pub old: Option<&'a Object>,
    pub dry_run: bool,
    /// The CreateOptions, UpdateOptions or DeleteOptions of the request.
    pub options: Option<&'a Object>,
}

impl Attributes<'_> {
    /// Whether the request does this to an object (not to a subresource) of this resource.
    pub fn is(&self, operation: Operation, group: &str, plural: &str) -> bool {
        self.operation == operation
            && self.subresource.is_empty()
            && self.row.group == group
            && self.row.plural == plural
    }

    /// The 403 with which a plugin refuses.
    pub fn forbidden(&self, why: impl std::fmt::Display) -> StatusError {
        StatusError::forbidden(&self.row.group, &self.row.plural, self.name, why)
    }
}

/// A plugin. Both phases default to doing nothing, so a plugin implements what it is for.
#[async_trait]
pub trait Admission: Send + Sync + 'static {
    /// As upstream's plugin of this purpose is called.
    fn name(&self) -> &'static str;

    /// Whether the plugin wants to see the request at all.
    fn handles(&self, attributes: &Attributes<'_>) -> bool;

    /// Whether the mutating phase may change what it handles. A plugin that only looks says no, which spares every write a
    /// second look at its schema.
    fn may_mutate(&self) -> bool {
        true
    }

    /// May change the object; runs before validation. On delete there is no object and this is not called.
    ///
    /// # Errors
    /// The request is refused with this status.
    async fn mutate(&self, _attributes: &Attributes<'_>, _object: &mut Object) -> Result<(), StatusError> {
        Ok(())
    }

    /// Looks at the final object (`None` on delete and connect); runs after validation.
    ///
    /// # Errors
    /// The request is refused with this status.
    async fn validate(&self, _attributes: &Attributes<'_>, _object: Option<&Object>) -> Result<(), StatusError> {
        Ok(())
    }
}

/// The plugins in their order.
#[derive(Default)]
pub struct AdmissionChain {
    plugins: Vec<Box<dyn Admission>>,
}

impl AdmissionChain {
    pub fn new(plugins: Vec<Box<dyn Admission>>) -> Self {
        AdmissionChain { plugins }
    }

    /// Runs the mutating phase; tells whether a plugin may have changed the object.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn mutate(&self, attributes: &Attributes<'_>, object: &mut Object) -> Result<bool, StatusError> {
        let mut mutated = false;
        for plugin in self.plugins.iter().filter(|plugin| plugin.handles(attributes)) {
            mutated |= plugin.may_mutate();
            plugin.mutate(attributes, object).await?;
        }
        Ok(mutated)
    }

    /// Runs the validating phase.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), StatusError> {
        for plugin in self.plugins.iter().filter(|plugin| plugin.handles(attributes)) {
            plugin.validate(attributes, object).await?;
        }
        Ok(())
    }
}

/// The plugins that are always on, in order.
pub fn default_plugins(auth: &Auth) -> Vec<Box<dyn Admission>> {
    vec![
        Box::new(NamespaceLifecycle),
        Box::new(NodeRestriction),
        Box::new(ServiceAccount),
        Box::new(Priority),
        Box::new(DefaultTolerationSeconds),
        Box::new(TaintNodesByCondition),
        Box::new(DefaultStorageClass),
        Box::new(StorageObjectInUseProtection),
        Box::new(EscalationCheck { rbac: auth.rbac.clone(), authorizer: auth.authorizer.clone() }),
    ]
}
