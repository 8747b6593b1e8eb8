//! Approved requests for the signers of this cluster are signed by its authority: client certificates of users and of kubelets, and
//! serving certificates of kubelets. A request that does not fit its signer fails for good.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestStatus};
use kminik_base::pki::{Authority, KeyUse, PkiError, Request};
use kminik_client::{Informer, Next, ObjectKey};
use kube::api::Patch;
use serde_json::json;

use crate::certificates::{
    CLIENT_AUTH, CLIENT_SIGNER, DIGITAL_SIGNATURE, KEY_ENCIPHERMENT, KUBELET_CLIENT_SIGNER, KUBELET_SERVING_SIGNER,
    SERVER_AUTH, Unfit, add_condition, client, condition, issued, kubelet_client, kubelet_serving,
};
use crate::context::Context;
use crate::error::Error;

/// A certificate is valid so long if its request does not ask for less.
const VALIDITY: Duration = Duration::from_secs(365 * 86_400);

struct Controller {
    context: Context,
    authority: Arc<Authority>,
    requests: Informer<CertificateSigningRequest>,
}

/// Why a request is not signed, now or ever.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Unfit(#[from] Unfit),
    #[error("unable to parse csr {name:?}: {source}")]
    Request { name: String, source: PkiError },
}

pub(crate) async fn run(context: Context) -> Result<(), Error> {
    let Some(authority) = context.config.authority.clone() else {
        context.ready.set_ready();
        context.stop.cancelled().await;
        return Ok(());
    };
    let requests = context.informers.get();
    let controller = Arc::new(Controller { authority, requests, context: context.clone() });
    let requests = controller.requests.clone();
    context.work_on(&requests, move |key| reconcile(controller.clone(), key)).await
}

async fn reconcile(controller: Arc<Controller>, key: ObjectKey) -> Result<Next, Error> {
    let Some(request) = controller.requests.get(&key) else { return Ok(Next::Done) };
    let has = |kind| condition(&request, kind).is_some();
    if !has("Approved") || has("Denied") || has("Failed") || issued(&request).is_some() {
        return Ok(Next::Done);
    }
    let mut status = request.status.clone().unwrap_or_default();
    match controller.sign(&request) {
        None => return Ok(Next::Done),
        Some(Ok(certificate)) => status.certificate = Some(ByteString(certificate.into_bytes())),
        Some(Err(refusal)) => {
            add_condition(&mut status, "Failed", "SignerValidationFailure", refusal.to_string());
        }
    }
    controller.write(&key, &request, &status).await
}

impl Controller {
    /// The certificate; nothing if the request is for another signer.
    fn sign(&self, request: &CertificateSigningRequest) -> Option<Result<String, Refusal>> {
        let usages = request.spec.usages.as_deref().unwrap_or_default();
        let fits: fn(&Request, &[String]) -> Result<(), Unfit> = match request.spec.signer_name.as_str() {
            CLIENT_SIGNER => |_, usages| client(usages),
            KUBELET_CLIENT_SIGNER => kubelet_client,
            KUBELET_SERVING_SIGNER => kubelet_serving,
            _ => return None,
        };
        let unreadable = |source| Refusal::Request { name: request.metadata.name.clone().unwrap_or_default(), source };
        let asked = match Request::parse(&request.spec.request.0) {
            Ok(asked) => asked,
            Err(source) => return Some(Err(unreadable(source))),
        };
        if let Err(unfit) = fits(&asked, usages) {
            return Some(Err(unfit.into()));
        }
        let uses: Vec<KeyUse> = usages.iter().filter_map(|usage| key_use(usage)).collect();
        let wanted = request.spec.expiration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let validity = wanted.map_or(VALIDITY, |seconds| VALIDITY.min(Duration::from_secs(seconds)));
        let pem = String::from_utf8_lossy(&request.spec.request.0);
        Some(self.authority.sign_request(&pem, &uses, validity).map_err(unreadable))
    }

    async fn write(
        &self,
        key: &ObjectKey,
        request: &CertificateSigningRequest,
        status: &CertificateSigningRequestStatus,
    ) -> Result<Next, Error> {
        // The list of conditions is written whole, so it must be the one that was read.
        let metadata = json!({"uid": request.metadata.uid, "resourceVersion": request.metadata.resource_version});
        let patch = json!({"metadata": metadata, "status": status});
        self.context.patch(key, &self.requests, key, Some("status"), &Patch::Merge(patch)).await?;
        Ok(Next::Done)
    }
}

fn key_use(usage: &str) -> Option<KeyUse> {
    Some(match usage {
        DIGITAL_SIGNATURE => KeyUse::DigitalSignature,
        KEY_ENCIPHERMENT => KeyUse::KeyEncipherment,
        SERVER_AUTH => KeyUse::ServerAuth,
        CLIENT_AUTH => KeyUse::ClientAuth,
        _ => return None,
    })
}
