//! Bootstrap tokens: `id.secret`, kept in a Secret of kube-system, by which a machine asks to become a node.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use kminik_meta::Object;

use super::bearer::{Accepted, TokenSource};
use super::service_account::Rejection;
use super::{AUTHENTICATED, UserInfo};
use crate::storage::cache::Cache;
use crate::storage::key;

const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
const SECRET_PREFIX: &str = "bootstrap-token-";
const NAMESPACE: &str = "kube-system";
const GROUP: &str = "system:bootstrappers";
const USER_PREFIX: &str = "system:bootstrap:";
/// Longest name of a further group, without the prefix.
const MAX_GROUP: usize = 256;

/// Accepts the tokens of the Secrets in the cache.
pub struct BootstrapTokens(pub Arc<Cache>);

#[async_trait]
impl TokenSource for BootstrapTokens {
    async fn accept(
        &self,
        token: &str,
        audiences: &[String],
        own: &[String],
        now: Timestamp,
    ) -> Result<Option<Accepted>, Rejection> {
        let Some((id, secret)) = split(token) else { return Ok(None) };
        let at = key::object("core/secrets", NAMESPACE, &format!("{SECRET_PREFIX}{id}"));
        let snapshot = self.0.fresh("core/secrets").await.map_err(Rejection::Unreadable)?;
        let stored = snapshot.get(&at).map(|entry| entry.object()).transpose().map_err(Rejection::Unreadable)?;
        let user = stored.as_deref().and_then(|stored| user(stored, id, secret, now)).ok_or(Rejection::Unknown)?;
        // The token says nothing of audiences: it is for this API.
        let shared: Vec<String> = audiences.iter().filter(|wanted| own.contains(wanted)).cloned().collect();
        match shared.is_empty() {
            true => Err(Rejection::Audience { wanted: audiences.to_vec() }),
            false => Ok(Some(Accepted { user, audiences: shared, notes: Vec::new() })),
        }
    }
}

/// Id and secret of a text that has a token's form.
fn split(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    (id.len() == 6 && secret.len() == 16 && plain(id) && plain(secret)).then_some((id, secret))
}

/// The user of a stored token; `None` unless it is this token, in time, and for authentication.
fn user(stored: &Object, id: &str, secret: &str, now: Timestamp) -> Option<UserInfo> {
    let text = |field: &str| {
        let encoded = stored.str(&["data", field])?;
        String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok()
    };
    let alive = match text("expiration") {
        None => true,
        // A date that cannot be read has passed.
        Some(expiration) => expiration.parse::<Timestamp>().is_ok_and(|end| now < end),
    };
    let valid = stored.str(&["type"]) == Some(SECRET_TYPE)
        && stored.deletion_timestamp().is_none()
        && text("token-id")? == id
        && same(text("token-secret")?.as_bytes(), secret.as_bytes())
        && alive
        && text("usage-bootstrap-authentication").as_deref() == Some("true");
    if !valid {
        return None;
    }
    let mut groups = vec![GROUP.to_owned()];
    let further = text("auth-extra-groups").unwrap_or_default();
    let mut further: Vec<&str> = further.split(',').filter(|group| !group.is_empty()).collect();
    further.sort_unstable();
    further.dedup();
    for group in further {
        if !is_bootstrap_group(group) {
            return None;
        }
        groups.push(group.to_owned());
    }
    groups.push(AUTHENTICATED.to_owned());
    Some(UserInfo { name: format!("{USER_PREFIX}{id}"), groups, ..UserInfo::default() })
}

/// Whether a token may bring the group: only ones made for this.
fn is_bootstrap_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix(GROUP).and_then(|rest| rest.strip_prefix(':')) else { return false };
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b':' || byte == b'-';
    (1..=MAX_GROUP).contains(&rest.len())
        && rest.bytes().all(fits)
        && rest.ends_with(|last: char| last.is_ascii_alphanumeric())
}

/// Whether two secrets are equal, in a time that does not depend on where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stored(change: &[(&str, &str)]) -> Object {
        let mut object = Object::try_from(json!({"type": SECRET_TYPE})).unwrap();
        let whole = [
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-authentication", "true"),
            ("expiration", "2100-01-01T00:00:00Z"),
            ("auth-extra-groups", "system:bootstrappers:b,system:bootstrappers:a"),
        ];
        for &(field, value) in whole.iter().chain(change) {
            object.set(&["data", field], BASE64_STANDARD.encode(value));
        }
        object
    }

    #[test]
    fn a_token_is_what_its_secret_says() {
        let now = Timestamp::now();
        let of = |change: &[(&str, &str)]| user(&stored(change), "abcdef", "0123456789abcdef", now);
        let bob = of(&[]).unwrap();
        assert_eq!(bob.name, "system:bootstrap:abcdef");
        assert_eq!(bob.groups[..3], [GROUP, "system:bootstrappers:a", "system:bootstrappers:b"]);
        for wrong in [
            ("token-secret", "0123456789abcdee"),
            ("token-id", "abcdee"),
            ("expiration", "2000-01-01T00:00:00Z"),
            ("expiration", "soon"),
            ("usage-bootstrap-authentication", "false"),
            ("auth-extra-groups", "system:masters"),
            ("auth-extra-groups", "system:bootstrappers:-"),
        ] {
            assert_eq!(of(&[wrong]), None, "{wrong:?}");
        }
    }

    #[test]
    fn tokens_have_one_form() {
        assert_eq!(split("abcdef.0123456789abcdef"), Some(("abcdef", "0123456789abcdef")));
        for other in ["abcdef.0123456789abcde", "ABCDEF.0123456789abcdef", "abcdef", "a.b.c"] {
            assert_eq!(split(other), None, "{other}");
        }
    }
}
