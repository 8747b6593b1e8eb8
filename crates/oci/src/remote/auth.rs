//! Who we are to a registry: challenges, tokens, and which login belongs to which place.

use std::collections::HashMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::HeaderValue;
use parking_lot::Mutex;
use url::Url;

use super::Credential;
use super::transport::Refusal;
use crate::mirrors::Place;

/// Longest answer of a token service.
pub(super) const MAX_TOKEN_BYTES: usize = 256 * 1024;
/// Names of Docker's registry in configurations.
const DOCKER_ALIASES: &[&str] = &["docker.io", "index.docker.io", "registry-1.docker.io"];

/// `WWW-Authenticate` of a 401.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: Url, service: Option<String>, scope: Option<String> },
}

impl Challenge {
    /// A bearer token if it is offered, else basic.
    pub(super) fn choose<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
        let mut chosen = None;
        for header in headers {
            match Challenge::parse(header) {
                Some(bearer @ Challenge::Bearer { .. }) => return Some(bearer),
                Some(Challenge::Basic) => chosen = Some(Challenge::Basic),
                None => {}
            }
        }
        chosen
    }

    fn parse(header: &str) -> Option<Challenge> {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Challenge::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let mut values = parameters(rest);
        let realm = Url::parse(&values.remove("realm")?).ok()?;
        Some(Challenge::Bearer { realm, service: values.remove("service"), scope: values.remove("scope") })
    }
}

/// `name="value"` pairs; a quoted value may hold commas.
fn parameters(text: &str) -> HashMap<String, String> {
    let mut values = HashMap::new();
    let mut rest = text;
    while let Some((name, tail)) = rest.split_once('=') {
        let name = name.trim_matches([',', ' ']).to_ascii_lowercase();
        let tail = tail.trim_start();
        let (value, after) = match tail.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => tail.split_once(',').unwrap_or((tail, "")),
        };
        values.insert(name, value.trim().to_owned());
        rest = after;
    }
    values
}

/// `Authorization` values that worked, by place and login: what one was given does not serve another. A token that has expired
/// gives a 401, and is replaced.
#[derive(Default)]
pub(super) struct Tokens(Mutex<HashMap<Holder, HeaderValue>>);

/// A user and password.
pub(super) type Login = (String, String);
type Holder = (String, String, Option<Login>);

/// Most tokens kept.
const MAX_TOKENS: usize = 1000;

impl Tokens {
    pub(super) fn get(&self, place: &Place, login: Option<&Login>) -> Option<HeaderValue> {
        self.0.lock().get(&holder(place, login)).cloned()
    }

    pub(super) fn put(&self, place: &Place, login: Option<&Login>, value: HeaderValue) {
        let mut tokens = self.0.lock();
        if tokens.len() >= MAX_TOKENS {
            tokens.clear();
        }
        tokens.insert(holder(place, login), value);
    }
}

fn holder(place: &Place, login: Option<&Login>) -> Holder {
    (place.base.as_str().to_owned(), place.repository.clone(), login.cloned())
}

/// The login for a place: of its own address, else the longest credential whose registry is this host.
pub(super) fn login(place: &Place, credentials: &[Credential]) -> Option<Login> {
    if let Some(login) = &place.login {
        return Some(login.clone());
    }
    let host = &place.host;
    let matches = |credential: &&Credential| {
        let registry = normalised(&credential.registry);
        let (wanted_host, path) = registry.split_once('/').unwrap_or((&registry, ""));
        let same =
            wanted_host == host || (DOCKER_ALIASES.contains(&wanted_host) && DOCKER_ALIASES.contains(&host.as_str()));
        let below = path.is_empty()
            || place.repository.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        same && below
    };
    let best = credentials.iter().filter(matches).max_by_key(|credential| credential.registry.len())?;
    Some((best.username.clone(), best.password.clone()))
}

/// Without scheme and Docker's API version.
fn normalised(registry: &str) -> String {
    let text = registry.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let text = text.strip_suffix("/v1").or_else(|| text.strip_suffix("/v2")).unwrap_or(text);
    text.to_owned()
}

pub(super) fn basic(user: &str, password: &str) -> Result<HeaderValue, Refusal> {
    header(&format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))))
}

/// The token out of a token service's answer.
pub(super) fn bearer(body: &[u8]) -> Result<HeaderValue, Refusal> {
    #[derive(serde::Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
    }
    let answer: Answer = serde_json::from_slice(body)
        .map_err(|_| Refusal::Unauthorized("its token service's answer is not understood".to_owned()))?;
    let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
    let token = token.ok_or_else(|| Refusal::Unauthorized("its token service gave no token".to_owned()))?;
    header(&format!("Bearer {token}"))
}

fn header(text: &str) -> Result<HeaderValue, Refusal> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| Refusal::Unauthorized("the login or token holds characters that cannot be sent".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirrors::Source;

    #[test]
    fn challenges_are_parsed() {
        let header = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        let wanted = Challenge::Bearer {
            realm: Url::parse("https://auth.docker.io/token").unwrap(),
            service: Some("registry.docker.io".into()),
            scope: Some("repository:a/b:pull,push".into()),
        };
        assert_eq!(Challenge::choose(["Basic realm=x", header].into_iter()), Some(wanted));
        assert_eq!(Challenge::choose(["Basic realm=\"x\""].into_iter()), Some(Challenge::Basic));
        assert_eq!(Challenge::choose(["Negotiate"].into_iter()), None);
    }

    #[test]
    fn a_login_goes_only_to_its_host() {
        let credential = |registry: &str, username: &str| Credential {
            registry: registry.into(),
            username: username.into(),
            password: "p".into(),
        };
        let credentials = [
            credential("https://index.docker.io/v1/", "hub"),
            credential("reg.lan:5000", "all"),
            credential("reg.lan:5000/team", "team"),
        ];
        let user = |base: &str, repository: &str| {
            let place = Place {
                base: Url::parse("http://192.168.49.1:25000").unwrap(),
                host: base.split_once("://").unwrap().1.to_owned(),
                repository: repository.into(),
                source: Source::Registry,
                unverified: false,
                namespace: None,
                login: None,
                known: None,
            };
            login(&place, &credentials).map(|(user, _)| user)
        };
        assert_eq!(user("https://registry-1.docker.io", "library/x"), Some("hub".into()));
        assert_eq!(user("https://mirror.example", "library/x"), None);
        assert_eq!(user("http://reg.lan:5000", "team/x"), Some("team".into()));
        assert_eq!(user("http://reg.lan:5000", "teams/x"), Some("all".into()));
        assert_eq!(user("http://reg.lan", "team/x"), None);
    }
}
