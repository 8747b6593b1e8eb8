//! Who a client certificate names.

use std::collections::BTreeMap;

use x509_parser::prelude::{FromDer, X509Certificate};

/// The group of everyone who is known.
const AUTHENTICATED: &str = "system:authenticated";

/// An authenticated client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) groups: Vec<String>,
    pub(super) extra: BTreeMap<String, Vec<String>>,
}

/// The user that a verified certificate (DER) names: common name and organizations. `None` if it is out of date or
/// names nobody.
pub(super) fn of_certificate(leaf: &[u8]) -> Option<User> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    // The handshake checked this too, but connections outlive certificates.
    if !certificate.validity().is_valid() {
        return None;
    }
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok().filter(|name| !name.is_empty())?.to_owned();
    let organizations = subject.iter_organization().filter_map(|value| value.as_str().ok());
    let mut groups: Vec<String> = organizations.map(str::to_owned).collect();
    groups.push(AUTHENTICATED.to_owned());
    Some(User { name, groups, ..User::default() })
}
