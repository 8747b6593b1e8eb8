//! Authentication and authorisation of a request, by the API, with a short memory.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use http::header::AUTHORIZATION;
use http::{HeaderMap, Method};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::identity::{User, of_certificate};

/// Upstream's defaults.
const TOKEN_KEPT: Duration = Duration::from_secs(120);
const ALLOWED_KEPT: Duration = Duration::from_secs(300);
const DENIED_KEPT: Duration = Duration::from_secs(30);
/// Most answers remembered.
const MAX_KEPT: usize = 4096;
const REVIEW_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a request is not served.
#[derive(Debug, thiserror::Error)]
pub(super) enum Denied {
    #[error("Unauthorized")]
    Unauthenticated,
    #[error("Forbidden (user={user}, verb={verb}, resource=nodes, subresource(s)=[{subresource}])")]
    Forbidden { user: String, verb: &'static str, subresource: &'static str },
    #[error("Internal Error: the API cannot be asked: {0}")]
    Review(String),
}

/// What a request wants to do to the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Wanted {
    pub(super) verb: &'static str,
    pub(super) subresource: &'static str,
}

impl Wanted {
    /// By method and path. What opens a stream into a pod is a create, whichever method starts it.
    pub(super) fn of(method: &Method, path: &str) -> Wanted {
        let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        let verb = match *method {
            _ if matches!(first, "exec" | "attach" | "portForward" | "run") => "create",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "get",
        };
        let subresource = match first {
            "metrics" => "metrics",
            "logs" => "log",
            _ => "proxy",
        };
        Wanted { verb, subresource }
    }
}

/// Asks the API who a client is and what it may do.
pub(crate) struct Access {
    client: kube::Client,
    node: String,
    /// By the token's hash: tokens themselves are not kept.
    tokens: Memory<[u8; 32], User>,
    decisions: Memory<(User, Wanted), bool>,
}

impl Access {
    pub(super) fn new(client: kube::Client, node: String) -> Access {
        Access { client, node, tokens: Memory::default(), decisions: Memory::default() }
    }

    /// Serves the request if this returns.
    pub(super) async fn check(&self, leaf: Option<&[u8]>, headers: &HeaderMap, wanted: Wanted) -> Result<(), Denied> {
        let user = match leaf {
            Some(leaf) => of_certificate(leaf).ok_or(Denied::Unauthenticated)?,
            None => self.of_token(headers).await?,
        };
        if self.allowed(&user, wanted).await? {
            return Ok(());
        }
        Err(Denied::Forbidden { user: user.name, verb: wanted.verb, subresource: wanted.subresource })
    }

    async fn of_token(&self, headers: &HeaderMap) -> Result<User, Denied> {
        let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (scheme, token) = header.split_once(' ').unwrap_or_default();
        let token = token.trim();
        if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
            return Err(Denied::Unauthenticated);
        }
        let key: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(user) = self.tokens.get(&key) {
            return Ok(user);
        }
        let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences: None };
        let review = TokenReview { spec, ..TokenReview::default() };
        let reviewed = self.create(&review).await?;
        let status = reviewed.status.filter(|status| status.authenticated == Some(true));
        let user = status.and_then(|status| status.user).and_then(known).ok_or(Denied::Unauthenticated)?;
        self.tokens.put(key, user.clone(), TOKEN_KEPT);
        Ok(user)
    }

    async fn allowed(&self, user: &User, wanted: Wanted) -> Result<bool, Denied> {
        let key = (user.clone(), wanted);
        if let Some(allowed) = self.decisions.get(&key) {
            return Ok(allowed);
        }
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(user.name.clone()),
                uid: Some(user.uid.clone()).filter(|uid| !uid.is_empty()),
                groups: Some(user.groups.clone()),
                extra: Some(user.extra.clone()).filter(|extra| !extra.is_empty()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(wanted.verb.to_owned()),
                    version: Some("v1".to_owned()),
                    resource: Some("nodes".to_owned()),
                    subresource: Some(wanted.subresource.to_owned()),
                    name: Some(self.node.clone()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let reviewed = self.create(&review).await?;
        let allowed = reviewed.status.is_some_and(|status| status.allowed);
        self.decisions.put(key, allowed, if allowed { ALLOWED_KEPT } else { DENIED_KEPT });
        Ok(allowed)
    }

    async fn create<K>(&self, review: &K) -> Result<K, Denied>
    where
        K: kube::Resource<DynamicType = ()> + Clone + serde::Serialize + serde::de::DeserializeOwned + std::fmt::Debug,
    {
        let api: Api<K> = Api::all(self.client.clone());
        let params = PostParams::default();
        match tokio::time::timeout(REVIEW_TIMEOUT, api.create(&params, review)).await {
            Ok(created) => created.map_err(|error| Denied::Review(error.to_string())),
            Err(_) => Err(Denied::Review(format!("no answer within {} s", REVIEW_TIMEOUT.as_secs()))),
        }
    }
}

fn known(user: UserInfo) -> Option<User> {
    Some(User {
        name: user.username.filter(|name| !name.is_empty())?,
        uid: user.uid.unwrap_or_default(),
        groups: user.groups.unwrap_or_default(),
        extra: user.extra.unwrap_or_default(),
    })
}

/// Answers with the time until which they hold.
struct Memory<K, V>(Mutex<HashMap<K, (V, Instant)>>);

impl<K, V> Default for Memory<K, V> {
    fn default() -> Self {
        Memory(Mutex::default())
    }
}

impl<K: Hash + Eq, V: Clone> Memory<K, V> {
    fn get(&self, key: &K) -> Option<V> {
        let kept = self.0.lock();
        let (value, until) = kept.get(key)?;
        (*until > Instant::now()).then(|| value.clone())
    }

    fn put(&self, key: K, value: V, holds: Duration) {
        let mut kept = self.0.lock();
        if kept.len() >= MAX_KEPT {
            let now = Instant::now();
            kept.retain(|_, (_, until)| *until > now);
            if kept.len() >= MAX_KEPT {
                kept.clear();
            }
        }
        kept.insert(key, (value, Instant::now() + holds));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_creates_and_paths_name_subresources() {
        let wanted = |method: Method, path| {
            let wanted = Wanted::of(&method, path);
            (wanted.verb, wanted.subresource)
        };
        assert_eq!(wanted(Method::GET, "/exec/a/b/c"), ("create", "proxy"));
        assert_eq!(wanted(Method::GET, "/containerLogs/a/b/c"), ("get", "proxy"));
        assert_eq!(wanted(Method::GET, "/logs/"), ("get", "log"));
        assert_eq!(wanted(Method::GET, "/metrics"), ("get", "metrics"));
        assert_eq!(wanted(Method::DELETE, "/kminik/v1/images"), ("delete", "proxy"));
    }

    #[test]
    fn answers_are_forgotten() {
        let memory = Memory::default();
        memory.put(1, "yes", Duration::from_secs(60));
        memory.put(2, "old", Duration::ZERO);
        assert_eq!((memory.get(&1), memory.get(&2), memory.get(&3)), (Some("yes"), None, None));
    }
}
