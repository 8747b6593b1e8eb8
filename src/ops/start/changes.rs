//! What `start` changes of a machine that runs, and what it says of one that is gone.

use std::time::Duration;

use async_trait::async_trait;

use super::plan;
use crate::drivers::{self, Driver, Machine, MachineState, Share};
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
    let Some(first) = running.first() else {
        // What is made anew has all of them.
        return keep_shown(now, now.mounts.clone(), home);
    };
    let mut shown = now.shown_mounts().to_vec();
    let remounted = remount(&Nodes { driver, machines: &running }, &mut shown, &now.mounts, printer).await;
    keep_shown(now, shown, home)?;
    remounted?;
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

fn keep_shown(now: &Profile, shown: Vec<Share>, home: &Home) -> Outcome<()> {
    let mut noted = now.clone();
    noted.note_shown(shown);
    if noted == *now { Ok(()) } else { noted.save(home) }
}

/// Where mounts are changed.
#[async_trait]
trait Shows: Sync {
    /// In all of them, or in none.
    async fn show(&self, share: &Share) -> Outcome<()>;
    async fn hide(&self, share: &Share) -> Outcome<()>;
}

/// Machines that run.
struct Nodes<'a> {
    driver: &'a dyn Driver,
    machines: &'a [Machine<'a>],
}

#[async_trait]
impl Shows for Nodes<'_> {
    async fn show(&self, share: &Share) -> Outcome<()> {
        for (i, machine) in self.machines.iter().enumerate() {
            if let Err(failure) = self.driver.share(*machine, share).await {
                for before in &self.machines[..i] {
                    // One that does not forget it shows it twice at the next attempt.
                    let _ = ask(self.driver, *before, &["node-unmount", &share.target.display().to_string()]).await;
                }
                return Err(failure);
            }
        }
        Ok(())
    }

    async fn hide(&self, share: &Share) -> Outcome<()> {
        let mut outcome = Ok(());
        for machine in self.machines {
            let hidden = ask(self.driver, *machine, &["node-unmount", &share.target.display().to_string()]).await;
            outcome = outcome.and(hidden);
        }
        outcome
    }
}

/// Changes what is shown to what is wanted, and says in `shown` how far that went.
///
/// # Errors
/// For what cannot be taken away; what cannot be shown is a warning.
async fn remount(nodes: &dyn Shows, shown: &mut Vec<Share>, wanted: &[Share], printer: &Printer) -> Outcome<()> {
    for gone in shown.clone().iter().filter(|share| !wanted.contains(share)) {
        nodes.hide(gone).await?;
        shown.retain(|share| share != gone);
    }
    for share in wanted {
        if shown.contains(share) {
            continue;
        }
        let (source, target) = (share.source.display(), share.target.display());
        match nodes.show(share).await {
            Ok(()) => {
                shown.push(share.clone());
                printer.info(MOUNT, &format!("Mounting host path {source} into node as {target} ..."));
            }
            Err(failure) => printer.warning(&format!(
                "{source} is not shown in the nodes that run: {failure}. The next start tries it again, and has it after a stop"
            )),
        }
    }
    // In the order in which they are wanted, so that all of them are what is wanted.
    shown.sort_by_key(|share| wanted.iter().position(|other| other == share));
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

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    /// Nodes in which some places cannot be changed.
    struct Fake {
        refuses: Mutex<Vec<&'static str>>,
        seen: Mutex<Vec<String>>,
    }

    impl Fake {
        fn answer(&self, verb: &str, share: &Share) -> Outcome<()> {
            let target = share.target.display().to_string();
            if self.refuses.lock().iter().any(|place| *place == target) {
                return Err(Failure::new(&DRV_CREATE, "no"));
            }
            self.seen.lock().push(format!("{verb} {target}"));
            Ok(())
        }
    }

    #[async_trait]
    impl Shows for Fake {
        async fn show(&self, share: &Share) -> Outcome<()> {
            self.answer("show", share)
        }

        async fn hide(&self, share: &Share) -> Outcome<()> {
            self.answer("hide", share)
        }
    }

    #[tokio::test]
    async fn what_could_not_be_changed_is_changed_by_the_next_start() {
        let share =
            |target: &str| Share { source: format!("/host{target}").into(), target: target.into(), read_only: false };
        let fake = Fake { refuses: Mutex::new(vec!["/b"]), seen: Mutex::default() };
        let printer = Printer::text("dev");
        let wanted = [share("/b"), share("/c")];
        let mut shown = vec![share("/a")];
        remount(&fake, &mut shown, &wanted, &printer).await.unwrap();
        assert_eq!(shown, [share("/c")], "the second is there, the first is not");
        fake.refuses.lock().clear();
        remount(&fake, &mut shown, &wanted, &printer).await.unwrap();
        assert_eq!(shown, wanted);
        assert_eq!(*fake.seen.lock(), ["hide /a", "show /c", "show /b"]);
        // What cannot be taken away is still there, and nothing behind it is tried.
        fake.refuses.lock().push("/b");
        assert!(remount(&fake, &mut shown, &[], &printer).await.is_err());
        assert_eq!(shown, wanted);
    }
}
