//! Certificate signing requests: reading one, and signing it with its subject as it stands.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    SigningKey,
};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use super::{Authority, PkiError, Subject, Validity, alternative_names, distinguished_name, serial, set_validity};

const LABEL: &str = "CERTIFICATE REQUEST";
/// Tags of DER.
const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;

/// What a certificate that is signed on request may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyUse {
    DigitalSignature,
    KeyEncipherment,
    ServerAuth,
    ClientAuth,
}

/// A request for a certificate, with the key that it is for.
#[derive(Clone, Debug)]
pub struct NewRequest {
    /// PEM.
    pub request_pem: String,
    /// PKCS#8 PEM.
    pub key_pem: String,
}

impl NewRequest {
    /// Makes a key and a request that is signed by it.
    ///
    /// # Errors
    /// When a name is not a DNS name.
    pub fn make(subject: &Subject, names: &[String], addresses: &[IpAddr]) -> Result<Self, PkiError> {
        let key = KeyPair::generate().map_err(PkiError::Generate)?;
        let mut params = CertificateParams::new(Vec::<String>::new()).map_err(PkiError::Generate)?;
        params.distinguished_name = distinguished_name(subject);
        params.subject_alt_names = alternative_names(names, addresses)?;
        let request = params.serialize_request(&key).map_err(PkiError::Generate)?;
        let request_pem = request.pem().map_err(PkiError::Generate)?;
        Ok(Self { request_pem, key_pem: key.serialize_pem() })
    }
}

/// What a request asks for. Its signature has been verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// CN, empty if there is none.
    pub common_name: String,
    /// O, each.
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    /// It asks for names of other kinds (mail addresses, URIs) too.
    pub other_names: bool,
}

impl Request {
    /// Reads a PEM request.
    ///
    /// # Errors
    /// When it is none, or not signed by its own key.
    pub fn parse(pem: &[u8]) -> Result<Self, PkiError> {
        with_request(pem, |request| {
            request.verify_signature().map_err(PkiError::RequestSignature)?;
            let subject = &request.certification_request_info.subject;
            let texts = |names: Vec<Option<&str>>| names.into_iter().flatten().map(str::to_owned).collect();
            let mut facts = Request {
                common_name: subject.iter_common_name().find_map(|name| name.as_str().ok()).unwrap_or_default().into(),
                organizations: texts(subject.iter_organization().map(|name| name.as_str().ok()).collect()),
                ..Request::default()
            };
            for extension in request.requested_extensions().into_iter().flatten() {
                let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
                for name in &names.general_names {
                    match name {
                        GeneralName::DNSName(name) => facts.dns_names.push((*name).to_owned()),
                        GeneralName::IPAddress(bytes) => match address(bytes) {
                            Some(address) => facts.addresses.push(address),
                            None => facts.other_names = true,
                        },
                        _ => facts.other_names = true,
                    }
                }
            }
            Ok(facts)
        })
    }
}

fn with_request<T>(
    pem: &[u8],
    read: impl FnOnce(&X509CertificationRequest<'_>) -> Result<T, PkiError>,
) -> Result<T, PkiError> {
    let (_, block) = x509_parser::pem::parse_x509_pem(pem).map_err(|_| PkiError::NoRequest)?;
    if block.label != LABEL {
        return Err(PkiError::NoRequest);
    }
    let (_, request) = X509CertificationRequest::from_der(&block.contents).map_err(PkiError::Parse)?;
    read(&request)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    v4.or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
}

impl Authority {
    /// Signs a request for these uses: the caller has decided that its subject and names may be granted. The certificate
    /// is valid from five minutes ago for `validity`, but not longer than the authority's own.
    ///
    /// # Errors
    /// When the request cannot be read, or asks for what is not supported.
    pub fn sign_request(&self, request_pem: &str, uses: &[KeyUse], validity: Duration) -> Result<String, PkiError> {
        let mut request = CertificateSigningRequestParams::from_pem(request_pem).map_err(PkiError::Request)?;
        let params = &mut request.params;
        set_validity(params, validity.min(self.remaining()?));
        params.serial_number = Some(serial());
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = Vec::new();
        params.extended_key_usages = Vec::new();
        for one in uses {
            match one {
                KeyUse::DigitalSignature => params.key_usages.push(KeyUsagePurpose::DigitalSignature),
                KeyUse::KeyEncipherment => params.key_usages.push(KeyUsagePurpose::KeyEncipherment),
                KeyUse::ServerAuth => params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth),
                KeyUse::ClientAuth => params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth),
            }
        }
        let made = request.signed_by(&self.issuer).map_err(PkiError::Generate)?;
        let subject = with_request(request_pem.as_bytes(), |request| {
            Ok(request.certification_request_info.subject.as_raw().to_vec())
        })?;
        let der = self.with_subject(made.der(), &subject)?;
        Ok(pem(&der))
    }

    /// How long the authority itself is valid still.
    fn remaining(&self) -> Result<Duration, PkiError> {
        let end = u64::try_from(Validity::of(self.cert_pem())?.not_after).unwrap_or_default();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Ok(Duration::from_secs(end).saturating_sub(now))
    }

    /// The certificate with this subject, signed again: rcgen's names hold one value of a type, real ones may hold several
    /// (the groups of a user).
    fn with_subject(&self, certificate: &[u8], subject: &[u8]) -> Result<Vec<u8>, PkiError> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(PkiError::Parse)?;
        let body: &[u8] = parsed.tbs_certificate.as_ref();
        let present = parsed.subject().as_raw();
        let bad = || PkiError::Pem { what: "the certificate just made" };
        let offset = |inner: &[u8], outer: &[u8]| (inner.as_ptr() as usize).checked_sub(outer.as_ptr() as usize);
        // A certificate is its body, the algorithm and the signature; the body's header goes, its content stays.
        let start = offset(present, body).ok_or_else(bad)?;
        let before = body.get(header(body).ok_or_else(bad)?..start).ok_or_else(bad)?;
        let after = body.get(start + present.len()..).ok_or_else(bad)?;
        let algorithm_at = offset(body, certificate).ok_or_else(bad)? + body.len();
        let rest = certificate.get(algorithm_at..).ok_or_else(bad)?;
        let length = usize::from(*rest.get(1).filter(|length| **length < 0x80).ok_or_else(bad)?);
        let algorithm = rest.get(..2 + length).ok_or_else(bad)?;
        let body = der(SEQUENCE, &[before, subject, after].concat());
        let signature = self.issuer.key().sign(&body).map_err(PkiError::Generate)?;
        let signature = der(BIT_STRING, &[&[0], signature.as_slice()].concat());
        Ok(der(SEQUENCE, &[body.as_slice(), algorithm, &signature].concat()))
    }
}

/// Bytes of tag and length at the beginning of a DER value.
fn header(value: &[u8]) -> Option<usize> {
    let length = *value.get(1)?;
    Some(if length < 0x80 { 2 } else { 2 + usize::from(length & 0x7f) })
}

/// A DER value.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut value = vec![tag];
    let length = content.len();
    if length < 0x80 {
        value.extend(u8::try_from(length));
    } else {
        let bytes = length.to_be_bytes();
        let bytes: Vec<u8> = bytes.into_iter().skip_while(|byte| *byte == 0).collect();
        value.extend(u8::try_from(0x80 | bytes.len()));
        value.extend(bytes);
    }
    value.extend_from_slice(content);
    value
}

fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::prelude::BASE64_STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    /// A request of this user with two groups and a name.
    fn request() -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["n.example.com".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "user");
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "a");
        params.distinguished_name.push(rcgen::DnType::CustomDnType(vec![2, 5, 4, 10]), "b");
        params.serialize_request(&key).unwrap().pem().unwrap()
    }

    #[test]
    fn a_request_is_read() {
        let facts = Request::parse(request().as_bytes()).unwrap();
        let mut organizations = facts.organizations.clone();
        organizations.sort();
        assert_eq!((facts.common_name.as_str(), organizations), ("user", vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!((facts.dns_names, facts.other_names), (vec!["n.example.com".to_owned()], false));
        assert!(matches!(Request::parse(b"rubbish"), Err(PkiError::NoRequest)));
        let authority = Authority::generate("ca", DAY).unwrap();
        assert!(matches!(Request::parse(authority.cert_pem().as_bytes()), Err(PkiError::NoRequest)));
    }

    #[test]
    fn what_is_made_asks_for_what_was_said() {
        let subject = Subject::new("system:node:n", Some("system:nodes"));
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let made = NewRequest::make(&subject, &["n".to_owned()], &[address]).unwrap();
        let asked = Request::parse(made.request_pem.as_bytes()).unwrap();
        assert_eq!(
            (asked.common_name.as_str(), asked.organizations),
            ("system:node:n", vec!["system:nodes".to_owned()])
        );
        assert_eq!((asked.dns_names, asked.addresses), (vec!["n".to_owned()], vec![address]));
        assert!(made.key_pem.contains("PRIVATE KEY"));
    }

    #[test]
    fn what_is_signed_verifies_and_keeps_the_whole_subject() {
        let authority = Authority::generate("ca", DAY).unwrap();
        let uses = [KeyUse::DigitalSignature, KeyUse::ClientAuth];
        let signed = authority.sign_request(&request(), &uses, 400 * DAY).unwrap();
        let (_, block) = x509_parser::pem::parse_x509_pem(signed.as_bytes()).unwrap();
        let (_, ca) = x509_parser::pem::parse_x509_pem(authority.cert_pem().as_bytes()).unwrap();
        let (leaf, ca) = (block.parse_x509().unwrap(), ca.parse_x509().unwrap());
        leaf.verify_signature(Some(ca.public_key())).unwrap();
        assert_eq!(leaf.subject().iter_organization().count(), 2);
        assert!(leaf.validity().not_after <= ca.validity().not_after);
        assert!(!leaf.is_ca());
        let usage = leaf.extended_key_usage().unwrap().unwrap();
        assert!(usage.value.client_auth && !usage.value.server_auth);
    }
}
