//! TLS configurations, one for each way of knowing a server.

use std::sync::Arc;

use indexmap::IndexMap;
use kminik_base::tls::{AnyCertificate, provider, public_roots};
use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use super::error::DialError;
use super::peer::{Trust, Verify};

/// Configurations that are kept; the oldest is made again when it is next needed.
const KEPT: usize = 128;

/// The configurations in use.
#[derive(Default)]
pub(super) struct Configurations {
    made: Mutex<IndexMap<Trust, Arc<ClientConfig>>>,
}

impl Configurations {
    pub(super) fn get(&self, trust: &Trust) -> Result<Arc<ClientConfig>, DialError> {
        if let Some(made) = self.made.lock().get(trust) {
            return Ok(made.clone());
        }
        let config = Arc::new(make(trust)?);
        let mut made = self.made.lock();
        if made.len() >= KEPT {
            made.shift_remove_index(0);
        }
        made.insert(trust.clone(), config.clone());
        Ok(config)
    }
}

fn make(trust: &Trust) -> Result<ClientConfig, DialError> {
    fn identity(error: impl std::fmt::Display) -> DialError {
        DialError::Identity(error.to_string())
    }
    let provider = provider();
    let verifier: Arc<dyn ServerCertVerifier> = match &trust.verify {
        Verify::Nothing => Arc::new(AnyCertificate::new(provider.clone())),
        Verify::Public => webpki(public_roots())?,
        Verify::Bundle(pem) => {
            let anchors: Vec<_> = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).collect();
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(anchors.iter().cloned());
            if roots.is_empty() {
                return Err(DialError::Roots("unable to parse bytes as PEM block".to_owned()));
            }
            Arc::new(Bundle { webpki: webpki(roots)?, anchors })
        }
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(identity)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match &trust.identity {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(own.certificate_pem.as_bytes()).collect();
            let key = PrivateKeyDer::from_pem_slice(own.key_pem.as_bytes()).map_err(identity)?;
            builder.with_client_auth_cert(chain.map_err(identity)?, key).map_err(identity)?
        }
    };
    // As upstream: several connections of HTTP/1.1 spread over the endpoints of a service, one of HTTP/2 would not.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn webpki(roots: RootCertStore) -> Result<Arc<WebPkiServerVerifier>, DialError> {
    let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
    builder.build().map_err(|error| DialError::Roots(error.to_string()))
}

/// Verifies against a bundle, as Go does: a server may also present a certificate of the bundle itself, be it an
/// authority's, which webpki takes for nobody's own.
#[derive(Debug)]
struct Bundle {
    webpki: Arc<WebPkiServerVerifier>,
    anchors: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Bundle {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if !self.anchors.iter().any(|anchor| anchor == end_entity) {
            return self.webpki.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        }
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let (_, parsed) = x509_parser::parse_x509_certificate(end_entity)
            .map_err(|_| rustls::Error::InvalidCertificate(rustls::CertificateError::BadEncoding))?;
        let validity = parsed.validity();
        if seconds > validity.not_after.timestamp() || seconds < validity.not_before.timestamp() {
            return Err(rustls::Error::InvalidCertificate(rustls::CertificateError::Expired));
        }
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}
