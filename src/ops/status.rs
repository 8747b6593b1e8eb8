//! How a cluster is: machine, kubelet, API, kubeconfig. Works with the API dead.

use std::fmt;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::Api;

use crate::drivers::{self, MachineState};
use crate::home::Home;
use crate::kubeconfig::{self, State};
use crate::ops::client;
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
            Self::Skipped => "Skipped",
        })
    }
}

/// One node's state.
#[derive(Clone, Debug)]
pub struct Status {
    pub name: String,
    pub host: Word,
    pub kubelet: Word,
    pub apiserver: Word,
    pub kubeconfig: Word,
    /// What the agent has to say: ports it could not take.
    pub notes: Vec<String>,
}

/// minikube's exit bits.
const HOST: u8 = 1;
const CLUSTER: u8 = 2;
const KUBECONFIG: u8 = 4;

impl Status {
    /// Bits: 1 the machine, 2 kubelet or API, 4 the kubeconfig is not as it should be.
    pub fn exit_bits(&self) -> u8 {
        let host = if self.host == Word::Running { 0 } else { HOST };
        let cluster = if self.kubelet == Word::Running && self.apiserver == Word::Running { 0 } else { CLUSTER };
        let kubeconfig = if self.kubeconfig == Word::Configured { 0 } else { KUBECONFIG };
        host | cluster | kubeconfig
    }
}

/// Asks machine, API and kubeconfig; bounded to a few seconds.
pub async fn get(home: &Home, profile: &Profile) -> Outcome<Status> {
    let driver = drivers::of(home, profile)?;
    let host = match driver.state(&profile.name).await? {
        MachineState::Running => Word::Running,
        MachineState::Stopped => Word::Stopped,
        MachineState::Nonexistent => Word::Nonexistent,
    };
    let mut status = Status {
        name: profile.name.clone(),
        host,
        kubelet: host,
        apiserver: host,
        kubeconfig: match kubeconfig::state(&kubeconfig::path(home), &profile.name, &profile.api_url()) {
            State::Configured => Word::Configured,
            State::Misconfigured => Word::Misconfigured,
        },
        notes: crate::agent::notes(&home.profile(&profile.name)).await,
    };
    if host != Word::Running {
        return Ok(status);
    }
    let client = client::connect(home, profile).await?;
    status.apiserver = if client::is_ready(&client).await { Word::Running } else { Word::Stopped };
    status.kubelet = if status.apiserver == Word::Running && is_node_ready(client, profile).await {
        Word::Running
    } else {
        Word::Stopped
    };
    Ok(status)
}

/// One word for the whole cluster.
pub async fn overall(home: &Home, profile: &Profile) -> Word {
    match get(home, profile).await {
        Ok(status) if status.host != Word::Running => status.host,
        Ok(status) if status.exit_bits() & CLUSTER == 0 => Word::Ok,
        _ => Word::Error,
    }
}

/// What a node says of itself.
pub fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

async fn is_node_ready(client: kube::Client, profile: &Profile) -> bool {
    let api: Api<Node> = Api::all(client);
    let name = profile.name.to_ascii_lowercase();
    let asked = tokio::time::timeout(Duration::from_secs(3), api.get(&name)).await;
    asked.is_ok_and(|answer| answer.is_ok_and(|node| is_ready(&node)))
}
