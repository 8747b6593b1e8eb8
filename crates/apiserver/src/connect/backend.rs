//! Dialling what is behind a connection: TLS to kubelets, TLS or plain text to others.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::Config;

const DIAL_TIMEOUT: Duration = Duration::from_secs(30);

/// Any connection.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// How a backend is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Security {
    Plain,
    /// TLS whose certificate nobody verifies: the target is an address inside the cluster, as upstream does it.
    Unverified,
    /// A kubelet: its certificate is verified, and ours shown.
    Kubelet,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("dial tcp {address}")]
    Connect {
        address: String,
        #[source]
        source: std::io::Error,
    },
    #[error("dial tcp {address}: no connection within {seconds} s")]
    Timeout { address: String, seconds: u64 },
    #[error("the kubelet client's certificate or CA is not usable: {0}")]
    Certificate(String),
    #[error("{0:?} is no host name")]
    HostName(String),
}

/// TLS configurations, made at the first use.
#[derive(Default)]
pub(crate) struct Backend {
    kubelet: OnceLock<Arc<rustls::ClientConfig>>,
    unverified: OnceLock<Arc<rustls::ClientConfig>>,
}

impl Backend {
    pub(crate) async fn dial(
        &self,
        config: &Config,
        host: &str,
        port: u16,
        security: Security,
    ) -> Result<Box<dyn Io>, DialError> {
        let bare = host.trim_matches(['[', ']']);
        let address = if bare.contains(':') { format!("[{bare}]:{port}") } else { format!("{bare}:{port}") };
        let tls = match security {
            Security::Plain => None,
            Security::Unverified => Some(self.unverified()?),
            Security::Kubelet => Some(self.kubelet(config)?),
        };
        let connect = async {
            let failed = |source| DialError::Connect { address: address.clone(), source };
            let stream = TcpStream::connect(&address).await.map_err(failed)?;
            stream.set_nodelay(true).map_err(failed)?;
            let Some(tls) = tls else { return Ok(Box::new(stream) as Box<dyn Io>) };
            let name = ServerName::try_from(bare.to_owned()).map_err(|_| DialError::HostName(bare.to_owned()))?;
            let stream = TlsConnector::from(tls).connect(name, stream).await.map_err(failed)?;
            Ok(Box::new(stream) as Box<dyn Io>)
        };
        match tokio::time::timeout(DIAL_TIMEOUT, connect).await {
            Ok(connected) => connected,
            Err(_) => Err(DialError::Timeout { address: address.clone(), seconds: DIAL_TIMEOUT.as_secs() }),
        }
    }

    fn kubelet(&self, config: &Config) -> Result<Arc<rustls::ClientConfig>, DialError> {
        if let Some(made) = self.kubelet.get() {
            return Ok(made.clone());
        }
        fn bad(error: impl std::fmt::Display) -> DialError {
            DialError::Certificate(error.to_string())
        }
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(config.kubelet_ca_pem.as_bytes()) {
            roots.add(certificate.map_err(bad)?).map_err(bad)?;
        }
        let pair = &config.kubelet_client;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pair.certificate_pem.as_bytes()).collect();
        let key = PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes()).map_err(bad)?;
        let made = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(bad)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain.map_err(bad)?, key)
            .map_err(bad)?;
        Ok(self.kubelet.get_or_init(|| Arc::new(made)).clone())
    }

    fn unverified(&self) -> Result<Arc<rustls::ClientConfig>, DialError> {
        if let Some(made) = self.unverified.get() {
            return Ok(made.clone());
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let made = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| DialError::Certificate(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
            .with_no_client_auth();
        Ok(self.unverified.get_or_init(|| Arc::new(made)).clone())
    }
}

/// Accepts any certificate; signatures are still checked.
#[derive(Debug)]
struct Anyone(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
