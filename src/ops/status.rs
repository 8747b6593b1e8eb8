//! How a cluster is: machine, kubelet, API, kubeconfig. Works with the API dead.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kminik_base::pki::Validity;
use kube::Api;
use kube::api::ListParams;

use crate::agent;
use crate::drivers::{self, Driver, Machine, MachineState};
use crate::home::Home;
use crate::kubeconfig::{self, State};
use crate::ops::{client, pause, pki};
use crate::profile::Profile;
use crate::reason::Outcome;

/// minikube's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    Running,
    Stopped,
    Error,
    Nonexistent,
    Configured,
    Misconfigured,
    Ok,
    Paused,
    /// What a worker says of a control plane's parts.
    Irrelevant,
    Skipped,
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "Running",
            Self::Stopped => "Stopped",
            Self::Error => "Error",
            Self::Nonexistent => "Nonexistent",
            Self::Configured => "Configured",
            Self::Misconfigured => "Misconfigured",
            Self::Ok => "OK",
            Self::Paused => "Paused",
            Self::Irrelevant => "Irrelevant",
            Self::Skipped => "Skipped",
        })
    }
}

/// A cluster's state.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// The control plane's first.
    pub nodes: Vec<Status>,
    /// What the agent has to say: ports it could not take.
    pub notes: Vec<String>,
    /// Until when this machine's clients may reach it; the agent has that renewed before.
    pub certificate: Option<Validity>,
    /// How long it is until it is to be stopped.
    pub time_to_stop: Option<Duration>,
}

/// One node's state.
#[derive(Clone, Debug)]
pub struct Status {
    pub name: String,
    /// It has no control plane; [`Status::apiserver`] and [`Status::kubeconfig`] mean nothing.
    pub worker: bool,
    pub host: Word,
    pub kubelet: Word,
    pub apiserver: Word,
    pub kubeconfig: Word,
}

/// minikube's exit bits.
const HOST: u8 = 1;
const CLUSTER: u8 = 2;
const KUBECONFIG: u8 = 4;

/// What an API that is well takes to answer, generously.
const SOON: Duration = Duration::from_millis(300);

impl Status {
    /// Bits: 1 the machine, 2 kubelet or API, 4 the kubeconfig is not as it should be.
    pub fn exit_bits(&self) -> u8 {
        let host = if self.host == Word::Running { 0 } else { HOST };
        let good = self.kubelet == Word::Running && (self.worker || self.apiserver == Word::Running);
        let cluster = if good { 0 } else { CLUSTER };
        let kubeconfig = if self.worker || self.kubeconfig == Word::Configured { 0 } else { KUBECONFIG };
        host | cluster | kubeconfig
    }
}

impl Cluster {
    /// One word for all of it: how its control plane is.
    pub fn word(&self) -> Word {
        match self.nodes.first() {
            Some(first) if first.host != Word::Running => first.host,
            Some(first) if first.apiserver == Word::Paused => Word::Paused,
            Some(first) if first.exit_bits() & CLUSTER != 0 => Word::Error,
            _ => Word::Ok,
        }
    }

    /// The bits of all nodes.
    pub fn exit_bits(&self) -> u8 {
        self.nodes.iter().fold(0, |bits, node| bits | node.exit_bits())
    }
}

/// Asks machines, API and kubeconfig; bounded to a few seconds.
pub async fn get(home: &Home, profile: &Profile) -> Outcome<Cluster> {
    let notes = agent::notes(&home.profile(&profile.name)).await;
    let nodes = nodes(home, profile).await?;
    let is_up = nodes.iter().any(|node| node.host == Word::Running);
    let time_to_stop = agent::until_stop(home, &profile.name).filter(|_| is_up);
    Ok(Cluster { nodes, notes, certificate: pki::admin_validity(home, profile), time_to_stop })
}

async fn nodes(home: &Home, profile: &Profile) -> Outcome<Vec<Status>> {
    let driver = drivers::of(home, profile)?;
    let kubeconfig = match kubeconfig::state(&kubeconfig::path(home), &profile.name, &profile.kubeconfig_url()) {
        State::Configured => Word::Configured,
        State::Misconfigured => Word::Misconfigured,
    };
    let mut nodes = Vec::new();
    for machine in profile.machines() {
        let host = match driver.state(machine).await? {
            MachineState::Running => Word::Running,
            MachineState::Stopped => Word::Stopped,
            MachineState::Nonexistent => Word::Nonexistent,
        };
        let (name, worker) = (machine.name().into_owned(), machine.is_worker());
        nodes.push(Status { name, worker, host, kubelet: host, apiserver: host, kubeconfig });
    }
    if nodes.iter().all(|node| node.host != Word::Running) {
        return Ok(nodes);
    }
    let client = client::connect(home, profile).await?;
    let is_up = nodes.iter().any(|node| !node.worker && node.host == Word::Running);
    let word = match is_up {
        true => apiserver(&client, driver.as_ref(), profile.control_plane()).await,
        false => Word::Stopped,
    };
    let ready = if word == Word::Running { ready_nodes(client).await } else { BTreeSet::new() };
    for node in nodes.iter_mut().filter(|node| node.host == Word::Running) {
        if !node.worker {
            node.apiserver = word;
        }
        let is_ready = ready.contains(&node.name.to_ascii_lowercase());
        node.kubelet = if is_ready { Word::Running } else { Word::Stopped };
    }
    Ok(nodes)
}

/// One that does not answer may be paused: the node is asked before it is waited for long.
async fn apiserver(client: &kube::Client, driver: &dyn Driver, machine: Machine<'_>) -> Word {
    let at_once = tokio::time::timeout(SOON, client::is_ready(client)).await;
    if at_once == Ok(true) {
        return Word::Running;
    }
    if pause::state(driver, machine).await.is_ok_and(|state| state.control_plane) {
        return Word::Paused;
    }
    if client::is_ready(client).await { Word::Running } else { Word::Stopped }
}

/// One word for the whole cluster.
pub async fn overall(home: &Home, profile: &Profile) -> Word {
    match get(home, profile).await {
        Ok(cluster) => cluster.word(),
        Err(_) => Word::Error,
    }
}

/// What a node says of itself.
pub fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Names of the nodes that are; none where the API does not say.
async fn ready_nodes(client: kube::Client) -> BTreeSet<String> {
    let api: Api<Node> = Api::all(client);
    let asked = tokio::time::timeout(Duration::from_secs(3), api.list(&ListParams::default())).await;
    let listed = asked.ok().and_then(Result::ok).map(|list| list.items).unwrap_or_default();
    listed.into_iter().filter(is_ready).filter_map(|node| node.metadata.name).collect()
}
