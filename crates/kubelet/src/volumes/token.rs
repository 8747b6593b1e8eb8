//! Tokens of service accounts, bound to their pod, kept until 80 % of their life is over.

use std::collections::HashMap;

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ServiceAccount, ServiceAccountTokenProjection};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{Api, PostParams};
use parking_lot::Mutex;

use super::VolumeError;
use crate::pods::view::PodView;

const DEFAULT_LIFE: i64 = 3600;
/// A token is never kept longer than this, whatever its life.
const LONGEST_KEPT: SignedDuration = SignedDuration::from_hours(24);

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    pod: String,
    account: String,
    audience: String,
    seconds: i64,
}

struct Kept {
    token: String,
    renew_at: Timestamp,
}

/// All tokens of the node.
pub(crate) struct Tokens {
    client: kube::Client,
    kept: Mutex<HashMap<Key, Kept>>,
}

impl Tokens {
    pub(crate) fn new(client: kube::Client) -> Self {
        Self { client, kept: Mutex::default() }
    }

    /// The token a projection asks for: the kept one, or a new one from the API.
    pub(crate) async fn get(
        &self,
        view: &PodView,
        source: &ServiceAccountTokenProjection,
    ) -> Result<String, VolumeError> {
        let account =
            view.spec().service_account_name.clone().filter(|n| !n.is_empty()).unwrap_or_else(|| "default".into());
        let seconds = source.expiration_seconds.unwrap_or(DEFAULT_LIFE);
        let audience = source.audience.clone().unwrap_or_default();
        let key = Key { pod: view.uid.clone(), account: account.clone(), audience: audience.clone(), seconds };
        let now = Timestamp::now();
        if let Some(kept) = self.kept.lock().get(&key).filter(|kept| kept.renew_at > now) {
            return Ok(kept.token.clone());
        }
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: if audience.is_empty() { Vec::new() } else { vec![audience] },
                expiration_seconds: Some(seconds),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Pod".into()),
                    name: Some(view.name.clone()),
                    uid: Some(view.uid.clone()),
                }),
            },
            ..TokenRequest::default()
        };
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &view.namespace);
        let answer = accounts.create_token_request(&account, &PostParams::default(), &request).await;
        let answer =
            answer.map_err(|source| VolumeError::Token { account: account.clone(), source: Box::new(source) })?;
        let status = answer.status.ok_or(VolumeError::NoToken(account))?;
        let life = status.expiration_timestamp.0.duration_since(now);
        let renew_at = now.checked_add((life * 4 / 5).min(LONGEST_KEPT)).unwrap_or(now);
        self.kept.lock().insert(key, Kept { token: status.token.clone(), renew_at });
        Ok(status.token)
    }

    /// When the first token of a pod is to be renewed.
    pub(crate) fn renew_at(&self, pod: &str) -> Option<Timestamp> {
        let kept = self.kept.lock();
        kept.iter().filter(|(key, _)| key.pod == pod).map(|(_, kept)| kept.renew_at).min()
    }

    pub(crate) fn forget(&self, pod: &str) {
        self.kept.lock().retain(|key, _| key.pod != pod);
    }
}
