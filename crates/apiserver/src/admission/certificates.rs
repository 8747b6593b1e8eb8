//! CertificateApproval, CertificateSigning and CertificateSubjectRestriction: who may decide for a signer, who may sign for it,
//! and which group nobody is made a member of.

use std::sync::Arc;

use async_trait::async_trait;
use kminik_meta::{Object, StatusError, field::quote};

use super::{Admission, Attributes, Operation};
use crate::auth::{Attributes as AuthAttributes, Authorizer, MASTERS, UserInfo};
use crate::strategies::certificates::asked;

const GROUP: &str = "certificates.k8s.io";
const PLURAL: &str = "certificatesigningrequests";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// Changes of one door need a right on the signer that the request names.
pub(super) struct SignerRights {
    name: &'static str,
    subresource: &'static str,
    verb: &'static str,
    authorizer: Arc<dyn Authorizer>,
}

impl SignerRights {
    pub(super) fn approval(authorizer: Arc<dyn Authorizer>) -> Self {
        SignerRights { name: "CertificateApproval", subresource: "approval", verb: "approve", authorizer }
    }

    pub(super) fn signing(authorizer: Arc<dyn Authorizer>) -> Self {
        SignerRights { name: "CertificateSigning", subresource: "status", verb: "sign", authorizer }
    }

    /// Whether the user has the right on the signer, or on all signers of its domain.
    async fn granted(&self, user: &UserInfo, signer: &str) -> bool {
        let domain = signer.split('/').next().unwrap_or_default();
        for name in [signer.to_owned(), format!("{domain}/*")] {
            let question = AuthAttributes {
                user: user.clone(),
                verb: self.verb.into(),
                resource_request: true,
                group: GROUP.into(),
                version: "*".into(),
                resource: "signers".into(),
                name,
                ..AuthAttributes::default()
            };
            if self.authorizer.authorize(&question).await.allowed() {
                return true;
            }
        }
        false
    }
}

#[async_trait]
impl Admission for SignerRights {
    fn name(&self) -> &'static str {
        self.name
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Update
            && attributes.subresource == self.subresource
            && attributes.row.group == GROUP
            && attributes.row.plural == PLURAL
    }

    async fn validate(&self, attributes: &Attributes<'_>, request: Option<&Object>) -> Result<(), StatusError> {
        let (Some(old), Some(new)) = (attributes.old, request) else { return Ok(()) };
        let same = |member: &str| old.get(&["status", member]) == new.get(&["status", member]);
        if self.subresource == "status" && same("certificate") && same("conditions") {
            return Ok(());
        }
        let signer = old.str(&["spec", "signerName"]).unwrap_or_default();
        if self.granted(attributes.user, signer).await {
            return Ok(());
        }
        let why = format!("user not permitted to {} requests with signerName {}", self.verb, quote(signer));
        Err(attributes.forbidden(why))
    }
}

/// No client certificate of this cluster's makes its holder a member of `system:masters`.
pub(super) struct SubjectRestriction;

#[async_trait]
impl Admission for SubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is(Operation::Create, GROUP, PLURAL)
    }

    async fn validate(&self, attributes: &Attributes<'_>, request: Option<&Object>) -> Result<(), StatusError> {
        let Some(request) = request.filter(|r| r.str(&["spec", "signerName"]) == Some(CLIENT_SIGNER)) else {
            return Ok(());
        };
        let asked = asked(request).map_err(|error| attributes.forbidden(error))?;
        if asked.organizations.iter().any(|group| group == MASTERS) {
            let why = format!("use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed");
            return Err(attributes.forbidden(why));
        }
        Ok(())
    }
}
