//! Files between this machine and nodes, one at a time, through the driver: it works with the API dead.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::drivers::{self, Driver, Input, NodeCommand};
use crate::home::Home;
use crate::node::files;
use crate::ops::cache::draft;
use crate::ops::node_image;
use crate::profile::Profile;
use crate::reason::{Failure, GUEST_CP, GUEST_NODE_NOT_FOUND, HOST_PATH_MISSING, MK_USAGE, OrFail, Outcome};

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
    let nodes = Nodes::open(home, profile).await?;
    for place in [&source, &target] {
        nodes.check(place)?;
    }
    match (&source, &target) {
        (Place::Host(from), Place::Node { path, .. }) => {
            let missing = || format!("cannot read {}", from.display());
            let file = File::open(from).or_fail(&HOST_PATH_MISSING, missing())?;
            if file.metadata().or_fail(&HOST_PATH_MISSING, missing())?.is_dir() {
                return Err(Failure::new(&MK_USAGE, format!("{} is a directory: files are copied", from.display())));
            }
            nodes.put(file, path, base_name(from)?).await
        }
        (Place::Node { path, .. }, Place::Host(to)) => nodes.get_to(home, path, to).await,
        (Place::Node { path: from, .. }, Place::Node { path: to, .. }) => {
            let mut file = tempfile::tempfile().or_fail(&HOST_PATH_MISSING, "cannot make a temporary file")?;
            nodes.get(&file, from).await?;
            file.seek(SeekFrom::Start(0)).or_fail(&HOST_PATH_MISSING, "cannot read a temporary file")?;
            nodes.put(file, to, base_name(Path::new(from))?).await
        }
        (Place::Host(_), Place::Host(_)) => Err(Failure::new(&MK_USAGE, "one of both paths is a node's")),
    }
}

fn base_name(path: &Path) -> Outcome<&str> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.ok_or_else(|| Failure::new(&MK_USAGE, format!("{} does not name a file", path.display())))
}

/// The cluster's nodes as places for files.
struct Nodes {
    driver: Arc<dyn Driver>,
    name: String,
}

impl Nodes {
    async fn open(home: &Home, profile: &Profile) -> Outcome<Self> {
        Ok(Self { driver: drivers::of_running(home, profile).await?, name: profile.name.clone() })
    }

    fn check(&self, place: &Place) -> Outcome<()> {
        let Place::Node { name, path } = place else { return Ok(()) };
        if *name != self.name {
            return Err(Failure::new(&GUEST_NODE_NOT_FOUND, format!("there is no node {name:?}")));
        }
        if !path.starts_with('/') {
            let why = format!("{path:?} is not an absolute path, as one of a node has to be");
            return Err(Failure::new(&MK_USAGE, why));
        }
        Ok(())
    }

    async fn put(&self, file: File, path: &str, name: &str) -> Outcome<()> {
        let arguments = ["put", path, name];
        self.run(&arguments, Input::File(file), None).await
    }

    async fn get(&self, file: &File, path: &str) -> Outcome<()> {
        let out = file.try_clone().or_fail(&HOST_PATH_MISSING, "cannot write the file")?;
        self.run(&["get", path], Input::None, Some(out)).await
    }

    /// It appears only when it is whole.
    async fn get_to(&self, home: &Home, path: &str, to: &Path) -> Outcome<()> {
        let to = files::target(&to.display().to_string(), base_name(Path::new(path))?);
        let cannot = format!("cannot write {}", to.display());
        if let Some(directory) = to.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            std::fs::create_dir_all(directory).or_fail(&HOST_PATH_MISSING, &cannot)?;
        }
        let draft = draft(&to).or_fail(&HOST_PATH_MISSING, &cannot)?;
        self.get(draft.as_file(), path).await?;
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        draft.as_file().set_permissions(readable).or_fail(&HOST_PATH_MISSING, &cannot)?;
        draft.persist(&to).map_err(|error| error.error).or_fail(&HOST_PATH_MISSING, &cannot)?;
        home.give(&to)
    }

    async fn run(&self, arguments: &[&str], stdin: Input, stdout: Option<File>) -> Outcome<()> {
        let words = [node_image::BINARY, "node-file"].iter().chain(arguments);
        let args = words.map(|&word| word.to_owned()).collect();
        // What it has to say against it is on this process' stderr.
        match self.driver.exec(&self.name, &NodeCommand { args, tty: false, stdin, stdout }).await? {
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
