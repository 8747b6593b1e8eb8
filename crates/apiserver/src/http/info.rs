//! What a request names: resource, verb and scope, read off its method and URL.

use std::borrow::Cow;
use std::time::Duration;

use http::{Method, Uri};
use kminik_meta::StatusError;

/// A request in RBAC's terms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// The URL's path, without query.
    pub path: String,
    /// False for paths like `/healthz` and `/apis`: then only `path` and `verb` are set.
    pub is_resource: bool,
    /// RBAC verb, or the lower-case method for non-resource paths.
    pub verb: String,
    pub group: String,
    pub version: String,
    /// Empty for cluster-scoped requests and for all namespaces.
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// What follows the subresource, without its first slash.
    pub rest: String,
}

impl RequestInfo {
    /// Reads method, path and query.
    pub fn of(method: &Method, uri: &Uri) -> Self {
        let path = uri.path();
        let query = Query::parse(uri.query().unwrap_or_default());
        resource_info(method, path, &query).unwrap_or_else(|| RequestInfo {
            path: path.to_owned(),
            verb: method.as_str().to_lowercase(),
            ..Default::default()
        })
    }

    /// Whether the request may last: it is not counted nor timed out.
    pub fn long_running(&self) -> bool {
        self.verb == "watch" || matches!(self.subresource.as_str(), "exec" | "attach" | "portforward" | "proxy" | "log")
    }
}

fn resource_info(method: &Method, path: &str, query: &Query) -> Option<RequestInfo> {
    let mut parts = path.split('/').filter(|part| !part.is_empty()).map(decode);
    let (group, version) = match parts.next()?.as_ref() {
        "api" => (String::new(), parts.next()?.into_owned()),
        "apis" => (parts.next()?.into_owned(), parts.next()?.into_owned()),
        _ => return None,
    };
    let mut rest: Vec<String> = parts.map(Cow::into_owned).collect();
    if rest.is_empty() {
        return None;
    }
    let mut info = RequestInfo { path: path.to_owned(), is_resource: true, group, version, ..Default::default() };
    // The old form `/api/v1/watch/...` still works.
    let old_watch = rest.first().is_some_and(|part| part == "watch") && rest.len() > 1;
    if old_watch {
        rest.remove(0);
    }
    if rest.len() > 1 && rest[0] == "namespaces" {
        info.namespace.clone_from(&rest[1]);
        // `namespaces/x` and its own subresources are the namespace; anything else is inside it.
        if rest.len() > 2 && !matches!(rest[2].as_str(), "status" | "finalize") {
            rest.drain(..2);
        }
    }
    let mut rest = rest.into_iter();
    info.resource = rest.next()?;
    info.name = rest.next().unwrap_or_default();
    info.subresource = rest.next().unwrap_or_default();
    info.rest = rest.collect::<Vec<_>>().join("/");
    if path.ends_with('/') && !info.rest.is_empty() {
        info.rest.push('/');
    }
    if info.resource == "namespaces" && info.group.is_empty() {
        info.namespace.clone_from(&info.name);
    }
    let wants_watch = old_watch || query.flag("watch");
    info.verb = match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if info.name.is_empty() => "deletecollection",
        Method::DELETE => "delete",
        Method::GET | Method::HEAD if info.name.is_empty() && wants_watch => "watch",
        Method::GET | Method::HEAD if info.name.is_empty() => "list",
        Method::GET | Method::HEAD if old_watch => "watch",
        Method::GET | Method::HEAD => "get",
        // No verb of RBAC's: whoever may do everything with a proxy may send this through it.
        _ => "",
    }
    .to_owned();
    // A list or watch of one name counts as that object, so that rules with resourceNames can allow it.
    if info.name.is_empty()
        && matches!(info.verb.as_str(), "list" | "watch" | "deletecollection")
        && let Some(selector) = query.get("fieldSelector")
        && let Some(name) = selector.split(',').find_map(|term| term.strip_prefix("metadata.name="))
    {
        info.name = name.trim_start_matches('=').to_owned();
    }
    Some(info)
}

fn decode(part: &str) -> Cow<'_, str> {
    if !part.contains('%') {
        return Cow::Borrowed(part);
    }
    let mut out = Vec::with_capacity(part.len());
    let bytes = part.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = bytes.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        match (byte, escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
            (b'%', Some(value)) => {
                out.push(value);
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

/// The decoded pairs of a query string.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(query: &str) -> Self {
        Query(url::form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    /// The first value of a key, `None` if it is absent or empty.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// All values of a key.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// A whole number, `None` if it is absent.
    ///
    /// # Errors
    /// 400 in Go's words for one that cannot be read.
    pub fn integer(&self, key: &str) -> Result<Option<i64>, StatusError> {
        let Some(text) = self.get(key) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| {
            let quoted = kminik_meta::field::quote(text);
            StatusError::bad_request(format!("strconv.ParseInt: parsing {quoted}: invalid syntax"))
        })
    }

    /// A duration as Go writes them (`1m30s`, `500ms`), `None` if it is absent; a negative one is zero.
    ///
    /// # Errors
    /// In Go's words for one that cannot be read.
    pub fn duration(&self, key: &str) -> Result<Option<Duration>, String> {
        let Some(text) = self.get(key) else { return Ok(None) };
        let quoted = kminik_meta::field::quote(text);
        match go_duration(text) {
            Ok(seconds) => Ok(Some(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX))),
            Err(DurationError::Invalid) => Err(format!("time: invalid duration {quoted}")),
            Err(DurationError::NoUnit) => Err(format!("time: missing unit in duration {quoted}")),
            Err(DurationError::Unit(unit)) => {
                Err(format!("time: unknown unit {} in duration {quoted}", kminik_meta::field::quote(&unit)))
            }
        }
    }

    /// As upstream reads booleans: present, and its first value is neither `0` nor `false` in any case (Python's clients
    /// write `False`).
    pub fn flag(&self, key: &str) -> bool {
        let first = self.0.iter().find(|(known, _)| known == key);
        first.is_some_and(|(_, value)| value != "0" && !value.eq_ignore_ascii_case("false"))
    }
}

enum DurationError {
    Invalid,
    NoUnit,
    Unit(String),
}

/// Seconds of a duration in Go's form.
fn go_duration(text: &str) -> Result<f64, DurationError> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0.0);
    }
    if rest.is_empty() {
        return Err(DurationError::Invalid);
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, behind) = rest.split_at(end);
        let number: f64 = number.parse().map_err(|_| DurationError::Invalid)?;
        let end = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(end);
        seconds += number
            * match unit {
                "ns" => 1e-9,
                "us" | "µs" | "μs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                "" => return Err(DurationError::NoUnit),
                other => return Err(DurationError::Unit(other.to_owned())),
            };
        rest = behind;
    }
    Ok(sign * seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(method: Method, uri: &str) -> RequestInfo {
        RequestInfo::of(&method, &uri.parse().unwrap())
    }

    #[test]
    fn urls_name_resources() {
        let cases = [
            (Method::GET, "/api/v1/namespaces/a/pods/p/log?follow=true", "get a pods p log"),
            (Method::GET, "/api/v1/pods", "list  pods  "),
            (Method::GET, "/api/v1/pods?watch=1", "watch  pods  "),
            (Method::GET, "/api/v1/watch/namespaces/a/pods", "watch a pods  "),
            (Method::GET, "/api/v1/namespaces/a", "get a namespaces a "),
            (Method::PUT, "/api/v1/namespaces/a/finalize", "update a namespaces a finalize"),
            (Method::DELETE, "/apis/apps/v1/namespaces/a/deployments", "deletecollection a deployments  "),
            (
                Method::GET,
                "/apis/apps/v1/namespaces/a/deployments?fieldSelector=metadata.name%3Dx",
                "list a deployments x ",
            ),
            (Method::POST, "/api/v1/nodes/n/proxy/a/b/", "create  nodes n proxy"),
            (Method::OPTIONS, "/api/v1/nodes/n/proxy/a", "  nodes n proxy"),
        ];
        for (method, uri, expected) in cases {
            let info = info(method, uri);
            let found = [info.verb, info.namespace, info.resource, info.name, info.subresource].join(" ");
            assert_eq!(found, expected, "{uri}");
        }
        assert_eq!(info(Method::GET, "/api/v1/nodes/n/proxy/a/b/").rest, "a/b/");
    }

    #[test]
    fn flags_are_gos() {
        let read = |text: &str| Query::parse(text).flag("tty");
        for off in ["", "tty=0", "tty=false", "tty=False", "tty=FALSE", "tty=false&tty=true"] {
            assert!(!read(off), "{off}");
        }
        for on in ["tty", "tty=", "tty=1", "tty=true", "tty=no"] {
            assert!(read(on), "{on}");
        }
    }

    #[test]
    fn durations_are_gos() {
        let read = |text: &str| Query::parse(&format!("timeout={text}")).duration("timeout");
        assert_eq!(read("1m30.5s"), Ok(Some(Duration::from_millis(90_500))));
        assert_eq!((read("0"), read("-3s"), read("")), (Ok(Some(Duration::ZERO)), Ok(Some(Duration::ZERO)), Ok(None)));
        assert_eq!(read("10"), Err("time: missing unit in duration \"10\"".into()));
        assert_eq!(read("5x"), Err("time: unknown unit \"x\" in duration \"5x\"".into()));
        assert_eq!(read("soon"), Err("time: invalid duration \"soon\"".into()));
        assert_eq!(read(&format!("{}h", "9".repeat(400))), Ok(Some(Duration::MAX)));
    }

    #[test]
    fn other_paths_are_not_resources() {
        for path in ["/", "/api", "/apis", "/api/v1", "/apis/apps", "/apis/apps/v1", "/healthz", "/openapi/v3"] {
            let info = info(Method::GET, path);
            assert!(!info.is_resource, "{path}");
            assert_eq!((info.verb.as_str(), info.path.as_str()), ("get", path));
        }
    }
}
