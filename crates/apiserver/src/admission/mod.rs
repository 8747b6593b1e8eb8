//! Admission: plugins that may change or refuse what is about to be written, in one ordered table.
//!
//! Every write of every resource passes here; there is no other way into the store for a client.

mod certificates;
mod default_class;
mod default_toleration_seconds;
pub(crate) mod expressions;
mod limit_ranger;
pub mod matching;
mod namespace_lifecycle;
mod node_restriction;
mod node_tokens;
mod persistent_volume_claim_resize;
mod pod_security;
mod pod_topology_labels;
pub(crate) mod policy;
mod priority;
mod reinvocation;
mod resource_quota;
mod runtime_class;
mod service_account;
mod storage_object_in_use_protection;
mod taint_nodes_by_condition;
pub(crate) mod webhook;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use kminik_meta::{Gvk, Object, StatusError};
use parking_lot::Mutex;

use self::certificates::{SignerRights, SubjectRestriction};
use self::default_toleration_seconds::DefaultTolerationSeconds;
use self::limit_ranger::LimitRanger;
use self::namespace_lifecycle::NamespaceLifecycle;
use self::node_restriction::NodeRestriction;
use self::persistent_volume_claim_resize::PersistentVolumeClaimResize;
use self::pod_security::PodSecurity;
use self::pod_topology_labels::PodTopologyLabels;
pub(crate) use self::pod_topology_labels::TOPOLOGY;
use self::policy::{MutatingPolicies, ValidatingPolicies};
use self::priority::Priority;
pub use self::reinvocation::Reinvocation;
use self::resource_quota::ResourceQuota;
use self::runtime_class::RuntimeClass;
use self::service_account::ServiceAccount;
use self::storage_object_in_use_protection::StorageObjectInUseProtection;
use self::taint_nodes_by_condition::TaintNodesByCondition;
use self::webhook::{MutatingWebhooks, ValidatingWebhooks};
use crate::audit::Audit;
use crate::auth::rbac::EscalationCheck;
use crate::auth::{Auth, UserInfo};
use crate::metrics::family::Histogram;
use crate::metrics::requests::Waited;
use crate::metrics::{Metrics, flag};
use crate::outbound::Outbound;
use crate::registry::Registry;
use crate::registry::def::{ResourceDef, VersionDef};
use crate::storage::cache::Cache;
use crate::verbs::call::WriteOptions;

/// What the request does to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    /// As rules and AdmissionReviews write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

/// A request as plugins see it. Objects are in the version that the row works in.
pub struct Attributes<'a> {
    pub registry: &'a Registry,
    pub row: &'a Arc<ResourceDef>,
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
    /// Takes annotations of what a plugin decided.
    pub audit: &'a Audit,
    pub(crate) options: &'a WriteOptions,
    /// What the client is told besides the answer.
    pub(crate) warnings: &'a Mutex<Vec<String>>,
    /// How long others were waited for.
    pub(crate) waited: &'a Waited,
    pub(crate) reinvocation: Reinvocation,
}

impl Attributes<'_> {
    /// Whether the request does this to an object (not to a subresource) of this resource.
    pub fn is(&self, operation: Operation, group: &str, plural: &str) -> bool {
        self.operation == operation
            && self.subresource.is_empty()
            && self.row.group == group
            && self.row.plural == plural
    }

    /// Whether the request is for namespaces themselves.
    pub fn is_namespace(&self) -> bool {
        self.row.group.is_empty() && self.row.plural == "namespaces"
    }

    /// The namespace; a namespace counts as in itself. Empty for other cluster-scoped resources.
    pub fn effective_namespace(&self) -> &str {
        if self.is_namespace() { self.name } else { self.namespace }
    }

    /// The object of the effective namespace: from the cache, or the store where the cache is behind.
    ///
    /// # Errors
    /// 404 if there is none.
    pub async fn namespace_object(&self) -> Result<Arc<Object>, StatusError> {
        let name = self.effective_namespace();
        if let Some(namespace) = self.registry.cached_object("", "namespaces", "", name) {
            return Ok(namespace);
        }
        let namespace = self.registry.object("", "namespaces", "", name).await?;
        namespace.ok_or_else(|| StatusError::not_found("", "namespaces", name))
    }

    /// Group, version and kind of the request's object: the row's, or those of the subresource's own.
    pub fn kind(&self) -> Gvk {
        let own = || self.row.gvk(self.version);
        self.row.kind_of(self.version, self.subresource).unwrap_or_else(own)
    }

    /// The CreateOptions, UpdateOptions or DeleteOptions of the request; connections have none.
    pub fn options_object(&self) -> Option<Object> {
        let kind = match self.operation {
            Operation::Create => "CreateOptions",
            Operation::Update => "UpdateOptions",
            Operation::Delete => "DeleteOptions",
            Operation::Connect => return None,
        };
        Some(self.options.to_object(kind))
    }

    /// Where what is decided is counted.
    pub(crate) fn metrics(&self) -> &Metrics {
        self.registry.cache().metrics()
    }

    /// Tells the client something besides the answer.
    pub fn warn(&self, warning: String) {
        self.warnings.lock().push(warning);
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

    /// May change the object; runs before validation. Of a connection, the object is its options. A plugin that asks to
    /// be reinvoked ([`Attributes::reinvocation`]) has all of them called once more.
    ///
    /// # Errors
    /// The request is refused with this status.
    async fn mutate(&self, _attributes: &Attributes<'_>, _object: &mut Object) -> Result<(), StatusError> {
        Ok(())
    }

    /// In the place of [`Admission::mutate`] on delete, where there is no object.
    ///
    /// # Errors
    /// The request is refused with this status.
    async fn admit_delete(&self, _attributes: &Attributes<'_>) -> Result<(), StatusError> {
        Ok(())
    }

    /// Looks at the final object (`None` on delete); runs after validation.
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
    plugins: Vec<Plugin>,
    steps: Durations,
}

/// A plugin, and how long it takes.
struct Plugin {
    plugin: Box<dyn Admission>,
    durations: Durations,
}

/// The phases, as metrics name them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Phase {
    Admit,
    Validate,
}

impl Phase {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Phase::Admit => "admit",
            Phase::Validate => "validate",
        }
    }
}

/// The series of a plugin, or of all of them, by phase, operation and whether the request was refused.
#[derive(Default)]
struct Durations([[[OnceLock<Arc<Histogram>>; 2]; 4]; 2]);

impl Durations {
    fn took(
        &self,
        phase: Phase,
        operation: Operation,
        refused: bool,
        took: Duration,
        of: impl FnOnce() -> Arc<Histogram>,
    ) {
        let series = self.0.get(phase as usize).and_then(|phase| phase.get(operation as usize));
        if let Some(series) = series.and_then(|operation| operation.get(usize::from(refused))) {
            series.get_or_init(of).took(took);
        }
    }
}

impl Plugin {
    /// Takes down what came of asking it, and when that began.
    fn asked(
        &self,
        attributes: &Attributes<'_>,
        phase: Phase,
        started: Instant,
        verdict: Result<(), StatusError>,
    ) -> Result<(), StatusError> {
        let (operation, refused) = (attributes.operation, verdict.is_err());
        self.durations.took(phase, operation, refused, started.elapsed(), || {
            let labels = [self.plugin.name(), operation.as_str(), flag(refused), phase.as_str()];
            attributes.metrics().table.admission.plugins.with(labels)
        });
        verdict
    }
}

impl AdmissionChain {
    pub fn new(plugins: Vec<Box<dyn Admission>>) -> Self {
        let plugin = |plugin| Plugin { plugin, durations: Durations::default() };
        AdmissionChain { plugins: plugins.into_iter().map(plugin).collect(), steps: Durations::default() }
    }

    fn those<'a>(&'a self, attributes: &'a Attributes<'_>) -> impl Iterator<Item = &'a Plugin> {
        self.plugins.iter().filter(|plugin| plugin.plugin.handles(attributes))
    }

    /// Takes down what came of a phase, and when it began.
    fn stepped<T>(
        &self,
        attributes: &Attributes<'_>,
        phase: Phase,
        started: Instant,
        verdict: Result<T, StatusError>,
    ) -> Result<T, StatusError> {
        let (operation, refused) = (attributes.operation, verdict.is_err());
        self.steps.took(phase, operation, refused, started.elapsed(), || {
            attributes.metrics().table.admission.steps.with([operation.as_str(), flag(refused), phase.as_str()])
        });
        verdict
    }

    /// Runs the mutating phase, a second time if a plugin asks for it; tells whether a plugin may have changed the object.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn mutate(&self, attributes: &Attributes<'_>, object: &mut Object) -> Result<bool, StatusError> {
        let started = Instant::now();
        let mutated = self.mutate_all(attributes, object).await;
        self.stepped(attributes, Phase::Admit, started, mutated)
    }

    async fn mutate_all(&self, attributes: &Attributes<'_>, object: &mut Object) -> Result<bool, StatusError> {
        let mut mutated = false;
        for plugin in self.those(attributes) {
            mutated |= plugin.plugin.may_mutate();
            let started = Instant::now();
            let verdict = plugin.plugin.mutate(attributes, object).await;
            plugin.asked(attributes, Phase::Admit, started, verdict)?;
        }
        if attributes.reinvocation.begin_second() {
            for plugin in self.those(attributes) {
                let started = Instant::now();
                let verdict = plugin.plugin.mutate(attributes, object).await;
                plugin.asked(attributes, Phase::Admit, started, verdict)?;
            }
        }
        Ok(mutated)
    }

    /// Runs both phases of a deletion.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn delete(&self, attributes: &Attributes<'_>) -> Result<(), StatusError> {
        let started = Instant::now();
        let admitted = self.admit_all(attributes).await;
        self.stepped(attributes, Phase::Admit, started, admitted)?;
        self.validate(attributes, None).await
    }

    async fn admit_all(&self, attributes: &Attributes<'_>) -> Result<(), StatusError> {
        for plugin in self.those(attributes) {
            let started = Instant::now();
            let verdict = plugin.plugin.admit_delete(attributes).await;
            plugin.asked(attributes, Phase::Admit, started, verdict)?;
        }
        Ok(())
    }

    /// Runs the validating phase.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), StatusError> {
        let started = Instant::now();
        let valid = self.validate_all(attributes, object).await;
        self.stepped(attributes, Phase::Validate, started, valid)
    }

    async fn validate_all(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), StatusError> {
        for plugin in self.those(attributes) {
            let started = Instant::now();
            let verdict = plugin.plugin.validate(attributes, object).await;
            plugin.asked(attributes, Phase::Validate, started, verdict)?;
        }
        Ok(())
    }
}

/// The plugins that are on, in upstream's order: those that ask others come last. MutatingAdmissionPolicies are asked if `mutating`.
pub fn default_plugins(
    auth: &Auth,
    cache: &Cache,
    outbound: &Arc<Outbound>,
    mutating: bool,
) -> Vec<Box<dyn Admission>> {
    let mut plugins: Vec<Box<dyn Admission>> = vec![
        Box::new(NamespaceLifecycle),
        Box::new(LimitRanger::new(cache)),
        Box::new(ServiceAccount),
        Box::new(NodeRestriction::new(auth.authorizer.clone())),
        Box::new(TaintNodesByCondition),
        Box::new(PodSecurity),
        Box::new(Priority),
        Box::new(DefaultTolerationSeconds),
        Box::new(default_class::STORAGE),
        Box::new(StorageObjectInUseProtection),
        Box::new(PersistentVolumeClaimResize),
        Box::new(RuntimeClass),
        Box::new(SignerRights::approval(auth.authorizer.clone())),
        Box::new(SignerRights::signing(auth.authorizer.clone())),
        Box::new(SubjectRestriction),
        Box::new(default_class::INGRESS),
        Box::new(PodTopologyLabels),
        Box::new(EscalationCheck { rbac: auth.rbac.clone(), authorizer: auth.authorizer.clone() }),
    ];
    if mutating {
        plugins.push(Box::new(MutatingPolicies::new(cache, auth.authorizer.clone())));
    }
    let asking: [Box<dyn Admission>; 4] = [
        Box::new(MutatingWebhooks::new(cache, outbound.clone(), auth.authorizer.clone())),
        Box::new(ValidatingPolicies::new(cache, auth.authorizer.clone())),
        Box::new(ValidatingWebhooks::new(cache, outbound.clone(), auth.authorizer.clone())),
        Box::new(ResourceQuota::new(cache)),
    ];
    plugins.extend(asking);
    plugins
}
