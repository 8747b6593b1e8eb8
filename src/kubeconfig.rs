//! The user's kubeconfig: our cluster, user and context are merged in and taken out; everything else in the file stays
//! as it is, also fields kminik does not know. A file that cannot be parsed is never written.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kminik_base::atomic_file;
use serde_yaml::{Mapping, Value};

use crate::env;
use crate::home::Home;
use crate::reason::{Failure, HOST_KUBECONFIG_UPDATE, OrFail, Outcome};

const LIMIT_BYTES: u64 = 16 << 20;

/// What clients need to reach a cluster.
pub struct Entry<'a> {
    /// Of cluster, user and context.
    pub name: &'a str,
    pub server: &'a str,
    pub ca: Material<'a>,
    pub client_cert: Material<'a>,
    pub client_key: Material<'a>,
    /// Of the context; `None` keeps the one it has, a new one gets `default`.
    pub namespace: Option<&'a str>,
    /// Make it the current context.
    pub make_current: bool,
}

const NAMESPACE: &str = "default";

/// A certificate or key, by path or inline.
pub enum Material<'a> {
    File(&'a Path),
    Inline(&'a str),
}

impl Material<'_> {
    fn put(&self, map: &mut Mapping, key: &str) {
        match self {
            Material::File(path) => map.insert(key.into(), path.display().to_string().into()),
            Material::Inline(pem) => {
                use base64::Engine;
                let data = base64::engine::general_purpose::STANDARD.encode(pem);
                map.insert(format!("{key}-data").into(), data.into())
            }
        };
    }
}

/// How the file stands to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Configured,
    /// The context is missing or leads elsewhere.
    Misconfigured,
}

/// The file kubectl would write: of the list in `KUBECONFIG` the first that exists, else the first; else ~/.kube/config.
pub fn path(home: &Home) -> PathBuf {
    let listed: Vec<PathBuf> = env::get(env::KUBECONFIG)
        .map(|list| std::env::split_paths(&list).filter(|p| !p.as_os_str().is_empty()).collect())
        .unwrap_or_default();
    listed
        .iter()
        .find(|p| p.exists())
        .or(listed.first())
        .cloned()
        .unwrap_or_else(|| home.user().home.join(".kube/config"))
}

/// Adds or replaces the entry. A file that has it so is not written.
pub fn merge(home: &Home, path: &Path, entry: &Entry<'_>) -> Outcome<()> {
    let before = load(path)?;
    let mut after = before.clone();
    put(&mut after, entry)?;
    if before == after {
        return Ok(());
    }
    edit(home, path, |config| put(config, entry).map(|()| true))
}

fn put(config: &mut Mapping, entry: &Entry<'_>) -> Outcome<()> {
    let mut cluster = Mapping::new();
    cluster.insert("server".into(), entry.server.into());
    entry.ca.put(&mut cluster, "certificate-authority");
    let mut user = Mapping::new();
    entry.client_cert.put(&mut user, "client-certificate");
    entry.client_key.put(&mut user, "client-key");
    let mut context = Mapping::new();
    context.insert("cluster".into(), entry.name.into());
    let namespace = entry.namespace.map_or_else(|| namespace_in(config, entry.name), str::to_owned);
    context.insert("namespace".into(), namespace.into());
    context.insert("user".into(), entry.name.into());
    put_named(config, "clusters", entry.name, "cluster", cluster)?;
    put_named(config, "users", entry.name, "user", user)?;
    put_named(config, "contexts", entry.name, "context", context)?;
    if entry.make_current {
        config.insert("current-context".into(), entry.name.into());
    }
    Ok(())
}

/// Takes the entry out; `false` if there was none. The file is removed if nothing of anybody's is left and kminik made it so.
pub fn remove(home: &Home, path: &Path, name: &str) -> Outcome<bool> {
    // Without the file there may still be what a killed writer left beside it.
    if !path.parent().is_some_and(Path::exists) {
        return Ok(false);
    }
    let mut found = false;
    edit(home, path, |config| {
        for list in ["clusters", "users", "contexts"] {
            if let Some(Value::Sequence(entries)) = config.get_mut(list) {
                let before = entries.len();
                entries.retain(|e| e.get("name").and_then(Value::as_str) != Some(name));
                found |= entries.len() != before;
            }
        }
        if config.get("current-context").and_then(Value::as_str) == Some(name) {
            config.insert("current-context".into(), "".into());
            found = true;
        }
        Ok(found)
    })?;
    Ok(found)
}

/// Clears the current context if it is this cluster's (a stopped cluster is nobody's current one).
pub fn clear_current(home: &Home, path: &Path, name: &str) -> Outcome<()> {
    if !path.exists() {
        return Ok(());
    }
    edit(home, path, |config| {
        let ours = config.get("current-context").and_then(Value::as_str) == Some(name);
        if ours {
            config.insert("current-context".into(), "".into());
        }
        Ok(ours)
    })
}

/// The namespace of a cluster's context; `None` without such a context.
pub fn namespace(path: &Path, name: &str) -> Option<String> {
    let config = load(path).ok()?;
    named(&config, "contexts", name).is_some().then(|| namespace_in(&config, name))
}

fn namespace_in(config: &Mapping, name: &str) -> String {
    let context = named(config, "contexts", name).and_then(|entry| entry.get("context"));
    context.and_then(|context| context.get("namespace")?.as_str()).unwrap_or(NAMESPACE).to_owned()
}

fn named<'a>(config: &'a Mapping, list: &str, name: &str) -> Option<&'a Value> {
    let entries = config.get(list)?.as_sequence()?;
    entries.iter().find(|entry| entry.get("name").and_then(Value::as_str) == Some(name))
}

/// The current context's name, empty if there is none.
pub fn current(path: &Path) -> String {
    let config = load(path).unwrap_or_default();
    config.get("current-context").and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Whether the file leads to this cluster.
pub fn state(path: &Path, name: &str, server: &str) -> State {
    let Ok(config) = load(path) else { return State::Misconfigured };
    let address = named(&config, "clusters", name).and_then(|c| c.get("cluster")?.get("server")?.as_str());
    if address == Some(server) && named(&config, "contexts", name).is_some() {
        State::Configured
    } else {
        State::Misconfigured
    }
}

/// Whether the file can be edited, as far as its content goes; none at all can.
///
/// # Errors
/// `HOST_KUBECONFIG_UPDATE` for what cannot be read or parsed.
pub fn check(path: &Path) -> Outcome<()> {
    load(path).map(drop)
}

fn load(path: &Path) -> Outcome<Mapping> {
    let broken = |detail: String| {
        Failure::new(
            &HOST_KUBECONFIG_UPDATE,
            format!("the kubeconfig {} {detail}; it was left as it is", path.display()),
        )
    };
    let bytes =
        atomic_file::read_optional(path, LIMIT_BYTES).or_fail(&HOST_KUBECONFIG_UPDATE, "cannot read the kubeconfig")?;
    let Some(bytes) = bytes.filter(|b| !b.iter().all(u8::is_ascii_whitespace)) else { return Ok(Mapping::new()) };
    match serde_yaml::from_slice(&bytes) {
        Ok(Value::Mapping(map)) => Ok(map),
        Ok(Value::Null) => Ok(Mapping::new()),
        Ok(_) => Err(broken("is not a mapping".into())),
        Err(e) => Err(broken(format!("cannot be parsed ({e})"))),
    }
}

/// Loads, changes and replaces the file under kubectl's own lock file; `change` tells if there is something to write.
fn edit(home: &Home, path: &Path, change: impl FnOnce(&mut Mapping) -> Outcome<bool>) -> Outcome<()> {
    if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty() && !d.exists()) {
        home.make_dir(dir)?;
    }
    let _lock = FileLock::acquire(path)?;
    atomic_file::sweep(path).or_fail(&HOST_KUBECONFIG_UPDATE, "cannot clean up beside the kubeconfig")?;
    let mut config = load(path)?;
    if !change(&mut config)? {
        return Ok(());
    }
    for (key, value) in [("apiVersion", "v1"), ("kind", "Config")] {
        if !config.contains_key(key) {
            config.insert(key.into(), value.into());
        }
    }
    for list in ["clusters", "users", "contexts"] {
        if config.get(list).is_none_or(Value::is_null) {
            config.insert(list.into(), Value::Sequence(Vec::new()));
        }
    }
    if !config.contains_key("preferences") {
        config.insert("preferences".into(), Value::Mapping(Mapping::new()));
    }
    let text = serde_yaml::to_string(&config).or_fail(&HOST_KUBECONFIG_UPDATE, "cannot write the kubeconfig")?;
    let existed = path.exists();
    // One that is there keeps its mode, as by kubectl.
    let mode = std::fs::metadata(path).map_or(atomic_file::SECRET, |metadata| metadata.mode() & 0o777);
    atomic_file::write(path, text.as_bytes(), mode).or_fail(&HOST_KUBECONFIG_UPDATE, "cannot write the kubeconfig")?;
    if existed { Ok(()) } else { home.give(path) }
}

fn put_named(config: &mut Mapping, list: &str, name: &str, key: &str, value: Mapping) -> Outcome<()> {
    let entries = config.entry(list.into()).or_insert(Value::Null);
    if entries.is_null() {
        *entries = Value::Sequence(Vec::new());
    }
    let Value::Sequence(entries) = entries else {
        return Err(Failure::new(
            &HOST_KUBECONFIG_UPDATE,
            format!("{list:?} in the kubeconfig is not a list; it was left as it is"),
        ));
    };
    let mut entry = Mapping::new();
    entry.insert(key.into(), Value::Mapping(value));
    entry.insert("name".into(), name.into());
    match entries.iter_mut().find(|e| e.get("name").and_then(Value::as_str) == Some(name)) {
        Some(old) => *old = Value::Mapping(entry),
        None => entries.push(Value::Mapping(entry)),
    }
    Ok(())
}

/// client-go's lock: `<file>.lock`, made exclusively, removed when done. One of ours says whose it is.
struct FileLock(PathBuf);

impl FileLock {
    fn acquire(path: &Path) -> Outcome<Self> {
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let lock = PathBuf::from(name);
        for _ in 0..100 {
            match File::create_new(&lock) {
                Ok(mut file) => {
                    // Without it the lock is as good; only who comes after a kill waits longer.
                    let _ = write!(file, "{}", std::process::id());
                    return Ok(Self(lock));
                }
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                    if is_abandoned(&lock) {
                        let _ = std::fs::remove_file(&lock);
                    } else {
                        std::thread::sleep(Duration::from_millis(50));
                    }
                }
                Err(e) => return Err(Failure::because(&HOST_KUBECONFIG_UPDATE, "cannot lock the kubeconfig", &e)),
            }
        }
        Err(Failure::new(&HOST_KUBECONFIG_UPDATE, format!("{} is held by another program", lock.display())))
    }
}

/// Whether its holder was killed: the process it names is gone, or it is older than any write takes.
fn is_abandoned(lock: &Path) -> bool {
    const LONGEST: Duration = Duration::from_secs(60);
    let holder = std::fs::read_to_string(lock).ok().and_then(|text| text.parse::<u32>().ok());
    let gone =
        holder.is_some_and(|pid| Path::new("/proc/self").exists() && !Path::new(&format!("/proc/{pid}")).exists());
    let modified = std::fs::metadata(lock).and_then(|metadata| metadata.modified());
    gone || modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > LONGEST))
}

impl Drop for FileLock {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry<'a>(name: &'a str) -> Entry<'a> {
        Entry {
            name,
            server: "https://192.0.2.1:8443",
            ca: Material::Inline("ca"),
            client_cert: Material::File(Path::new("/c")),
            client_key: Material::File(Path::new("/k")),
            namespace: None,
            make_current: true,
        }
    }

    #[test]
    fn the_namespace_that_somebody_has_chosen_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (path, home) = (dir.path().join("config"), Home::locate());
        merge(&home, &path, &entry("mine")).unwrap();
        assert_eq!(namespace(&path, "mine").unwrap(), "default");
        merge(&home, &path, &Entry { namespace: Some("dev"), ..entry("mine") }).unwrap();
        merge(&home, &path, &entry("mine")).unwrap();
        assert_eq!(namespace(&path, "mine").unwrap(), "dev");
        assert_eq!(namespace(&path, "other"), None);
    }

    #[test]
    fn what_is_there_already_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let (path, home) = (dir.path().join("config"), Home::locate());
        let inode = || std::fs::metadata(&path).unwrap().ino();
        merge(&home, &path, &entry("mine")).unwrap();
        let first = inode();
        merge(&home, &path, &entry("mine")).unwrap();
        assert_eq!(inode(), first);
        merge(&home, &path, &Entry { namespace: Some("dev"), ..entry("mine") }).unwrap();
        assert_ne!(inode(), first);
        let mode = || std::fs::metadata(&path).unwrap().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        let shared = std::os::unix::fs::PermissionsExt::from_mode(0o640);
        std::fs::set_permissions(&path, shared).unwrap();
        merge(&home, &path, &entry("other")).unwrap();
        assert_eq!(mode(), 0o640, "it is shared with a group");
    }

    #[test]
    fn merges_beside_what_is_there_and_takes_only_its_own_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        std::fs::write(&path, "apiVersion: v1\nkind: Config\nclusters:\n- name: other\n  cluster: {server: https://x, extra: 1}\nusers: null\n").unwrap();
        let home = Home::locate();
        merge(&home, &path, &entry("mine")).unwrap();
        merge(&home, &path, &entry("mine")).unwrap();
        assert_eq!(current(&path), "mine");
        assert_eq!(state(&path, "mine", "https://192.0.2.1:8443"), State::Configured);
        assert_eq!(state(&path, "mine", "https://192.0.2.2:8443"), State::Misconfigured);
        let config = load(&path).unwrap();
        assert_eq!(config["clusters"].as_sequence().unwrap().len(), 2);
        assert_eq!(config["clusters"][0]["cluster"]["extra"], Value::from(1));
        assert!(remove(&home, &path, "mine").unwrap());
        assert!(!remove(&home, &path, "mine").unwrap());
        assert_eq!(current(&path), "");
        assert_eq!(load(&path).unwrap()["clusters"].as_sequence().unwrap().len(), 1);
    }

    #[test]
    fn a_broken_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        std::fs::write(&path, "a: [b").unwrap();
        assert_eq!(merge(&Home::locate(), &path, &entry("m")).unwrap_err().reason.id, "HOST_KUBECONFIG_UPDATE");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a: [b");
        assert!(!dir.path().join("config.lock").exists());
    }

    #[test]
    fn what_a_killed_writer_left_is_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        // No process has this number: the kernel's largest is 2^22.
        std::fs::write(dir.path().join("config.lock"), "4194305").unwrap();
        std::fs::write(dir.path().join(".config.4194305.tmp"), "half").unwrap();
        assert!(!remove(&Home::locate(), &path, "kminik").unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
