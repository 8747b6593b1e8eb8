//! The policies of a kind with their bindings, as of the cache's newest change.

use std::sync::Arc;

use arc_swap::ArcSwap;
use kminik_meta::Object;

use super::compiled::Binding;
use crate::storage::cache::{Cache, ResourceCache};

/// Policies that are compiled again whenever one of them, or a binding, has changed.
pub(super) struct Bound<P> {
    policies: Arc<ResourceCache>,
    bindings: Arc<ResourceCache>,
    compile: fn(&Object, Vec<Binding>) -> P,
    compiled: ArcSwap<Compiled<P>>,
}

struct Compiled<P> {
    /// The newest changes of policies and bindings that are in here.
    built_from: (u64, u64),
    /// Only those with bindings, in the order of their names.
    policies: Arc<[P]>,
}

impl<P> Bound<P> {
    /// Of these resources of admissionregistration.k8s.io.
    pub(super) fn new(cache: &Cache, policies: &str, bindings: &str, compile: fn(&Object, Vec<Binding>) -> P) -> Self {
        let resource = |plural: &str| cache.resource(&format!("admissionregistration.k8s.io/{plural}"));
        let compiled = ArcSwap::from_pointee(Compiled { built_from: (0, 0), policies: [].into() });
        Bound { policies: resource(policies), bindings: resource(bindings), compile, compiled }
    }

    /// Whether nothing is bound.
    pub(super) fn is_empty(&self) -> bool {
        self.bindings.is_empty()
    }

    /// The policies as of the cache's newest change.
    pub(super) fn current(&self) -> Arc<[P]> {
        let newest = (self.policies.last_changed(), self.bindings.last_changed());
        let compiled = self.compiled.load();
        if compiled.built_from == newest {
            return compiled.policies.clone();
        }
        let bindings: Vec<_> = self.bindings.entries().values().filter_map(|e| e.object().ok()).collect();
        let policies: Arc<[P]> = self
            .policies
            .entries()
            .values()
            .filter_map(|entry| entry.object().ok())
            .filter_map(|policy| {
                let bound = bindings.iter().filter(|b| b.str(&["spec", "policyName"]) == Some(policy.name()));
                let bindings: Vec<Binding> = bound.map(|b| Binding::of(b)).collect();
                // Nobody pays for compiling what binds nobody.
                (!bindings.is_empty()).then(|| (self.compile)(&policy, bindings))
            })
            .collect();
        // Whoever comes last may store an older state; the next to ask sees that and compiles again.
        self.compiled.store(Arc::new(Compiled { built_from: newest, policies: policies.clone() }));
        policies
    }
}
