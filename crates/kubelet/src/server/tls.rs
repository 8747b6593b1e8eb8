//! The server's TLS: a client certificate is asked for and verified, but may be missing.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;

use super::{ServerConfig, ServerError};

pub(super) fn server(config: &ServerConfig) -> Result<rustls::ServerConfig, ServerError> {
    fn bad(error: impl std::fmt::Display) -> ServerError {
        ServerError::Certificate(error.to_string())
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(config.client_ca_pem.as_bytes()) {
        roots.add(certificate.map_err(bad)?).map_err(bad)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(bad)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(config.certificate_pem.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(config.key_pem.as_bytes()).map_err(bad)?;
    let mut server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(bad)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.map_err(bad)?, key)
        .map_err(bad)?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(server)
}
