//! Nodes beside the control plane: how one comes up and joins, and how one is added, stopped and taken away.

mod change;
mod drain;
mod lost;
mod token;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kminik_client::{Selection, until};
use kube::api::ListParams;
use kube::{Api, Client};

pub use self::change::{add, delete, start, stop};
use super::image::Images;
use super::start::{ended, files, last_words, replace_node, userland};
use super::{pause, status, sync};
use crate::drivers::{Driver, Machine, MachineState, NodeFile, Userland};
use crate::home::Home;
use crate::printer::{FIRE, Printer, RESTART, RUNNING, THUMB, UNPAUSE};
use crate::profile::Profile;
use crate::reason::{Failure, K8S_NOT_RESPONDING, K8S_TIMEOUT, OrFail, Outcome};

/// Bound on a request of the API.
const REQUEST: Duration = Duration::from_secs(10);

/// Brings workers of one cluster up.
pub struct Workers<'a> {
    pub home: &'a Home,
    pub driver: &'a dyn Driver,
    /// Of the API, which answers.
    pub client: &'a Client,
    pub userland: &'a Userland,
    pub printer: &'a Printer,
    /// How long they may take to be Ready; `None` waits for none of them.
    pub bound: Option<Duration>,
}

/// A worker on its way up.
struct Coming<'a> {
    machine: Machine<'a>,
    /// What its Node has said last in its life before, which does not count.
    last: Option<String>,
    /// What it was given to join by.
    token: Option<String>,
    /// It did not run before.
    is_started: bool,
}

impl Workers<'_> {
    /// Starts these machines, those that do not run, and waits until their Nodes are Ready.
    ///
    /// # Errors
    /// What the driver says; `GUEST_START` as soon as one of them ends; `K8S_TIMEOUT` naming the nodes that are not Ready in time.
    pub async fn up(&self, machines: &[Machine<'_>]) -> Outcome<()> {
        if machines.is_empty() {
            return Ok(());
        }
        let before = listed(self.client).await?;
        let mut coming = Vec::new();
        for machine in machines {
            coming.push(self.start(*machine, of_name(&before, &machine.node_name())).await?);
        }
        let Some(bound) = self.bound else { return Ok(()) };
        self.wait(&coming, bound).await?;
        for token in coming.iter().filter_map(|worker| worker.token.as_deref()) {
            token::remove(self.client, token).await;
        }
        let started = coming.iter().filter(|worker| worker.is_started);
        let started: Vec<String> = started.map(|worker| worker.machine.node_name()).collect();
        if started.is_empty() {
            return Ok(());
        }
        let hand_on = async {
            let images = Images::connect(self.home, &machines[0].profile().name).await?;
            images.hand_on(&started, self.printer).await
        };
        if let Err(failure) = hand_on.await {
            let names = started.join(", ");
            self.printer.warning(&format!("Images that were loaded before are not all on {names}: {failure}"));
        }
        Ok(())
    }

    async fn wait(&self, coming: &[Coming<'_>], bound: Duration) -> Outcome<()> {
        let has_come = |nodes: &[Arc<Node>], worker: &Coming<'_>| {
            has_come(nodes, &worker.machine.node_name(), worker.last.as_deref())
        };
        let all_have = |nodes: &[Arc<Node>]| coming.iter().all(|worker| has_come(nodes, worker));
        let all = Selection::default();
        // Who has ended comes no more.
        let ends = coming.iter().map(|worker| Box::pin(ended(self.driver, worker.machine)));
        tokio::select! {
            outcome = tokio::time::timeout(bound, until(self.client, &(), &all, all_have)) => {
                if outcome.is_ok() {
                    return Ok(());
                }
            }
            (failure, ..) = futures::future::select_all(ends) => return Err(failure),
        }
        let nodes = listed(self.client).await?;
        let late = coming.iter().filter(|worker| !has_come(&nodes, worker));
        let late: Vec<String> = late.map(|worker| worker.machine.node_name()).collect();
        let (seconds, names) = (bound.as_secs(), late.join(", "));
        Err(Failure::new(&K8S_TIMEOUT, format!("waited {seconds} s for the nodes {names} to be Ready, in vain")))
    }

    /// `known` is its Node as it was before.
    async fn start<'m>(&self, machine: Machine<'m>, known: Option<&Node>) -> Outcome<Coming<'m>> {
        let (driver, printer) = (self.driver, self.printer);
        let state = driver.state(machine).await?;
        announce(machine, state, printer);
        let is_started = state != MachineState::Running;
        let mut coming = Coming { machine, last: None, token: None, is_started };
        if state == MachineState::Running {
            if let Some(binary) = driver.newer_binary(machine).await? {
                replace_node(machine, driver, &binary, printer).await?;
            }
            if pause::state(driver, machine).await.is_ok_and(|state| state.is_any()) {
                printer.info(UNPAUSE, &format!("Unpausing node {} ...", machine.name()));
                pause::release(driver, machine).await;
            }
            if !known.is_some_and(status::is_ready) {
                // It may never have joined, and its token have passed: its process reads the new one when it is started again.
                let token = coming.token.insert(token::make(self.client, machine).await?).clone();
                sync::replace(driver, machine, &files::of_worker(self.home, machine, token)?).await?;
            }
        } else {
            if state == MachineState::Nonexistent && known.is_some() {
                lost::tell(self.client, machine, printer).await?;
            }
            coming.last = known.and_then(heartbeat);
            let token = coming.token.insert(token::make(self.client, machine).await?).clone();
            driver.create(machine, self.userland, &files::of_worker(self.home, machine, token)?).await?;
            driver.start(machine).await?;
        }
        sync::run(self.home, driver, machine).await?;
        Ok(coming)
    }
}

fn announce(machine: Machine<'_>, state: MachineState, printer: &Printer) {
    let (name, profile) = (machine.name(), machine.profile());
    let (cluster, kind) = (&profile.name, &profile.driver);
    printer.info(THUMB, &format!("Starting \"{name}\" worker node in \"{cluster}\" cluster"));
    match state {
        MachineState::Running => printer.info(RUNNING, &format!("Updating the running {kind} \"{name}\" machine ...")),
        MachineState::Stopped => {
            printer.info(RESTART, &format!("Restarting existing {kind} machine for \"{name}\" ..."));
        }
        MachineState::Nonexistent => printer.info(FIRE, &format!("Creating {kind} container for \"{name}\" ...")),
    }
}

/// What a worker is told that is made again after it ended by itself. One that has joined needs no token, so the API may be away.
///
/// # Errors
/// If the profile's files cannot be used.
pub async fn files_again(machine: Machine<'_>, home: &Home) -> Outcome<Vec<NodeFile>> {
    let client = super::client::connect(home, machine.profile()).await?;
    let token = token::make(&client, machine).await.unwrap_or_else(|failure| {
        tracing::debug!(%failure, "no token for the node");
        String::new()
    });
    files::of_worker(home, machine, token)
}

/// Whether the node is Ready, and has said so since `last`.
fn has_come(nodes: &[Arc<Node>], name: &str, last: Option<&str>) -> bool {
    of_name(nodes, name)
        .is_some_and(|node| status::is_ready(node) && (last.is_none() || heartbeat(node).as_deref() != last))
}

fn of_name<'n>(nodes: &'n [Arc<Node>], name: &str) -> Option<&'n Node> {
    nodes.iter().map(AsRef::as_ref).find(|node: &&Node| node.metadata.name.as_deref() == Some(name))
}

async fn listed(client: &Client) -> Outcome<Vec<Arc<Node>>> {
    let nodes: Api<Node> = Api::all(client.clone());
    let all = answered(nodes.list(&ListParams::default())).await?;
    Ok(all.items.into_iter().map(Arc::new).collect())
}

/// When the node has last said how it is.
fn heartbeat(node: &Node) -> Option<String> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
    Some(ready.last_heartbeat_time.as_ref()?.0.to_string())
}

/// The API's answer, within the bound on one.
async fn answered<T>(request: impl Future<Output = kube::Result<T>>) -> Outcome<T> {
    match tokio::time::timeout(REQUEST, request).await {
        Ok(answer) => answer.or_fail(&K8S_NOT_RESPONDING, "the cluster does not do it"),
        Err(_) => Err(Failure::new(&K8S_NOT_RESPONDING, "the cluster does not answer")),
    }
}

/// Workers of a profile, as machines.
pub fn workers(profile: &Profile) -> Vec<Machine<'_>> {
    profile.machines().filter(|machine| machine.is_worker()).collect()
}
