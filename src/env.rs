//! Every environment variable kminik reads, and the only place that reads them.

use std::path::PathBuf;

use kminik_net::hostnet::PODS;
use kminik_oci::HostLoopback;
use kminik_oci::mirrors::loopback_port;
use url::Url;

use crate::home::Home;
use crate::networking::Networking;

/// Where profiles, machines and caches are kept; `~/.kminik` if unset.
pub const HOME: &str = "KMINIK_HOME";
/// kubectl's: a list of files, the first that exists (else the first) is written.
pub const KUBECONFIG: &str = "KUBECONFIG";
/// In which language to speak: the first that is set.
pub const LOCALE: [&str; 3] = ["LC_ALL", "LC_MESSAGES", "LANG"];
/// Set to `1` or `0` to force or forbid emoji and colour.
pub const IN_STYLE: &str = "KMINIK_IN_STYLE";

/// Docker's: the directory of its configuration, `~/.docker` if unset.
const DOCKER_CONFIG: &str = "DOCKER_CONFIG";
/// Docker's: the engine that is meant, by address or by the name of a context.
pub const DOCKER_HOST: &str = "DOCKER_HOST";
pub const DOCKER_CONTEXT: &str = "DOCKER_CONTEXT";
/// Docker's: set for TLS to `DOCKER_HOST`, with the certificates of this directory.
pub const DOCKER_TLS_VERIFY: &str = "DOCKER_TLS_VERIFY";
pub const DOCKER_CERT_PATH: &str = "DOCKER_CERT_PATH";
/// Where the user's own engines have their sockets; `/run/user/<uid>` if unset.
const RUNTIME_DIR: &str = "XDG_RUNTIME_DIR";

/// Where the user's configuration is; `~/.config` if unset.
const CONFIG_HOME: &str = "XDG_CONFIG_HOME";
/// Beside the home and proxies what a cluster's later start by the machine itself is given: who its user is, which engine and
/// kubeconfig are meant.
const KEPT: &[&str] =
    &["HOME", "USER", "SUDO_USER", "SUDO_UID", "SUDO_GID", DOCKER_HOST, DOCKER_CONTEXT, DOCKER_TLS_VERIFY];
/// And those that are paths.
const KEPT_PATHS: &[&str] = &["PATH", CONFIG_HOME, KUBECONFIG, DOCKER_CONFIG, DOCKER_CERT_PATH];

/// Handed to the node: what it logs.
const FOR_NODE: &[&str] = &[kminik_base::telemetry::FILTER_VARIABLE];
/// Handed to the node too: the proxies its pulls go through.
const PROXIES: &[&str] = &["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"];
/// And who is reached without them; of the two the first that is set counts.
const DIRECT: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// `NAME=value` of those variables of this process that the node gets too. A proxy on this machine's loopback is named as
/// the node reaches it.
pub fn for_node(loopback: &HostLoopback, networking: &Networking) -> Vec<String> {
    let plain = FOR_NODE.iter().filter_map(|name| Some((name, get(name)?)));
    let proxies = PROXIES.iter().filter_map(|name| {
        let value = get(name)?;
        let Some(mut url) = proxy_url(&value) else { return Some((name, value)) };
        loopback.translate(&mut url);
        Some((name, url.to_string()))
    });
    let mut all: Vec<String> = plain.chain(proxies).map(|(name, value)| format!("{name}={value}")).collect();
    let direct = DIRECT.iter().find_map(|name| get(name)).map(|value| format!("{value},")).unwrap_or_default();
    let Networking { services, domain, .. } = networking;
    all.push(format!("NO_PROXY={direct}{NEAR},{services},{PODS},.{domain},{}", loopback.address));
    all
}

/// Who is not a proxy's business: the node itself; beside services, pods and what the host serves at the gateway.
const NEAR: &str = "localhost,127.0.0.0/8,::1";

/// Docker's configuration of the calling user.
pub fn docker_config() -> PathBuf {
    docker_directory().join("config.json")
}

/// Where docker keeps the calling user's configuration.
pub fn docker_directory() -> PathBuf {
    get(DOCKER_CONFIG).map_or_else(|| user().home.join(".docker"), PathBuf::from)
}

/// Where engines listen that nobody has named: the system's, the user's own, Docker Desktop's, Podman's.
pub fn engine_sockets() -> Vec<PathBuf> {
    let user = user();
    let uid = user.owner.map_or_else(|| rustix::process::getuid().as_raw(), |(uid, _)| uid);
    let own = get(RUNTIME_DIR).map_or_else(|| PathBuf::from(format!("/run/user/{uid}")), PathBuf::from);
    vec![
        "/var/run/docker.sock".into(),
        own.join("docker.sock"),
        user.home.join(".docker/desktop/docker.sock"),
        user.home.join(".docker/run/docker.sock"),
        own.join("podman/podman.sock"),
        "/run/podman/podman.sock".into(),
    ]
}

/// Ports of loopback on which this process' proxies listen.
pub fn loopback_proxies() -> Vec<u16> {
    PROXIES.iter().filter_map(|name| loopback_port(&proxy_url(&get(name)?)?)).collect()
}

/// Every proxy that this process is told of.
pub fn proxies() -> impl Iterator<Item = String> {
    PROXIES.iter().filter_map(|name| get(name))
}

/// As curl reads it: `host:port` means http.
fn proxy_url(text: &str) -> Option<Url> {
    let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    Url::parse(&text).ok().filter(Url::has_host)
}

/// Directories of programs.
pub fn path() -> Vec<PathBuf> {
    get("PATH").map(|list| std::env::split_paths(&list).collect()).unwrap_or_default()
}

/// Who is asked for in a cluster's name, and by which ways: what a later start, by the machine itself, needs to do the same.
pub fn of_start(home: &Home) -> Vec<(&'static str, String)> {
    let root = home.root().display().to_string();
    let paths = KEPT_PATHS.iter().filter_map(|name| Some((*name, absolute(&get(name)?))));
    let kept = KEPT.iter().chain(PROXIES).chain(&DIRECT).filter_map(|name| Some((*name, get(name)?)));
    std::iter::once((HOME, root)).chain(paths).chain(kept).collect()
}

/// A list of paths, none of which depends on where this process runs.
fn absolute(list: &str) -> String {
    let paths = std::env::split_paths(list).map(|path| std::path::absolute(&path).unwrap_or(path));
    std::env::join_paths(paths).map_or_else(|_| list.to_owned(), |joined| joined.to_string_lossy().into_owned())
}

/// Where the calling user's configuration may be, where new things go first.
pub fn user_configs(user: &User) -> Vec<PathBuf> {
    let own = get(CONFIG_HOME).filter(|_| user.owner.is_none()).map(PathBuf::from);
    own.into_iter().chain([user.home.join(".config")]).collect()
}

/// A variable that is set and not empty.
pub fn get(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The user whom kminik works for: under sudo the one who called it.
#[derive(Clone, Debug)]
pub struct User {
    pub name: String,
    pub home: PathBuf,
    /// Files made in `home` are given to this user; `None` when the process runs as its owner.
    pub owner: Option<(u32, u32)>,
}

/// Reads the calling user from the environment and, under sudo, from /etc/passwd (never through NSS).
pub fn user() -> User {
    let is_root = rustix::process::geteuid().is_root();
    if let (true, Some(uid), Some(gid)) = (is_root, number("SUDO_UID"), number("SUDO_GID"))
        && uid != 0
        && let Some(home) = passwd_home(uid)
    {
        return User { name: get("SUDO_USER").unwrap_or_default(), home, owner: Some((uid, gid)) };
    }
    let home = get("HOME").map(PathBuf::from).or_else(|| passwd_home(rustix::process::getuid().as_raw()));
    let name = get("USER").unwrap_or_else(|| rustix::process::getuid().as_raw().to_string());
    User { name, home: home.unwrap_or_else(|| PathBuf::from("/root")), owner: None }
}

fn number(name: &str) -> Option<u32> {
    get(name)?.parse().ok()
}

fn passwd_home(uid: u32) -> Option<PathBuf> {
    let text = std::fs::read_to_string("/etc/passwd").ok()?;
    text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.get(2)?.parse::<u32>().ok()? == uid).then(|| fields.get(5).map(PathBuf::from))?
    })
}
