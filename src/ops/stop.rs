//! Stopping: the agent first (nobody restarts the node), then the node; everything is kept.

use std::time::Duration;

use crate::drivers::{self, MachineState};
use crate::home::Home;
use crate::kubeconfig;
use crate::printer::{Printer, STOP};
use crate::profile::{Lock, Profile};
use crate::reason::Outcome;

/// Bound on a graceful stop.
const BOUND: Duration = Duration::from_secs(120);

/// Stops the cluster; one that is stopped stays so.
pub async fn run(home: &Home, name: &str, keep_context: bool, printer: &Printer) -> Outcome<()> {
    let _lock = Lock::acquire(home, name)?;
    let profile = Profile::load(home, name)?;
    let driver = drivers::of(home, &profile)?;
    printer.step(STOP, "Stopping", &format!("Stopping node \"{name}\"  ..."));
    crate::agent::stop(&home.profile(name)).await;
    if driver.state(name).await? == MachineState::Running {
        driver.stop(&profile, BOUND).await?;
    }
    if !keep_context {
        kubeconfig::clear_current(home, &kubeconfig::path(home), name)?;
    }
    Ok(())
}
