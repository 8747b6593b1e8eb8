//! URLs, as Go's `url.ParseRequestURI` reads them: absolute, or an absolute path.

use std::sync::Arc;

use indexmap::IndexMap;

use super::opaque::Opaque;
use super::{Outcome, text};
use crate::CallContext;
use crate::env::Row;
use crate::error::EvalError;
use crate::value::{Key, Map, Text, Value};

pub(super) const ROWS: &[Row] = &[
    ("url", "string_to_url", "(string) kubernetes.URL", |_, args| {
        let url = Url::parse(text(args, 0)?)
            .map_err(|why| EvalError::new(format_args!("URL parse error during conversion from string: {why}")))?;
        Ok(Value::Opaque(Opaque::Url(Arc::new(url))))
    }),
    ("isURL", "is_url_string", "(string) bool", |_, args| Ok(Url::parse(text(args, 0)?).is_ok().into())),
    ("getScheme", "url_get_scheme", "kubernetes.URL.() string", |_, args| Ok(Value::text(&*get(args)?.scheme))),
    ("getHost", "url_get_host", "kubernetes.URL.() string", |_, args| Ok(Value::text(&*get(args)?.host))),
    ("getHostname", "url_get_hostname", "kubernetes.URL.() string", |_, args| Ok(Value::text(get(args)?.hostname()))),
    ("getPort", "url_get_port", "kubernetes.URL.() string", |_, args| Ok(Value::text(get(args)?.port()))),
    ("getEscapedPath", "url_get_escaped_path", "kubernetes.URL.() string", |_, args| {
        Ok(Value::text(escape_path(&get(args)?.path)))
    }),
    ("getQuery", "url_get_query", "kubernetes.URL.() map(string, list(string))", query),
];

/// A parsed URL.
#[derive(Debug, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    user: String,
    /// Host and port.
    host: String,
    /// As written.
    path: String,
    query: String,
}

fn get<'v>(args: &'v [Value<'_>]) -> Result<&'v Url, EvalError> {
    match args.first() {
        Some(Value::Opaque(Opaque::Url(url))) => Ok(url),
        _ => Err(EvalError::no_such_overload()),
    }
}

impl Url {
    /// # Errors
    /// Why the text is no URL of a request, in Go's words.
    pub(crate) fn parse(source: &str) -> Result<Self, String> {
        let fail = |why: &str| Err(format!("parse {source:?}: {why}"));
        if source.is_empty() {
            return fail("empty url");
        }
        if source.chars().any(|c| c.is_ascii_control()) {
            return fail("net/url: invalid control character in URL");
        }
        let scheme_end = source.find(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c)));
        let (scheme, rest) = match scheme_end {
            Some(0) if source.starts_with(':') => return fail("missing protocol scheme"),
            Some(end) if source[end..].starts_with(':') && source.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                (source[..end].to_ascii_lowercase(), &source[end + 1..])
            }
            _ => (String::new(), source),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        if !rest.starts_with('/') {
            // Opaque after a scheme, relative without one.
            return if scheme.is_empty() || rest.is_empty() {
                fail("invalid URI for request")
            } else {
                Ok(Url { scheme, user: String::new(), host: String::new(), path: String::new(), query: query.into() })
            };
        }
        let (authority, path) = match rest.strip_prefix("//") {
            Some(rest) if !scheme.is_empty() => rest.split_at(rest.find('/').unwrap_or(rest.len())),
            _ => ("", rest),
        };
        let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        if host.contains([' ', '<', '>', '"']) {
            let bad = host.chars().find(|c| " <>\"".contains(*c)).unwrap_or(' ');
            return fail(&format!("invalid character {:?} in host name", bad.to_string()));
        }
        let port = host.rfind(':').filter(|i| !host[*i..].contains(']')).map(|i| &host[i..]);
        if host.starts_with('[') && !host.contains(']') {
            return fail("missing ']' in host");
        }
        if let Some(port) = port.filter(|p| !p[1..].chars().all(|c| c.is_ascii_digit())) {
            return fail(&format!("invalid port {port:?} after host"));
        }
        for (i, _) in path.match_indices('%') {
            let escape = path.get(i..i + 3).unwrap_or(&path[i..]);
            if escape.len() < 3 || !escape[1..].chars().all(|c| c.is_ascii_hexdigit()) {
                return fail(&format!("invalid URL escape {escape:?}"));
            }
        }
        Ok(Url { scheme, user: user.into(), host: host.into(), path: path.into(), query: query.into() })
    }

    fn hostname(&self) -> &str {
        if let Some(rest) = self.host.strip_prefix('[') {
            return rest.split(']').next().unwrap_or_default();
        }
        self.host.rsplit_once(':').map_or(&self.host, |(name, _)| name)
    }

    fn port(&self) -> &str {
        let after = self.host.rfind(']').map_or(&*self.host, |i| &self.host[i..]);
        after.rsplit_once(':').map_or("", |(_, port)| port)
    }
}

/// The path with what may not stand in one escaped.
fn escape_path(path: &str) -> String {
    let mut escaped = String::with_capacity(path.len());
    for b in path.bytes() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => escaped.push(b.into()),
            b'-' | b'_' | b'.' | b'~' | b'$' | b'&' | b'+' | b',' | b'/' | b':' | b';' | b'=' | b'@' | b'%' | b'!'
            | b'\'' | b'(' | b')' | b'*' | b'[' | b']' => escaped.push(b.into()),
            b => escaped.push_str(&format!("%{b:02X}")),
        }
    }
    escaped
}

/// Decodes `+` and percent escapes; `None` for a broken escape.
fn unescape(part: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(b) = rest.next() {
        bytes.push(match b {
            b'+' => b' ',
            b'%' => {
                let (a, b) = (char::from(rest.next()?).to_digit(16)?, char::from(rest.next()?).to_digit(16)?);
                u8::try_from(a * 16 + b).ok()?
            }
            b => b,
        });
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn query<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    let mut values: IndexMap<String, Vec<Value<'a>>> = IndexMap::new();
    for pair in
        get(args)?.query.split('#').next().unwrap_or_default().split('&').filter(|p| !p.is_empty() && !p.contains(';'))
    {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if let (Some(name), Some(value)) = (unescape(name), unescape(value)) {
            values.entry(name).or_default().push(Value::text(value));
        }
    }
    let entries = values.into_iter().map(|(name, list)| (Key::String(Text::Shared(name.into())), Value::list(list)));
    Ok(Value::Map(Map::Owned(Arc::new(entries.collect()))))
}
