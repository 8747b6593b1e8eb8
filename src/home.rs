//! The home directory: where what lives.
//!
//! ```text
//! ~/.kminik/profiles/<name>/config.json    the profile
//!                           pki/           authority, admin certificate (0600)
//!                           agent.lock  agent.sock  agent.log
//!           machines/<name>/               a native machine: data/ is its /var, state/ what was made for it
//!           cache/images/                  images by digest, for all clusters of the host
//!                 manifests/               manifests of addons by digest
//!           config/config.json             the user's settings
//!           addons/<name>/                 the user's own addons: addon.toml and manifests
//!           cache/linux/<arch>/<version>/  programs of a Kubernetes release
//!           logs/                          audit.json, lastStart.txt
//!           certs/                         authorities to trust, PEM files
//!           files/                         what is to be in nodes, by the path it has there
//!           mirrors.toml                   the user's own mirrors
//!           presets.toml                   mirrors by country, in place of the built-in list
//! ```

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, lchown};
use std::path::{Path, PathBuf};

use kminik_base::atomic_file;

use crate::env;
use crate::reason::{Failure, HOST_HOME_PERMISSION, OrFail, Outcome};

/// The directory and whom its files belong to.
#[derive(Clone, Debug)]
pub struct Home {
    root: PathBuf,
    user: env::User,
}

impl Home {
    /// From the environment; nothing is made yet.
    pub fn locate() -> Self {
        let user = env::user();
        let root = env::get(env::HOME).map_or_else(|| user.home.join(".kminik"), PathBuf::from);
        // Others than this process go by it too.
        let root = std::path::absolute(&root).unwrap_or(root);
        Self { root, user }
    }

    /// Another directory, of whoever runs this.
    #[cfg(test)]
    pub fn at(root: &Path) -> Self {
        Self {
            root: root.to_path_buf(),
            user: env::User { name: "test".to_owned(), home: root.to_path_buf(), owner: None },
        }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn user(&self) -> &env::User {
        &self.user
    }

    pub fn profiles(&self) -> PathBuf {
        self.root.join("profiles")
    }

    pub fn profile(&self, name: &str) -> PathBuf {
        self.profiles().join(name)
    }

    pub fn machine(&self, name: &str) -> PathBuf {
        self.root.join("machines").join(name)
    }

    pub fn image_cache(&self) -> PathBuf {
        self.root.join("cache/images")
    }

    pub fn audit_file(&self) -> PathBuf {
        self.root.join("logs/audit.json")
    }

    /// What the last start said.
    pub fn last_start_file(&self) -> PathBuf {
        self.root.join("logs/lastStart.txt")
    }

    /// Programs of a Kubernetes release for this machine.
    pub fn binary_cache(&self, version: &str) -> PathBuf {
        self.root.join("cache/linux").join(std::env::consts::ARCH).join(version)
    }

    /// The user's settings.
    pub fn settings_file(&self) -> PathBuf {
        self.root.join("config/config.json")
    }

    /// Manifests that were fetched, by digest.
    pub fn manifest_cache(&self) -> PathBuf {
        self.root.join("cache/manifests")
    }

    pub fn mirrors_file(&self) -> PathBuf {
        self.root.join("mirrors.toml")
    }

    pub fn presets_file(&self) -> PathBuf {
        self.root.join("presets.toml")
    }

    pub fn addons(&self) -> PathBuf {
        self.root.join("addons")
    }

    pub fn files(&self) -> PathBuf {
        self.root.join("files")
    }

    pub fn certs(&self) -> PathBuf {
        self.root.join("certs")
    }

    /// Makes a directory of the home (and its parents), private to the user.
    pub fn make_dir(&self, path: &Path) -> Outcome<()> {
        let missing: Vec<&Path> = path.ancestors().take_while(|p| !p.exists()).collect();
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(path)
            .or_fail(&HOST_HOME_PERMISSION, format_args!("cannot make {}", path.display()))?;
        for made in missing.iter().rev() {
            self.give(made)?;
        }
        Ok(())
    }

    /// Replaces a file of the home.
    pub fn write(&self, path: &Path, content: &[u8], mode: u32) -> Outcome<()> {
        if let Some(dir) = path.parent() {
            self.make_dir(dir)?;
        }
        let existed = path.exists();
        atomic_file::write(path, content, mode).map_err(|e| {
            if e.source.raw_os_error() == Some(libc::ENOSPC) {
                Failure::because(&crate::reason::RSRC_INSUFFICIENT_STORAGE, "the disk is full", &e)
            } else {
                Failure::because(&HOST_HOME_PERMISSION, "the home directory cannot be written", &e)
            }
        })?;
        if existed { Ok(()) } else { self.give(path) }
    }

    /// Gives a file that was just made to the user, under sudo; never what a link leads to.
    pub fn give(&self, path: &Path) -> Outcome<()> {
        let Some((uid, gid)) = self.user.owner else { return Ok(()) };
        match fs::symlink_metadata(path) {
            Ok(meta) if meta.uid() != uid => lchown(path, Some(uid), Some(gid))
                .or_fail(&HOST_HOME_PERMISSION, format_args!("cannot give {} to its user", path.display())),
            _ => Ok(()),
        }
    }

    /// Removes a file; one that is not there is removed.
    pub fn remove(&self, path: &Path) -> Outcome<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Failure::because(&HOST_HOME_PERMISSION, "the home directory cannot be written", &error))
            }
            _ => Ok(()),
        }
    }

    /// As [`Home::give`], a directory with all in it.
    pub fn give_tree(&self, path: &Path) -> Outcome<()> {
        if self.user.owner.is_none() {
            return Ok(());
        }
        self.give(path)?;
        for entry in fs::read_dir(path).into_iter().flatten().filter_map(Result::ok) {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => self.give_tree(&entry.path())?,
                _ => self.give(&entry.path())?,
            }
        }
        Ok(())
    }
}

/// As long as a log of ours becomes before it is put aside, and as much as is read of one.
const LOG_BYTES: u64 = 4 << 20;

/// Puts a log aside that has become long, in place of what was aside before: who writes it begins anew. What cannot be put aside
/// goes on. Whether it was done.
pub fn put_aside(log: &Path) -> bool {
    let is_long = fs::metadata(log).is_ok_and(|metadata| metadata.len() > LOG_BYTES);
    let mut aside = log.as_os_str().to_owned();
    aside.push(".1");
    is_long && fs::rename(log, aside).is_ok()
}

/// The end of a log; empty if there is none.
pub fn end_of(log: &Path) -> Vec<u8> {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = fs::File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(LOG_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_read_and_kept_within_bounds() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("a.log");
        assert!(end_of(&log).is_empty());
        fs::write(&log, "short").unwrap();
        put_aside(&log);
        assert_eq!(end_of(&log), b"short");
        let long = [vec![b'a'; 10], vec![b'b'; LOG_BYTES as usize]].concat();
        fs::write(&log, &long).unwrap();
        assert!(end_of(&log) == long[10..]);
        put_aside(&log);
        assert!(!log.exists() && fs::read(dir.path().join("a.log.1")).unwrap() == long);
    }
}
