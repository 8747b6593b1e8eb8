//! Files between this machine and nodes, one at a time, through the driver: it works with the API dead.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::drivers::{self, Driver, Input, Machine, NodeCommand};
use crate::home::Home;
use crate::node::files;
use crate::ops::cache::draft;
use crate::ops::node_image;
use crate::profile::Profile;
use crate::reason::{Failure, GUEST_CP, HOST_PATH_MISSING, MK_USAGE, OrFail, Outcome};

/// One side of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Host(PathBuf),
    Node { name: String, path: String },
}

impl Place {
    /// minikube's form: `[node:]path`; what has a slash before the colon is a path.
    pub fn parse(text: &str) -> Self {
        match text.split_once(':') {
            Some((name, path)) if !name.is_empty() && !name.contains('/') => {
                Place::Node { name: name.to_owned(), path: path.to_owned() }
            }
            _ => Place::Host(text.into()),
        }
    }
}

/// Copies a file; a target that names no node is one of this machine if the source names one, else of the control plane.
///
/// # Errors
/// `MK_USAGE` for a path of a node that is not absolute; `HOST_PATH_MISSING`, `GUEST_CP` for what cannot be read or written.
pub async fn run(home: &Home, profile: &Profile, source: &str, target: &str) -> Outcome<()> {
    let (source, target) = (Place::parse(source), Place::parse(target));
    let target = match (&source, target) {
        (Place::Host(_), Place::Host(path)) => {
            Place::Node { name: profile.name.clone(), path: path.display().to_string() }
        }
        (_, target) => target,
    };
    let (source, target) = (Side::find(home, profile, source).await?, Side::find(home, profile, target).await?);
    match (&source, &target) {
        (Side::Host(from), Side::Node(node)) => {
            let missing = || format!("cannot read {}", from.display());
            let file = File::open(from).or_fail(&HOST_PATH_MISSING, missing())?;
            if file.metadata().or_fail(&HOST_PATH_MISSING, missing())?.is_dir() {
                return Err(Failure::new(&MK_USAGE, format!("{} is a directory: files are copied", from.display())));
            }
            node.put(file, base_name(from)?).await
        }
        (Side::Node(node), Side::Host(to)) => node.get_to(home, to).await,
        (Side::Node(from), Side::Node(to)) => {
            let mut file = tempfile::tempfile().or_fail(&HOST_PATH_MISSING, "cannot make a temporary file")?;
            from.get(&file).await?;
            file.seek(SeekFrom::Start(0)).or_fail(&HOST_PATH_MISSING, "cannot read a temporary file")?;
            to.put(file, base_name(Path::new(&from.path))?).await
        }
        (Side::Host(_), Side::Host(_)) => Err(Failure::new(&MK_USAGE, "one of both paths is a node's")),
    }
}

fn base_name(path: &Path) -> Outcome<&str> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.ok_or_else(|| Failure::new(&MK_USAGE, format!("{} does not name a file", path.display())))
}

/// One side of a copy, found.
enum Side<'a> {
    Host(PathBuf),
    Node(Node<'a>),
}

/// A file's place in a node that runs.
struct Node<'a> {
    driver: Arc<dyn Driver>,
    machine: Machine<'a>,
    path: String,
}

impl<'a> Side<'a> {
    async fn find(home: &Home, profile: &'a Profile, place: Place) -> Outcome<Self> {
        let (name, path) = match place {
            Place::Host(path) => return Ok(Self::Host(path)),
            Place::Node { name, path } => (name, path),
        };
        let machine = profile.machine(Some(&name))?;
        if !path.starts_with('/') {
            let why = format!("{path:?} is not an absolute path, as one of a node has to be");
            return Err(Failure::new(&MK_USAGE, why));
        }
        Ok(Self::Node(Node { driver: drivers::of_running(home, machine).await?, machine, path }))
    }
}

impl Node<'_> {
    /// `name` is the file's where the path is a directory's.
    async fn put(&self, file: File, name: &str) -> Outcome<()> {
        let arguments = ["put", self.path.as_str(), name];
        self.run(&arguments, Input::File(file), None).await
    }

    async fn get(&self, file: &File) -> Outcome<()> {
        let out = file.try_clone().or_fail(&HOST_PATH_MISSING, "cannot write the file")?;
        self.run(&["get", &self.path], Input::None, Some(out)).await
    }

    /// It appears only when it is whole.
    async fn get_to(&self, home: &Home, to: &Path) -> Outcome<()> {
        let to = files::target(&to.display().to_string(), base_name(Path::new(&self.path))?);
        let cannot = format!("cannot write {}", to.display());
        if let Some(directory) = to.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            std::fs::create_dir_all(directory).or_fail(&HOST_PATH_MISSING, &cannot)?;
        }
        let draft = draft(&to).or_fail(&HOST_PATH_MISSING, &cannot)?;
        self.get(draft.as_file()).await?;
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        draft.as_file().set_permissions(readable).or_fail(&HOST_PATH_MISSING, &cannot)?;
        draft.persist(&to).map_err(|error| error.error).or_fail(&HOST_PATH_MISSING, &cannot)?;
        home.give(&to)
    }

    async fn run(&self, arguments: &[&str], stdin: Input, stdout: Option<File>) -> Outcome<()> {
        let words = [node_image::BINARY, "node-file"].iter().chain(arguments);
        let args = words.map(|&word| word.to_owned()).collect();
        // What it has to say against it is on this process' stderr.
        match self.driver.exec(self.machine, &NodeCommand { args, tty: false, stdin, stdout }).await? {
            0 => Ok(()),
            _ => Err(Failure::new(&GUEST_CP, "the node could not copy the file")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let node = |name: &str, path: &str| Place::Node { name: name.to_owned(), path: path.to_owned() };
        assert_eq!(Place::parse("a/b:c"), Place::Host("a/b:c".into()));
        assert_eq!(Place::parse("/tmp/x"), Place::Host("/tmp/x".into()));
        assert_eq!(Place::parse("kminik:/tmp/x"), node("kminik", "/tmp/x"));
        assert_eq!(Place::parse(":/tmp/x"), Place::Host(":/tmp/x".into()));
    }
}
