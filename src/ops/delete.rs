//! Deleting: every step also works on what a start that was killed left behind, in any order, twice.

use std::fs;
use std::path::Path;

use crate::autostart;
use crate::drivers::{self, MachineState};
use crate::home::Home;
use crate::kubeconfig;
use crate::ops::pause;
use crate::printer::{CRUSHED, DELETE, Failures, Printer, SHRUG};
use crate::profile::{Lock, NetworkTurn, Profile};
use crate::reason::{Failure, HOST_PURGE, MK_PROFILE_BROKEN, MK_USAGE, OrFail, Outcome};

pub async fn run(home: &Home, name: &str, all: bool, purge: bool, printer: &Printer) -> Outcome<()> {
    let known = Profile::names(home);
    if purge && !all && known.iter().any(|k| k != name) {
        return Err(Failure::new(
            &MK_USAGE,
            "there is more than one cluster; --purge would leave the others without their files",
        )
        .advise("Run: kminik delete --all --purge"));
    }
    let names = if all { everything(home, known).await } else { vec![name.to_owned()] };
    let mut failures = Failures::default();
    for name in &names {
        failures.note(one(home, name, printer).await, printer);
    }
    NetworkTurn::sweep();
    failures.first()?;
    if all {
        printer.step(DELETE, "Deleting", "Successfully deleted all profiles");
    }
    if purge {
        purge_home(home, printer)?;
        printer.step(
            CRUSHED,
            "Purging home directory",
            &format!("Successfully purged kminik directory located at - [{}]", home.root().display()),
        );
    }
    Ok(())
}

/// Directories of the home; in one of others, of those only what is below.
const DIRECTORIES: &[&str] = &["profiles", "machines", "cache", "config", "logs", "locks", "addons", "certs", "files"];
const FILES: &[&str] = &["mirrors.toml", "presets.toml"];
/// What else is nobody else's in a directory that others use too.
const OWN: &[&str] = &[
    "cache/images",
    "cache/manifests",
    "cache/linux",
    "config/config.json",
    "logs/audit.json",
    "logs/audit.json.1",
    "logs/lastStart.txt",
];

/// Removes the home. Of a directory in which others have something, such as the user's own, only what kminik has made.
fn purge_home(home: &Home, printer: &Printer) -> Outcome<()> {
    let root = home.root();
    let entries = fs::read_dir(root).into_iter().flatten().filter_map(Result::ok);
    let is_known =
        |name: &std::ffi::OsStr| name.to_str().is_some_and(|name| DIRECTORIES.contains(&name) || FILES.contains(&name));
    if entries.map(|entry| entry.file_name()).all(|name| is_known(&name)) {
        return remove_tree(root);
    }
    for own in OWN.iter().chain(FILES) {
        let path = root.join(own);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => remove_tree(&path)?,
            Ok(_) => fs::remove_file(&path).or_fail(&HOST_PURGE, format_args!("cannot remove {}", path.display()))?,
            Err(_) => {}
        }
    }
    // Locks are empty files; what else is left is not kminik's.
    for lock in fs::read_dir(root.join("locks")).into_iter().flatten().filter_map(Result::ok) {
        if lock.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() == 0) {
            let _ = fs::remove_file(lock.path());
        }
    }
    for directory in DIRECTORIES {
        // One that is not empty stays.
        let _ = fs::remove_dir(root.join(directory));
    }
    printer.warning(&format!("{} has files of others: they stay", root.display()));
    Ok(())
}

/// Profiles, and machines that lost theirs.
async fn everything(home: &Home, mut names: Vec<String>) -> Vec<String> {
    for row in drivers::TABLE {
        let driver = (row.make)(home, None);
        if drivers::probe(row, home).await.is_healthy()
            && let Ok(clusters) = driver.clusters().await
        {
            names.extend(clusters);
        }
    }
    if let Ok(entries) = fs::read_dir(home.profiles()) {
        names.extend(entries.filter_map(Result::ok).filter_map(|e| e.file_name().into_string().ok()));
    }
    names.extend(autostart::clusters(home));
    names.retain(|n| crate::profile::check_name(n).is_ok());
    names.sort();
    names.dedup();
    names
}

/// In the profile's directory while the cluster is deleted: one that was interrupted has lost some of its data.
const BEGUN: &str = "deleting";

/// Refuses a cluster of which a part may be gone.
///
/// # Errors
/// `MK_PROFILE_BROKEN`, with the command that deletes the rest.
pub fn check_whole(home: &Home, name: &str) -> Outcome<()> {
    if !home.profile(name).join(BEGUN).exists() {
        return Ok(());
    }
    Err(Failure::new(&MK_PROFILE_BROKEN, format!("deleting the cluster {name:?} was interrupted")))
}

async fn one(home: &Home, name: &str, printer: &Printer) -> Outcome<()> {
    let _lock = Lock::acquire(home, name).await?;
    let profile = match Profile::load_optional(home, name) {
        Ok(profile) => profile,
        // A damaged profile must not keep its cluster alive.
        Err(failure) => {
            printer.warning(&failure.to_string());
            None
        }
    };
    match &profile {
        Some(profile) => printer.step(DELETE, "Deleting", &format!("Deleting \"{name}\" in {} ...", profile.driver)),
        None => printer.step(SHRUG, "Deleting", &format!("\"{name}\" profile does not exist, trying anyways.")),
    }
    crate::agent::stop(&home.profile(name)).await;
    if profile.is_some() {
        // On a full disk it may not be made; deleting must work all the same.
        let _ = home.write(&home.profile(name).join(BEGUN), b"", kminik_base::atomic_file::PUBLIC);
    }
    // Its own driver first: what ails another is no reason to keep it.
    let mut rows: Vec<_> = drivers::TABLE.iter().collect();
    rows.sort_by_key(|row| profile.as_ref().is_none_or(|p| p.driver != row.name));
    for row in rows {
        let theirs = profile.as_ref().filter(|p| p.driver == row.name);
        let driver = (row.make)(home, theirs);
        let theirs = theirs.is_some();
        if theirs || drivers::probe(row, home).await.is_healthy() {
            for machine in profile.iter().filter(|_| theirs).flat_map(Profile::machines) {
                if driver.state(machine).await.is_ok_and(|state| state == MachineState::Running) {
                    pause::release(driver.as_ref(), machine).await;
                }
            }
            if let Err(failure) = driver.delete(name).await {
                // An engine that has ended meanwhile is as one that was not there.
                if theirs || drivers::probe(row, home).await.is_healthy() {
                    return Err(failure);
                }
                printer.warning(&failure.to_string());
            }
        }
    }
    forget(home, name).await?;
    printer.step(CRUSHED, "Deleted", &format!("Removed all traces of the \"{name}\" cluster."));
    Ok(())
}

/// Removes the profile, then its entry in the kubeconfig: a file that cannot be edited keeps nothing else alive.
pub async fn forget(home: &Home, name: &str) -> Outcome<()> {
    let dir = home.profile(name);
    Profile::remove(home, name)?;
    // An agent that was being started when it was looked for first has the lock by now, or finds no profile to work for.
    crate::agent::stop(&dir).await;
    remove_tree(&dir)?;
    let edited = kubeconfig::remove(home, &kubeconfig::path(home), name).map(drop);
    autostart::remove(home, name).await?;
    edited
}

/// Removes a directory with all in it; nothing there is success.
pub fn remove_tree(path: &Path) -> Outcome<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
    .or_fail(&HOST_PURGE, format_args!("cannot remove {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purge_takes_only_what_is_kminiks() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(&dir.path().join("home"));
        let printer = Printer::text("test");
        let file = |path: &str| {
            let path = home.root().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        };
        let own = ["cache/images/index.json", "config/config.json", "logs/audit.json", "mirrors.toml"];
        own.iter().for_each(|path| file(path));
        purge_home(&home, &printer).unwrap();
        assert!(!home.root().exists());
        // As when it is the user's own directory.
        let theirs = ["thesis.txt", "config/other", "files/photo", "cache/browser", "profiles/mine", "locks/mine"];
        own.iter().chain(&theirs).for_each(|path| file(path));
        purge_home(&home, &printer).unwrap();
        for path in theirs {
            assert!(home.root().join(path).exists(), "{path}");
        }
        for path in own {
            assert!(!home.root().join(path).exists(), "{path}");
        }
        assert!(!home.root().join("logs").exists());
    }
}
