//! Connections to an engine, and Docker's client over them.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bollard::errors::Error;
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kminik_base::tls::{AnyCertificate, provider, public_roots};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::Command;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

use super::endpoint::{Address, Tls};

/// On a connection that can be spoken through, TLS included.
const DIAL: Duration = Duration::from_secs(15);
/// On an answer's beginning: longer than the longest that an engine is asked to wait for.
const ANSWER_SECONDS: u64 = 300;
/// What ssh says is kept so far.
const WORDS_BYTES: u64 = 4 << 10;
/// How long it may take to say why it ends.
const WORDS: Duration = Duration::from_secs(1);
/// Connections by ssh that wait for the next request: each is a process, and takes a while to come up.
const IDLE_SSH: usize = 2;
const IDLE: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("cannot read {path}")]
    Read {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("{path} has nothing in PEM form that can be used")]
    Pem {
        path: String,
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    #[error("the certificates cannot be used")]
    Tls(#[from] rustls::Error),
    #[error(transparent)]
    Client(#[from] Error),
}

/// A connection, whatever it goes through.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

impl Connection for Box<dyn Duplex> {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

/// How connections are made.
#[derive(Clone)]
struct Dialer {
    address: Address,
    tls: Option<TlsConnector>,
    /// What the last ssh had to say.
    words: Arc<watch::Sender<String>>,
}

/// Docker's client of the engine at this address. Nothing is sent yet.
pub(super) fn client(address: &Address, tls: Option<&Tls>) -> Result<Docker, DialError> {
    let tls = tls.map(connector).transpose()?;
    let dialer = Dialer { address: address.clone(), tls, words: Arc::new(watch::Sender::default()) };
    let words = dialer.words.clone();
    let connect = tower::service_fn(move |_: http::Uri| {
        let dialer = dialer.clone();
        let dialing: Pin<Box<dyn Future<Output = io::Result<_>> + Send>> =
            Box::pin(async move { dialer.dial().await.map(TokioIo::new) });
        dialing
    });
    let is_ssh = matches!(address, Address::Ssh { .. });
    let idle = if is_ssh { IDLE_SSH } else { 0 };
    let client: Client<_, _> = Client::builder(TokioExecutor::new())
        .pool_timer(hyper_util::rt::TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(idle)
        .build(connect);
    let transport = move |request: BollardRequest| {
        let (sending, words) = (client.request(request), words.clone());
        async move {
            let error = match sending.await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if !is_ssh {
                return Err(Error::from(error));
            }
            // A connection that ssh could not make just ends: why is what it says a moment later.
            let mut told = words.subscribe();
            let told = tokio::time::timeout(WORDS, told.wait_for(|told| !told.is_empty())).await;
            Err(match told {
                Ok(Ok(told)) => {
                    let told = told.trim();
                    Error::from(io::Error::other(format!("ssh: {}", told.strip_prefix("ssh: ").unwrap_or(told))))
                }
                _ => Error::from(error),
            })
        }
    };
    // The name is nobody's: every connection goes where the dialer leads.
    Ok(Docker::connect_with_custom_transport(transport, Some("http://engine"), ANSWER_SECONDS, API_DEFAULT_VERSION)?)
}

impl Dialer {
    async fn dial(&self) -> io::Result<Box<dyn Duplex>> {
        let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {} s", DIAL.as_secs()));
        tokio::time::timeout(DIAL, self.connect()).await.unwrap_or_else(|_| Err(late()))
    }

    async fn connect(&self) -> io::Result<Box<dyn Duplex>> {
        match &self.address {
            Address::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            Address::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
                let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
                Ok(Box::new(tls.connect(name, stream).await?))
            }
            Address::Ssh { .. } => self.ssh(),
        }
    }

    /// As the docker command line does it: the other machine's docker joins its engine's socket with its standard streams.
    fn ssh(&self) -> io::Result<Box<dyn Duplex>> {
        let mut child = Command::new("ssh")
            .args(ssh_arguments(&self.address))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("cannot run ssh: {error}")))?;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let words = self.words.clone();
        tokio::spawn(async move {
            let mut told = Vec::new();
            let mut stderr = stderr.take(WORDS_BYTES);
            // Ends with the process, which ends with its streams.
            while stderr.read_buf(&mut told).await.is_ok_and(|length| length > 0) {
                words.send_replace(String::from_utf8_lossy(&told).into_owned());
            }
            let _ = child.wait().await;
        });
        Ok(Box::new(tokio::io::join(stdout, stdin)))
    }
}

/// Nobody is asked for a password: an agent or a key file must do.
fn ssh_arguments(address: &Address) -> Vec<String> {
    let Address::Ssh { user, host, port, socket } = address else { return Vec::new() };
    let mut arguments: Vec<String> = ["-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10"].map(str::to_owned).into();
    if let Some(user) = user {
        arguments.extend(["-l".to_owned(), user.clone()]);
    }
    if let Some(port) = port {
        arguments.extend(["-p".to_owned(), port.to_string()]);
    }
    arguments.extend(["--".to_owned(), host.clone(), "docker".to_owned()]);
    if let Some(socket) = socket {
        arguments.extend(["--host".to_owned(), format!("unix://{socket}")]);
    }
    arguments.extend(["system".to_owned(), "dial-stdio".to_owned()]);
    arguments
}

/// The authority in the directory counts alone; without one it is those that this machine trusts.
fn connector(tls: &Tls) -> Result<TlsConnector, DialError> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = if tls.unverified {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate::new(provider)))
    } else {
        let roots = match read(&tls.directory.join("ca.pem"))? {
            None => public_roots(),
            Some((path, pem)) => {
                let mut roots = RootCertStore::empty();
                for certificate in CertificateDer::pem_slice_iter(&pem) {
                    roots.add(certificate.map_err(|source| DialError::Pem { path: path.clone(), source })?)?;
                }
                roots
            }
        };
        builder.with_root_certificates(roots)
    };
    let config = match (read(&tls.directory.join("cert.pem"))?, read(&tls.directory.join("key.pem"))?) {
        (Some((path, chain)), Some((key_path, key))) => {
            let chain = CertificateDer::pem_slice_iter(&chain).collect::<Result<Vec<_>, _>>();
            let chain = chain.map_err(|source| DialError::Pem { path, source })?;
            let key = PrivateKeyDer::from_pem_slice(&key);
            let key = key.map_err(|source| DialError::Pem { path: key_path, source })?;
            builder.with_client_auth_cert(chain, key)?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

/// A file's path and content; `None` if there is none.
fn read(path: &Path) -> Result<Option<(String, Vec<u8>)>, DialError> {
    let shown = path.display().to_string();
    match std::fs::read(path) {
        Ok(content) => Ok(Some((shown, content))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DialError::Read { path: shown, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_is_told_what_the_address_says() {
        let told = |user: Option<&str>, port, socket: Option<&str>| {
            let (user, socket) = (user.map(str::to_owned), socket.map(str::to_owned));
            ssh_arguments(&Address::Ssh { user, host: "h".to_owned(), port, socket }).join(" ")
        };
        assert!(told(None, None, None).ends_with("-- h docker system dial-stdio"));
        let all = told(Some("me"), Some(22), Some("/s"));
        assert!(all.ends_with("-l me -p 22 -- h docker --host unix:///s system dial-stdio"), "{all}");
    }
}
