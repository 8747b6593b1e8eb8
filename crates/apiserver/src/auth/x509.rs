//! Client certificates: the common name is the user, the organizations are the groups.
//!
//! The handshake has verified the chain and its leaf was read then; here it is asked whether that still holds.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use http::request::Parts;
use jiff::Timestamp;
use kminik_meta::StatusError;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{AUTHENTICATED, Authenticator, PeerCertificates, UserInfo};
use crate::metrics::Metrics;

/// Accepts the certificate that the handshake has verified.
pub struct ClientCertificates(pub(super) Arc<Metrics>);

#[async_trait]
impl Authenticator for ClientCertificates {
    async fn authenticate(&self, _request: &Parts, peer: &PeerCertificates) -> Result<Option<UserInfo>, StatusError> {
        if !peer.client {
            return Ok(None);
        }
        if let Some(named) = &peer.named {
            let left = named.not_after - Timestamp::now().as_second();
            self.0.table.auth.certificates.with([]).observe(left as f64);
        }
        peer.user().cloned().map(Some).ok_or_else(StatusError::unauthorized)
    }
}

/// Whom a certificate names, and from when until when (seconds since 1970).
#[derive(Debug)]
pub struct Named {
    user: UserInfo,
    not_before: i64,
    not_after: i64,
}

impl Named {
    /// Reads a certificate (DER); `None` if it cannot be read or names nobody.
    pub fn of(leaf: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
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
        let validity = certificate.validity();
        Some(Named {
            user: UserInfo { name, uid: String::new(), groups, extra },
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
        })
    }

    /// The user, unless the certificate is out of date: the handshake checked this too, but connections outlive certificates.
    pub fn user_at(&self, now: Timestamp) -> Option<&UserInfo> {
        (self.not_before..=self.not_after).contains(&now.as_second()).then_some(&self.user)
    }
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
        let (named, now) = (Named::of(&der).unwrap(), Timestamp::now());
        let user = named.user_at(now).unwrap();
        assert_eq!(
            (user.name.as_str(), user.groups.clone()),
            ("system:node:n1", vec!["system:nodes".to_owned(), AUTHENTICATED.to_owned()])
        );
        assert_eq!(named.user_at(now + 2 * year), None, "out of date");
        assert!(Named::of(b"nonsense").is_none());
    }
}
