//! What the controllers of certificate signing requests share.

use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestStatus,
};
use kminik_base::pki::Request;
use kminik_client::{Informer, Next, ObjectKey};
use kube::api::Patch;
use serde_json::json;

use crate::context::Context;
use crate::error::Error;

pub(crate) const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
pub(crate) const KUBELET_CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub(crate) const KUBELET_SERVING_SIGNER: &str = "kubernetes.io/kubelet-serving";
pub(crate) const DIGITAL_SIGNATURE: &str = "digital signature";
pub(crate) const KEY_ENCIPHERMENT: &str = "key encipherment";
pub(crate) const CLIENT_AUTH: &str = "client auth";
pub(crate) const SERVER_AUTH: &str = "server auth";
pub(crate) const NODE_PREFIX: &str = "system:node:";
pub(crate) const NODES: &str = "system:nodes";
/// Of the bearers of kminik's own tokens, each of which is for one node.
const BOOTSTRAPPERS: &str = "system:bootstrappers:kminik";

/// The groups of a bootstrap token by which the node that is called so may join, and no other.
pub fn bootstrap_groups(node: &str) -> [String; 2] {
    // A group of a token has no dot, a name of a node no colon.
    [BOOTSTRAPPERS.to_owned(), format!("{BOOTSTRAPPERS}:node:{}", node.replace('.', ":"))]
}

/// Whether the user `system:node:…` is one whom members of these groups may not become: their token was made for another node.
pub(crate) fn is_of_another_node(groups: &[String], user: &str) -> bool {
    let [all, own] = bootstrap_groups(user.strip_prefix(NODE_PREFIX).unwrap_or_default());
    groups.contains(&all) && !groups.contains(&own)
}

/// The condition of that type.
pub(crate) fn condition<'a>(
    request: &'a CertificateSigningRequest,
    kind: &str,
) -> Option<&'a CertificateSigningRequestCondition> {
    let conditions = request.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().find(|condition| condition.type_ == kind)
}

/// The certificate that was issued.
pub(crate) fn issued(request: &CertificateSigningRequest) -> Option<&[u8]> {
    let certificate = request.status.as_ref().and_then(|status| status.certificate.as_ref());
    certificate.map(|certificate| certificate.0.as_slice()).filter(|certificate| !certificate.is_empty())
}

/// Adds a condition that is true.
pub(crate) fn add_condition(status: &mut CertificateSigningRequestStatus, kind: &str, reason: &str, message: String) {
    status.conditions.get_or_insert_default().push(CertificateSigningRequestCondition {
        type_: kind.to_string(),
        status: "True".to_string(),
        reason: Some(reason.to_string()),
        message: Some(message),
        ..CertificateSigningRequestCondition::default()
    });
}

/// Whether nobody has to say yes or no to it any more.
pub(crate) fn is_decided(request: &CertificateSigningRequest) -> bool {
    ["Approved", "Denied"].iter().any(|kind| condition(request, kind).is_some()) || issued(request).is_some()
}

/// Says yes.
pub(crate) async fn approve(
    context: &Context,
    requests: &Informer<CertificateSigningRequest>,
    request: &CertificateSigningRequest,
    message: &str,
) -> Result<Next, Error> {
    let mut status = request.status.clone().unwrap_or_default();
    add_condition(&mut status, "Approved", "AutoApproved", message.to_string());
    // The whole list is written, so it must be the one that was read.
    let metadata = json!({"uid": request.metadata.uid, "resourceVersion": request.metadata.resource_version});
    let patch = json!({"metadata": metadata, "status": {"conditions": status.conditions}});
    let key = ObjectKey::of(request);
    context.patch(&key, requests, &key, Some("approval"), &Patch::Merge(patch)).await?;
    Ok(Next::Done)
}

/// Why a request does not fit its signer, in upstream's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    #[error("subject organization is not system:nodes")]
    Organization,
    #[error("subject common name does not begin with system:node:")]
    CommonName,
    #[error("DNS or IP subjectAltName is required")]
    NoSubjectAltNames,
    #[error("DNS, IP, Email or URI subjectAltNames are not allowed")]
    SubjectAltNames,
    #[error("Email and URI subjectAltNames are not allowed")]
    OtherSubjectAltNames,
    #[error("usages did not match expected")]
    Usages,
}

/// Whether the usages are exactly `needed`, perhaps with [`KEY_ENCIPHERMENT`].
fn usages_are(usages: &[String], needed: &[&str]) -> Result<(), Unfit> {
    let known = |usage: &String| needed.contains(&usage.as_str()) || usage == KEY_ENCIPHERMENT;
    let fits = usages.iter().all(known) && needed.iter().all(|need| usages.iter().any(|usage| usage == need));
    if fits { Ok(()) } else { Err(Unfit::Usages) }
}

fn names_a_node(asked: &Request) -> Result<(), Unfit> {
    if asked.organizations != [NODES] {
        return Err(Unfit::Organization);
    }
    if asked.common_name.starts_with(NODE_PREFIX) { Ok(()) } else { Err(Unfit::CommonName) }
}

/// Whether a kubelet asks for a certificate to reach the API server with.
pub(crate) fn kubelet_client(asked: &Request, usages: &[String]) -> Result<(), Unfit> {
    names_a_node(asked)?;
    if asked.other_names || !asked.dns_names.is_empty() || !asked.addresses.is_empty() {
        return Err(Unfit::SubjectAltNames);
    }
    usages_are(usages, &[DIGITAL_SIGNATURE, CLIENT_AUTH])
}

/// Whether a kubelet asks for a certificate to serve with.
pub(crate) fn kubelet_serving(asked: &Request, usages: &[String]) -> Result<(), Unfit> {
    names_a_node(asked)?;
    if asked.dns_names.is_empty() && asked.addresses.is_empty() {
        return Err(Unfit::NoSubjectAltNames);
    }
    if asked.other_names {
        return Err(Unfit::OtherSubjectAltNames);
    }
    usages_are(usages, &[DIGITAL_SIGNATURE, SERVER_AUTH])
}

/// Whether a user asks for a certificate to reach the API server with.
pub(crate) fn client(usages: &[String]) -> Result<(), Unfit> {
    let known = |usage: &String| [DIGITAL_SIGNATURE, KEY_ENCIPHERMENT, CLIENT_AUTH].contains(&usage.as_str());
    let fits = usages.iter().all(known) && usages.iter().any(|usage| usage == CLIENT_AUTH);
    if fits { Ok(()) } else { Err(Unfit::Usages) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signers_take_what_is_meant_for_them() {
        let usages = |list: &[&str]| -> Vec<String> { list.iter().map(ToString::to_string).collect() };
        let node = Request {
            common_name: "system:node:n".into(),
            organizations: vec!["system:nodes".into()],
            ..Request::default()
        };
        let (signs, serves) = (usages(&[DIGITAL_SIGNATURE, CLIENT_AUTH]), usages(&[DIGITAL_SIGNATURE, SERVER_AUTH]));
        assert_eq!(kubelet_client(&node, &signs), Ok(()));
        assert_eq!(kubelet_client(&node, &serves), Err(Unfit::Usages));
        assert_eq!(kubelet_serving(&node, &serves), Err(Unfit::NoSubjectAltNames));
        let named = Request { dns_names: vec!["n".into()], ..node.clone() };
        assert_eq!(kubelet_serving(&named, &serves), Ok(()));
        assert_eq!(kubelet_client(&named, &signs), Err(Unfit::SubjectAltNames));
        let other = Request { organizations: vec!["system:nodes".into(), "x".into()], ..node.clone() };
        assert_eq!(kubelet_client(&other, &signs), Err(Unfit::Organization));
        let user = Request { common_name: "u".into(), ..node };
        assert_eq!(kubelet_client(&user, &signs), Err(Unfit::CommonName));
        assert_eq!((client(&signs), client(&serves)), (Ok(()), Err(Unfit::Usages)));
    }

    #[test]
    fn a_token_is_for_one_node() {
        let groups = bootstrap_groups("a.b-m02");
        assert!(groups.iter().all(|group| group.bytes().all(|b| b.is_ascii_alphanumeric() || b":-".contains(&b))));
        assert!(!is_of_another_node(&groups, "system:node:a.b-m02"));
        for other in ["system:node:a.b-m03", "system:node:a", "system:node:", "a.b-m02"] {
            assert!(is_of_another_node(&groups, other), "{other}");
        }
        // Those that people make are for any, as upstream's are.
        let of_kubeadm = ["system:bootstrappers:kubeadm:default-node-token".to_owned()];
        assert!(!is_of_another_node(&of_kubeadm, "system:node:any"));
    }
}
