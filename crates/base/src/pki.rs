//! Certificates: an authority and what it issues. ECDSA P-256 throughout; PEM in and out.

use std::net::IpAddr;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};

pub use self::request::{KeyUse, NewRequest, Request};

mod request;

/// How much earlier than it was issued a certificate is valid, for clocks differ.
const BACKDATED: Duration = Duration::from_secs(300);
/// A certificate with less left is issued anew.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 86_400);

/// A certificate with its key.
#[derive(Clone, Debug)]
pub struct Identity {
    /// PEM; the leaf only.
    pub cert_pem: String,
    /// PKCS#8 PEM.
    pub key_pem: String,
}

/// Whom a certificate names.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    /// CN.
    pub common_name: String,
    /// O; one at most, for rcgen's names hold one value of a type.
    pub organization: Option<String>,
}

impl Subject {
    pub fn new(common_name: &str, organization: Option<&str>) -> Self {
        Self { common_name: common_name.to_owned(), organization: organization.map(str::to_owned) }
    }
}

/// What a certificate may be used for.
#[derive(Clone, Debug)]
pub enum Usage {
    /// For these names and addresses.
    Server {
        names: Vec<String>,
        addresses: Vec<IpAddr>,
    },
    Client,
    /// A server that also authenticates as a client.
    Both {
        names: Vec<String>,
        addresses: Vec<IpAddr>,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("cannot make a certificate")]
    Generate(#[source] rcgen::Error),
    #[error("{0:?} is not a DNS name")]
    Name(String),
    #[error("cannot read the PEM of {what}")]
    Pem { what: &'static str },
    #[error("cannot use the key of the authority")]
    Key(#[source] rcgen::Error),
    #[error("the certificate's fields cannot be read")]
    Parse(#[source] x509_parser::nom::Err<x509_parser::error::X509Error>),
    #[error("the signing request cannot be read")]
    Request(#[source] rcgen::Error),
    #[error("PEM block type must be CERTIFICATE REQUEST")]
    NoRequest,
    #[error("the signing request is not signed by its own key")]
    RequestSignature(#[source] x509_parser::error::X509Error),
}

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    cert_pem: String,
    key_pem: String,
}

impl Authority {
    /// A new self-signed authority, valid from five minutes ago (clocks differ) for `validity`.
    pub fn generate(common_name: &str, validity: Duration) -> Result<Self, PkiError> {
        let key = KeyPair::generate().map_err(PkiError::Generate)?;
        let mut params = params(&Subject::new(common_name, None), validity)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let cert = params.self_signed(&key).map_err(PkiError::Generate)?;
        Self::from_pem(&cert.pem(), &key.serialize_pem())
    }

    pub fn from_pem(cert_pem: &str, key_pem: &str) -> Result<Self, PkiError> {
        let key = KeyPair::from_pem(key_pem).map_err(PkiError::Key)?;
        let issuer = Issuer::from_ca_cert_pem(cert_pem, key).map_err(PkiError::Key)?;
        Ok(Self { issuer, cert_pem: cert_pem.to_owned(), key_pem: key_pem.to_owned() })
    }

    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// Issues a certificate with a new key.
    pub fn issue(&self, subject: &Subject, usage: &Usage, validity: Duration) -> Result<Identity, PkiError> {
        let key = KeyPair::generate().map_err(PkiError::Generate)?;
        let mut params = params(subject, validity)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let (server, client, names, addresses): (bool, bool, &[String], &[IpAddr]) = match usage {
            Usage::Server { names, addresses } => (true, false, names, addresses),
            Usage::Client => (false, true, &[], &[]),
            Usage::Both { names, addresses } => (true, true, names, addresses),
        };
        if server {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        if client {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        params.subject_alt_names = alternative_names(names, addresses)?;
        let cert = params.signed_by(&key, &self.issuer).map_err(PkiError::Generate)?;
        Ok(Identity { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
    }
}

/// A new P-256 key: (private as PKCS#8 PEM, public as SubjectPublicKeyInfo PEM).
pub fn generate_key() -> Result<(String, String), PkiError> {
    let key = KeyPair::generate().map_err(PkiError::Generate)?;
    Ok((key.serialize_pem(), key.public_key_pem()))
}

/// When a certificate is valid, in seconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub not_before: i64,
    pub not_after: i64,
}

impl Validity {
    /// Of the first certificate of a PEM text.
    pub fn of(cert_pem: &str) -> Result<Self, PkiError> {
        let (_, pem) = x509_parser::pem::parse_x509_pem(cert_pem.as_bytes())
            .map_err(|_| PkiError::Pem { what: "the certificate" })?;
        let certificate = pem.parse_x509().map_err(PkiError::Parse)?;
        let validity = certificate.validity();
        Ok(Self { not_before: validity.not_before.timestamp(), not_after: validity.not_after.timestamp() })
    }

    /// Seconds for which it was issued.
    pub fn life(&self) -> i64 {
        self.not_after - self.not_before - BACKDATED.as_secs().cast_signed()
    }

    /// When another should take its place: thirty days before its end, or when a third of its life is left, whichever is later.
    pub fn renew_at(&self) -> i64 {
        self.not_after - RENEW_BEFORE.as_secs().cast_signed().min(self.life() / 3)
    }

    /// Whether it is valid now and not to be renewed yet. One from the future is neither: the clock was set back.
    pub fn is_fresh(&self, now: i64) -> bool {
        (self.not_before..self.renew_at()).contains(&now)
    }
}

fn params(subject: &Subject, validity: Duration) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::new(Vec::<String>::new()).map_err(PkiError::Generate)?;
    params.distinguished_name = distinguished_name(subject);
    params.serial_number = Some(serial());
    set_validity(&mut params, validity);
    Ok(params)
}

fn distinguished_name(subject: &Subject) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(organization) = &subject.organization {
        name.push(DnType::OrganizationName, organization.as_str());
    }
    name.push(DnType::CommonName, subject.common_name.as_str());
    name
}

fn alternative_names(names: &[String], addresses: &[IpAddr]) -> Result<Vec<SanType>, PkiError> {
    let dns = |name: &String| name.as_str().try_into().map(SanType::DnsName).map_err(|_| PkiError::Name(name.clone()));
    let mut all = names.iter().map(dns).collect::<Result<Vec<_>, _>>()?;
    all.extend(addresses.iter().copied().map(SanType::IpAddress));
    Ok(all)
}

fn set_validity(params: &mut CertificateParams, validity: Duration) {
    let now = std::time::SystemTime::now();
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + validity).into();
}

fn serial() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::random();
    // Positive, as RFC 5280 demands, and never zero.
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    SerialNumber::from_slice(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn what_is_issued_verifies_and_names_what_was_asked() {
        let authority = Authority::generate("test-ca", DAY).unwrap();
        let usage = Usage::Server { names: vec!["localhost".into()], addresses: vec!["127.0.0.1".parse().unwrap()] };
        let identity = authority.issue(&Subject::new("api", Some("a")), &usage, DAY).unwrap();
        let (_, ca) = x509_parser::pem::parse_x509_pem(authority.cert_pem().as_bytes()).unwrap();
        let (_, leaf) = x509_parser::pem::parse_x509_pem(identity.cert_pem.as_bytes()).unwrap();
        let (ca, leaf) = (ca.parse_x509().unwrap(), leaf.parse_x509().unwrap());
        leaf.verify_signature(Some(ca.public_key())).unwrap();
        let organizations: Vec<_> = leaf.subject().iter_organization().map(|o| o.as_str().unwrap()).collect();
        assert_eq!(organizations, ["a"]);
        assert!(leaf.subject_alternative_name().unwrap().is_some());
    }

    #[test]
    fn an_authority_read_back_issues_under_the_same_name() {
        let first = Authority::generate("test-ca", DAY).unwrap();
        let again = Authority::from_pem(first.cert_pem(), first.key_pem()).unwrap();
        let identity = again.issue(&Subject::new("x", None), &Usage::Client, DAY).unwrap();
        let (_, leaf) = x509_parser::pem::parse_x509_pem(identity.cert_pem.as_bytes()).unwrap();
        assert!(leaf.parse_x509().unwrap().issuer().to_string().contains("test-ca"));
        assert!(Validity::of(&identity.cert_pem).unwrap().not_after > 0);
    }

    #[test]
    fn a_certificate_is_renewed_before_its_end() {
        let day = 86_400;
        let issued = |life: i64| Validity { not_before: 1_000_000 - 300, not_after: 1_000_000 + life };
        for (life, left) in [(365 * day, 30 * day), (60 * day, 20 * day), (60, 20)] {
            let validity = issued(life);
            assert_eq!((validity.life(), validity.not_after - validity.renew_at()), (life, left));
            assert!(validity.is_fresh(1_000_000) && validity.is_fresh(validity.renew_at() - 1));
            assert!(!validity.is_fresh(validity.renew_at()) && !validity.is_fresh(1_000_000 - 301));
        }
        let authority = Authority::generate("test-ca", DAY).unwrap();
        assert_eq!(Validity::of(authority.cert_pem()).unwrap().life(), day);
    }
}
