//! What nodes said whose start failed: kept with what `start` said, for undoing takes them away.

use std::time::Duration;

use crate::drivers::{self, Driver, Machine};
use crate::ops::node_image;
use crate::printer::Printer;
use crate::reason::{Failure, GUEST_START, K8S_START, K8S_TIMEOUT};

/// Bound on asking nodes that are not well.
const BOUND: Duration = Duration::from_secs(5);
/// Of the console, and of each part of the node.
const LINES: usize = 30;

/// Keeps the last words where `kminik logs --last-start-only` finds them, which the failure then says.
pub async fn keep(failure: Failure, driver: &dyn Driver, machines: &[Machine<'_>], printer: &Printer) -> Failure {
    if ![&GUEST_START, &K8S_START, &K8S_TIMEOUT].contains(&failure.reason) {
        return failure;
    }
    let all = machines.iter().map(|machine| said(driver, *machine));
    let said: Vec<String> = futures::future::join_all(all).await.into_iter().flatten().collect();
    if said.is_empty() {
        return failure;
    }
    printer.aside(&said.join("\n"));
    failure.advise("Run 'kminik logs --last-start-only -n 200' to see what the node said; it was taken away.")
}

/// What the machine has to say; `None` for one that says nothing, or is not there.
async fn said(driver: &dyn Driver, machine: Machine<'_>) -> Option<String> {
    let ask = async {
        let console = driver.console(machine).await.unwrap_or_default();
        let lines = LINES.to_string();
        let command = [node_image::BINARY, "node-logs", "--length", &lines];
        let logs = driver.output(machine, &command, drivers::LOGS).await;
        let logs = logs.map(|output| output.stdout).unwrap_or_default();
        (String::from_utf8_lossy(&console).into_owned(), String::from_utf8_lossy(&logs).into_owned())
    };
    let (console, logs) = tokio::time::timeout(BOUND, ask).await.ok()?;
    let console: Vec<&str> = console.lines().collect();
    let said = format!("{}\n{logs}", console[console.len().saturating_sub(LINES)..].join("\n"));
    (!said.trim().is_empty()).then(|| format!("{}:\n{}", machine.name(), said.trim_end()))
}
