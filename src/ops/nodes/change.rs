//! `kminik node add|delete|stop|start`.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::api::DeleteParams;
use kube::{Api, Client};

use super::{Workers, answered, drain, last_words, lost, userland};
use crate::agent;
use crate::drivers::{self, Driver, Machine, MachineState};
use crate::home::Home;
use crate::ops::{client, delete as removal, pause};
use crate::printer::{CHECK, CRUSHED, DELETE, DONE, HAPPY, Printer, STOP};
use crate::profile::{Lock, Profile, Worker};
use crate::reason::{Failure, MK_INTERRUPTED, MK_USAGE, Outcome};
use crate::terminal::Interruption;

/// Bound on a graceful stop.
const STOPPING: Duration = Duration::from_secs(120);
/// How long a node may take to be Ready.
const READY: Duration = Duration::from_secs(360);

/// A cluster that is changed.
struct Cluster<'a> {
    home: &'a Home,
    profile: Profile,
    driver: Arc<dyn Driver>,
    printer: &'a Printer,
    _lock: Lock,
}

impl<'a> Cluster<'a> {
    async fn open(home: &'a Home, name: &str, printer: &'a Printer) -> Outcome<Self> {
        let lock = Lock::acquire(home, name).await?;
        removal::check_whole(home, name)?;
        let profile = Profile::load(home, name)?;
        let driver = drivers::of(home, &profile)?;
        Ok(Self { home, profile, driver, printer, _lock: lock })
    }

    /// The number of the worker that is called so.
    ///
    /// # Errors
    /// `GUEST_NODE_NOT_FOUND`; `MK_USAGE` for the control plane, with what is to be typed instead.
    fn worker(&self, name: &str, verb: &str) -> Outcome<u32> {
        match self.profile.machine(Some(name))?.number() {
            Some(number) => Ok(number),
            None => Err(Failure::new(
                &MK_USAGE,
                format!("{name:?} is the control plane: it comes and goes with the cluster"),
            )
            .advise(format!("Run: kminik {verb} -p {}", self.profile.name))),
        }
    }

    fn machine(&self, number: u32) -> Outcome<Machine<'_>> {
        self.profile.machine(Some(&Worker::short(number)))
    }

    async fn up(&self, number: u32, client: &Client) -> Outcome<()> {
        let userland = userland(&self.profile, self.home, self.printer).await?;
        let workers = Workers {
            home: self.home,
            driver: self.driver.as_ref(),
            client,
            userland: &userland,
            printer: self.printer,
            bound: Some(READY),
        };
        workers.up(&[self.machine(number)?]).await
    }

    /// Ends the machine, in whatever state it is; its data stays.
    async fn halt(&self, number: u32) -> Outcome<()> {
        let machine = self.machine(number)?;
        if self.driver.state(machine).await? == MachineState::Running {
            pause::release(self.driver.as_ref(), machine).await;
            self.driver.stop(machine, STOPPING).await?;
        }
        Ok(())
    }

    /// Leaves no trace of it: neither here nor in the API.
    async fn forget(&mut self, number: u32, client: &Client) -> Outcome<()> {
        // So that what an interrupted deletion leaves is not started again. On a full disk it may not be kept; deleting must
        // work all the same.
        let _ = self.mark(number, true);
        self.halt(number).await?;
        let machine = self.machine(number)?;
        let nodes: Api<Node> = Api::all(client.clone());
        let name = machine.node_name();
        if let Err(failure) = answered(nodes.delete(&name, &DeleteParams::default())).await
            && answered(nodes.get_opt(&name)).await?.is_some()
        {
            return Err(failure);
        }
        self.driver.remove(machine).await?;
        self.profile.workers.retain(|worker| worker.number != number);
        self.profile.save(self.home)?;
        self.tell_agent().await;
        Ok(())
    }

    /// Keeps whether the worker is meant to be stopped.
    fn mark(&mut self, number: u32, stopped: bool) -> Outcome<()> {
        for worker in self.profile.workers.iter_mut().filter(|worker| worker.number == number) {
            worker.stopped = stopped;
        }
        self.profile.save(self.home)
    }

    async fn tell_agent(&self) {
        agent::reload(&self.home.profile(&self.profile.name)).await;
    }
}

/// Adds a worker to a cluster that runs, and waits until it is Ready. One that fails leaves nothing, and is tried once more if
/// that is wished.
///
/// # Errors
/// `GUEST_NOT_RUNNING`, `K8S_NOT_RESPONDING`, `GUEST_NODE_ADD`, and what starting it can fail with.
pub async fn add(home: &Home, name: &str, mut again: bool, printer: &Printer) -> Outcome<()> {
    let mut interruption = Interruption::listen()?;
    let mut cluster = Cluster::open(home, name, printer).await?;
    drivers::of_running(home, cluster.profile.control_plane()).await?;
    let client = client::ready(home, &cluster.profile).await?;
    loop {
        let used = cluster.driver.used_addresses(&cluster.profile).await?;
        let number = cluster.profile.add_worker(home, &used)?;
        let machine = cluster.machine(number)?.name().into_owned();
        let short = Worker::short(number);
        printer.step(HAPPY, "Adding Node", &format!("Adding node {short} to cluster {name} as [worker]"));
        cluster.profile.claim(home).await?;
        let mut failure = tokio::select! {
            outcome = cluster.up(number, &client) => match outcome {
                Ok(()) => {
                    cluster.tell_agent().await;
                    printer.step(DONE, "Done", &format!("Successfully added {short} to {name}!"));
                    return Ok(());
                }
                Err(failure) => failure,
            },
            () = interruption.comes() => Failure::new(&MK_INTERRUPTED, "interrupted; what was made of the node is undone"),
        };
        if failure.reason != &MK_INTERRUPTED {
            failure = last_words::keep(failure, cluster.driver.as_ref(), &[cluster.machine(number)?], printer).await;
        }
        if let Err(failure) = cluster.forget(number, &client).await {
            printer.warning(&format!("{failure}; 'kminik node delete {machine} -p {name}' removes what is left"));
        }
        if !again || failure.reason == &MK_INTERRUPTED {
            return Err(failure);
        }
        again = false;
        printer.warning(&format!("Adding the node failed, trying once more: {failure}"));
    }
}

/// Takes a worker out of a cluster that runs: its pods leave first.
///
/// # Errors
/// `GUEST_NOT_RUNNING`, `K8S_NOT_RESPONDING`, `GUEST_NODE_NOT_FOUND`.
pub async fn delete(home: &Home, name: &str, node: &str, printer: &Printer) -> Outcome<()> {
    let mut cluster = Cluster::open(home, name, printer).await?;
    let number = cluster.worker(node, "delete")?;
    drivers::of_running(home, cluster.profile.control_plane()).await?;
    let client = client::ready(home, &cluster.profile).await?;
    let machine = cluster.machine(number)?;
    let (shown, node_name) = (machine.name().into_owned(), machine.node_name());
    printer.step(DELETE, "Deleting", &format!("Deleting node {shown} from cluster {name}"));
    // What is not up has no pods that could end in order.
    if cluster.driver.state(machine).await? == MachineState::Running {
        pause::release(cluster.driver.as_ref(), machine).await;
        drain::run(&client, &node_name, printer).await?;
    }
    cluster.forget(number, &client).await?;
    if let Err(failure) = lost::tell_volumes(&client, &node_name, printer).await {
        tracing::debug!(%failure, "which volumes were on the node is not known");
    }
    printer.step(CRUSHED, "Deleted", &format!("Node {shown} was successfully deleted."));
    Ok(())
}

/// Stops a worker; it stays so until it, or the cluster, is started.
///
/// # Errors
/// `GUEST_NODE_NOT_FOUND`, and what the driver says.
pub async fn stop(home: &Home, name: &str, node: &str, printer: &Printer) -> Outcome<()> {
    let mut cluster = Cluster::open(home, name, printer).await?;
    let number = cluster.worker(node, "stop")?;
    let shown = cluster.machine(number)?.name().into_owned();
    printer.step(STOP, "Stopping", &format!("Stopping node \"{shown}\"  ..."));
    // Before it ends, so that the agent leaves it so.
    cluster.mark(number, true)?;
    cluster.halt(number).await?;
    cluster.tell_agent().await;
    printer.step(STOP, "Done", &format!("Successfully stopped node {shown}"));
    Ok(())
}

/// Starts a worker of a cluster that runs.
///
/// # Errors
/// `GUEST_NOT_RUNNING`, `K8S_NOT_RESPONDING`, `GUEST_NODE_NOT_FOUND`, and what starting it can fail with.
pub async fn start(home: &Home, name: &str, node: &str, printer: &Printer) -> Outcome<()> {
    let mut interruption = Interruption::listen()?;
    let mut cluster = Cluster::open(home, name, printer).await?;
    let number = match cluster.profile.machine(Some(node))? {
        // One that is marked, its stop having failed, is to be kept running from now on.
        machine if !machine.is_stopped() && cluster.driver.state(machine).await? == MachineState::Running => {
            printer.step(CHECK, "Done", &format!("{} is already running", machine.name()));
            return Ok(());
        }
        _ => cluster.worker(node, "start")?,
    };
    drivers::of_running(home, cluster.profile.control_plane()).await?;
    let client = client::ready(home, &cluster.profile).await?;
    let shown = cluster.machine(number)?.name().into_owned();
    cluster.mark(number, false)?;
    tokio::select! {
        outcome = cluster.up(number, &client) => outcome?,
        () = interruption.comes() => return Err(Failure::new(&MK_INTERRUPTED, "interrupted")),
    }
    cluster.tell_agent().await;
    printer.step(HAPPY, "Done", &format!("Successfully started node {shown}!"));
    Ok(())
}
