//! Files that come into nodes that run: the user's own, of which what lies in `~/.kminik/files` comes to the same path in the node
//! whenever it is started, and what the node is told.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::Path;

use crate::drivers::{Driver, Input, Machine, NodeCommand, NodeFile};
use crate::home::Home;
use crate::node::config::DATA_DIR;
use crate::node::files;
use crate::ops::node_image;
use crate::reason::{Failure, GUEST_CP, MK_USAGE, OrFail, Outcome};

/// Of all of them together.
const LIMIT_BYTES: u64 = 256 << 20;

/// Brings them into a running node. None there is success.
///
/// # Errors
/// `MK_USAGE` for more than fits, `GUEST_CP` for what cannot be read or written.
pub async fn run(home: &Home, driver: &dyn Driver, machine: Machine<'_>) -> Outcome<()> {
    let directory = home.files();
    let mut entries = std::fs::read_dir(&directory).into_iter().flatten();
    if entries.next().is_none() {
        return Ok(());
    }
    let cannot = || format!("cannot bring {} into the node", directory.display());
    let packed = tempfile::tempfile().or_fail(&GUEST_CP, cannot())?;
    let limited = Limited { file: packed, left: LIMIT_BYTES };
    let mut packed = match files::archive(&directory, limited) {
        Ok(limited) => limited.file,
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            let why = format!("{}: they are more than {} MiB", cannot(), LIMIT_BYTES >> 20);
            return Err(Failure::new(&MK_USAGE, why).advise("Mount a directory instead: kminik mount DIR:DIR"));
        }
        Err(error) => return Err(error).or_fail(&GUEST_CP, cannot()),
    };
    packed.rewind().or_fail(&GUEST_CP, cannot())?;
    take(driver, machine, packed, cannot).await
}

/// Replaces the node's own files (paths below its data directory) in one that runs; its process reads them when it starts.
///
/// # Errors
/// `GUEST_CP`.
pub async fn replace(driver: &dyn Driver, machine: Machine<'_>, files: &[NodeFile]) -> Outcome<()> {
    let cannot = || format!("the node {} does not take its files", machine.name());
    let pack = || -> io::Result<File> {
        let below_root = Path::new(DATA_DIR.trim_start_matches('/'));
        let mut packed = NodeFile::archive(files, below_root, tempfile::tempfile()?)?;
        packed.rewind()?;
        Ok(packed)
    };
    let packed = pack().or_fail(&GUEST_CP, cannot())?;
    take(driver, machine, packed, cannot).await
}

/// Has the node take an archive of files by their paths.
async fn take(driver: &dyn Driver, machine: Machine<'_>, packed: File, cannot: impl Fn() -> String) -> Outcome<()> {
    let args = [node_image::BINARY, "node-file", "take"].map(str::to_owned).to_vec();
    // What it has to say against it is on this process' stderr.
    match driver.exec(machine, &NodeCommand { args, stdin: Input::File(packed), ..NodeCommand::default() }).await? {
        0 => Ok(()),
        _ => Err(Failure::new(&GUEST_CP, cannot())),
    }
}

/// A file that takes so many bytes and no more.
struct Limited {
    file: File,
    left: u64,
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        self.file.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
