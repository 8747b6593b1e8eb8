//! One request to one place: TLS, proxies, authentication, and why it was refused.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::net::DnsError;
use hickory_resolver::proto::op::ResponseCode;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, RANGE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use kminik_base::tls;
use reqwest::{Client, RequestBuilder, Response, redirect};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use url::{Url, form_urlencoded};

use super::auth::{Challenge, Login, Tokens};
use super::files::Part;
use super::{Credential, Limit, Timeouts};
use crate::ImageError;
use crate::credentials::IDENTITY_TOKEN_USER;
use crate::mirrors::{FilePlace, Place};

const ACCEPT_MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";
/// Longest error text that is read.
const MAX_ERROR_BYTES: usize = 16 * 1024;
const MAX_REDIRECTS: usize = 10;

/// HTTP clients and tokens, shared by all pulls.
pub(crate) struct Transport {
    verified: Client,
    unverified: Client,
    tokens: Tokens,
    timeouts: Timeouts,
}

/// Why a place did not serve.
#[derive(Debug)]
pub(super) enum Refusal {
    Status {
        status: StatusCode,
        text: String,
    },
    /// 429, or 503 with a time.
    Busy {
        status: StatusCode,
        retry_after: Duration,
    },
    Unauthorized(String),
    NoAnswer(Duration),
    Network(String),
    TooLarge,
    /// It answered with other bytes than those asked for.
    OtherRange,
}

impl Refusal {
    /// Asking again will not help: the place has answered and does not have it or does not give it.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Refusal::Status { status, .. } => status.is_client_error() && *status != StatusCode::REQUEST_TIMEOUT,
            Refusal::Unauthorized(_) | Refusal::TooLarge => true,
            Refusal::Busy { .. } | Refusal::NoAnswer(_) | Refusal::Network(_) | Refusal::OtherRange => false,
        }
    }

    /// As an answer to who asked for a range: it may be the range that is refused, and all of it would be served.
    pub(super) fn may_be_of_range(&self) -> bool {
        const OF_RANGE: [StatusCode; 3] =
            [StatusCode::RANGE_NOT_SATISFIABLE, StatusCode::BAD_REQUEST, StatusCode::NOT_IMPLEMENTED];
        match self {
            Refusal::Status { status, .. } => OF_RANGE.contains(status),
            Refusal::OtherRange => true,
            _ => false,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Status { status, text } if text.is_empty() => write!(f, "{status}"),
            Refusal::Status { status, text } => write!(f, "{status}: {text}"),
            Refusal::Busy { status, retry_after } => write!(f, "{status}, asks to wait {}s", retry_after.as_secs()),
            Refusal::Unauthorized(why) => write!(f, "401 Unauthorized: {why}"),
            Refusal::NoAnswer(waited) => write!(f, "no answer within {:.0}s", waited.as_secs_f64()),
            Refusal::Network(why) => f.write_str(why),
            Refusal::TooLarge => f.write_str("the answer is too large"),
            Refusal::OtherRange => f.write_str("it answered with another range"),
        }
    }
}

/// What is asked of a place.
pub(super) struct Request<'a> {
    /// `manifests` or `blobs`.
    pub(super) kind: &'static str,
    /// A tag or digest.
    pub(super) reference: &'a str,
    /// Skip this many bytes.
    pub(super) from: u64,
}

impl Transport {
    pub(crate) fn new(timeouts: Timeouts, extra_roots_pem: Option<&str>) -> Result<Transport, ImageError> {
        let failed = |error: &dyn fmt::Display| ImageError::Client(error.to_string());
        let provider = tls::provider();
        let builder = || {
            rustls::ClientConfig::builder_with_provider(provider.clone())
                .with_safe_default_protocol_versions()
                .map_err(|error| failed(&error))
        };
        let verified = builder()?.with_root_certificates(roots(extra_roots_pem)?).with_no_client_auth();
        let anything = Arc::new(tls::AnyCertificate::new(provider.clone()));
        let unverified = builder()?.dangerous().with_custom_certificate_verifier(anything).with_no_client_auth();
        let client = |tls: rustls::ClientConfig| {
            Client::builder()
                .tls_backend_preconfigured(tls)
                .connect_timeout(timeouts.connect)
                .pool_idle_timeout(Duration::from_secs(30))
                .user_agent(concat!("kminik/", env!("CARGO_PKG_VERSION")))
                .redirect(redirect::Policy::custom(follow))
                .build()
                .map_err(|error| failed(&error))
        };
        Ok(Transport {
            verified: client(verified)?,
            unverified: client(unverified)?,
            tokens: Tokens::default(),
            timeouts,
        })
    }

    /// The client that verifies whom it speaks to.
    pub(crate) fn client(&self) -> Client {
        self.verified.clone()
    }

    /// Asks for a manifest or blob; a successful answer's body is still to be read.
    pub(super) async fn get(
        &self,
        place: &Place,
        request: &Request<'_>,
        credentials: &[Credential],
    ) -> Result<Response, Refusal> {
        let url = url(place, &format!("{}/{}", request.kind, request.reference));
        let build = |client: &Client| {
            let mut builder = client.get(url.clone());
            if request.kind == "manifests" {
                builder = builder.header(ACCEPT, ACCEPT_MANIFESTS);
            }
            if request.from > 0 {
                builder = builder.header(RANGE, format!("bytes={}-", request.from));
            }
            builder
        };
        self.execute(place, &build, self.timeouts.answer, credentials).await
    }

    /// Sends what `build` makes, and once more with a token when the place asks for one. Only a successful answer returns.
    pub(super) async fn execute(
        &self,
        place: &Place,
        build: &(dyn Fn(&Client) -> RequestBuilder + Sync),
        bound: Duration,
        credentials: &[Credential],
    ) -> Result<Response, Refusal> {
        let client = if place.unverified { &self.unverified } else { &self.verified };
        let send = async |authorization: Option<HeaderValue>| {
            let builder = build(client);
            let builder = match authorization {
                Some(authorization) => builder.header(AUTHORIZATION, authorization),
                None => builder,
            };
            match tokio::time::timeout(bound, builder.send()).await {
                Ok(sent) => sent.map_err(|error| Refusal::Network(innermost(&error))),
                Err(_) => Err(Refusal::NoAnswer(bound)),
            }
        };
        let login = super::auth::login(place, credentials);
        let response = send(self.tokens.get(place, login.as_ref())).await?;
        let response = if response.status() == StatusCode::UNAUTHORIZED {
            let challenges = response.headers().get_all(WWW_AUTHENTICATE).iter();
            let challenge = Challenge::choose(challenges.filter_map(|value| value.to_str().ok()))
                .ok_or_else(|| Refusal::Unauthorized("no way to authenticate is offered".to_owned()))?;
            drop(response);
            let header = self.authenticate(place, &challenge, login.as_ref()).await?;
            let again = send(Some(header.clone())).await?;
            if again.status() != StatusCode::UNAUTHORIZED {
                self.tokens.put(place, login.as_ref(), header);
            }
            again
        } else {
            response
        };
        if response.status().is_success() { Ok(response) } else { Err(refusal(response).await) }
    }

    /// Adds to `part` what a place that is no registry serves, from the byte reached on; where it does not go on from there, all of it anew.
    pub(super) async fn more(&self, place: &FilePlace, limit: Limit, part: &mut Part) -> Result<(), Refusal> {
        let answer = self.timeouts.answer;
        let client = if place.unverified { &self.unverified } else { &self.verified };
        let mut request = client.get(place.url.clone());
        if let Some((user, password)) = &place.login {
            request = request.header(AUTHORIZATION, super::auth::basic(user, password)?);
        }
        let from = format!("bytes {}-", part.bytes.len());
        if !part.bytes.is_empty() {
            request = request.header(RANGE, format!("bytes={}-", part.bytes.len()));
        }
        let response = match tokio::time::timeout(answer, request.send()).await {
            Ok(sent) => sent.map_err(|error| Refusal::Network(innermost(&error)))?,
            Err(_) => return Err(Refusal::NoAnswer(answer)),
        };
        let goes_on = |response: &Response| {
            let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
            range.is_some_and(|range| range.starts_with(&from))
        };
        match response.status() {
            StatusCode::PARTIAL_CONTENT if !goes_on(&response) => {
                return Err(Refusal::OtherRange);
            }
            StatusCode::PARTIAL_CONTENT => {}
            status if status.is_success() => part.restart(),
            _ => return Err(refusal(response).await),
        }
        let left = limit.bytes.saturating_sub(part.bytes.len());
        let body = read(response, left, self.timeouts.stall, |piece| part.append(piece));
        let body = tokio::time::timeout(limit.time, body).await;
        body.unwrap_or_else(|_| Err(Refusal::Network(format!("not all of it came within {}s", limit.time.as_secs()))))
    }

    async fn authenticate(
        &self,
        place: &Place,
        challenge: &Challenge,
        login: Option<&Login>,
    ) -> Result<HeaderValue, Refusal> {
        match challenge {
            Challenge::Basic => {
                let (user, password) =
                    login.ok_or_else(|| Refusal::Unauthorized("credentials are needed".to_owned()))?;
                super::auth::basic(user, password)
            }
            Challenge::Bearer { realm, service, scope } => {
                if place.base.scheme() == "https" && realm.scheme() != "https" && !place.unverified {
                    return Err(Refusal::Unauthorized(format!("its token service {realm} is not https")));
                }
                let client = if place.unverified { &self.unverified } else { &self.verified };
                let pull = format!("repository:{}:pull", place.repository);
                let mut fields = vec![("scope", scope.as_deref().unwrap_or(&pull))];
                fields.extend(service.as_deref().map(|service| ("service", service)));
                let builder = match login {
                    // An identity token is exchanged, not shown as a password.
                    Some((user, token)) if user == IDENTITY_TOKEN_USER => {
                        let more = [
                            ("grant_type", "refresh_token"),
                            ("client_id", "kminik"),
                            ("refresh_token", token.as_str()),
                        ];
                        let form = form_urlencoded::Serializer::new(String::new())
                            .extend_pairs(fields.iter().chain(&more))
                            .finish();
                        client.post(realm.clone()).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form)
                    }
                    login => {
                        let mut url = realm.clone();
                        url.query_pairs_mut().extend_pairs(&fields);
                        match login {
                            Some((user, password)) => {
                                client.get(url).header(AUTHORIZATION, super::auth::basic(user, password)?)
                            }
                            None => client.get(url),
                        }
                    }
                };
                let bound = self.timeouts.answer;
                let fetch = async {
                    let response = builder.send().await.map_err(|error| Refusal::Network(innermost(&error)))?;
                    if !response.status().is_success() {
                        let status = response.status();
                        return Err(Refusal::Unauthorized(format!("its token service answered {status}")));
                    }
                    let body = limited(response, super::auth::MAX_TOKEN_BYTES).await?;
                    super::auth::bearer(&body)
                };
                tokio::time::timeout(bound, fetch).await.unwrap_or(Err(Refusal::NoAnswer(bound)))
            }
        }
    }
}

/// Of something of the repository as it is called at the place.
pub(super) fn url(place: &Place, path: &str) -> Url {
    let mut url = place.base.clone();
    url.set_path(&format!("/v2/{}/{path}", place.repository));
    if let Some(namespace) = &place.namespace {
        url.query_pairs_mut().append_pair("ns", namespace);
    }
    url
}

/// Reads a whole body of at most `limit` bytes; how long that may take is the caller's.
pub(super) async fn limited(response: Response, limit: usize) -> Result<Vec<u8>, Refusal> {
    let mut body = Vec::new();
    read(response, limit, Duration::MAX, |piece| body.extend_from_slice(piece)).await?;
    Ok(body)
}

/// Reads a whole body of at most `left` bytes, never without a byte for longer than `stall`.
async fn read(
    mut response: Response,
    mut left: usize,
    stall: Duration,
    mut each: impl FnMut(&[u8]),
) -> Result<(), Refusal> {
    loop {
        let piece = match tokio::time::timeout(stall, response.chunk()).await {
            Err(_) => return Err(Refusal::Network("stalled".to_owned())),
            Ok(piece) => piece.map_err(|error| Refusal::Network(innermost(&error)))?,
        };
        let Some(piece) = piece else { return Ok(()) };
        left = left.checked_sub(piece.len()).ok_or(Refusal::TooLarge)?;
        each(&piece);
    }
}

async fn refusal(response: Response) -> Refusal {
    let status = response.status();
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).and_then(retry_after);
    match (status, retry_after) {
        (StatusCode::TOO_MANY_REQUESTS, wait) => {
            return Refusal::Busy { status, retry_after: wait.unwrap_or(Duration::from_secs(1)) };
        }
        (StatusCode::SERVICE_UNAVAILABLE, Some(retry_after)) => return Refusal::Busy { status, retry_after },
        _ => {}
    }
    let body = tokio::time::timeout(Duration::from_secs(2), limited(response, MAX_ERROR_BYTES)).await;
    let body = body.ok().and_then(Result::ok).unwrap_or_default();
    Refusal::Status { status, text: error_text(&body) }
}

/// The first error of a registry's error document.
fn error_text(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Document {
        errors: Vec<Entry>,
    }
    #[derive(serde::Deserialize)]
    struct Entry {
        #[serde(default)]
        message: String,
    }
    let document: Result<Document, _> = serde_json::from_slice(body);
    document.ok().and_then(|document| document.errors.into_iter().next()).map(|e| e.message).unwrap_or_default()
}

/// Seconds, or an HTTP date.
fn retry_after(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?;
    let wait = date.timestamp().duration_since(jiff::Timestamp::now());
    Some(Duration::try_from(wait).unwrap_or_default())
}

/// What actually went wrong: the last of the chain, which names the cause.
pub(crate) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    match last.downcast_ref() {
        Some(DnsError::NoRecordsFound(none)) => {
            let name = none.query.name().to_string();
            match none.response_code {
                ResponseCode::NoError => format!("the host {} has no address", name.trim_end_matches('.')),
                _ => format!("no such host {}", name.trim_end_matches('.')),
            }
        }
        _ => last.to_string(),
    }
}

fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    if attempt.previous().len() > MAX_REDIRECTS {
        return attempt.error("too many redirects");
    }
    let from_tls = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
    if from_tls && attempt.url().scheme() != "https" {
        return attempt.error("redirected from https to plain http");
    }
    attempt.follow()
}

/// The public web's roots, and the user's.
fn roots(extra_pem: Option<&str>) -> Result<rustls::RootCertStore, ImageError> {
    let mut roots = tls::public_roots();
    for certificate in CertificateDer::pem_slice_iter(extra_pem.unwrap_or_default().as_bytes()) {
        let bad = |detail: String| ImageError::BadConfig { what: "extra certificates".to_owned(), detail };
        let certificate = certificate.map_err(|error| bad(error.to_string()))?;
        roots.add(certificate).map_err(|error| bad(error.to_string()))?;
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use hickory_resolver::net::NoRecords;
    use hickory_resolver::proto::op::Query;
    use hickory_resolver::proto::rr::{Name, RecordType};

    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after("7"), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(retry_after("soon"), None);
    }

    #[test]
    fn who_asks_for_a_host_that_is_not_there_is_told_so() {
        let told = |code| {
            let query = Query::query(Name::from_ascii("absent.example.").unwrap(), RecordType::A);
            innermost(&DnsError::NoRecordsFound(NoRecords::new(query, code)))
        };
        assert_eq!(told(ResponseCode::NXDomain), "no such host absent.example");
        assert_eq!(told(ResponseCode::NoError), "the host absent.example has no address");
    }

    #[test]
    fn registry_errors_are_shortened_to_their_message() {
        let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}"#;
        assert_eq!(error_text(body), "manifest unknown");
        assert_eq!(error_text(b"<html>"), "");
    }
}
