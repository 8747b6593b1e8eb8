//! Service accounts: their names as users, and the tokens that stand for them.
//!
//! A token is valid while its account exists with the same uid, and, if it is bound to a pod, secret or node, while that
//! exists too. A bound object that is being deleted still counts for a minute, so that it can say good-bye.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use kminik_meta::{Object, StatusError};
use serde_json::{Value, json};

use super::bearer::{Accepted, TokenSource};
use super::secret_token::LastUses;
use super::token::{TokenError, TokenKey};
use super::{AUTHENTICATED, Note, UserInfo};
use crate::storage::cache::Cache;
use crate::storage::key;

const USER_PREFIX: &str = "system:serviceaccount:";
const GROUP: &str = "system:serviceaccounts";
/// Audit annotation of requests whose token should have been replaced by now.
const STALE_TOKEN: &str = "authentication.k8s.io/stale-token";
/// How long the token of an object outlives the beginning of the object's deletion.
const DELETION_LEEWAY: SignedDuration = SignedDuration::from_secs(60);

/// The user that a service account is.
pub fn user_name(namespace: &str, name: &str) -> String {
    format!("{USER_PREFIX}{namespace}:{name}")
}

/// Namespace and name of the service account that the user is, if it is one.
pub fn split_user_name(user: &str) -> Option<(&str, &str)> {
    user.strip_prefix(USER_PREFIX)?
        .split_once(':')
        .filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty())
}

/// The groups of the service accounts of a namespace, but for `system:authenticated`.
pub fn groups(namespace: &str) -> [String; 2] {
    [GROUP.to_owned(), format!("{GROUP}:{namespace}")]
}

/// What a token can be bound to besides its account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundObject {
    pub name: String,
    /// Empty for the node of a pod that has no object.
    pub uid: String,
}

/// What a new token says.
#[derive(Clone, Debug)]
pub struct NewToken<'a> {
    pub namespace: &'a str,
    pub account: BoundObject,
    /// Key in the claims (`pod`, `secret`, `node`) and object.
    pub bound: Vec<(&'static str, BoundObject)>,
    pub audiences: &'a [String],
    pub now: Timestamp,
    pub expires: Timestamp,
    /// When its holder should have asked for another one, if that is before it expires.
    pub warn_after: Option<Timestamp>,
}

/// Why credentials were not accepted; for logs, clients only hear 401.
#[derive(Debug, thiserror::Error)]
pub enum Rejection {
    #[error("nobody here knows it")]
    Unknown,
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("the token lacks claim {claim}")]
    Claim { claim: &'static str },
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYet,
    #[error("the token is for other audiences than {wanted:?}")]
    Audience { wanted: Vec<String> },
    #[error("the token's {kind} {name} is gone")]
    Gone { kind: &'static str, name: String },
    #[error("the token of secret {namespace}/{name} was marked invalid")]
    Invalidated { name: String, namespace: String },
    #[error("the store cannot be read: {0}")]
    Unreadable(StatusError),
}

/// Issues and accepts service account tokens.
pub struct ServiceAccountTokens {
    key: TokenKey,
    issuer: String,
    cache: Arc<Cache>,
    last_uses: LastUses,
}

impl ServiceAccountTokens {
    pub fn new(key: TokenKey, issuer: String, cache: Arc<Cache>) -> Self {
        ServiceAccountTokens { key, issuer, cache, last_uses: LastUses::default() }
    }

    /// Which Secrets' tokens were used.
    pub(crate) fn last_uses(&self) -> &LastUses {
        &self.last_uses
    }

    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The audiences of this API itself, taken where a client names none.
    pub fn audiences(&self) -> Vec<String> {
        vec![self.issuer.clone()]
    }

    /// The public key as a JSON web key set.
    pub fn key_set(&self) -> Value {
        self.key.key_set()
    }

    /// Signs a token.
    ///
    /// # Errors
    /// 500 if the system gives no randomness.
    pub fn issue(&self, new: &NewToken<'_>) -> Result<String, StatusError> {
        let mut private = json!({
            "namespace": new.namespace,
            "serviceaccount": { "name": new.account.name, "uid": new.account.uid },
        });
        for (kind, object) in &new.bound {
            private[*kind] = json!({ "name": object.name });
            if !object.uid.is_empty() {
                private[*kind]["uid"] = object.uid.clone().into();
            }
        }
        if let Some(at) = new.warn_after {
            private["warnafter"] = at.as_second().into();
        }
        let claims = json!({
            "aud": new.audiences,
            "exp": new.expires.as_second(),
            "iat": new.now.as_second(),
            "nbf": new.now.as_second(),
            "iss": self.issuer,
            "jti": uuid::Uuid::new_v4().to_string(),
            "kubernetes.io": private,
            "sub": user_name(new.namespace, &new.account.name),
        });
        self.key.sign(&claims).ok_or_else(|| StatusError::internal("the token cannot be signed"))
    }

    /// The user that the token stands for, and those of `audiences` that it is for.
    ///
    /// # Errors
    /// When the token is not valid, or for none of the audiences.
    async fn check(&self, token: &str, audiences: &[String], now: Timestamp) -> Result<Accepted, Rejection> {
        let claims = self.key.verify(token)?;
        let seconds = |claim: &'static str| claims[claim].as_i64().ok_or(Rejection::Claim { claim });
        if now.as_second() >= seconds("exp")? {
            return Err(Rejection::Expired);
        }
        if now.as_second() < seconds("nbf")? {
            return Err(Rejection::NotYet);
        }
        if claims["iss"] != self.issuer.as_str() {
            return Err(Rejection::Claim { claim: "iss" });
        }
        let own = claims["aud"].as_array().map(Vec::as_slice).unwrap_or_default();
        let shared: Vec<String> =
            audiences.iter().filter(|wanted| own.iter().any(|own| own == wanted.as_str())).cloned().collect();
        if shared.is_empty() {
            return Err(Rejection::Audience { wanted: audiences.to_vec() });
        }
        let private = &claims["kubernetes.io"];
        let namespace = private["namespace"].as_str().ok_or(Rejection::Claim { claim: "namespace" })?;
        let account = bound(private, "serviceaccount").ok_or(Rejection::Claim { claim: "serviceaccount" })?;
        let owner = self.still_there("core/serviceaccounts", "serviceaccount", namespace, &account, now).await?;
        let (mut extra, mut notes) = (BTreeMap::new(), Vec::new());
        for (kind, prefix, in_namespace) in
            [("pod", "core/pods", true), ("secret", "core/secrets", true), ("node", "core/nodes", false)]
        {
            let Some(object) = bound(private, kind) else { continue };
            // The node of a pod's token is told, not required: the pod ends with it.
            if kind != "node" || bound(private, "pod").is_none() {
                let namespace = if in_namespace { namespace } else { "" };
                let object = self.still_there(prefix, kind, namespace, &object, now).await?;
                if kind == "secret" {
                    notes.extend(self.last_uses.of(token, &object, &owner, now)?);
                }
            }
            if kind != "secret" {
                extra.insert(format!("authentication.kubernetes.io/{kind}-name"), vec![object.name]);
            }
            if kind != "secret" && !object.uid.is_empty() {
                extra.insert(format!("authentication.kubernetes.io/{kind}-uid"), vec![object.uid]);
            }
        }
        if let Some(id) = claims["jti"].as_str() {
            extra.insert("authentication.kubernetes.io/credential-id".to_owned(), vec![format!("JTI={id}")]);
        }
        let user = UserInfo {
            name: user_name(namespace, &account.name),
            uid: account.uid,
            groups: groups(namespace).into_iter().chain([AUTHENTICATED.to_owned()]).collect(),
            extra,
        };
        let late = private["warnafter"].as_i64().map(|at| now.as_second() - at).filter(|late| *late > 0);
        let stale = |late| format!("subject: {}, seconds after warning threshold: {late}", user.name);
        notes.extend(late.map(|late| Note::Audit(STALE_TOKEN, stale(late))));
        Ok(Accepted { user, audiences: shared, notes })
    }

    async fn still_there(
        &self,
        prefix: &str,
        kind: &'static str,
        namespace: &str,
        wanted: &BoundObject,
        now: Timestamp,
    ) -> Result<Arc<Object>, Rejection> {
        let object = self.find(prefix, namespace, &wanted.name).await?;
        let alive = |object: &Arc<Object>| {
            object.uid() == wanted.uid
                && object.deletion_timestamp().is_none_or(|deleted| now.duration_since(deleted) < DELETION_LEEWAY)
        };
        let gone = || Rejection::Gone { kind, name: wanted.name.clone() };
        object.filter(|object| alive(object)).ok_or_else(gone)
    }

    /// The object as the cache has it, or, where it has none, as the store has it.
    async fn find(&self, prefix: &str, namespace: &str, name: &str) -> Result<Option<Arc<Object>>, Rejection> {
        let at = key::object(prefix, namespace, name);
        let mut entry = self.cache.snapshot(prefix).get(&at).cloned();
        if entry.is_none() {
            entry = self.cache.fresh(prefix).await.map_err(Rejection::Unreadable)?.get(&at).cloned();
        }
        entry.map(|entry| entry.object()).transpose().map_err(Rejection::Unreadable)
    }
}

fn bound(private: &Value, kind: &str) -> Option<BoundObject> {
    let text = |key: &str| private[kind][key].as_str().map(str::to_owned);
    Some(BoundObject { name: text("name")?, uid: text("uid").unwrap_or_default() })
}

#[async_trait]
impl TokenSource for ServiceAccountTokens {
    async fn accept(
        &self,
        token: &str,
        audiences: &[String],
        _own: &[String],
        now: Timestamp,
    ) -> Result<Option<Accepted>, Rejection> {
        self.check(token, audiences, now).await.map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_names_split_as_they_were_made() {
        assert_eq!(split_user_name(&user_name("a", "b")), Some(("a", "b")));
        for other in ["alice", "system:serviceaccount:a", "system:serviceaccount::b", "system:serviceaccount:a:"] {
            assert_eq!(split_user_name(other), None, "{other}");
        }
    }
}
