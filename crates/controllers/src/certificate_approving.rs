//! A kubelet's request for a client certificate is approved if its user may create `certificatesigningrequests/selfnodeclient`
//! (for itself) or `certificatesigningrequests/nodeclient` (for any node, by a token of kminik's own only for the node that it was
//! made for). All other requests wait for a person.

use std::sync::Arc;

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kminik_base::pki::Request;
use kminik_client::{Informer, Next, ObjectKey};
use kube::Api;
use kube::api::PostParams;

use crate::certificates::{KUBELET_CLIENT_SIGNER, approve, is_decided, is_of_another_node, kubelet_client};
use crate::context::Context;
use crate::error::Error;

struct Controller {
    context: Context,
    requests: Informer<CertificateSigningRequest>,
}

pub(crate) async fn run(context: Context) -> Result<(), Error> {
    let controller = Arc::new(Controller { requests: context.informers.get(), context: context.clone() });
    let requests = controller.requests.clone();
    context.work_on(&requests, move |key| reconcile(controller.clone(), key)).await
}

async fn reconcile(controller: Arc<Controller>, key: ObjectKey) -> Result<Next, Error> {
    let Some(request) = controller.requests.get(&key) else { return Ok(Next::Done) };
    if is_decided(&request) || request.spec.signer_name != KUBELET_CLIENT_SIGNER {
        return Ok(Next::Done);
    }
    let Ok(asked) = Request::parse(&request.spec.request.0) else { return Ok(Next::Done) };
    if kubelet_client(&asked, request.spec.usages.as_deref().unwrap_or_default()).is_err() {
        return Ok(Next::Done);
    }
    if is_of_another_node(request.spec.groups.as_deref().unwrap_or_default(), &asked.common_name) {
        return Ok(Next::Done);
    }
    let own = request.spec.username.as_deref() == Some(&asked.common_name);
    let rights = [
        (own, "selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview."),
        (true, "nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview."),
    ];
    for (applies, subresource, message) in rights {
        if applies && controller.may(&key, &request, subresource).await? {
            return approve(&controller.context, &controller.requests, &request, message).await;
        }
    }
    Ok(Next::Done)
}

impl Controller {
    /// Whether who asks has the right.
    async fn may(
        &self,
        key: &ObjectKey,
        request: &CertificateSigningRequest,
        subresource: &str,
    ) -> Result<bool, Error> {
        let spec = &request.spec;
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: spec.username.clone(),
                uid: spec.uid.clone(),
                groups: spec.groups.clone(),
                extra: spec.extra.clone(),
                resource_attributes: Some(ResourceAttributes {
                    group: Some("certificates.k8s.io".into()),
                    resource: Some("certificatesigningrequests".into()),
                    subresource: Some(subresource.to_string()),
                    verb: Some("create".into()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let reviews: Api<SubjectAccessReview> = Api::all(self.context.client.clone());
        let answer = reviews.create(&PostParams::default(), &review).await.map_err(|source| Error::Request {
            verb: "create",
            kind: "SubjectAccessReview".into(),
            key: key.clone(),
            source: Box::new(source),
        })?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}
