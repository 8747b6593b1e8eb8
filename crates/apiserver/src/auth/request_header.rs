//! The front proxy: a peer that shows the proxy's certificate says in headers whom it speaks for.

use async_trait::async_trait;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use http::request::Parts;
use kminik_meta::StatusError;

use super::{AUTHENTICATED, Authenticator, PeerCertificates, UNAUTHENTICATED, UserInfo};

/// Common names that a front proxy's certificate may have.
pub const ALLOWED_NAMES: [&str; 1] = ["front-proxy-client"];
/// The name of the user.
pub const USER_HEADER: &str = "x-remote-user";
/// The user's uid.
pub const UID_HEADER: &str = "x-remote-uid";
/// One of the user's groups.
pub const GROUP_HEADER: &str = "x-remote-group";
/// What the name of a header with a value of the user's extra begins with; the percent-encoded key follows.
pub const EXTRA_PREFIX: &str = "x-remote-extra-";

/// Believes the headers of peers with the front proxy's certificate.
pub struct RequestHeaders;

#[async_trait]
impl Authenticator for RequestHeaders {
    async fn authenticate(&self, request: &Parts, peer: &PeerCertificates) -> Result<Option<UserInfo>, StatusError> {
        let proxy = peer.user().filter(|_| peer.front_proxy);
        if proxy.is_none_or(|proxy| !ALLOWED_NAMES.contains(&proxy.name.as_str())) {
            return Ok(None);
        }
        Ok(user(&request.headers))
    }
}

fn user(headers: &HeaderMap) -> Option<UserInfo> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let values = |name: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.filter(|value| !value.is_empty()).map(str::to_owned).collect()
    };
    let mut user = UserInfo {
        name: text(USER_HEADER),
        uid: text(UID_HEADER),
        groups: values(GROUP_HEADER),
        ..UserInfo::default()
    };
    if user.name.is_empty() {
        return None;
    }
    for (name, value) in headers {
        if let (Some(key), Ok(value)) = (name.as_str().strip_prefix(EXTRA_PREFIX), value.to_str()) {
            user.extra.entry(super::impersonate::unescape(key)).or_default().push(value.to_owned());
        }
    }
    if !user.in_group(AUTHENTICATED) && !user.in_group(UNAUTHENTICATED) {
        user.groups.push(AUTHENTICATED.to_owned());
    }
    Some(user)
}

/// Says in a request to an extension server whom it is for. What the client said of this was taken out before.
pub fn set(headers: &mut HeaderMap, user: &UserInfo) {
    let mut add = |name: &str, value: &str| {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    };
    add(USER_HEADER, &user.name);
    if !user.uid.is_empty() {
        add(UID_HEADER, &user.uid);
    }
    for group in &user.groups {
        add(GROUP_HEADER, group);
    }
    for (key, values) in &user.extra {
        let name = format!("{EXTRA_PREFIX}{}", escape(key));
        for value in values {
            add(&name, value);
        }
    }
}

/// Percent-encodes what cannot stand in a header's name.
fn escape(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_pass_through_headers_unchanged() {
        let mut alice = UserInfo::new("alice", &["team"]);
        alice.uid = "7".into();
        alice.extra.insert("example.com/scopes".into(), vec!["a".into(), "b c".into()]);
        let mut headers = HeaderMap::new();
        set(&mut headers, &alice);
        assert!(headers.contains_key("x-remote-extra-example.com%2fscopes"));
        assert_eq!(user(&headers), Some(alice));
        assert_eq!(user(&HeaderMap::new()), None);
    }
}
