//! Stopping: the agent first (nobody restarts the node), then the node; everything is kept.

use std::time::Duration;

use crate::agent;
use crate::drivers::{self, MachineState};
use crate::home::Home;
use crate::kubeconfig;
use crate::ops::pause;
use crate::printer::{Printer, STOP};
use crate::profile::{Lock, Profile};
use crate::reason::{Failure, Outcome};

/// Bound on a graceful stop.
const BOUND: Duration = Duration::from_secs(120);

/// Stops the cluster, its workers first; one that is stopped stays so. How many nodes it has.
pub async fn run(home: &Home, name: &str, keep_context: bool, printer: &Printer) -> Outcome<usize> {
    let _lock = Lock::acquire(home, name).await?;
    let profile = Profile::load(home, name)?;
    let driver = drivers::of(home, &profile)?;
    let machines: Vec<_> = profile.machines().collect();
    agent::stop(&home.profile(name)).await;
    agent::cancel_stop(home, name)?;
    // Nobody keeps them any more, so one that does not stop leaves none of the others running.
    let mut outcome: Outcome<()> = Ok(());
    for machine in machines.iter().rev().copied() {
        let shown = machine.name();
        let told = format!("Stopping node \"{shown}\"  ...");
        match machine.is_worker() {
            true => printer.info(STOP, &told),
            false => printer.step(STOP, "Stopping", &told),
        }
        let ended = async {
            if driver.state(machine).await? == MachineState::Running {
                pause::release(driver.as_ref(), machine).await;
                driver.stop(machine, BOUND).await?;
            }
            Ok::<(), Failure>(())
        };
        outcome = outcome.and(ended.await);
    }
    outcome?;
    if !keep_context {
        kubeconfig::clear_current(home, &kubeconfig::path(home), name)?;
    }
    Ok(machines.len())
}

/// Has a running cluster stopped after `delay`, whatever was scheduled before.
///
/// # Errors
/// `GUEST_NOT_RUNNING`.
pub async fn schedule(home: &Home, name: &str, delay: Duration) -> Outcome<()> {
    let _lock = Lock::acquire(home, name).await?;
    let profile = Profile::load(home, name)?;
    let driver = drivers::of_running(home, profile.control_plane()).await?;
    agent::schedule_stop(home, name, delay)?;
    agent::spawn(home, &profile, driver.binary(profile.control_plane()))?;
    agent::reload(&home.profile(name)).await;
    Ok(())
}

/// Has it stopped at no time.
pub async fn cancel(home: &Home, name: &str) -> Outcome<()> {
    Profile::load(home, name)?;
    if agent::cancel_stop(home, name)? {
        agent::reload(&home.profile(name)).await;
    }
    Ok(())
}
