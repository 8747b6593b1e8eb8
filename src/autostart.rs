//! Clusters that come up with the machine (`start --autostart`): a unit of systemd for each.
//!
//! ```text
//! /etc/systemd/system/kminik-<profile>.service                          root's; ~/.config/systemd/user/… of who is not
//! …/multi-user.target.wants/kminik-<profile>.service                    that it is enabled; default.target of users
//! …/kminik-<profile>.env                                                the environment of the start that made it, 0600
//! ```
//!
//! The units are all that is kept: which clusters come up is read from there. One is a home's own that names it, so homes do not
//! touch each other's. What root's units read is root's, also under sudo: who could write it would be root at the next boot.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use kminik_base::atomic_file;
use tokio::process::Command;

use crate::env;
use crate::home::Home;
use crate::reason::{Failure, HOST_AUTOSTART, OrFail, Outcome};

/// Of root, and where systemd is installed at all.
const SYSTEM: &str = "/etc/systemd/system";
/// There while systemd runs.
const RUNNING: &str = "/run/systemd/system";
const PREFIX: &str = "kminik-";
const SUFFIX: &str = ".service";
/// How long systemd may take to look at its units again.
const RELOAD_WITHIN: Duration = Duration::from_secs(10);

/// Where units are kept that are started together.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Units {
    dir: PathBuf,
    target: &'static str,
    /// Who has systemd look again.
    reload: &'static [&'static str],
}

/// What has become of the unit, for the user to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Installed {
    /// It comes up with the machine.
    AtBoot,
    /// It comes up when its user logs in, or with the machine for one who lingers.
    AtLogin,
    /// systemd is installed and does not run now.
    Later,
}

impl Units {
    fn system() -> Self {
        Self { dir: SYSTEM.into(), target: "multi-user.target", reload: &["daemon-reload"] }
    }

    /// Wherever a unit of this home may be, where it would be made first.
    fn all(home: &Home) -> Vec<Self> {
        let user = |config: PathBuf| Self {
            dir: config.join("systemd/user"),
            target: "default.target",
            reload: &["--user", "daemon-reload"],
        };
        let mut all: Vec<Self> = env::user_configs(home.user()).into_iter().map(user).collect();
        let first = if rustix::process::geteuid().is_root() { 0 } else { all.len() };
        all.insert(first, Self::system());
        all
    }

    fn own(home: &Home) -> Self {
        Self::all(home).swap_remove(0)
    }

    fn environment(&self, profile: &str) -> PathBuf {
        self.dir.join(format!("{PREFIX}{profile}.env"))
    }

    fn unit(&self, profile: &str) -> PathBuf {
        self.dir.join(format!("{PREFIX}{profile}{SUFFIX}"))
    }

    fn wanted(&self, profile: &str) -> PathBuf {
        self.dir.join(format!("{}.wants", self.target)).join(format!("{PREFIX}{profile}{SUFFIX}"))
    }

    /// What is there by the profile's name, and whether it is of this home.
    fn found(&self, home: &Home, profile: &str) -> Option<bool> {
        let text = fs::read_to_string(self.unit(profile)).ok()?;
        let own = home_line(home);
        Some(text.lines().any(|line| line == own))
    }

    /// That no unit of this name is somebody else's.
    fn check(&self, home: &Home, profile: &str) -> Outcome<()> {
        if self.found(home, profile) != Some(false) {
            return Ok(());
        }
        let unit = self.unit(profile);
        let taken = Failure::new(&HOST_AUTOSTART, format!("{} is another home's, or somebody else's", unit.display()));
        Err(taken.advise("Give the cluster another name: kminik start -p NAME"))
    }

    /// Writes the unit and enables it; whether that is other than it was.
    ///
    /// # Errors
    /// `HOST_AUTOSTART`, also for one of another home.
    fn install(&self, home: &Home, profile: &str, program: &Path) -> Outcome<bool> {
        self.check(home, profile)?;
        let (unit, wanted, environment) = (self.unit(profile), self.wanted(profile), self.environment(profile));
        let cannot = format!("cannot write {}", unit.display());
        fs::create_dir_all(wanted.parent().unwrap_or(&self.dir)).or_fail(&HOST_AUTOSTART, &cannot)?;
        let variables: String = env::of_start(home).iter().map(|(name, value)| variable(name, value)).collect();
        atomic_file::write(&environment, variables.as_bytes(), atomic_file::SECRET)
            .or_fail(&HOST_AUTOSTART, &cannot)?;
        let text = text(profile, home, &environment, program, self.target);
        let is_new = fs::read_to_string(&unit).ok().as_ref() != Some(&text);
        if is_new {
            atomic_file::write(&unit, text.as_bytes(), atomic_file::PUBLIC).or_fail(&HOST_AUTOSTART, &cannot)?;
        }
        match symlink(&unit, &wanted) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(is_new),
            Err(error) => Err(error).or_fail(&HOST_AUTOSTART, &cannot),
        }
    }

    /// Takes the unit away, if it is of this home; whether it was there.
    ///
    /// # Errors
    /// `HOST_AUTOSTART`.
    fn remove(&self, home: &Home, profile: &str) -> Outcome<bool> {
        if self.found(home, profile) != Some(true) {
            return Ok(false);
        }
        // The unit last: by it the rest is found.
        for path in [self.wanted(profile), self.environment(profile), self.unit(profile)] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).or_fail(&HOST_AUTOSTART, format_args!("cannot remove {}", path.display()));
                }
                _ => {}
            }
        }
        Ok(true)
    }

    /// Has systemd look at its units again. It does so by itself when it starts the next time, so what fails here is no failure.
    async fn reload(&self) {
        if !Path::new(RUNNING).exists() {
            return;
        }
        let mut systemctl = Command::new("systemctl");
        systemctl.args(self.reload).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        if !matches!(tokio::time::timeout(RELOAD_WITHIN, systemctl.status()).await, Ok(Ok(status)) if status.success())
        {
            tracing::warn!("systemd has not read its units again");
        }
    }
}

/// Whether it can be had, as far as that is known before.
///
/// # Errors
/// `HOST_AUTOSTART`: no systemd, a unit of this name that is somebody else's.
pub fn check(home: &Home, profile: &str) -> Outcome<()> {
    if !Path::new(SYSTEM).is_dir() {
        let why = Failure::new(&HOST_AUTOSTART, "this machine has no systemd");
        return Err(why.advise(format!("Have your init system run this as you do: kminik start -p {profile}")));
    }
    Units::own(home).check(home, profile)
}

/// Has the cluster come up with the machine from now on.
///
/// # Errors
/// `HOST_AUTOSTART`: what [`check`] says, and what cannot be written.
pub async fn install(home: &Home, profile: &str) -> Outcome<Installed> {
    let program = std::env::current_exe().or_fail(&HOST_AUTOSTART, "cannot tell where kminik is")?;
    let units = Units::own(home);
    if units.install(home, profile, &program)? {
        units.reload().await;
    }
    Ok(match (Path::new(RUNNING).exists(), units.target) {
        (false, _) => Installed::Later,
        (true, "default.target") => Installed::AtLogin,
        (true, _) => Installed::AtBoot,
    })
}

/// Whether it comes up with the machine.
pub fn is_installed(home: &Home, profile: &str) -> bool {
    let units = Units::own(home);
    // One that its user has disabled stays so.
    units.found(home, profile) == Some(true) && fs::symlink_metadata(units.wanted(profile)).is_ok()
}

/// Has the cluster not come up with the machine any more; what is not there is removed.
///
/// # Errors
/// `HOST_AUTOSTART`: a unit of this home that cannot be removed.
pub async fn remove(home: &Home, profile: &str) -> Outcome<()> {
    for units in Units::all(home) {
        if units.remove(home, profile)? {
            units.reload().await;
        }
    }
    Ok(())
}

/// Names of this home's clusters that have units, also of such as are no more.
pub fn clusters(home: &Home) -> Vec<String> {
    let in_units = |units: Units| {
        let entries = fs::read_dir(&units.dir).into_iter().flatten().filter_map(Result::ok);
        let names = entries.filter_map(|entry| {
            let name = entry.file_name();
            Some(name.to_str()?.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.to_owned())
        });
        names.filter(|name| units.found(home, name) == Some(true)).collect::<Vec<_>>()
    };
    Units::all(home).into_iter().flat_map(in_units).collect()
}

/// By which a unit is known for a home's own.
fn home_line(home: &Home) -> String {
    format!("# Home: {}", home.root().display())
}

fn text(name: &str, home: &Home, environment: &Path, program: &Path, target: &str) -> String {
    let program = quoted(&specifiers(&program.display().to_string()), &['"', '\\']);
    let environment = specifiers(&environment.display().to_string());
    let home = home_line(home);
    format!(
        "# Made by 'kminik start --autostart -p {name}'; 'kminik start --autostart=false -p {name}' and 'kminik delete -p {name}' remove it.\n\
         {home}\n\
         [Unit]\n\
         Description=Kubernetes cluster {name} of kminik\n\
         Wants=network-online.target\n\
         After=network-online.target docker.service podman.service\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         EnvironmentFile={environment}\n\
         ExecStart={program} start -p {name}\n\
         ExecStop={program} stop -p {name}\n\
         TimeoutStartSec=15min\n\
         TimeoutStopSec=3min\n\
         Delegate=yes\n\
         \n\
         [Install]\n\
         WantedBy={target}\n"
    )
}

/// A line of an environment file.
fn variable(name: &str, value: &str) -> String {
    format!("{name}={}\n", quoted(value, &['"', '\\', '$', '`']))
}

/// As systemd reads it back: within double quotes, a backslash before what has a meaning there.
fn quoted(text: &str, special: &[char]) -> String {
    let mut quoted = String::from('"');
    for char in text.chars() {
        if special.contains(&char) {
            quoted.push('\\');
        }
        quoted.push(char);
    }
    quoted.push('"');
    quoted
}

/// In a unit a percent sign begins a specifier.
fn specifiers(text: &str) -> String {
    text.replace('%', "%%")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_unit_is_made_found_and_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let (home, other) = (Home::at(&dir.path().join("mine")), Home::at(&dir.path().join("other")));
        let units = Units { dir: dir.path().join("100% units"), target: "default.target", reload: &[] };
        assert_eq!(units.found(&home, "dev"), None);
        let program = Path::new("/opt/a \"b\"/kminik");
        assert!(units.install(&home, "dev", program).unwrap() && !units.install(&home, "dev", program).unwrap());
        let text = fs::read_to_string(units.unit("dev")).unwrap();
        assert!(text.contains("ExecStart=\"/opt/a \\\"b\\\"/kminik\" start -p dev\n"), "{text}");
        assert!(text.contains("/100%% units/kminik-dev.env\n"), "{text}");
        let mode = fs::metadata(units.environment("dev")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_link(units.wanted("dev")).unwrap(), units.unit("dev"));
        assert_eq!((units.found(&home, "dev"), units.found(&other, "dev")), (Some(true), Some(false)));
        assert_eq!(units.install(&other, "dev", Path::new("/kminik")).unwrap_err().reason, &HOST_AUTOSTART);
        assert!(!units.remove(&other, "dev").unwrap() && units.unit("dev").exists());
        assert!(units.remove(&home, "dev").unwrap() && !units.remove(&home, "dev").unwrap());
        assert!(!units.unit("dev").exists() && !units.environment("dev").exists());
        assert!(fs::symlink_metadata(units.wanted("dev")).is_err());
    }

    #[test]
    fn variables_are_quoted_as_systemd_reads_them() {
        assert_eq!(variable("HTTP_PROXY", "http://u:p\"$`\\@h"), "HTTP_PROXY=\"http://u:p\\\"\\$\\`\\\\@h\"\n");
    }
}
