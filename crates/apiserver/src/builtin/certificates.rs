//! The certificates.k8s.io group.

use kminik_meta::apply::Resets;

use crate::registry::def::ResourceDef;
use crate::strategies::certificates::{Approval, RequestStatus, Requests};

/// What the doors to a request leave as it was.
const RESETS: &[(&str, Resets<'static>)] = &[
    ("", Resets::Fields(&[&["spec"], &["status"]])),
    ("approval", Resets::Fields(&[&["spec"], &["status", "certificate"]])),
    ("status", Resets::Fields(&[&["spec"], &["status", "conditions"]])),
];

pub(super) fn rows() -> Vec<ResourceDef> {
    vec![
        ResourceDef::new("certificates.k8s.io", "v1", "certificatesigningrequests", "CertificateSigningRequest")
            .cluster()
            .short(&["csr"])
            .strategy(Requests)
            .with_view("approval", Approval)
            .with_view("status", RequestStatus)
            .policy(|policy| policy.resets = RESETS)
            .selectable(&["spec.signerName"]),
    ]
}
