//! A profile: one cluster as the user asked for it, kept in `profiles/<name>/config.json`.
//!
//! What is chosen once (subnet, addresses, driver) never changes afterwards; what may change is written by `start`.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use kminik_base::{atomic_file, file_lock};
use kminik_oci::HostLoopback;
use kminik_oci::mirrors::CacheAddress;
use serde::{Deserialize, Serialize};

use crate::addons::Choices;
use crate::audit::without_password;
use crate::drivers::{Machine, Share, machine_name};
use crate::engine::Endpoint;
use crate::exposure::Exposure;
use crate::home::Home;
use crate::networking::Networking;
use crate::node::config::{AuditLog, cert_expiration_seconds};
use crate::reason::{
    Failure, GUEST_NODE_ADD, GUEST_NODE_NOT_FOUND, GUEST_NOT_FOUND, HOST_PURGE, HOST_SAVE_PROFILE, MK_BAD_PROFILE_NAME,
    MK_PROFILE_BROKEN, MK_PROFILE_BUSY, MK_PROFILE_NEWER, MK_USAGE, OrFail, Outcome,
};

/// The profile that is meant when none is named.
pub const DEFAULT: &str = "kminik";
/// Of the file; a newer one is refused.
const FORMAT: u32 = 1;
/// Of a file with workers, of which older versions know nothing.
const FORMAT_OF_SEVERAL: u32 = 2;
/// Of one with other networks, domain or port inside than every cluster had before.
const FORMAT_OF_NETWORKING: u32 = 3;
const LIMIT_BYTES: u64 = 1 << 20;
/// Of the gateway, for the host's loopback ports: above what servers use, below what the kernel gives to clients.
const FIRST_LOOPBACK_PORT: u16 = 25_000;
/// How many of them nodes may reach from the beginning, so that a mirror can be added while they run.
const LOOPBACK_PORTS: u16 = 16;
/// Of the gateway, for the host's cache of images.
const CACHE_PORT: u16 = FIRST_LOOPBACK_PORT - 1;
/// In the profile's directory: authorities that registries of this cluster may be signed by.
pub const REGISTRY_CA: &str = "registry-ca.crt";
/// The lock of who names machines; no profile is called so.
const NAMES: &str = ".names";
/// Likewise, of who changes a file that all clusters share.
const HOME_FILES: &str = ".home";
/// How often a lock is made anew that was purged with the home while it was waited for.
const ATTEMPTS: usize = 16;
/// How long a lock that another process holds is tried.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// How images reach the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Registries {
    /// A preset's name: `cn`, `global`.
    pub country: Option<String>,
    /// As given: `https://mirror`, `docker.io=http://mirror/path`.
    pub mirrors: Vec<String>,
    /// Prefix that replaces the registry of Kubernetes' own images.
    pub repository: Option<String>,
    /// `host[:port]` or CIDR that may be spoken to without TLS verification.
    pub insecure: Vec<String>,
}

/// The etcd cluster that keeps the objects; its certificates are files of the profile's `pki` directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Datastore {
    /// `http(s)://host:port` of each member.
    pub endpoints: Vec<String>,
}

/// The user's cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    pub format: u32,
    pub name: String,
    pub driver: String,
    /// The container engine that it lives in; `None` is the one that the environment means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Endpoint>,
    pub kubernetes_version: String,
    /// Cores, 0 is no limit.
    pub cpus: u32,
    /// MiB, 0 is no limit.
    pub memory_mib: u64,
    /// Userland of the node; `None` is the built-in image.
    pub base_image: Option<String>,
    pub registries: Registries,
    /// `None` keeps the objects in the node's own store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datastore: Option<Datastore>,
    /// `None` writes no audit log; the policy is a file of the profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_log: Option<AuditLog>,
    /// Serves and asks MutatingAdmissionPolicies.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mutating_policies: bool,
    /// Network of the nodes on the host, e.g. `192.168.49.0/24`.
    pub subnet: String,
    /// The host's end of it.
    pub gateway: Ipv4Addr,
    /// The control-plane node's address.
    pub node_address: Ipv4Addr,
    /// Further nodes, by number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workers: Vec<Worker>,
    /// Where clients on the host reach the API: the node's own port, or one of loopback for the docker driver.
    pub api_host: String,
    pub api_port: u16,
    /// Its network is not one of this machine's: ports are reached through the driver, and nodes reach nothing here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tunnel: bool,
    #[serde(default, skip_serializing_if = "Networking::is_default")]
    pub networking: Networking,
    #[serde(default, skip_serializing_if = "Exposure::is_default")]
    pub exposure: Exposure,
    /// Directories and files of the driver's machine that the nodes see.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Share>,
    /// What the nodes that run show of them, as far as a change could not be made there; `None` is all, and no others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown_mounts: Option<Vec<Share>>,
    /// It has been up: without its machine data is lost.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub was_up: bool,
    pub embed_certs: bool,
    /// Ports of the host's loopback that the node needs (mirrors, proxies) → port of the gateway where the agent serves them.
    #[serde(default)]
    pub loopback: BTreeMap<u16, u16>,
    /// By which nodes prove to the host's cache of images that they are of this cluster; empty in profiles of older versions.
    #[serde(default)]
    pub cache_token: String,
    /// What the user has said of addons; of one that is not named nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub addons: Choices,
    /// For how long the cluster's certificates are issued.
    #[serde(default = "cert_expiration_seconds")]
    pub cert_expiration_seconds: u64,
    /// The newest kminik that has started it, `x.y.z`; empty in profiles of versions that did not say.
    #[serde(default)]
    pub kminik_version: String,
    /// Seconds since the epoch.
    pub created: i64,
}

/// A node that has no control plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Worker {
    /// From 2 on: the control plane is the first.
    pub number: u32,
    /// In the cluster's network.
    pub address: Ipv4Addr,
    /// It was stopped by itself, so it is not started with the others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopped: bool,
}

impl Worker {
    /// The name of a node with this number within its cluster: `m02`.
    pub fn short(number: u32) -> String {
        format!("m{number:02}")
    }
}

/// Words of commands, which `kminik profile NAME` would take for themselves.
const RESERVED: &[&str] =
    &["start", "stop", "status", "delete", "config", "open", "profile", "addons", "cache", "logs", "list", "help"];

/// As [`check_name`], of a profile that is to be made.
pub fn check_new_name(name: &str) -> Outcome<()> {
    check_name(name)?;
    if RESERVED.contains(&name) {
        let why = format!("{name:?} is a word of a command, which no cluster can be called");
        return Err(Failure::new(&MK_BAD_PROFILE_NAME, why));
    }
    Ok(())
}

/// `Ok` for a name that may be a profile's: letters, digits, inner dashes and dots, 2 to 50 characters.
pub fn check_name(name: &str) -> Outcome<()> {
    let label = |l: &str| {
        let bytes = l.as_bytes();
        matches!((bytes.first(), bytes.last()), (Some(a), Some(b)) if a.is_ascii_alphanumeric() && b.is_ascii_alphanumeric())
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
    };
    if (2..=50).contains(&name.len()) && name.split('.').all(label) {
        Ok(())
    } else {
        Err(Failure::new(&MK_BAD_PROFILE_NAME, format!("{name:?} is not a valid profile name")))
    }
}

impl Profile {
    /// Of a cluster with one node.
    pub const FORMAT: u32 = FORMAT;

    /// The machine of the control plane.
    pub fn control_plane(&self) -> Machine<'_> {
        Machine::new(self, None)
    }

    /// What the nodes that run show.
    pub fn shown_mounts(&self) -> &[Share] {
        self.shown_mounts.as_deref().unwrap_or(&self.mounts)
    }

    /// Notes what the nodes that run show.
    pub fn note_shown(&mut self, shown: Vec<Share>) {
        self.shown_mounts = (shown != self.mounts).then_some(shown);
    }

    /// All machines, the control plane's first.
    pub fn machines(&self) -> impl Iterator<Item = Machine<'_>> {
        let workers = self.workers.iter().map(|worker| Machine::new(self, Some(worker)));
        std::iter::once(self.control_plane()).chain(workers)
    }

    /// The machine that a user calls so, with or without the profile's name; the control plane's if no name is given.
    ///
    /// # Errors
    /// `GUEST_NODE_NOT_FOUND`.
    pub fn machine(&self, name: Option<&str>) -> Outcome<Machine<'_>> {
        let Some(name) = name else { return Ok(self.control_plane()) };
        self.machines().find(|machine| machine.is_called(name)).ok_or_else(|| {
            Failure::new(&GUEST_NODE_NOT_FOUND, format!("there is no node {name:?} in the cluster {:?}", self.name))
        })
    }

    /// Takes one worker more in, at an address that is none of `used`; its number. Numbers are not used again while a higher one
    /// is there.
    ///
    /// # Errors
    /// `GUEST_NODE_ADD` if its machine would have the name of another cluster, or the network has no address left.
    pub fn add_worker(&mut self, home: &Home, used: &[Ipv4Addr]) -> Outcome<u32> {
        let number = self.workers.iter().map(|worker| worker.number).max().unwrap_or(1) + 1;
        let name = machine_name(&self.name, number);
        Self::check_free(home, &name)?;
        let full = || Failure::new(&GUEST_NODE_ADD, format!("the network {} has no address left", self.subnet));
        let subnet: Ipv4Net = self.subnet.parse().map_err(|_| full())?;
        let mut taken: Vec<Ipv4Addr> = self.machines().map(|machine| machine.address()).collect();
        // A network by a name of the user's may be that of several clusters.
        if self.networking.network.is_some() {
            for other in Self::others(home, &self.name) {
                taken.extend(other.machines().map(|machine| machine.address()));
            }
        }
        taken.extend(used);
        let is_taken = |address: &Ipv4Addr| taken.contains(address);
        let own = u32::from(self.node_address);
        let (after, before): (Vec<_>, Vec<_>) = subnet.hosts().skip(1).partition(|address| u32::from(*address) > own);
        let address = after.into_iter().chain(before).find(|address| *address != self.gateway && !is_taken(address));
        self.workers.push(Worker { number, address: address.ok_or_else(full)?, stopped: false });
        Ok(number)
    }

    /// Refuses a name that a machine of another cluster has.
    ///
    /// # Errors
    /// `MK_USAGE`.
    pub fn check_unique(home: &Home, name: &str) -> Outcome<()> {
        for other in Self::others(home, name) {
            if other.machines().any(|machine| *machine.name() == *name) {
                let why = format!("the name {name:?} is that of a node of the cluster {:?}", other.name);
                return Err(Failure::new(&MK_USAGE, why).advise("Choose another name for the cluster with -p."));
            }
        }
        Ok(())
    }

    /// Refuses the name of a machine that is another cluster's.
    fn check_free(home: &Home, machine: &str) -> Outcome<()> {
        if !Self::exists(home, machine) {
            return Ok(());
        }
        let why = format!("the next node would be called {machine:?}, as another cluster is");
        Err(Failure::new(&GUEST_NODE_ADD, why))
    }

    /// Keeps a profile with machines that are new: from then on their names are nobody else's. One after the other, for a
    /// cluster can be called as another's next node.
    ///
    /// # Errors
    /// As [`Profile::check_unique`] and [`Profile::add_worker`], if a name was taken since those looked.
    pub async fn claim(&self, home: &Home) -> Outcome<()> {
        let _turn = Lock::of_file(home, NAMES).await?;
        Self::check_unique(home, &self.name)?;
        for worker in &self.workers {
            Self::check_free(home, &machine_name(&self.name, worker.number))?;
        }
        self.save(home)
    }

    /// Whether there is a profile of this name, be it damaged.
    pub fn exists(home: &Home, name: &str) -> bool {
        home.profile(name).join("config.json").exists()
    }

    /// The profiles of all clusters but the one that is called so; those that cannot be read are left out.
    pub fn others(home: &Home, name: &str) -> impl Iterator<Item = Self> {
        let names = Self::names(home).into_iter().filter(move |other| other != name);
        names.filter_map(|other| Self::load_optional(home, &other).ok().flatten())
    }

    /// As others may see it: without what opens the host's cache, and without logins of mirrors.
    pub fn shown(&self) -> serde_json::Result<serde_json::Value> {
        let mut shown = self.clone();
        shown.cache_token.clear();
        let registries = &mut shown.registries;
        for url in registries.mirrors.iter_mut().chain(&mut registries.repository) {
            *url = without_password(url);
        }
        serde_json::to_value(shown)
    }

    /// `None` if there is no such profile.
    pub fn load_optional(home: &Home, name: &str) -> Outcome<Option<Self>> {
        check_name(name)?;
        let path = home.profile(name).join("config.json");
        let Some(bytes) =
            atomic_file::read_optional(&path, LIMIT_BYTES).or_fail(&MK_PROFILE_BROKEN, "cannot read the profile")?
        else {
            return Ok(None);
        };
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let head: Head = serde_json::from_slice(&bytes)
            .or_fail(&MK_PROFILE_BROKEN, format_args!("the profile {} is damaged", path.display()))?;
        if head.format > FORMAT_OF_NETWORKING {
            return Err(Failure::new(
                &MK_PROFILE_NEWER,
                format!(
                    "the profile {name:?} has format {}, this kminik knows formats up to {FORMAT_OF_NETWORKING}",
                    head.format
                ),
            ));
        }
        serde_json::from_slice(&bytes)
            .map(Some)
            .or_fail(&MK_PROFILE_BROKEN, format_args!("the profile {} is damaged", path.display()))
    }

    /// The profile, or the failure every command gives where a cluster is needed.
    pub fn load(home: &Home, name: &str) -> Outcome<Self> {
        Self::load_optional(home, name)?.ok_or_else(|| not_found(name))
    }

    pub fn save(&self, home: &Home) -> Outcome<()> {
        let format = match (self.networking.is_default(), self.workers.is_empty()) {
            (false, _) => FORMAT_OF_NETWORKING,
            (true, false) => FORMAT_OF_SEVERAL,
            (true, true) => FORMAT,
        };
        let text = serde_json::to_vec_pretty(&Self { format, ..self.clone() })
            .or_fail(&HOST_SAVE_PROFILE, "cannot write the profile")?;
        home.write(&home.profile(&self.name).join("config.json"), &text, atomic_file::SECRET)
    }

    /// Removes the file, after which there is no such profile; what lies beside it stays. None there is success.
    pub fn remove(home: &Home, name: &str) -> Outcome<()> {
        match std::fs::remove_file(home.profile(name).join("config.json")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
        .or_fail(&HOST_PURGE, "cannot remove the profile")
    }

    /// Names of all profiles that have a file, sorted.
    pub fn names(home: &Home) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(home.profiles()) else { return Vec::new() };
        let mut names: Vec<String> = entries
            .filter_map(Result::ok)
            .filter(|e| e.path().join("config.json").exists())
            .filter_map(|e| e.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    /// For how long certificates of the cluster are issued.
    pub fn cert_expiration(&self) -> std::time::Duration {
        std::time::Duration::from_secs(self.cert_expiration_seconds)
    }

    pub fn pki_dir(&self, home: &Home) -> PathBuf {
        home.profile(&self.name).join("pki")
    }

    /// Has these ports of loopback served to the node; those that are served keep their port.
    pub fn serve_loopback(&mut self, ports: impl IntoIterator<Item = u16>) {
        for port in ports {
            let free = (FIRST_LOOPBACK_PORT..).find(|free| !self.loopback.values().any(|taken| taken == free));
            self.loopback.entry(port).or_insert(free.unwrap_or(FIRST_LOOPBACK_PORT));
        }
    }

    /// Where the node finds the host's loopback.
    pub fn host_loopback(&self) -> HostLoopback {
        HostLoopback { address: self.gateway, ports: self.loopback.clone() }
    }

    /// Ports of the gateway that nodes need to reach, beside DNS.
    pub fn gateway_ports(&self) -> Vec<u16> {
        let spare = CACHE_PORT..FIRST_LOOPBACK_PORT + LOOPBACK_PORTS;
        let mut ports: Vec<u16> = spare.chain(self.loopback.values().copied()).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// Where the agent serves the host's cache of images to the nodes.
    pub fn cache(&self) -> Option<CacheAddress> {
        let address = (self.gateway, CACHE_PORT).into();
        (!self.cache_token.is_empty() && !self.tunnel)
            .then(|| CacheAddress { address, token: self.cache_token.clone() })
    }

    /// The same as kubeconfigs have it: by the name that its user has given it.
    pub fn kubeconfig_url(&self) -> String {
        format!("https://{}", self.kubeconfig_host())
    }

    /// Without the scheme.
    pub fn kubeconfig_host(&self) -> String {
        authority(self.networking.api_name.as_ref().unwrap_or(&self.api_host), self.api_port)
    }

    /// `https://host:port` as clients on the host use it.
    pub fn api_url(&self) -> String {
        format!("https://{}", authority(&self.api_host, self.api_port))
    }
}

/// As URLs have it.
fn authority(host: &str, port: u16) -> String {
    match host.parse() {
        Ok(IpAddr::V6(address)) => format!("[{address}]:{port}"),
        _ => format!("{host}:{port}"),
    }
}

/// What a command says when its cluster is missing.
pub fn not_found(name: &str) -> Failure {
    let failure = Failure::new(
        &GUEST_NOT_FOUND,
        format!("Profile \"{name}\" not found. Run \"kminik profile list\" to view all profiles."),
    );
    if name == DEFAULT {
        failure
    } else {
        failure.advise(format!("To start a cluster, run: \"kminik start -p {name}\""))
    }
}

/// Held by a command that changes a cluster; released when dropped (also by the death of the process).
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// The agent holds it for a moment when it revives a node, so a held lock is tried again for some seconds.
    ///
    /// # Errors
    /// `MK_PROFILE_BUSY` if another process keeps holding it.
    pub async fn acquire(home: &Home, name: &str) -> Outcome<Self> {
        check_name(name)?;
        Self::of_file(home, name).await
    }

    /// As [`Lock::acquire`], of the home's own files: held from reading one to writing it.
    ///
    /// # Errors
    /// `MK_PROFILE_BUSY` if another process keeps holding it.
    pub async fn of_home(home: &Home) -> Outcome<Self> {
        Self::of_file(home, HOME_FILES).await
    }

    async fn of_file(home: &Home, name: &str) -> Outcome<Self> {
        let dir = home.root().join("locks");
        let path = dir.join(name);
        for _ in 0..ATTEMPTS {
            home.make_dir(&dir)?;
            let file = match File::create(&path) {
                // A purge has taken the directory away between the two calls.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                outcome => outcome.or_fail(&crate::reason::HOST_HOME_PERMISSION, "cannot make the lock file")?,
            };
            home.give(&path)?;
            match file_lock::acquire(&file, PATIENCE).await {
                // The holder before us may have purged the home with the file that we waited for; then another may hold a new one.
                Ok(()) if is_at(&file, &path) => return Ok(Self { _file: file }),
                Ok(()) => {}
                Err(std::fs::TryLockError::WouldBlock) => break,
                Err(std::fs::TryLockError::Error(e)) => {
                    return Err(Failure::because(&MK_PROFILE_BUSY, "cannot lock the profile", &e));
                }
            }
        }
        if name == HOME_FILES {
            return Err(Failure::new(&MK_PROFILE_BUSY, "another kminik command is changing the same files"));
        }
        Err(Failure::new(&MK_PROFILE_BUSY, format!("another kminik command is changing the cluster {name:?}")))
    }
}

/// Whether the open file is what the path leads to.
fn is_at(file: &File, path: &Path) -> bool {
    let of = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(held), Ok(there)) => of(held) == of(there),
        _ => false,
    }
}

/// What clusters of all homes share on this host.
const SHARED: &str = "/run/kminik";
const TURN: &str = "network.lock";

/// The turn to choose a network: held from the choice until the network is there to be seen by the next who chooses.
/// Shared by all homes of this host; released when dropped, and no file stays.
#[derive(Debug)]
pub struct NetworkTurn {
    path: PathBuf,
    _file: File,
}

impl NetworkTurn {
    /// Waits some seconds for others; who never gets it (a directory that cannot be written) goes on without.
    pub async fn take() -> Option<Self> {
        let shared = Path::new(SHARED);
        let path = shared.join(TURN);
        let since = std::time::Instant::now();
        while since.elapsed() < PATIENCE * 6 {
            std::fs::create_dir_all(shared).ok()?;
            let Ok(file) = File::options().create(true).truncate(false).write(true).open(&path) else {
                // The holder before us removed the directory between the two calls, or it is not ours to write.
                if shared.exists() {
                    return None;
                }
                continue;
            };
            file_lock::acquire(&file, PATIENCE * 6).await.ok()?;
            // The holder before us has removed the file that we waited for; then another may hold a new one.
            if is_at(&file, &path) {
                return Some(Self { path, _file: file });
            }
        }
        None
    }
}

impl NetworkTurn {
    /// Takes away what a holder that was killed has left.
    pub fn sweep() {
        let path = Path::new(SHARED).join(TURN);
        if let Ok(file) = File::options().write(true).open(&path)
            && file.try_lock().is_ok()
        {
            drop(Self { path, _file: file });
        }
    }
}

impl Drop for NetworkTurn {
    fn drop(&mut self) {
        // Who comes next makes them anew; the directory stays while something is in it.
        let _ = std::fs::remove_file(&self.path);
        if let Some(shared) = self.path.parent() {
            let _ = std::fs::remove_dir(shared);
        }
    }
}

#[cfg(test)]
mod tests;
