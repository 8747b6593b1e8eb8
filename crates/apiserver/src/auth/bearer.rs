//! Bearer tokens: where a request carries one, and the kinds there are, asked in order.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::request::Parts;
use jiff::Timestamp;
use kminik_meta::StatusError;

use super::secret_token::INVALIDATED;
use super::service_account::Rejection;
use super::{Authenticator, Note, Notes, PeerCertificates, UserInfo};

/// Prefix of the WebSocket subprotocol that carries a token: browsers cannot set the Authorization header.
pub const PROTOCOL_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// What a valid token says.
#[derive(Debug)]
pub struct Accepted {
    pub user: UserInfo,
    /// Those of the audiences asked about that the token is for.
    pub audiences: Vec<String>,
    pub notes: Vec<Note>,
}

/// One kind of bearer token.
#[async_trait]
pub trait TokenSource: Send + Sync + 'static {
    /// Whom the token stands for; `None` if it is not of this kind. `own` are the audiences of this API itself.
    ///
    /// # Errors
    /// It is of this kind, or of none at all, and not valid.
    async fn accept(
        &self,
        token: &str,
        audiences: &[String],
        own: &[String],
        now: Timestamp,
    ) -> Result<Option<Accepted>, Rejection>;
}

/// All kinds of bearer tokens.
pub struct BearerTokens {
    sources: Vec<Arc<dyn TokenSource>>,
    own_audiences: Vec<String>,
}

impl BearerTokens {
    /// `own_audiences` are those of this API itself, meant where a client names none.
    pub fn new(sources: Vec<Arc<dyn TokenSource>>, own_audiences: Vec<String>) -> Self {
        BearerTokens { sources, own_audiences }
    }

    /// Whom a token stands for, and which of the audiences it is for.
    ///
    /// # Errors
    /// The last reason for which it is refused.
    pub async fn review(&self, token: &str, audiences: &[String], now: Timestamp) -> Result<Accepted, Rejection> {
        let audiences = if audiences.is_empty() { self.own_audiences.as_slice() } else { audiences };
        for source in &self.sources {
            if let Some(accepted) = source.accept(token, audiences, &self.own_audiences, now).await? {
                return Ok(accepted);
            }
        }
        Err(Rejection::Unknown)
    }
}

/// The bearer token of a request, if it has one.
fn bearer(request: &Parts) -> Option<String> {
    if let Some(value) = request.headers.get(AUTHORIZATION) {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        let token = token.trim();
        return (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned());
    }
    if !request.headers.contains_key(UPGRADE) {
        return None;
    }
    let offered = request.headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let encoded =
        offered.flat_map(|value| value.split(',')).find_map(|name| name.trim().strip_prefix(PROTOCOL_PREFIX))?;
    let token = URL_SAFE_NO_PAD.decode(encoded.trim_end_matches('=')).ok()?;
    String::from_utf8(token).ok().filter(|token| !token.is_empty())
}

#[async_trait]
impl Authenticator for BearerTokens {
    async fn authenticate(&self, request: &Parts, _peer: &PeerCertificates) -> Result<Option<UserInfo>, StatusError> {
        let Some(token) = bearer(request) else { return Ok(None) };
        match self.review(&token, &[], Timestamp::now()).await {
            Ok(Accepted { user, notes, .. }) => {
                if let Some(all) = request.extensions.get::<Notes>() {
                    all.add(notes);
                }
                Ok(Some(user))
            }
            Err(rejection) => {
                if let (Rejection::Invalidated { name, namespace }, Some(all)) =
                    (&rejection, request.extensions.get::<Notes>())
                {
                    all.add([Note::Audit(INVALIDATED, format!("{name}/{namespace}"))]);
                }
                tracing::debug!(error = &rejection as &dyn std::error::Error, "bearer token refused");
                Err(StatusError::unauthorized())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_by_header_or_subprotocol() {
        let of = |headers: &[(&str, &str)]| {
            let mut request = http::Request::builder();
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            bearer(&request.body(()).unwrap().into_parts().0)
        };
        assert_eq!(of(&[("authorization", "bearer  abc")]).as_deref(), Some("abc"));
        assert_eq!(of(&[("authorization", "Basic abc")]), None);
        let protocols = "base64url.bearer.authorization.k8s.io.YWJj, v5.channel.k8s.io";
        assert_eq!(of(&[("upgrade", "websocket"), ("sec-websocket-protocol", protocols)]).as_deref(), Some("abc"));
        assert_eq!(of(&[("sec-websocket-protocol", protocols)]), None);
    }
}
