//! Which engine is meant, found as the docker command line finds it. Where nothing is said it is the first socket that
//! answers: the system's, a rootless engine's, Docker Desktop's, Podman's.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kminik_base::atomic_file::{self, FileError};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::net::UnixStream;
use url::{Host, Url};

use crate::env;

/// Of a configuration, or of what is known of a context.
const LIMIT_BYTES: u64 = 1 << 20;
/// How long a socket may take to be connected to.
const SOCKET: Duration = Duration::from_secs(2);
/// Ports of TCP where none is named: plain, and with TLS.
const PORTS: [u16; 2] = [2375, 2376];
/// The context that is no context.
const DEFAULT: &str = "default";

/// An engine, as it is kept with a cluster that lives in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// `unix:///var/run/docker.sock`, `tcp://host:2376`, `ssh://user@host`.
    pub host: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// TLS of a `tcp://` engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// With `ca.pem`, `cert.pem` and `key.pem`, as far as there are any.
    pub directory: PathBuf,
    /// The engine's certificate is not looked at, as its context asks for.
    #[serde(default)]
    pub unverified: bool,
}

/// Where connections go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Unix(PathBuf),
    Tcp {
        host: String,
        port: u16,
    },
    Ssh {
        user: Option<String>,
        host: String,
        port: Option<u16>,
        /// Of the engine on that machine, where it is not the usual one.
        socket: Option<String>,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    #[error("{host:?} is no address of an engine: unix://PATH, tcp://HOST:PORT, ssh://USER@HOST")]
    Address { host: String },
    #[error("{host} is a named pipe, which only Windows has")]
    Pipe { host: String },
    #[error(transparent)]
    Unreadable(#[from] FileError),
    #[error("{path} is damaged")]
    Damaged {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("there is no docker context {name:?} in {directory}")]
    Context { name: String, directory: PathBuf },
}

impl Endpoint {
    fn plain(host: impl Into<String>) -> Self {
        Self { host: host.into(), tls: None }
    }

    /// # Errors
    /// For an address that is none, or that this system has no such.
    pub fn address(&self) -> Result<Address, EndpointError> {
        let host = &self.host;
        let no_address = || EndpointError::Address { host: host.clone() };
        let (scheme, rest) = host.split_once("://").ok_or_else(no_address)?;
        match scheme {
            "unix" if rest.starts_with('/') => Ok(Address::Unix(rest.into())),
            "npipe" => Err(EndpointError::Pipe { host: host.clone() }),
            "tcp" | "http" | "https" => {
                // As http the URL's parser knows what a host is.
                let url = Url::parse(&format!("http://{rest}")).map_err(|_| no_address())?;
                let explicit = rest.split('/').next().unwrap_or_default().rsplit_once(':');
                let named = explicit.and_then(|(_, port)| port.parse().ok());
                let port = named.unwrap_or(PORTS[usize::from(self.tls.is_some())]);
                Ok(Address::Tcp { host: bare_host(&url).ok_or_else(no_address)?, port })
            }
            "ssh" => {
                let url = Url::parse(host).map_err(|_| no_address())?;
                let name = url.host_str().filter(|host| !host.is_empty() && !host.starts_with('-'));
                let user = Some(url.username()).filter(|user| !user.is_empty());
                // It would be an option to ssh.
                if user.is_some_and(|user| user.starts_with('-')) {
                    return Err(no_address());
                }
                Ok(Address::Ssh {
                    user: user.map(str::to_owned),
                    host: name.ok_or_else(no_address)?.trim_matches(['[', ']']).to_owned(),
                    port: url.port(),
                    socket: Some(url.path()).filter(|path| path.len() > 1).map(str::to_owned),
                })
            }
            _ => Err(no_address()),
        }
    }

    /// The other machine that the engine is on; `None` for one of this machine.
    pub fn machine(&self) -> Option<String> {
        let host = match self.address().ok()? {
            Address::Unix(_) => return None,
            Address::Tcp { host, .. } | Address::Ssh { host, .. } => host,
        };
        let is_here =
            host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        (!is_here).then_some(host)
    }
}

fn bare_host(url: &Url) -> Option<String> {
    Some(match url.host()? {
        Host::Domain(name) => name.to_owned(),
        Host::Ipv4(address) => address.to_string(),
        Host::Ipv6(address) => address.to_string(),
    })
}

/// What the environment says.
#[derive(Debug, Default)]
struct Said {
    host: Option<String>,
    context: Option<String>,
    tls_verify: bool,
    cert_path: Option<PathBuf>,
    /// Where docker keeps its configuration.
    directory: PathBuf,
}

/// The engine that the environment means.
pub(super) async fn find() -> Result<Endpoint, EndpointError> {
    let said = Said {
        host: env::get(env::DOCKER_HOST),
        context: env::get(env::DOCKER_CONTEXT),
        tls_verify: env::get(env::DOCKER_TLS_VERIFY).is_some(),
        cert_path: env::get(env::DOCKER_CERT_PATH).map(PathBuf::from),
        directory: env::docker_directory(),
    };
    match named(&said)? {
        Some(endpoint) => Ok(endpoint),
        None => Ok(Endpoint::plain(format!("unix://{}", socket(&env::engine_sockets()).await.display()))),
    }
}

/// The engine that is named; `None` if any of this machine will do.
fn named(said: &Said) -> Result<Option<Endpoint>, EndpointError> {
    if let Some(host) = &said.host {
        let is_tcp = host.starts_with("tcp://") || host.starts_with("https://");
        let tls = (is_tcp && said.tls_verify || host.starts_with("https://")).then(|| Tls {
            directory: said.cert_path.clone().unwrap_or_else(|| said.directory.clone()),
            unverified: false,
        });
        return Ok(Some(Endpoint { host: host.clone(), tls }));
    }
    let context = match &said.context {
        Some(context) => Some(context.clone()),
        None => current_context(&said.directory)?,
    };
    match context.filter(|name| name != DEFAULT) {
        Some(name) => of_context(&said.directory, &name).map(Some),
        None => Ok(None),
    }
}

fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<Option<T>, EndpointError> {
    let Some(bytes) = atomic_file::read_optional(path, LIMIT_BYTES)? else { return Ok(None) };
    let damaged = |source| EndpointError::Damaged { path: path.to_owned(), source };
    serde_json::from_slice(&bytes).map(Some).map_err(damaged)
}

fn current_context(directory: &Path) -> Result<Option<String>, EndpointError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Config {
        #[serde(default)]
        current_context: String,
    }
    let config = read::<Config>(&directory.join("config.json"))?;
    Ok(config.map(|config| config.current_context).filter(|name| !name.is_empty()))
}

/// A context's directories are named by the digest of its name.
fn of_context(directory: &Path, name: &str) -> Result<Endpoint, EndpointError> {
    #[derive(Deserialize)]
    struct Meta {
        #[serde(rename = "Endpoints")]
        endpoints: Endpoints,
    }
    #[derive(Deserialize)]
    struct Endpoints {
        docker: Option<Docker>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Docker {
        #[serde(default)]
        host: String,
        #[serde(default, rename = "SkipTLSVerify")]
        skip_tls_verify: bool,
    }
    let contexts = directory.join("contexts");
    let id = hex::encode(Sha256::digest(name.as_bytes()));
    let meta = read::<Meta>(&contexts.join("meta").join(&id).join("meta.json"))?;
    let docker = meta.and_then(|meta| meta.endpoints.docker).filter(|docker| !docker.host.is_empty());
    let docker = docker.ok_or_else(|| EndpointError::Context { name: name.to_owned(), directory: contexts.clone() })?;
    let files = contexts.join("tls").join(&id).join("docker");
    let tls = files.is_dir() || docker.skip_tls_verify;
    let tls = (tls && docker.host.starts_with("tcp://"))
        .then_some(Tls { directory: files, unverified: docker.skip_tls_verify });
    Ok(Endpoint { host: docker.host, tls })
}

/// The first that answers, else the first that is there, else the first.
async fn socket(candidates: &[PathBuf]) -> PathBuf {
    let mut there = None;
    for path in candidates {
        match tokio::time::timeout(SOCKET, UnixStream::connect(path)).await {
            Ok(Ok(_)) => return path.clone(),
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
            _ => there = there.or(Some(path)),
        }
    }
    there.or(candidates.first()).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: &str, tls: bool) -> Result<Address, EndpointError> {
        let tls = tls.then(|| Tls { directory: "/c".into(), unverified: false });
        Endpoint { host: host.to_owned(), tls }.address()
    }

    #[test]
    fn addresses_of_every_form() {
        let tcp = |host: &str, port| Address::Tcp { host: host.to_owned(), port };
        assert_eq!(address("unix:///run/docker.sock", false).unwrap(), Address::Unix("/run/docker.sock".into()));
        assert_eq!(address("tcp://10.0.0.1", false).unwrap(), tcp("10.0.0.1", 2375));
        assert_eq!(address("tcp://engine.example", true).unwrap(), tcp("engine.example", 2376));
        assert_eq!(address("tcp://engine.example:80", true).unwrap(), tcp("engine.example", 80));
        assert_eq!(address("tcp://[::1]:1234/", true).unwrap(), tcp("::1", 1234));
        assert_eq!(address("tcp://[fd00::1]", false).unwrap(), tcp("fd00::1", 2375));
        let ssh = |user: Option<&str>, port, socket: Option<&str>| Address::Ssh {
            user: user.map(str::to_owned),
            host: "h.example".to_owned(),
            port,
            socket: socket.map(str::to_owned),
        };
        assert_eq!(address("ssh://h.example", false).unwrap(), ssh(None, None, None));
        assert_eq!(address("ssh://me@h.example:2222", false).unwrap(), ssh(Some("me"), Some(2222), None));
        assert_eq!(address("ssh://h.example/run/d.sock", false).unwrap(), ssh(None, None, Some("/run/d.sock")));
        for bad in
            ["", "/run/docker.sock", "unix://x", "ftp://a", "tcp://", "ssh://", "ssh://-oProxyCommand=x", "ssh://-x@h"]
        {
            assert!(matches!(address(bad, false), Err(EndpointError::Address { .. })), "{bad}");
        }
        assert!(matches!(address("npipe:////./pipe/docker_engine", false), Err(EndpointError::Pipe { .. })));
    }

    #[test]
    fn only_another_machine_is_elsewhere() {
        let machine = |host: &str| Endpoint::plain(host).machine();
        for here in ["unix:///x", "tcp://localhost:1", "tcp://127.0.0.1", "tcp://[::1]:1", "ssh://me@localhost"] {
            assert_eq!(machine(here), None, "{here}");
        }
        assert_eq!(machine("ssh://me@far.example").as_deref(), Some("far.example"));
        assert_eq!(machine("tcp://192.0.2.1:2376").as_deref(), Some("192.0.2.1"));
    }

    /// A directory of docker's with this current context and one context `far`.
    fn directory(current: &str, meta: &str, tls: bool) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("config.json"), format!(r#"{{"auths": {{}}{current}}}"#)).unwrap();
        let id = hex::encode(Sha256::digest(b"far"));
        let of = directory.path().join("contexts/meta").join(&id);
        std::fs::create_dir_all(&of).unwrap();
        std::fs::write(of.join("meta.json"), meta).unwrap();
        if tls {
            std::fs::create_dir_all(directory.path().join("contexts/tls").join(&id).join("docker")).unwrap();
        }
        directory
    }

    const FAR: &str = r#"{"Name": "far", "Metadata": {}, "Endpoints": {"docker": {"Host": "tcp://far.example:2376", "SkipTLSVerify": false}}}"#;

    #[test]
    fn the_environment_counts_before_contexts() {
        let home = directory(r#", "currentContext": "far""#, FAR, true);
        let said = |host: Option<&str>, context: Option<&str>, tls_verify| Said {
            host: host.map(str::to_owned),
            context: context.map(str::to_owned),
            tls_verify,
            cert_path: None,
            directory: home.path().to_owned(),
        };
        let far = named(&said(None, None, true)).unwrap().unwrap();
        assert_eq!(far.host, "tcp://far.example:2376");
        assert!(far.tls.as_ref().is_some_and(|tls| tls.directory.ends_with("docker") && !tls.unverified));
        assert_eq!(named(&said(None, Some("far"), false)).unwrap().unwrap(), far);
        assert_eq!(named(&said(None, Some("default"), false)).unwrap(), None);
        let near = named(&said(Some("tcp://near:1"), Some("far"), true)).unwrap().unwrap();
        assert_eq!((near.host.as_str(), near.tls.unwrap().directory.as_path()), ("tcp://near:1", home.path()));
        assert_eq!(named(&said(Some("tcp://near:1"), None, false)).unwrap().unwrap().tls, None);
        assert_eq!(named(&said(Some("unix:///x"), None, true)).unwrap().unwrap().tls, None);
        let told = named(&said(None, Some("other"), false)).unwrap_err();
        assert!(told.to_string().contains("\"other\""), "{told}");
    }

    #[test]
    fn contexts_that_are_damaged_or_skip_verification() {
        let none = tempfile::tempdir().unwrap();
        let said = |directory: &Path| Said { directory: directory.to_owned(), ..Said::default() };
        assert_eq!(named(&said(none.path())).unwrap(), None);
        assert_eq!(named(&said(directory("", FAR, false).path())).unwrap(), None);
        let damaged = directory(r#", "currentContext": "far""#, "{", false);
        assert!(matches!(named(&said(damaged.path())), Err(EndpointError::Damaged { .. })));
        let skip = directory(r#", "currentContext": "far""#, &FAR.replace("false", "true"), false);
        assert!(named(&said(skip.path())).unwrap().unwrap().tls.is_some_and(|tls| tls.unverified));
        let plain = directory(r#", "currentContext": "far""#, FAR, false);
        assert_eq!(named(&said(plain.path())).unwrap().unwrap().tls, None);
    }

    #[tokio::test]
    async fn the_first_socket_that_answers() {
        let directory = tempfile::tempdir().unwrap();
        let [none, dead, alive] = ["none", "dead", "alive"].map(|name| directory.path().join(name));
        drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
        let _listener = tokio::net::UnixListener::bind(&alive).unwrap();
        assert_eq!(socket(&[none.clone(), dead.clone(), alive.clone()]).await, alive);
        assert_eq!(socket(&[none.clone(), dead.clone()]).await, dead);
        assert_eq!(socket(std::slice::from_ref(&none)).await, none);
    }
}
