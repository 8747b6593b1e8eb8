//! Starting a cluster: check, choose, make, wait. A start that fails, or is interrupted, undoes what it made.
//!
//! ```text
//! request ─► plan (nothing made) ─► profile saved ─► driver.create ─► driver.start ─► API ready ─► kubeconfig ─► agent ─► workers, waits
//!                                   └──────────── on failure or Ctrl-C of a new cluster: delete ────────────┘
//! ```

mod base_image;
mod changes;
pub mod datastore;
pub mod extra_config;
pub mod files;
pub mod last_words;
mod plan;
mod wait;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use wait::{Wait, ended};

use crate::agent;
use crate::autostart::{self, Installed};
use crate::drivers::{self, Driver, Machine, MachineState, NetworkWish, Probed, Problem, Share, Userland};
use crate::exposure::WantedPort;
use crate::home::Home;
use crate::kubeconfig;
use crate::networking;
use crate::node::config::RESTORE_FILE;
use crate::ops::addons::{self, Freshness};
use crate::ops::cache::Cache;
use crate::ops::image::Images;
use crate::ops::nodes::{self, Workers};
use crate::ops::{client, delete, pause, pki, registries, snapshot, sync};
use crate::printer::{
    ADDONS, CLOCK, DONE, DOWNLOAD, DRY, FIRE, HAPPY, IMAGE, OPTION, PREPARE, Printer, RESTART, RUNNING, THUMB, UNPAUSE,
    VERIFY,
};
use crate::profile::{self, Lock, Profile, REGISTRY_CA};
use crate::reason::{Failure, GUEST_START, MK_INTERRUPTED, Outcome};
use crate::terminal::Interruption;
use crate::version;

/// How many steps `-o json` announces.
pub const STEPS: usize = 9;

/// Of registries; `None` leaves what there is, what is empty clears it.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    pub country: Option<String>,
    pub mirrors: Option<Vec<String>>,
    pub repository: Option<String>,
    pub insecure: Option<Vec<String>>,
}

impl Registries {
    fn update(&self, kept: &mut profile::Registries) {
        let text = |kept: &mut Option<String>, given: &Option<String>| {
            if let Some(given) = given {
                *kept = (!given.is_empty()).then(|| given.clone());
            }
        };
        let list = |kept: &mut Vec<String>, given: &Option<Vec<String>>| {
            if let Some(given) = given {
                kept.clone_from(given);
            }
        };
        text(&mut kept.country, &self.country);
        text(&mut kept.repository, &self.repository);
        list(&mut kept.mirrors, &self.mirrors);
        list(&mut kept.insecure, &self.insecure);
    }
}

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct Request {
    pub profile: String,
    pub driver: Option<String>,
    pub base_image: Option<String>,
    pub registries: Registries,
    /// Files with authorities that registries may be signed by; `None` leaves those there are.
    pub ca_certs: Option<Vec<PathBuf>>,
    pub datastore: datastore::Request,
    pub extra_config: extra_config::ExtraConfig,
    /// `None` is the default, or what the cluster has.
    pub cert_expiration: Option<Duration>,
    pub kubernetes_version: String,
    /// How many a new cluster has.
    pub nodes: Option<u32>,
    /// Of each node; 0 is no limit; `None` is the default, or what the cluster has.
    pub cpus: Option<u32>,
    pub memory_mib: Option<u64>,
    pub network: NetworkWish,
    pub networking: networking::Wish,
    pub listen_address: Option<IpAddr>,
    /// `None` leaves those there are.
    pub ports: Option<Vec<WantedPort>>,
    /// Names and addresses that the API's certificate is for too; `None` leaves those there are.
    pub api_names: Option<Vec<String>>,
    /// `None` leaves those there are.
    pub mounts: Option<Vec<Share>>,
    pub wait: Wait,
    pub wait_timeout: Duration,
    pub dry_run: bool,
    pub download_only: bool,
    pub force: bool,
    pub delete_on_failure: bool,
    pub keep_context: bool,
    pub embed_certs: bool,
    /// Of the kubeconfig's context; `None` keeps the one it has.
    pub namespace: Option<String>,
    /// Addons to enable.
    pub addons: Vec<String>,
    /// False makes a new cluster without those that are there by default.
    pub install_addons: bool,
    /// Whether it comes up with the machine; `None` leaves that as it is.
    pub autostart: Option<bool>,
}

/// Runs the request.
pub async fn run(request: &Request, home: &Home, printer: &Printer) -> Outcome<()> {
    let mut interruption = Interruption::listen()?;
    printer.step(HAPPY, "Initial Minikube Setup", &format!("kminik v{} on {}", version::KMINIK, plan::host_name()));
    let _lock = Lock::acquire(home, &request.profile).await?;
    delete::check_whole(home, &request.profile)?;
    Profile::check_unique(home, &request.profile)?;
    let existing = Profile::load_optional(home, &request.profile)?;
    let plan = tokio::select! {
        plan = plan::make(request, existing, home, printer) => plan?,
        () = interruption.comes() => return Err(Failure::new(&MK_INTERRUPTED, "interrupted")),
    };
    if request.dry_run {
        explain(home, printer).await;
        printer.step(DRY, "Done", "dry-run validation complete!");
        return Ok(());
    }
    let known = &plan.profile;
    if known.was_up
        && !request.download_only
        && plan.driver.state(known.control_plane()).await? == MachineState::Nonexistent
    {
        changes::refuse_lost(known, request.force, printer)?;
    }
    let mut again = request.delete_on_failure;
    loop {
        let mut failure = tokio::select! {
            outcome = carry_out(request, &plan, home, printer) => match outcome {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            },
            () = interruption.comes() => match plan.is_new {
                true => Failure::new(&MK_INTERRUPTED, "interrupted; what start had made is undone"),
                false => Failure::new(&MK_INTERRUPTED, "interrupted"),
            },
        };
        let interrupted = failure.reason == &MK_INTERRUPTED;
        if plan.is_new || request.delete_on_failure && !interrupted {
            let machines: Vec<_> = plan.profile.machines().collect();
            failure = last_words::keep(failure, plan.driver.as_ref(), &machines, printer).await;
            undo(home, &plan, printer).await;
        }
        if !again || interrupted {
            return Err(failure);
        }
        again = false;
        printer.warning(&format!("Starting failed, deleting the cluster and trying once more: {failure}"));
    }
}

/// How each driver is, the one to be preferred first.
async fn explain(home: &Home, printer: &Printer) {
    for Probed { row, health } in drivers::probe_all(home).await {
        let name = row.name;
        match health.problem {
            None => printer.info(OPTION, &format!("Driver {name} can be used: {}", health.about)),
            Some(Problem { why, advice, .. }) => {
                printer.info(OPTION, &format!("Driver {name} cannot be used: {why}"));
                if !advice.is_empty() {
                    printer.info(OPTION, &advice);
                }
            }
        }
    }
}

async fn undo(home: &Home, plan: &plan::Plan, printer: &Printer) {
    let name = &plan.profile.name;
    agent::stop(&home.profile(name)).await;
    let outcome = async {
        plan.driver.delete(name).await?;
        delete::forget(home, name).await
    };
    if let Err(failure) = outcome.await {
        printer.warning(&format!("{failure}; 'kminik delete -p {name}' removes what is left"));
    }
}

async fn carry_out(request: &Request, plan: &plan::Plan, home: &Home, printer: &Printer) -> Outcome<()> {
    let profile = &plan.profile;
    keep_authorities(request.ca_certs.as_deref(), home, profile)?;
    let userland = userland(profile, home, printer).await?;
    if request.download_only {
        let cache = Cache::open(home, Some(profile))?;
        for image in addons::needs(home, Some(profile), &[], printer).await?.images {
            cache.have(&image, printer).await?;
        }
        if plan.is_new {
            // What was kept for the pulls is not a cluster.
            delete::remove_tree(&home.profile(&profile.name))?;
        }
        printer.step(DOWNLOAD, "Done", "Download complete!");
        return Ok(());
    }
    if agent::cancel_stop(home, &profile.name)? {
        printer.info(CLOCK, "The scheduled stop is cancelled");
    }
    match plan.is_new {
        true => profile.claim(home).await?,
        false => profile.save(home)?,
    }
    datastore::keep_files(&request.datastore, home, profile)?;
    request.extra_config.keep_files(home, profile)?;
    let some_ran = !changes::running(profile, plan.driver.as_ref()).await?.is_empty();
    let Running { client, was_running, replaced } = run_machine(request, plan, home, &userland, printer).await?;
    sync::run(home, plan.driver.as_ref(), profile.control_plane()).await?;
    if replaced {
        // It runs the same binary as the node, so it is replaced with it.
        agent::stop(&home.profile(&profile.name)).await;
    }
    if !profile.was_up {
        Profile { was_up: true, ..Profile::load(home, &profile.name)? }.save(home)?;
    }
    let (path, namespace) = (kubeconfig::path(home), request.namespace.as_deref());
    pki::merge_kubeconfig(home, profile, &path, namespace, !request.keep_context)?;
    agent::spawn(home, profile, plan.driver.binary(profile.control_plane()))?;
    if was_running {
        agent::reload(&home.profile(&profile.name)).await;
    }
    let workers = Workers {
        home,
        driver: plan.driver.as_ref(),
        client: &client,
        userland: &userland,
        printer,
        bound: request.wait.node.then_some(request.wait_timeout),
    };
    workers.up(&nodes::workers(profile)).await?;
    if some_ran {
        // What was made anew has the registries already.
        let config = registries::on_node(home, profile)?;
        let told = async { Images::connect(home, &profile.name).await?.configure(&config).await };
        if let Err(failure) = told.await {
            printer
                .warning(&format!("Pulls go by the registries given after the next start of the cluster: {failure}"));
        }
    }
    printer.step(VERIFY, "Verifying Kubernetes", "Verifying Kubernetes components...");
    let freshness = if was_running { Freshness::Running } else { Freshness::JustStarted };
    let applied = addons::reconcile(home, profile, &client, freshness, printer).await?;
    let (primary, workloads) = (profile.control_plane().node_name(), addons::workloads(profile)?);
    wait::components(&client, request.wait, &primary, &workloads, request.wait_timeout).await?;
    if request.wait.system_pods || request.wait.apps {
        addons::wait(&client, &applied, request.wait_timeout, printer).await;
    }
    printer.step(ADDONS, "Enabling Addons", &format!("Enabled addons: {}", addons::enabled_names(home, profile)?));
    come_up_with_machine(request.autostart, home, &profile.name, printer).await?;
    let message = if request.keep_context {
        format!("To connect to this cluster, use:  --context={}", profile.name)
    } else {
        format!(
            "Done! kubectl is now configured to use \"{}\" cluster and \"{}\" namespace by default",
            profile.name,
            kubeconfig::namespace(&path, &profile.name).unwrap_or_default()
        )
    };
    printer.step(DONE, "Done", &message);
    Ok(())
}

/// Installs or removes the cluster's unit; one that is there is made anew, for this program and its environment may be others now.
async fn come_up_with_machine(wish: Option<bool>, home: &Home, name: &str, printer: &Printer) -> Outcome<()> {
    match wish {
        Some(false) => autostart::remove(home, name).await,
        None if !autostart::is_installed(home, name) => Ok(()),
        None => {
            if let Err(failure) = autostart::install(home, name).await {
                printer.warning(&failure.to_string());
            }
            Ok(())
        }
        Some(true) => {
            match autostart::install(home, name).await? {
                Installed::AtBoot => printer.info(OPTION, "The cluster comes up when this machine starts"),
                Installed::AtLogin => printer.info(
                    OPTION,
                    "The cluster comes up when you log in; with this machine after: loginctl enable-linger",
                ),
                Installed::Later => {
                    printer.info(OPTION, "systemd does not run now: the cluster comes up when it starts this machine");
                }
            }
            Ok(())
        }
    }
}

/// Keeps the authorities that were given with the profile; none given changes nothing.
fn keep_authorities(files: Option<&[PathBuf]>, home: &Home, profile: &Profile) -> Outcome<()> {
    let path = home.profile(&profile.name).join(REGISTRY_CA);
    match files {
        None => Ok(()),
        Some([]) => home.remove(&path),
        Some(files) => {
            let all = files.iter().map(|file| registries::authority(file)).collect::<Outcome<String>>()?;
            home.write(&path, all.as_bytes(), kminik_base::atomic_file::PUBLIC)
        }
    }
}

/// What the nodes' root filesystems are made of.
pub async fn userland(profile: &Profile, home: &Home, printer: &Printer) -> Outcome<Userland> {
    match &profile.base_image {
        Some(reference) => {
            printer.step(IMAGE, "Pulling Base Image", &format!("Pulling base image {reference} ..."));
            base_image::pull(home, profile, reference, printer).await
        }
        None => {
            printer.step(IMAGE, "Pulling Base Image", "Using the built-in node image ...");
            Ok(Userland::BuiltIn)
        }
    }
}

/// Brings back a machine whose node ended by itself; does nothing if it runs, or is not meant to any more.
///
/// # Errors
/// `MK_PROFILE_BUSY` while another command works on the cluster, and whatever making it can fail with.
pub async fn revive(cluster: &str, node: &str, home: &Home, printer: &Printer) -> Outcome<()> {
    let _lock = Lock::acquire(home, cluster).await?;
    // As it is now: a node may have been stopped or deleted.
    let profile = &Profile::load(home, cluster)?;
    let Some(machine) = profile.machines().find(|machine| *machine.name() == *node) else { return Ok(()) };
    let driver = drivers::of(home, profile)?;
    if !agent::is_wanted(&home.profile(cluster)) || machine.is_stopped() {
        return Ok(());
    }
    match driver.state(machine).await? {
        MachineState::Running => return Ok(()),
        MachineState::Stopped => {}
        // Whether it is to begin anew is its user's to say.
        MachineState::Nonexistent => return Err(changes::data_lost(machine)),
    }
    let files = match machine.is_worker() {
        true => nodes::files_again(machine, home).await?,
        false => files::of_control_plane(home, profile)?,
    };
    let userland = userland(profile, home, printer).await?;
    driver.create(machine, &userland, &files).await?;
    driver.start(machine).await?;
    sync::run(home, driver.as_ref(), machine).await
}

/// A machine whose API answers.
struct Running {
    client: kube::Client,
    /// It was not this start that started it.
    was_running: bool,
    /// Its node process is now of this binary, and was not.
    replaced: bool,
}

/// Starts the machine unless it runs, and waits for its API. In one that runs the node process is replaced by this binary's, if it
/// is another's; containers go on. One that was dying when it was looked at is started once more.
async fn run_machine(
    request: &Request,
    plan: &plan::Plan,
    home: &Home,
    userland: &Userland,
    printer: &Printer,
) -> Outcome<Running> {
    let (profile, driver) = (&plan.profile, plan.driver.as_ref());
    let machine = profile.control_plane();
    let mut files = files::of_control_plane(home, profile)?;
    files.extend(snapshot::waiting(home, &profile.name)?);
    let client = client::connect(home, profile).await?;
    let mut again = !plan.is_new;
    for machine in profile.machines().filter(|_| plan.is_new) {
        if driver.state(machine).await? == MachineState::Nonexistent {
            continue;
        }
        // Its keys went with its profile, so nobody can use what is in it.
        printer.warning(&format!("A machine \"{}\" without a profile is there: it is deleted first", machine.name()));
        driver.delete(&profile.name).await?;
    }
    // Before anything is started: what cannot be had changes nothing.
    if let Some(before) = &plan.before {
        changes::apply(before, profile, driver, home, printer).await?;
    }
    loop {
        let state = driver.state(machine).await?;
        announce(profile, state, printer);
        if state != MachineState::Running {
            driver.create(machine, userland, &files).await?;
            snapshot::handed_over(home, &profile.name)?;
            files.retain(|file| file.path != Path::new(RESTORE_FILE));
            plan.turn.lock().take();
            driver.start(machine).await?;
        }
        let was_running = state == MachineState::Running;
        let newer = if was_running { driver.newer_binary(machine).await? } else { None };
        if let Some(binary) = &newer {
            replace_node(machine, driver, binary, printer).await?;
        }
        if was_running && pause::state(driver, machine).await.is_ok_and(|s| s.is_any()) {
            printer.info(UNPAUSE, &format!("Unpausing node {} ...", profile.name));
            pause::release(driver, machine).await;
        }
        printer.step(PREPARE, "Preparing Kubernetes", &format!("Preparing Kubernetes {} ...", version::KUBERNETES));
        match wait::api(&client, driver, machine, request.wait_timeout).await {
            Ok(()) => return Ok(Running { client, was_running, replaced: newer.is_some() }),
            Err(failure) if failure.reason == &GUEST_START && was_running && again => again = false,
            Err(failure) => return Err(failure),
        }
    }
}

/// Has a running node's process started anew from another binary, which is at this path in the node.
pub async fn replace_node(machine: Machine<'_>, driver: &dyn Driver, binary: &str, printer: &Printer) -> Outcome<()> {
    printer
        .info(OPTION, &format!("Replacing the node's process by that of kminik {}; containers go on", version::KMINIK));
    let output = driver.output(machine, &[binary, "node-replace"], drivers::WORK).await?;
    if output.exit_code == 0 {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr);
    Err(Failure::new(&GUEST_START, format!("the node's process cannot be replaced: {}", told.trim())))
}

fn announce(profile: &Profile, state: MachineState, printer: &Printer) {
    let name = &profile.name;
    printer.step(
        THUMB,
        "Starting Node",
        &format!("Starting \"{name}\" primary control-plane node in \"{name}\" cluster"),
    );
    let limit = |n: u64, unit: &str| if n == 0 { "no limit".to_owned() } else { format!("{n}{unit}") };
    let (style, message) = match state {
        MachineState::Running => (RUNNING, format!("Updating the running {} \"{name}\" machine ...", profile.driver)),
        MachineState::Stopped => {
            (RESTART, format!("Restarting existing {} machine for \"{name}\" ...", profile.driver))
        }
        MachineState::Nonexistent => (
            FIRE,
            format!(
                "Creating {} container (CPUs={}, Memory={}) ...",
                profile.driver,
                limit(profile.cpus.into(), ""),
                limit(profile.memory_mib, "MB")
            ),
        ),
    };
    printer.step(style, "Creating Container", &message);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_left_replaced_or_cleared() {
        let mut kept = profile::Registries {
            country: Some("cn".into()),
            mirrors: vec!["https://a.example".into()],
            repository: None,
            insecure: vec!["b.example".into()],
        };
        let before = kept.clone();
        Registries::default().update(&mut kept);
        assert_eq!(kept, before);
        let given = Registries { insecure: Some(vec!["c.example".into()]), ..Registries::default() };
        given.update(&mut kept);
        assert_eq!((kept.insecure.as_slice(), &kept.mirrors), (&["c.example".to_owned()][..], &before.mirrors));
        let cleared = Registries {
            country: Some(String::new()),
            mirrors: Some(Vec::new()),
            repository: Some(String::new()),
            insecure: Some(Vec::new()),
        };
        cleared.update(&mut kept);
        assert_eq!(kept, profile::Registries::default());
    }
}
