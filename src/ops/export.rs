//! A cluster's logs as files, in the layout that kind has given them: tools that gather artefacts know it.
//!
//! ```text
//! DIR/kminik-version.txt  audit.json  agent.log
//!     <node>/kubernetes-version.txt  inspect.json  images.log  serial.log
//!            journal.log  kubelet.log  containerd.log
//!            pods/<namespace>_<pod>_<uid>/<container>/<n>.log  containers/…
//! ```

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::drivers::{self, Driver, Input, Machine, MachineState, NodeCommand};
use crate::home::{Home, end_of};
use crate::ops::cache::draft;
use crate::ops::image::Images;
use crate::ops::node_image;
use crate::profile::Profile;
use crate::reason::{Failure, GUEST_CP, HOST_PATH_MISSING, MK_INTERNAL, OrFail, Outcome};
use crate::version;

/// kind's name of a file → the part of the node whose log it has here; none is all.
const COMPONENTS: &[(&str, Option<&str>)] =
    &[("journal.log", None), ("kubelet.log", Some("kubelet")), ("containerd.log", Some("runtime"))];
/// Lines of a part: all that there are.
const ALL_LINES: &str = "1000000";

/// Writes all there is into the directory, or into a new temporary one; which it is. A node that does not run has less to say.
///
/// # Errors
/// `HOST_PATH_MISSING` for what cannot be written, `GUEST_CP` for what the node does not give.
pub async fn logs(home: &Home, profile: &Profile, directory: Option<PathBuf>) -> Outcome<PathBuf> {
    let cannot = "cannot make the directory";
    let directory = match directory {
        Some(directory) => directory,
        None => {
            let made = tempfile::Builder::new().prefix("kminik-logs-").tempdir().or_fail(&HOST_PATH_MISSING, cannot)?;
            home.give(made.path())?;
            made.keep()
        }
    };
    make(home, &directory)?;
    write(home, &directory.join("kminik-version.txt"), format!("v{}\n", version::KMINIK).as_bytes())?;
    for (name, from) in
        [("agent.log", home.profile(&profile.name).join("agent.log")), ("audit.json", home.audit_file())]
    {
        write(home, &directory.join(name), &end_of(&from))?;
    }
    let images = async {
        drivers::of_running(home, profile.control_plane()).await?;
        Images::connect(home, &profile.name).await
    };
    let images = images.await;
    for machine in profile.machines() {
        let node = directory.join(&*machine.name());
        make(home, &node)?;
        // With the API dead the rest counts all the more.
        let images = match &images {
            Ok(images) => images.list_of(&machine.node_name()).await.map_err(|failure| failure.to_string()),
            Err(failure) => Err(failure.to_string()),
        };
        let images = match images {
            Ok(images) => serde_json::to_string_pretty(&images).or_fail(&MK_INTERNAL, "cannot write the images")?,
            Err(why) => why,
        };
        one(home, machine, &images, &node).await?;
    }
    Ok(directory)
}

/// What there is of one node.
async fn one(home: &Home, machine: Machine<'_>, images: &str, node: &Path) -> Outcome<()> {
    let profile = machine.profile();
    write(home, &node.join("kubernetes-version.txt"), format!("{}\n", profile.kubernetes_version).as_bytes())?;
    let shown = profile.shown().or_fail(&MK_INTERNAL, "cannot write the profile")?;
    write(home, &node.join("inspect.json"), format!("{shown:#}\n").as_bytes())?;
    let driver = drivers::of(home, profile)?;
    write(home, &node.join("serial.log"), &driver.console(machine).await?)?;
    if driver.state(machine).await? != MachineState::Running {
        return Ok(());
    }
    for (name, component) in COMPONENTS {
        let mut command = vec![node_image::BINARY, "node-logs", "--length", ALL_LINES];
        command.extend(component.iter().flat_map(|component| ["--component", component]));
        // What a stuck node does not say must not keep the rest away.
        let said = driver.output(machine, &command, drivers::LOGS).await;
        let said = said.map_or_else(|failure| format!("{failure}\n").into_bytes(), |output| output.stdout);
        write(home, &node.join(name), &said)?;
    }
    write(home, &node.join("images.log"), format!("{images}\n").as_bytes())?;
    unpack(home, driver.as_ref(), machine, "/var/log", node).await
}

/// Makes a directory with those above it; what was there stays whose it is.
fn make(home: &Home, directory: &Path) -> Outcome<()> {
    let missing: Vec<&Path> =
        directory.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
    std::fs::create_dir_all(directory).or_fail(&HOST_PATH_MISSING, "cannot make the directory")?;
    missing.into_iter().try_for_each(|made| home.give(made))
}

/// A file in place of what is there by its name, be that a link.
fn write(home: &Home, path: &Path, content: &[u8]) -> Outcome<()> {
    let cannot = format!("cannot write {}", path.display());
    let mut draft = draft(path).or_fail(&HOST_PATH_MISSING, &cannot)?;
    draft.write_all(content).or_fail(&HOST_PATH_MISSING, &cannot)?;
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    draft.as_file().set_permissions(readable).or_fail(&HOST_PATH_MISSING, &cannot)?;
    draft.persist(path).map_err(|error| error.error).or_fail(&HOST_PATH_MISSING, &cannot)?;
    home.give(path)
}

/// All files below a directory of the node.
async fn unpack(home: &Home, driver: &dyn Driver, machine: Machine<'_>, from: &str, to: &Path) -> Outcome<()> {
    let fail = "cannot keep the node's files";
    let mut archive: File = tempfile::tempfile().or_fail(&HOST_PATH_MISSING, fail)?;
    let stdout = Some(archive.try_clone().or_fail(&HOST_PATH_MISSING, fail)?);
    let args = [node_image::BINARY, "node-file", "archive", from].map(str::to_owned).to_vec();
    let command = NodeCommand { args, tty: false, stdin: Input::None, stdout };
    if driver.exec(machine, &command).await? != 0 {
        return Err(Failure::new(&GUEST_CP, format!("the node does not give {from}")));
    }
    archive.seek(SeekFrom::Start(0)).or_fail(&HOST_PATH_MISSING, fail)?;
    let mut archive = tar::Archive::new(archive);
    archive.set_preserve_permissions(false);
    // Only regular files below `to`: the archive is of the node's making, and the node runs what others wrote.
    for entry in archive.entries().or_fail(&GUEST_CP, fail)? {
        let mut entry = entry.or_fail(&GUEST_CP, fail)?;
        if entry.header().entry_type().is_file() {
            let path = to.join(entry.path().or_fail(&GUEST_CP, fail)?);
            let above = path.ancestors().skip(1).take_while(|above| above.starts_with(to) && !above.exists());
            let made: Vec<PathBuf> = above.map(Path::to_path_buf).collect();
            if entry.unpack_in(to).or_fail(&HOST_PATH_MISSING, fail)? {
                made.iter().chain([&path]).try_for_each(|made| home.give(made))?;
            }
        }
    }
    Ok(())
}
