//! Drivers: who supplies the isolated Linux that a node is. Differences are data in the table; the steps of `start`
//! are the same for all.

mod docker;
mod machine;
mod native;
mod network;
mod output;

use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use self::docker::write_node_image;
pub use self::machine::{Machine, machine_name, split_name};
pub use self::network::{NetworkWish, Taken, check_services, parse_subnet};
pub use self::output::{ANSWER, LOGS, OutputBounds, WORK};
use crate::engine::{Duplex, Endpoint};
use crate::exposure::Exposure;
use crate::home::Home;
use crate::profile::Profile;
use crate::reason::{DRV_NOT_DETECTED, DRV_NOT_FOUND, DRV_NOT_HEALTHY, Failure, GUEST_NOT_RUNNING, Outcome, Reason};

/// One row.
pub struct DriverRow {
    pub name: &'static str,
    pub aliases: &'static [&'static str],
    /// Highest that is healthy is chosen.
    pub priority: u8,
    /// What it makes nodes of, for people.
    pub what: &'static str,
    /// Where more is said of it.
    pub link: &'static str,
    /// The driver, of this cluster if it is of one.
    pub make: fn(&Home, Option<&Profile>) -> Arc<dyn Driver>,
}

/// Every driver there is.
pub const TABLE: &[DriverRow] = &[
    DriverRow {
        name: "docker",
        aliases: &[],
        priority: 9,
        what: "containers of a Docker engine",
        link: "https://github.com/kminik/kminik/blob/main/docs/DRIVERS.md#docker",
        make: docker::make,
    },
    DriverRow {
        name: "native",
        aliases: &["none"],
        priority: 8,
        what: "kminik's own containers",
        link: "https://github.com/kminik/kminik/blob/main/docs/DRIVERS.md#native",
        make: native::make,
    },
];

/// Bound on a probe.
const PROBE: Duration = Duration::from_secs(8);

/// What a probe found.
#[derive(Clone, Debug)]
pub struct Health {
    /// Whether what the driver needs is there at all.
    pub installed: bool,
    /// What is there: `Docker 20.10.24 at unix:///var/run/docker.sock`.
    pub about: String,
    /// Why it cannot be used, and what to do.
    pub problem: Option<Problem>,
}

/// Which failure it would be to use a driver.
#[derive(Clone, Debug)]
pub struct Problem {
    pub reason: &'static Reason,
    pub why: String,
    pub advice: String,
}

impl Health {
    pub fn good(about: impl Into<String>) -> Self {
        Self { installed: true, about: about.into(), problem: None }
    }

    pub fn bad(reason: &'static Reason, why: impl Into<String>, advice: impl Into<String>) -> Self {
        let advice = advice.into();
        let advice = if advice.is_empty() { reason.advice.to_owned() } else { advice };
        Self { installed: true, about: String::new(), problem: Some(Problem { reason, why: why.into(), advice }) }
    }

    /// Of what is not even there.
    pub fn absent(self) -> Self {
        Self { installed: false, ..self }
    }

    pub fn is_healthy(&self) -> bool {
        self.problem.is_none()
    }

    /// The failure of using it all the same.
    pub fn failure(&self) -> Option<Failure> {
        let Problem { reason, why, advice } = self.problem.clone()?;
        let failure = Failure::new(reason, why);
        Some(if advice.is_empty() { failure } else { failure.advise(advice) })
    }
}

impl From<Failure> for Health {
    fn from(failure: Failure) -> Self {
        let advice = failure.advice().to_owned();
        Self::bad(failure.reason, failure.message, advice)
    }
}

/// What stands between nothing and a running machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineState {
    Running,
    Stopped,
    Nonexistent,
}

/// Where the host and the node meet; chosen once, before anything is made.
#[derive(Clone, Debug)]
pub struct Placement {
    pub subnet: String,
    pub gateway: Ipv4Addr,
    pub node_address: Ipv4Addr,
    pub api_host: String,
    pub api_port: u16,
    /// The network will not be one of this machine's.
    pub tunnel: bool,
    /// The engine that the machine will be in, where there may be several.
    pub engine: Option<Endpoint>,
}

/// A file to lie in the node's data directory (`/var/lib/kminik`) before it starts.
#[derive(Clone, Debug)]
pub struct NodeFile {
    /// Relative.
    pub path: PathBuf,
    pub content: Vec<u8>,
    pub mode: u32,
}

impl NodeFile {
    /// An archive of files, by their paths below `directory`.
    pub fn archive<W: Write>(files: &[Self], directory: &Path, to: W) -> std::io::Result<W> {
        let mut archive = tar::Builder::new(to);
        for file in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(file.content.len() as u64);
            header.set_mode(file.mode);
            header.set_mtime(0);
            archive.append_data(&mut header, directory.join(&file.path), file.content.as_slice())?;
        }
        archive.into_inner()
    }
}

/// The node's root filesystem.
#[derive(Clone, Debug)]
pub enum Userland {
    /// The image assembled from this binary.
    BuiltIn,
    /// Layers of a pulled image, bottom first.
    Pulled { layers: Vec<UserlandLayer> },
}

/// One layer of a pulled userland.
#[derive(Clone, Debug)]
pub struct UserlandLayer {
    /// `sha256:…` of the uncompressed tar.
    pub diff_id: String,
    /// The bytes, on the host.
    pub blob: PathBuf,
    pub compression: kminik_runtime::Compression,
}

/// A command to run in the node.
#[derive(Debug, Default)]
pub struct NodeCommand {
    pub args: Vec<String>,
    /// Connect this process' terminal.
    pub tty: bool,
    pub stdin: Input,
    /// What takes its output; this process' own stdout if `None`.
    pub stdout: Option<File>,
}

/// What a command in the node reads.
#[derive(Debug, Default)]
pub enum Input {
    #[default]
    None,
    /// This process' stdin.
    Own,
    File(File),
}

/// A directory or file of this machine that the node sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Share {
    pub source: PathBuf,
    /// Made if it is missing.
    pub target: PathBuf,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
}

impl From<Share> for kminik_runtime::node::NodeMount {
    fn from(share: Share) -> Self {
        let Share { source, target, read_only } = share;
        Self { source, target, read_only }
    }
}

/// What it answered when its output was collected.
#[derive(Clone, Debug)]
pub struct NodeOutput {
    pub exit_code: i32,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// The seam. Every call is idempotent: `create` of what exists completes it, `delete` of nothing succeeds.
#[async_trait]
pub trait Driver: Send + Sync {
    /// Whether it can be used here; given up after some seconds.
    async fn probe(&self) -> Health;
    /// Chooses the network; makes nothing.
    async fn place(&self, wish: &NetworkWish, exposure: &Exposure, taken: &Taken) -> Outcome<Placement>;
    /// Addresses of the cluster's network that are others', as far as the driver knows; kminik's own nodes may be among them.
    async fn used_addresses(&self, _profile: &Profile) -> Outcome<Vec<Ipv4Addr>> {
        Ok(Vec::new())
    }
    /// Makes the machine, stopped, with `files` in its data directory (replacing older ones).
    async fn create(&self, machine: Machine<'_>, userland: &Userland, files: &[NodeFile]) -> Outcome<()>;
    async fn start(&self, machine: Machine<'_>) -> Outcome<()>;
    /// Changes what the running machine may use to what the profile says.
    async fn resize(&self, machine: Machine<'_>) -> Outcome<()>;
    /// Asks nicely, then kills after the bound.
    async fn stop(&self, machine: Machine<'_>, bound: Duration) -> Outcome<()>;
    /// Leaves no trace of one machine, whatever state it is in; data included. What its cluster's others use stays.
    async fn remove(&self, machine: Machine<'_>) -> Outcome<()>;
    /// Leaves no trace of the cluster named and of all its machines; its profile may be lost.
    async fn delete(&self, cluster: &str) -> Outcome<()>;
    async fn state(&self, machine: Machine<'_>) -> Outcome<MachineState>;
    /// Waits until the machine runs no more, at once if it does not. A driver whose machines are started again by someone else
    /// never returns.
    async fn exited(&self, _machine: Machine<'_>) -> Outcome<()> {
        std::future::pending().await
    }
    /// Whether the machine's published ports are served by the driver, from its creation on; else the agent serves them.
    fn publishes(&self) -> bool {
        false
    }
    /// A connection to a TCP address as the node reaches it, for who has no way to the node's network.
    async fn dial(&self, machine: Machine<'_>, address: SocketAddr) -> Outcome<Box<dyn Duplex>>;
    /// Shows a directory or file in the running node, until its end or an unmount there.
    async fn share(&self, machine: Machine<'_>, share: &Share) -> Outcome<()>;
    /// Runs a command in the node on this process' streams, or the command's; its exit code.
    async fn exec(&self, machine: Machine<'_>, command: &NodeCommand) -> Outcome<i32>;
    /// Runs a command in the node and collects what it says.
    ///
    /// # Errors
    /// `GUEST_EXEC_TIMEOUT` and `GUEST_EXEC_OUTPUT` for one that goes beyond the bounds, with the command's and the node's name.
    async fn output(&self, machine: Machine<'_>, args: &[&str], bounds: OutputBounds) -> Outcome<NodeOutput>;
    /// What PID 1 wrote, newest last.
    async fn console(&self, machine: Machine<'_>) -> Outcome<Vec<u8>>;
    /// A file of the machine with the binary that its node runs: a process of the host that runs it too shares its memory.
    fn binary(&self, _machine: Machine<'_>) -> Option<PathBuf> {
        None
    }
    /// Gives a running node this process' binary, if its own is another: where it is in the node. A driver that changes it at
    /// the next start of the machine only gives none.
    async fn newer_binary(&self, _machine: Machine<'_>) -> Outcome<Option<String>> {
        Ok(None)
    }
    /// Names of all clusters that this driver has made machines of, also of those without a profile.
    async fn clusters(&self) -> Outcome<Vec<String>>;
}

/// The row with this name or alias.
pub fn find(name: &str) -> Outcome<&'static DriverRow> {
    TABLE.iter().find(|row| row.name == name || row.aliases.contains(&name)).ok_or_else(|| {
        let known: Vec<&str> = TABLE.iter().map(|row| row.name).collect();
        Failure::new(&DRV_NOT_FOUND, format!("the driver {name:?} is not known; there are: {}", known.join(", ")))
    })
}

/// A driver as it is here.
pub struct Probed {
    pub row: &'static DriverRow,
    pub health: Health,
}

/// Bounded, whatever the driver does.
pub async fn probe(row: &'static DriverRow, home: &Home) -> Health {
    let driver = (row.make)(home, None);
    tokio::time::timeout(PROBE, driver.probe()).await.unwrap_or_else(|_| {
        Health::bad(
            &DRV_NOT_HEALTHY,
            format!("the {} driver did not answer within {} s", row.name, PROBE.as_secs()),
            "",
        )
    })
}

/// Every driver, probed side by side; the one to be preferred first.
pub async fn probe_all(home: &Home) -> Vec<Probed> {
    let probes = TABLE.iter().map(async |row| Probed { row, health: probe(row, home).await });
    let mut all = futures::future::join_all(probes).await;
    all.sort_by_key(|probed| std::cmp::Reverse(probed.row.priority));
    all
}

/// The best driver that is healthy, and the others that are.
pub async fn choose(home: &Home) -> Outcome<(&'static DriverRow, Vec<&'static str>)> {
    best(&probe_all(home).await)
}

fn best(all: &[Probed]) -> Outcome<(&'static DriverRow, Vec<&'static str>)> {
    let healthy: Vec<_> = all.iter().filter(|probed| probed.health.is_healthy()).map(|probed| probed.row).collect();
    match healthy.split_first() {
        Some((first, others)) => Ok((first, others.iter().map(|row| row.name).collect())),
        None => {
            let why: Vec<String> = all
                .iter()
                .filter_map(|Probed { row, health }| Some(format!("{}: {}", row.name, health.failure()?.message)))
                .collect();
            Err(Failure::new(&DRV_NOT_DETECTED, format!("no driver can be used here. {}", why.join("; "))))
        }
    }
}

/// The driver of an existing profile.
pub fn of(home: &Home, profile: &Profile) -> Outcome<Arc<dyn Driver>> {
    Ok((find(&profile.driver)?.make)(home, Some(profile)))
}

/// The driver of a machine that runs.
///
/// # Errors
/// `GUEST_NOT_RUNNING`.
pub async fn of_running(home: &Home, machine: Machine<'_>) -> Outcome<Arc<dyn Driver>> {
    let driver = of(home, machine.profile())?;
    match driver.state(machine).await? {
        MachineState::Running => Ok(driver),
        MachineState::Stopped | MachineState::Nonexistent => {
            let name = &machine.profile().name;
            Err(not_running(&machine.name()).advise(format!("To start a cluster, run: \"kminik start -p {name}\"")))
        }
    }
}

/// That what is asked for needs a node that runs.
fn not_running(name: &str) -> Failure {
    Failure::new(&GUEST_NOT_RUNNING, format!("the node of \"{name}\" is not running"))
}

/// Free space of the disk that holds `path`, in bytes; `None` where it cannot be told.
pub fn free_space(path: &Path) -> Option<u64> {
    let existing = path.ancestors().find(|p| p.exists())?;
    let stat = rustix::fs::statvfs(existing).ok()?;
    Some(stat.f_bavail * stat.f_frsize)
}

/// Size of the disk that holds `path`, in bytes.
pub fn total_space(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some(stat.f_blocks * stat.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_aliases_are_unique() {
        let mut names: Vec<&str> = TABLE.iter().flat_map(|r| r.aliases.iter().copied().chain([r.name])).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(find("no-such").is_err());
        assert_eq!(find("none").unwrap().name, "native");
    }

    #[test]
    fn the_best_healthy_one_is_chosen_or_all_are_explained() {
        let probed = |healthy: [bool; 2]| -> Vec<Probed> {
            let health = |healthy| match healthy {
                true => Health::good("there"),
                false => Health::bad(&DRV_NOT_HEALTHY, "it is ill", ""),
            };
            TABLE.iter().zip(healthy).map(|(row, healthy)| Probed { row, health: health(healthy) }).collect()
        };
        let (first, others) = best(&probed([true, true])).unwrap();
        assert_eq!((first.name, others), ("docker", vec!["native"]));
        assert_eq!(best(&probed([false, true])).unwrap().0.name, "native");
        let none = best(&probed([false, false])).err().unwrap();
        assert_eq!(none.reason.id, "DRV_NOT_DETECTED");
        assert!(none.message.contains("docker: it is ill; native: it is ill"), "{none}");
    }
}
