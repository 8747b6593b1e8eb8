//! What `start` changes of a machine that runs, and what it says of one that is gone.

use std::time::Duration;

use super::plan;
use crate::drivers::{self, Driver, Machine, MachineState};
use crate::home::Home;
use crate::ops::node_image;
use crate::printer::{MOUNT, OPTION, Printer};
use crate::profile::Profile;
use crate::reason::{DRV_CREATE, Failure, GUEST_DATA_LOST, Outcome};

/// How long a machine that has got its last signal may take to end.
const DYING: Duration = Duration::from_secs(1);

/// Brings the running machines to what the profile says now. What only its next start can change is said.
///
/// # Errors
/// For limits that the machine cannot have: nothing else is changed then.
pub async fn apply(
    before: &Profile,
    now: &Profile,
    driver: &dyn Driver,
    home: &Home,
    printer: &Printer,
) -> Outcome<()> {
    let limited = running(now, driver).await?;
    if !limited.is_empty() && (before.cpus, before.memory_mib) != (now.cpus, now.memory_mib) {
        if let Err(failure) = limit(driver, &limited).await {
            // Neither the machines nor their next start have what cannot be had.
            let as_before = Profile { cpus: before.cpus, memory_mib: before.memory_mib, ..now.clone() };
            let names: Vec<_> = limited.iter().map(|machine| machine.name()).collect();
            let machines: Vec<_> = as_before.machines().filter(|machine| names.contains(&machine.name())).collect();
            let _ = limit(driver, &machines).await;
            as_before.save(home)?;
            return Err(failure);
        }
        printer.info(
            OPTION,
            &format!("The node may now use CPUs={}, Memory={}MB; containers go on", now.cpus, now.memory_mib),
        );
    }
    let running = running(now, driver).await?;
    let Some(first) = running.first() else { return Ok(()) };
    for gone in before.mounts.iter().filter(|share| !now.mounts.contains(share)) {
        for machine in &running {
            ask(driver, *machine, &["node-unmount", &gone.target.display().to_string()]).await?;
        }
    }
    for share in now.mounts.iter().filter(|share| !before.mounts.contains(share)) {
        let (source, target) = (share.source.display(), share.target.display());
        let mut shown = Ok(());
        for machine in &running {
            shown = shown.and(driver.share(*machine, share).await);
        }
        match shown {
            Ok(()) => printer.info(MOUNT, &format!("Mounting host path {source} into node as {target} ...")),
            Err(_) => {
                printer.warning(&format!("{source} is shown in the node after the cluster's next stop and start"))
            }
        }
    }
    if first.is_worker() {
        // The rest is about the control plane, which is made anew with all that it is to have.
        return Ok(());
    }
    let (old, new) = (&before.exposure, &now.exposure);
    if driver.publishes() && (old.listen, &old.ports) != (new.listen, &new.ports) {
        printer.warning("Published ports change with the cluster's next stop and start");
    }
    if plan::api_names(before) != plan::api_names(now) {
        printer.warning("The API's certificate changes with the cluster's next stop and start");
    }
    if (&before.audit_log, before.mutating_policies) != (&now.audit_log, now.mutating_policies) {
        printer.warning("Settings of the API server change with the cluster's next stop and start");
    }
    Ok(())
}

/// Machines of the cluster that run, the control plane's first.
pub async fn running<'p>(profile: &'p Profile, driver: &dyn Driver) -> Outcome<Vec<Machine<'p>>> {
    let mut running = Vec::new();
    for machine in profile.machines() {
        if driver.state(machine).await? == MachineState::Running {
            running.push(machine);
        }
    }
    Ok(running)
}

async fn limit(driver: &dyn Driver, machines: &[Machine<'_>]) -> Outcome<()> {
    for machine in machines.iter().copied() {
        let (cpus, memory) = (machine.cpus().unwrap_or(0).to_string(), machine.memory_bytes().unwrap_or(0).to_string());
        let changed = async {
            driver.resize(machine).await?;
            ask(driver, machine, &["node-limits", &cpus, &memory]).await
        };
        if let Err(failure) = changed.await
            && !ends(driver, machine).await
        {
            return Err(failure);
        }
    }
    Ok(())
}

/// Whether a machine was dying when it was looked at: its next start has all that it is to have.
async fn ends(driver: &dyn Driver, machine: Machine<'_>) -> bool {
    let exited = tokio::time::timeout(DYING, driver.exited(machine)).await;
    exited.is_ok() || driver.state(machine).await.is_ok_and(|state| state != MachineState::Running)
}

async fn ask(driver: &dyn Driver, machine: Machine<'_>, arguments: &[&str]) -> Outcome<()> {
    let command: Vec<&str> = std::iter::once(node_image::BINARY).chain(arguments.iter().copied()).collect();
    let output = driver.output(machine, &command, drivers::ANSWER).await?;
    if output.exit_code == 0 {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Failure::new(&DRV_CREATE, format!("the node does not take the change: {told}")))
}

/// A cluster that has been up and has no machine any more has lost all that was in it.
///
/// # Errors
/// `GUEST_DATA_LOST`, unless it is to be made anew all the same.
pub fn refuse_lost(profile: &Profile, force: bool, printer: &Printer) -> Outcome<()> {
    let failure = data_lost(profile.control_plane());
    if force {
        printer.warning(&failure.to_string());
        return Ok(());
    }
    Err(failure)
}

/// That a machine is not there which has been.
pub fn data_lost(machine: Machine<'_>) -> Failure {
    let name = machine.name();
    if machine.is_worker() {
        let failure = Failure::new(
            &GUEST_DATA_LOST,
            format!("the data of the node \"{name}\" is gone: its images and volumes were removed by other hands"),
        );
        return failure.advise("'kminik start' makes it anew, empty.");
    }
    Failure::new(
        &GUEST_DATA_LOST,
        format!(
            "the data of the cluster \"{name}\" is gone: its objects, images and volumes were removed by other hands"
        ),
    )
}
