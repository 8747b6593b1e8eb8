//! The webhooks of all configurations of a kind, compiled.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use kminik_meta::Object;
use serde_json::Value;

use super::super::expressions::{Conditions, environment};
use super::super::matching::Criteria;
use crate::outbound::review::ReviewVersion;
use crate::outbound::{Target, TargetError};
use crate::storage::cache::{Cache, ResourceCache};

const DEFAULT_TIMEOUT_SECONDS: u64 = 10;

/// One webhook, ready to be asked.
pub(super) struct Hook {
    pub(super) name: String,
    /// The name of the configuration that it is in.
    pub(super) configuration: String,
    /// Configuration, name and place in the configuration: what tells it from all others.
    pub(super) id: String,
    pub(super) target: Result<Target, TargetError>,
    pub(super) criteria: Criteria,
    pub(super) conditions: Conditions,
    /// `failurePolicy: Ignore`.
    pub(super) fails_open: bool,
    pub(super) timeout: Duration,
    /// Whether it may be asked in a dry run.
    pub(super) harmless: bool,
    /// The first version it takes that is known here.
    pub(super) review: Option<ReviewVersion>,
    /// `reinvocationPolicy: IfNeeded`.
    pub(super) reinvoke: bool,
}

impl Hook {
    fn of(configuration: &str, at: usize, webhook: &Value) -> Hook {
        let text = |key: &str| webhook.get(key).and_then(Value::as_str).unwrap_or_default();
        let versions = webhook.get("admissionReviewVersions").and_then(Value::as_array).into_iter().flatten();
        let seconds = webhook.get("timeoutSeconds").and_then(Value::as_u64).unwrap_or(DEFAULT_TIMEOUT_SECONDS);
        Hook {
            name: text("name").to_owned(),
            configuration: configuration.to_owned(),
            id: format!("{configuration}/{}/{at}", text("name")),
            target: Target::of_client_config(webhook.get("clientConfig").unwrap_or(&Value::Null)),
            criteria: Criteria::of_webhook(webhook),
            conditions: Conditions::of(webhook.get("matchConditions"), &environment(false, true)),
            fails_open: text("failurePolicy") == "Ignore",
            timeout: Duration::from_secs(seconds),
            harmless: matches!(text("sideEffects"), "None" | "NoneOnDryRun"),
            review: versions.filter_map(Value::as_str).find_map(ReviewVersion::parse),
            reinvoke: text("reinvocationPolicy") == "IfNeeded",
        }
    }
}

/// The webhooks of a kind of configuration, by the configurations' names and their order there.
pub(super) struct Hooks {
    configurations: Arc<ResourceCache>,
    compiled: ArcSwap<Compiled>,
}

#[derive(Default)]
struct Compiled {
    /// The newest change that is in here.
    built_from: u64,
    hooks: Arc<[Hook]>,
}

impl Hooks {
    pub(super) fn new(cache: &Cache, plural: &str) -> Hooks {
        let configurations = cache.resource(&format!("admissionregistration.k8s.io/{plural}"));
        Hooks { configurations, compiled: ArcSwap::default() }
    }

    /// The webhooks as of the cache's newest change.
    pub(super) fn current(&self) -> Arc<[Hook]> {
        let newest = self.configurations.last_changed();
        let compiled = self.compiled.load();
        if compiled.built_from == newest {
            return compiled.hooks.clone();
        }
        let entries = self.configurations.entries();
        let configurations = entries.values().filter_map(|entry| entry.object().ok());
        let hooks: Arc<[Hook]> = configurations.flat_map(|configuration| of_configuration(&configuration)).collect();
        // Whoever comes last may store an older state; the next to ask sees that and compiles again.
        self.compiled.store(Arc::new(Compiled { built_from: newest, hooks: hooks.clone() }));
        hooks
    }
}

fn of_configuration(configuration: &Object) -> Vec<Hook> {
    let webhooks = configuration.array(&["webhooks"]).iter().enumerate();
    webhooks.map(|(at, webhook)| Hook::of(configuration.name(), at, webhook)).collect()
}
