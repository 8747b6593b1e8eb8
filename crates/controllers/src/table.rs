//! The table of controllers and how they are run.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use kminik_base::component::{BoxError, Component, Ready, Supervisor};
use tokio_util::sync::CancellationToken;

use crate::config::ControllersConfig;
use crate::context::Context;
use crate::error::Error;

/// How long a controller may take to end once told to stop.
const STOP: Duration = Duration::from_secs(5);

/// One controller.
pub struct Descriptor {
    /// Upstream's name of the controller; events carry it.
    pub name: &'static str,
    /// The user it acts as.
    pub identity: &'static str,
    start: fn(Context) -> BoxFuture<'static, Result<(), Error>>,
}

macro_rules! controller {
    ($name:literal, $account:literal, $($run:tt)+) => {
        Descriptor {
            name: $name,
            identity: concat!("system:serviceaccount:kube-system:", $account),
            start: |context| crate::$($run)+(context).boxed(),
        }
    };
}

/// Every controller, in the order in which they are started.
pub static CONTROLLERS: &[Descriptor] = &[
    controller!("serviceaccount-controller", "service-account-controller", service_account::run),
    controller!("serviceaccount-token-controller", "service-account-token-controller", service_account_token::run),
    controller!(
        "legacy-serviceaccount-token-cleaner-controller",
        "legacy-service-account-token-cleaner",
        legacy_token_cleaner::run
    ),
    controller!("bootstrap-signer-controller", "bootstrap-signer", bootstrap_signer::run),
    controller!("token-cleaner-controller", "token-cleaner", token_cleaner::run),
    controller!("root-ca-certificate-publisher-controller", "root-ca-cert-publisher", root_ca::run),
    controller!("service-cidr-controller", "service-cidrs-controller", service_cidr::run),
    controller!("certificatesigningrequest-approving-controller", "certificate-controller", certificate_approving::run),
    controller!("kubelet-serving-approving-controller", "kubelet-serving-approver", kubelet_serving_approving::run),
    controller!("certificatesigningrequest-signing-controller", "certificate-controller", certificate_signing::run),
    controller!("certificatesigningrequest-cleaner-controller", "certificate-controller", certificate_cleaner::run),
    controller!("node-ipam-controller", "node-controller", node_ipam::run),
    controller!("replicaset-controller", "replicaset-controller", replica_set::run),
    controller!("deployment-controller", "deployment-controller", deployment::run),
    controller!("node-lifecycle-controller", "node-controller", node_lifecycle::run),
    controller!("taint-eviction-controller", "node-controller", taint_eviction::run),
    controller!("pod-garbage-collector-controller", "pod-garbage-collector", pod_gc::run),
    controller!("namespace-controller", "namespace-controller", namespace::run),
    controller!("garbage-collector-controller", "generic-garbage-collector", garbage_collector::run),
    controller!("persistentvolume-controller", "persistent-volume-binder", persistent_volume::run),
    controller!("persistentvolumeclaim-protection-controller", "pvc-protection-controller", protection::run_claims),
    controller!("persistentvolume-protection-controller", "pv-protection-controller", protection::run_volumes),
    controller!(
        "volumeattributesclass-protection-controller",
        "volumeattributesclass-protection-controller",
        protection::run_classes
    ),
    controller!("resourcequota-controller", "resourcequota-controller", resource_quota::run),
    controller!("daemonset-controller", "daemon-set-controller", daemon_set::run),
    controller!("statefulset-controller", "statefulset-controller", stateful_set::run),
    controller!("disruption-controller", "disruption-controller", disruption::run),
    controller!("endpointslice-controller", "endpointslice-controller", endpoint_slice::run),
    controller!("endpoints-controller", "endpoint-controller", endpoints::run),
    controller!(
        "endpointslice-mirroring-controller",
        "endpointslicemirroring-controller",
        endpoint_slice_mirroring::run
    ),
];

/// A controller as a supervised component.
struct Running {
    descriptor: &'static Descriptor,
    config: Arc<ControllersConfig>,
}

impl Component for Running {
    fn name(&self) -> &'static str {
        self.descriptor.name
    }

    fn run(self: Arc<Self>, stop: CancellationToken, ready: Ready) -> BoxFuture<'static, Result<(), BoxError>> {
        // What the controller starts in the background (its recorder) ends with this run, also after a failure.
        let stop = stop.child_token();
        let guard = stop.clone().drop_guard();
        let context = Context::new(self.descriptor.name, self.descriptor.identity, self.config.clone(), stop, ready);
        async move {
            let _guard = guard;
            (self.descriptor.start)(context).await.map_err(BoxError::from)
        }
        .boxed()
    }
}

/// The controllers as components, for the process's own supervisor.
pub fn components(config: ControllersConfig) -> Vec<Arc<dyn Component>> {
    let config = Arc::new(config);
    CONTROLLERS
        .iter()
        .map(|descriptor| Arc::new(Running { descriptor, config: config.clone() }) as Arc<dyn Component>)
        .collect()
}

/// Runs all controllers, each restarted on its own if it fails, until `stop`.
pub async fn run(config: ControllersConfig, stop: CancellationToken) {
    let supervisor = Supervisor::new(STOP);
    for component in components(config) {
        supervisor.start(component);
    }
    stop.cancelled().await;
    supervisor.stop().await;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::CONTROLLERS;

    #[test]
    fn names_are_unique_and_identities_are_service_accounts() {
        let names: BTreeSet<_> = CONTROLLERS.iter().map(|descriptor| descriptor.name).collect();
        assert_eq!(names.len(), CONTROLLERS.len());
        for descriptor in CONTROLLERS {
            assert!(descriptor.identity.starts_with("system:serviceaccount:kube-system:"), "{}", descriptor.name);
        }
    }
}
