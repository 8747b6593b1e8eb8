//! Client certificates: the common name is the user, the organizations are the groups.
//!
//! The handshake has verified the chain; here it is only read.

use std::collections::BTreeMap;

use async_trait::async_trait;
use http::request::Parts;
use kminik_meta::StatusError;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{AUTHENTICATED, Authenticator, PeerCertificates, UserInfo};

/// Accepts the certificate that the handshake has verified.
pub struct ClientCertificates;

#[async_trait]
impl Authenticator for ClientCertificates {
    async fn authenticate(&self, _request: &Parts, peer: &PeerCertificates) -> Result<Option<UserInfo>, StatusError> {
        let Some(leaf) = peer.chain.first().filter(|_| peer.client) else { return Ok(None) };
        user_of(leaf).map(Some).ok_or_else(StatusError::unauthorized)
    }
}

/// The common name of a certificate (DER), `None` if it cannot be read or is out of date.
pub(super) fn common_name(leaf: &[u8]) -> Option<String> {
    user_of(leaf).map(|user| user.name)
}

/// The user that a certificate (DER) names; `None` if it cannot be read, is out of date, or names nobody.
fn user_of(leaf: &[u8]) -> Option<UserInfo> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    // The handshake checked this too, but connections outlive certificates.
    if !certificate.validity().is_valid() {
        return None;
    }
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    if name.is_empty() {
        return None;
    }
    let mut groups: Vec<String> =
        subject.iter_organization().filter_map(|value| value.as_str().ok()).map(str::to_owned).collect();
    groups.push(AUTHENTICATED.to_owned());
    let id = format!("X509SHA256={}", hex::encode(Sha256::digest(leaf)));
    let extra = BTreeMap::from([("authentication.kubernetes.io/credential-id".to_owned(), vec![id])]);
    Some(UserInfo { name, uid: String::new(), groups, extra })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kminik_base::pki::{Authority, Subject, Usage};
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;

    use super::*;

    #[test]
    fn subjects_become_users() {
        let year = Duration::from_secs(365 * 86_400);
        let authority = Authority::generate("ca", year).unwrap();
        let subject = Subject::new("system:node:n1", Some("system:nodes"));
        let leaf = authority.issue(&subject, &Usage::Client, year).unwrap();
        let der = CertificateDer::from_pem_slice(leaf.cert_pem.as_bytes()).unwrap();
        let user = user_of(&der).unwrap();
        assert_eq!(
            (user.name.as_str(), user.groups),
            ("system:node:n1", vec!["system:nodes".into(), AUTHENTICATED.into()])
        );
        assert_eq!(user_of(b"nonsense"), None);
    }
}
