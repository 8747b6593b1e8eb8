//! Connections: a name becomes addresses, one of them a connection, that perhaps a TLS one.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;

use super::error::DialError;
use super::peer::{Peer, Place, Security, join};
use super::resolve;
use super::tls::Configurations;
use crate::storage::cache::Cache;

const DIAL_TIMEOUT: Duration = Duration::from_secs(30);

/// Any connection.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// What dialling needs.
pub(super) struct Dialer {
    cache: Arc<Cache>,
    configurations: Configurations,
    /// The node's own, made at the first name that is looked up. The system's resolver is no choice in a static binary.
    resolver: OnceCell<TokioResolver>,
}

impl Dialer {
    pub(super) fn new(cache: Arc<Cache>) -> Self {
        Dialer { cache, configurations: Configurations::default(), resolver: OnceCell::new() }
    }

    pub(super) fn cache(&self) -> &Cache {
        &self.cache
    }

    pub(super) async fn dial(&self, peer: &Peer) -> Result<Box<dyn Io>, DialError> {
        let (host, port) = match &peer.place {
            Place::Host { host, port } => (host.clone(), *port),
            Place::Service { namespace, name, port } => resolve::service(&self.cache, namespace, name, *port)?,
        };
        match tokio::time::timeout(DIAL_TIMEOUT, self.connect(peer, &host, port)).await {
            Ok(connected) => connected,
            Err(_) => Err(DialError::Timeout(join(&host, port))),
        }
    }

    async fn connect(&self, peer: &Peer, host: &str, port: u16) -> Result<Box<dyn Io>, DialError> {
        let stream = self.tcp(host, port).await?;
        let Security::Tls(trust) = &peer.security else { return Ok(Box::new(stream)) };
        let config = self.configurations.get(trust)?;
        // A service's server is known by the service's name, whichever endpoint answers.
        let host = peer.place.host();
        let name = ServerName::try_from(host.clone()).map_err(|_| DialError::NoHost(host))?;
        let stream = TlsConnector::from(config).connect(name, stream).await;
        Ok(Box::new(stream.map_err(|error| DialError::handshake(&error))?))
    }

    async fn tcp(&self, host: &str, port: u16) -> Result<TcpStream, DialError> {
        let mut failure = DialError::NoHost(host.to_owned());
        for address in self.addresses(host).await? {
            let address = SocketAddr::new(address, port);
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    // A connection that cannot be told not to wait is slower, no worse.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(error) => failure = DialError::connect(&address.to_string(), &error),
            }
        }
        Err(failure)
    }

    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, DialError> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let unknown = |error: &dyn std::fmt::Display| {
            tracing::debug!(host, %error, "a name cannot be looked up");
            DialError::NoHost(host.to_owned())
        };
        let make = || async { TokioResolver::builder_tokio()?.build() };
        let resolver = self.resolver.get_or_try_init(make).await.map_err(|error| unknown(&error))?;
        let found = resolver.lookup_ip(host).await.map_err(|error| unknown(&error))?;
        Ok(found.iter().collect())
    }
}
