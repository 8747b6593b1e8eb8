//! Signs the ConfigMap `cluster-info` with every bootstrap token that may sign: whoever holds such a token then knows that the
//! cluster's address and certificates are genuine, before it trusts any.
//!
//! A signature is a JSON web signature without its payload, as kubeadm checks it, under the key `jws-kubeconfig-<token id>`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::FutureExt;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::jiff::Timestamp;
use kminik_client::{Informer, Next, ObjectKey, Selection, WorkQueue};
use serde_json::json;

use crate::context::Context;
use crate::error::Error;
use crate::token_cleaner::{remaining, text, tokens};

const NAMESPACE: &str = "kube-public";
const NAME: &str = "cluster-info";
const KUBECONFIG: &str = "kubeconfig";
const SIGNATURE_PREFIX: &str = "jws-kubeconfig-";

struct Controller {
    context: Context,
    tokens: Informer<Secret>,
    maps: Informer<ConfigMap>,
}

pub(crate) async fn run(context: Context) -> Result<(), Error> {
    let controller = Arc::new(Controller {
        tokens: tokens(&context.informers),
        maps: context.informers.get_with(Selection::fields(format!("metadata.name={NAME}"))),
        context: context.clone(),
    });
    let queue = WorkQueue::new();
    let the_map = || ObjectKey::new(NAMESPACE, NAME);
    let _subscriptions = [
        controller.tokens.enqueue_with(&queue, move |_, keys| keys.push(the_map())),
        controller.maps.enqueue_with(&queue, move |_, keys| keys.push(the_map())),
    ];
    let synced = [controller.tokens.wait_synced().boxed(), controller.maps.wait_synced().boxed()];
    let worker = controller.clone();
    context.work(queue, 1, synced, move |key| reconcile(worker.clone(), key)).await
}

async fn reconcile(controller: Arc<Controller>, key: ObjectKey) -> Result<Next, Error> {
    let Some(map) = controller.maps.get(&key) else { return Ok(Next::Done) };
    let Some(kubeconfig) = map.data.as_ref().and_then(|data| data.get(KUBECONFIG)) else { return Ok(Next::Done) };
    let now = Timestamp::now();
    let wanted: BTreeMap<String, String> = controller
        .tokens
        .list_in("kube-system")
        .iter()
        .filter_map(|token| signing_key(token, now))
        .map(|(id, secret)| (format!("{SIGNATURE_PREFIX}{id}"), sign(kubeconfig, &id, &secret)))
        .collect();
    let mut new = map.as_ref().clone();
    let data = new.data.get_or_insert_default();
    data.retain(|field, _| !field.starts_with(SIGNATURE_PREFIX));
    data.extend(wanted);
    match controller.context.update(&key, &controller.maps, &map, &new).await {
        // Deleted in between: nothing is left to sign.
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(Next::Done),
    }
}

/// Id and secret of a token that is valid and may sign.
fn signing_key(token: &Secret, now: Timestamp) -> Option<(String, String)> {
    let (id, secret) = (text(token, "token-id")?, text(token, "token-secret")?);
    let named = token.metadata.name.as_deref() == Some(format!("bootstrap-token-{id}").as_str());
    let signs = text(token, "usage-bootstrap-signing") == Some("true");
    let expired = remaining(token, now) == Some(Duration::ZERO);
    (named && signs && !expired && !secret.is_empty()).then(|| (id.to_owned(), secret.to_owned()))
}

/// The signature of the text: an HMAC with the token's secret.
fn sign(text: &str, id: &str, secret: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(json!({"alg": "HS256", "kid": id}).to_string());
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(text));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
    let signature = ring::hmac::sign(&key, signed.as_bytes());
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(signature))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_that_kubeadm_expects() {
        let signature = sign("Hello from another ClusterInfo", "abcdef", "0123456789abcdef");
        let (header, mac) = signature.split_once("..").unwrap();
        assert_eq!(URL_SAFE_NO_PAD.decode(header).unwrap(), br#"{"alg":"HS256","kid":"abcdef"}"#);
        assert_eq!(URL_SAFE_NO_PAD.decode(mac).unwrap().len(), 32);
        assert_ne!(signature, sign("Hello from another ClusterInfo", "abcdef", "0123456789abcdee"));
    }
}
