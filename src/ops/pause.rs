//! Pausing and continuing, from the host: by a command in the node, for a paused API answers nobody.

use serde::Deserialize;

use crate::drivers::{self, Driver, Machine, MachineState, OutputBounds};
use crate::home::Home;
use crate::node::pause::{Selection, State};
use crate::ops::node_image;
use crate::profile::Profile;
use crate::reason::{Failure, GUEST_PAUSE, OrFail, Outcome};

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Pause,
    Unpause,
}

/// Pauses or continues what is selected in every node; what is paused then in any.
///
/// # Errors
/// `GUEST_NOT_RUNNING`; `GUEST_PAUSE` with what the node said.
pub async fn change(home: &Home, profile: &Profile, change: Change, selection: &Selection) -> Outcome<State> {
    let driver = drivers::of_running(home, profile.control_plane()).await?;
    let verb = match change {
        Change::Pause => "pause",
        Change::Unpause => "unpause",
    };
    let mut arguments = vec![verb];
    match selection {
        Selection::All => arguments.push("--all"),
        Selection::Namespaces(chosen) => arguments.extend(chosen.iter().map(String::as_str)),
    }
    let mut machines: Vec<_> = profile.machines().collect();
    if change == Change::Unpause {
        // The control plane last: who can ask finds everything going.
        machines.reverse();
    }
    let (mut all, mut failed) = (State::default(), None);
    for machine in machines {
        let asked = async {
            match driver.state(machine).await? {
                MachineState::Running => ask(driver.as_ref(), machine, &arguments, drivers::WORK).await.map(Some),
                MachineState::Stopped | MachineState::Nonexistent => Ok(None),
            }
        };
        match asked.await {
            Ok(state) => all = state.into_iter().fold(all, State::and),
            // The others are asked all the same.
            Err(failure) => failed = failed.or(Some(failure)),
        }
    }
    failed.map_or(Ok(all), Err)
}

/// What is paused in the node.
pub async fn state(driver: &dyn Driver, machine: Machine<'_>) -> Outcome<State> {
    ask(driver, machine, &["state"], drivers::ANSWER).await
}

/// Continues everything, as far as that can be: what is to be stopped or deleted must be able to end.
pub async fn release(driver: &dyn Driver, machine: Machine<'_>) {
    if let Err(failure) = ask(driver, machine, &["unpause", "--all"], drivers::WORK).await {
        tracing::debug!(%failure, "nothing was continued");
    }
}

async fn ask(driver: &dyn Driver, machine: Machine<'_>, arguments: &[&str], bounds: OutputBounds) -> Outcome<State> {
    let mut command = vec![node_image::BINARY, "node-pause"];
    command.extend(arguments);
    let output = driver.output(machine, &command, bounds).await?;
    if output.exit_code != 0 {
        let told = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Failure::new(&GUEST_PAUSE, format!("the node cannot do it: {told}")));
    }
    let mut answers = serde_json::Deserializer::from_slice(&output.stdout);
    State::deserialize(&mut answers).or_fail(&GUEST_PAUSE, "the node's answer cannot be read")
}
