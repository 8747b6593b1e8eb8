//! ResourceQuota: what a namespace may hold is counted before it is stored.
//!
//! A quota's `status.used` is raised here, by compare-and-swap, before the object is written; the quota controller lowers
//! it when objects go, and corrects it where a write failed after it was charged. So two requests at once never both get
//! what is left for one.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use kminik_meta::pod_resources::{Amounts, amounts};
use kminik_meta::quota::Counted;
use kminik_meta::{Object, StatusError};
use tokio::sync::Mutex;

use super::{Admission, Attributes, Operation};
use crate::registry::Change;
use crate::registry::def::Storage;
use crate::storage::cache::{Cache, ResourceCache};

const PLURAL: &str = "resourcequotas";
/// Requests of one namespace are charged one after the other; namespaces share this many locks.
const LOCKS: usize = 64;

pub(super) struct ResourceQuota {
    quotas: Arc<ResourceCache>,
    locks: [Mutex<()>; LOCKS],
}

impl ResourceQuota {
    pub(super) fn new(cache: &Cache) -> Self {
        ResourceQuota {
            quotas: cache.resource("core/resourcequotas"),
            locks: std::array::from_fn(|_| Mutex::default()),
        }
    }

    fn lock_of(&self, namespace: &str) -> &Mutex<()> {
        let mut hasher = DefaultHasher::new();
        namespace.hash(&mut hasher);
        &self.locks[hasher.finish() as usize % LOCKS]
    }
}

#[async_trait]
impl Admission for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        !attributes.namespace.is_empty() && !self.quotas.is_empty() && can_change_usage(attributes)
    }

    fn may_mutate(&self) -> bool {
        false
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), StatusError> {
        let Some(object) = object else { return Ok(()) };
        let quotas = attributes.registry.cached_in("", PLURAL, attributes.namespace);
        let request = Request::new(attributes, object);
        let concerned: Vec<&str> =
            quotas.iter().filter(|quota| request.concerns(quota)).map(|quota| quota.name()).collect();
        if concerned.is_empty() {
            return Ok(());
        }
        let _one_at_a_time = self.lock_of(attributes.namespace).lock().await;
        // Nothing is charged to one quota if another has no room.
        if concerned.len() > 1 || attributes.dry_run {
            for name in &concerned {
                if let Some(quota) = attributes.registry.object("", PLURAL, attributes.namespace, name).await? {
                    request.charge(&quota)?;
                }
            }
        }
        if attributes.dry_run {
            return Ok(());
        }
        let row = attributes.registry.row("", PLURAL)?;
        for name in &concerned {
            let charge = |quota: &Object| Ok(request.charge(quota)?.map_or(Change::Keep, Change::Put));
            match attributes.registry.modify(&row, attributes.namespace, name, charge).await {
                // A quota that is gone bounds nothing.
                Err(error) if error.code() == 404 => {}
                written => drop(written?),
            }
        }
        Ok(())
    }
}

/// Whether the request can change what quotas count.
fn can_change_usage(attributes: &Attributes<'_>) -> bool {
    let (group, plural): (&str, &str) = (attributes.row.group.as_ref(), attributes.row.plural.as_ref());
    let is_event = plural == "events" && matches!(group, "" | "events.k8s.io");
    if is_event || matches!(attributes.row.storage, Storage::Virtual(_)) {
        return false;
    }
    matches!(
        (group, plural, attributes.operation, attributes.subresource),
        (_, _, Operation::Create, "")
            | ("", "pods", Operation::Update, "resize")
            | ("", "services" | "persistentvolumeclaims", Operation::Update, "")
            | ("", "persistentvolumeclaims", Operation::Update, "status")
    )
}

/// What a request takes.
struct Request<'a> {
    attributes: &'a Attributes<'a>,
    object: &'a Object,
    counted: Counted,
    usage: Amounts,
    /// What the object took before.
    before: Option<Amounts>,
}

impl<'a> Request<'a> {
    fn new(attributes: &'a Attributes<'a>, object: &'a Object) -> Self {
        let counted = Counted::new(&attributes.row.group, &attributes.row.plural);
        let now = Timestamp::now();
        let usage = counted.usage(object, now);
        let before = attributes.old.map(|old| counted.usage(old, now));
        Request { attributes, object, counted, usage, before }
    }

    /// Names of what the quota bounds and this kind of object takes.
    fn bounded<'q>(&'q self, hard: &'q Amounts) -> impl Iterator<Item = &'q str> + Clone {
        hard.keys().map(String::as_str).filter(move |name| self.counted.counts(name))
    }

    fn concerns(&self, quota: &Object) -> bool {
        let hard = quota.get(&["spec", "hard"]).and_then(|hard| hard.as_object());
        hard.is_some_and(|hard| hard.keys().any(|name| self.counted.counts(name)))
            && self.counted.in_scope(quota, self.object)
    }

    /// The quota with this request added; `None` if it takes nothing of it.
    ///
    /// # Errors
    /// 403 if there is no room.
    fn charge(&self, quota: &Object) -> Result<Option<Object>, StatusError> {
        let (hard, used) = (amounts(quota.get(&["status", "hard"])), amounts(quota.get(&["status", "used"])));
        if !self.counted.in_scope(quota, self.object) || self.bounded(&hard).next().is_none() {
            return Ok(None);
        }
        let name = quota.name();
        if let Some(missing) = self.counted.missing(self.bounded(&hard), self.object) {
            return Err(self.attributes.forbidden(format!("failed quota: {name}: {missing}")));
        }
        if self.bounded(&hard).any(|bounded| !used.contains_key(bounded)) {
            let resources: Vec<&str> = self.bounded(&hard).collect();
            let why = format!("status unknown for quota: {name}, resources: {}", resources.join(","));
            return Err(self.attributes.forbidden(why));
        }
        let requested = self.requested(quota, &hard);
        if requested.is_empty() {
            return Ok(None);
        }
        let mut charged = used.clone();
        kminik_meta::pod_resources::add(&mut charged, &requested);
        let beyond = |name: &&String| charged.get(*name) > hard.get(*name);
        let exceeded: Vec<&String> = requested.keys().filter(beyond).collect();
        // A status tells what is, so it is counted even where there is no room.
        if !exceeded.is_empty() && self.attributes.subresource != "status" {
            let print = |amounts: &Amounts| {
                let parts: Vec<String> =
                    exceeded.iter().filter_map(|name| Some(format!("{name}={}", amounts.get(*name)?))).collect();
                parts.join(",")
            };
            return Err(self.attributes.forbidden(format!(
                "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
                print(&requested),
                print(&used),
                print(&hard)
            )));
        }
        let mut quota = quota.clone();
        for name in requested.keys() {
            if let Some(amount) = charged.get(name) {
                quota.set(&["status", "used", name.as_str()], amount.to_string());
            }
        }
        Ok(Some(quota))
    }

    /// What the request adds to what the quota bounds.
    fn requested(&self, quota: &Object, hard: &Amounts) -> Amounts {
        // An object that the quota did not take in before is all new to it.
        let before =
            self.before.as_ref().filter(|_| self.attributes.old.is_some_and(|old| self.counted.in_scope(quota, old)));
        let grown = self.usage.iter().filter(|(name, _)| hard.contains_key(*name)).map(|(name, amount)| {
            let had = before.and_then(|before| before.get(name)).copied().unwrap_or_default();
            (name.clone(), *amount - had)
        });
        grown.filter(|(_, amount)| amount.sign() > 0).collect()
    }
}
