//! What `start` waits for before it says that it is done: by watches, each within the bound.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kminik_client::{Selection, until};
use kube::Client;

use crate::addons::is_on_nodes;
use crate::drivers::{Driver, Machine, MachineState};
use crate::ops::addons::Workloads;
use crate::ops::{client, status};
use crate::reason::{Failure, GUEST_START, K8S_START, K8S_TIMEOUT, MK_USAGE, Outcome};

/// Components that can be waited for, as flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wait {
    pub node: bool,
    pub system_pods: bool,
    pub default_account: bool,
    pub apps: bool,
}

impl Wait {
    /// minikube's words; `all`/`true` and `none`/`false` stand for the rest. The API server is always waited for.
    pub fn parse(words: &[String]) -> Outcome<Self> {
        let mut wait = Self::default();
        for word in words {
            match word.as_str() {
                "all" | "true" => wait = Self { node: true, system_pods: true, default_account: true, apps: true },
                // minikube's `extra` is of system pods that are not waited for otherwise; there are none.
                "none" | "false" | "apiserver" | "extra" | "" => {}
                "node_ready" | "kubelet" => wait.node = true,
                "system_pods" => wait.system_pods = true,
                "default_sa" => wait.default_account = true,
                "apps_running" => wait.apps = true,
                other => {
                    return Err(Failure::new(&MK_USAGE, format!("--wait does not know {other:?}")).advise(
                        "It takes: apiserver, node_ready, kubelet, system_pods, default_sa, apps_running, all, none",
                    ));
                }
            }
        }
        Ok(wait)
    }
}

/// Until the API is ready; fails at once when the machine dies.
pub async fn api(client: &Client, driver: &dyn Driver, machine: Machine<'_>, bound: Duration) -> Outcome<()> {
    let mut pause = Duration::from_millis(5);
    let answers = async {
        // The API cannot be watched before it answers: this is the one place that asks repeatedly.
        while !client::is_ready(client).await {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    };
    let wait = async {
        tokio::select! {
            () = answers => Ok(()),
            failure = ended(driver, machine) => Err(failure),
        }
    };
    bounded(bound, &K8S_START, "the API server to answer", wait).await?
}

/// Returns when the machine runs no more, with its last words; or when that cannot be told.
pub async fn ended(driver: &dyn Driver, machine: Machine<'_>) -> Failure {
    /// Nothing tells of an engine's containers, which it starts again itself.
    const LOOK: Duration = Duration::from_secs(2);
    loop {
        if let Ok(Err(failure)) = tokio::time::timeout(LOOK, driver.exited(machine)).await {
            return failure;
        }
        match driver.state(machine).await {
            // What was said to have ended is another's by now.
            Ok(MachineState::Running) => tokio::time::sleep(Duration::from_millis(50)).await,
            Ok(MachineState::Stopped | MachineState::Nonexistent) => break,
            Err(failure) => return failure,
        }
    }
    let console = driver.console(machine).await.unwrap_or_default();
    let last = String::from_utf8_lossy(&console).lines().rev().take(5).collect::<Vec<_>>().join(" | ");
    let name = machine.name();
    Failure::new(&GUEST_START, format!("the node {name} has ended; its last words, newest first: {last}"))
}

/// Until all that was asked for is there, the node that is called so and the workloads of addons among it.
pub async fn components(
    client: &Client,
    wait: Wait,
    node_name: &str,
    workloads: &Workloads,
    bound: Duration,
) -> Outcome<()> {
    let primary = Selection::object(node_name);
    let system = Selection::namespace("kube-system");
    let node = async {
        if wait.node {
            let ready = |nodes: &[Arc<Node>]| nodes.iter().any(|node| status::is_ready(node));
            until(client, &(), &primary, ready).await;
        }
    };
    let addons = async {
        if wait.system_pods || wait.apps {
            let deployed = |found: &[Arc<Deployment>]| {
                let is =
                    |name: &String| found.iter().any(|d| d.metadata.name.as_ref() == Some(name) && is_available(d));
                workloads.deployments.iter().all(is)
            };
            let on_nodes = |found: &[Arc<DaemonSet>]| {
                let is = |name: &String| found.iter().any(|d| d.metadata.name.as_ref() == Some(name) && is_on_nodes(d));
                workloads.daemon_sets.iter().all(is)
            };
            // When a deployment's pods run there is a node, which a set that came up with the cluster may not have seen.
            until(client, &(), &system, deployed).await;
            until(client, &(), &system, on_nodes).await;
        }
        if wait.system_pods {
            let ready = |pods: &[Arc<Pod>]| !pods.is_empty() && pods.iter().all(|pod| is_pod_ready(pod));
            until(client, &(), &system, ready).await;
        }
    };
    let account = async {
        if wait.default_account {
            let made = |accounts: &[Arc<ServiceAccount>]| {
                accounts.iter().any(|account| account.metadata.name.as_deref() == Some("default"))
            };
            until(client, &(), &Selection::namespace("default"), made).await;
        }
    };
    tokio::try_join!(
        bounded(bound, &K8S_TIMEOUT, "the node to be Ready", node),
        bounded(bound, &K8S_TIMEOUT, "DNS and storage to be available", addons),
        bounded(bound, &K8S_TIMEOUT, "the default service account", account),
    )?;
    Ok(())
}

async fn bounded<T>(
    bound: Duration,
    reason: &'static crate::reason::Reason,
    what: &str,
    wait: impl Future<Output = T>,
) -> Outcome<T> {
    match tokio::time::timeout(bound, wait).await {
        Ok(done) => Ok(done),
        Err(_) => Err(Failure::new(reason, format!("waited {} s for {what}, in vain", bound.as_secs()))),
    }
}

fn is_available(deployment: &Deployment) -> bool {
    let conditions = deployment.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|c| c.type_ == "Available" && c.status == "True")
}

fn is_pod_ready(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let done =
        matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) || pod.metadata.deletion_timestamp.is_some();
    done || conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let parse = |words: &[&str]| Wait::parse(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        assert_eq!(parse(&["none"]).unwrap(), Wait::default());
        assert!(parse(&["all"]).unwrap().system_pods);
        assert_eq!(parse(&["apiserver", "node_ready"]).unwrap(), Wait { node: true, ..Wait::default() });
        assert!(parse(&["everything"]).is_err());
    }
}
