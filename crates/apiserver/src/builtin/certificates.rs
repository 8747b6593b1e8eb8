//! The certificates.k8s.io group.

use crate::registry::def::ResourceDef;
use crate::strategies::certificates::{Approval, RequestStatus, Requests};

pub(super) fn rows() -> Vec<ResourceDef> {
    vec![
        ResourceDef::new("certificates.k8s.io", "v1", "certificatesigningrequests", "CertificateSigningRequest")
            .cluster()
            .short(&["csr"])
            .strategy(Requests)
            .with_view("approval", Approval)
            .with_view("status", RequestStatus)
            .selectable(&["spec.signerName"]),
    ]
}
