//! Media types: what a body is in, and what an answer should be in.

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use kminik_meta::{FieldError, Path, StatusError};

use super::info::Query;

pub const JSON: &str = "application/json";
pub const YAML: &str = "application/yaml";
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// How bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    Json,
    Yaml,
    Protobuf,
}

impl Encoding {
    pub fn media_type(self) -> &'static str {
        match self {
            Encoding::Json => JSON,
            Encoding::Yaml => YAML,
            Encoding::Protobuf => PROTOBUF,
        }
    }
}

/// Which view of the objects is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum View {
    Object,
    /// meta.k8s.io Table; `true`: v1, else v1beta1.
    Table(bool),
    /// PartialObjectMetadata or its list; `true`: v1, else v1beta1.
    Metadata(bool),
}

/// The answer's encoding and view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Accepted {
    pub encoding: Encoding,
    pub view: View,
    /// JSON is set in lines, for people.
    pub pretty: bool,
}

impl Accepted {
    pub const JSON: Accepted = Accepted { encoding: Encoding::Json, view: View::Object, pretty: false };
}

/// One clause of an Accept header.
#[derive(Clone, Debug, PartialEq)]
pub struct Clause {
    /// `application/json`, lower case.
    pub media_type: String,
    pub params: Vec<(String, String)>,
    quality: f32,
}

impl Clause {
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Whether the clause covers this type.
    pub fn covers(&self, media_type: &str) -> bool {
        self.media_type == "*/*"
            || self.media_type == media_type
            || self.media_type.strip_suffix("/*").is_some_and(|major| media_type.split('/').next() == Some(major))
    }
}

/// The clauses of all Accept headers, the most wanted first: by quality, then the named types before the wildcards.
pub fn clauses(headers: &HeaderMap) -> Vec<Clause> {
    let mut clauses: Vec<Clause> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(clause)
        .collect();
    let wild = |clause: &Clause| (clause.media_type.starts_with('*'), clause.media_type.ends_with('*'));
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality).then_with(|| wild(a).cmp(&wild(b))));
    clauses
}

fn clause(text: &str) -> Option<Clause> {
    let mut parts = text.split(';').map(str::trim);
    let media_type = parts.next().filter(|media_type| !media_type.is_empty())?.to_ascii_lowercase();
    let mut clause = Clause { media_type, params: Vec::new(), quality: 1.0 };
    for part in parts {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let value = value.trim().trim_matches('"');
        if key.trim() == "q" {
            clause.quality = value.parse().unwrap_or(1.0);
        } else {
            clause.params.push((key.trim().to_owned(), value.to_owned()));
        }
    }
    Some(clause)
}

/// Chooses the form of an object or list: the first clause that can be met. `protobuf` tells whether the kind has a protobuf
/// form; metadata always has one, a Table never. `table` tells whether it has a Table.
///
/// # Errors
/// 406 when nothing the client accepts can be given.
pub fn negotiate(headers: &HeaderMap, query: &Query, protobuf: bool, table: bool) -> Result<Accepted, StatusError> {
    let pretty = wants_pretty(headers, query);
    let clauses = clauses(headers);
    if clauses.is_empty() {
        return Ok(Accepted { pretty, ..Accepted::JSON });
    }
    let chosen = clauses.iter().find_map(|clause| {
        let view = view(clause)?;
        let binary = match view {
            View::Object => protobuf,
            View::Table(_) if !table => return None,
            View::Table(_) => false,
            View::Metadata(_) => true,
        };
        let encoding = ENCODINGS
            .into_iter()
            .filter(|encoding| binary || *encoding != Encoding::Protobuf)
            .find(|encoding| clause.covers(encoding.media_type()))?;
        let pretty = (pretty || clause.param("pretty") == Some("1")) && encoding == Encoding::Json;
        Some(Accepted { encoding, view, pretty })
    });
    chosen.ok_or_else(|| StatusError::not_acceptable(&[JSON, YAML, PROTOBUF]))
}

/// The form of a document that has no views, such as a discovery list.
///
/// # Errors
/// 406 when nothing the client accepts can be given.
pub fn negotiate_document(headers: &HeaderMap, query: &Query) -> Result<Accepted, StatusError> {
    let clauses = clauses(headers);
    let plain = clauses.iter().filter(|clause| view(clause) == Some(View::Object));
    let encoding = match clauses.is_empty() {
        true => Some(Encoding::Json),
        false => plain.into_iter().find_map(|clause| ENCODINGS.into_iter().find(|e| clause.covers(e.media_type()))),
    };
    let encoding = encoding.ok_or_else(|| StatusError::not_acceptable(&[JSON, YAML, PROTOBUF]))?;
    let pretty = wants_pretty(headers, query) && encoding == Encoding::Json;
    Ok(Accepted { encoding, view: View::Object, pretty })
}

/// The form of an error, which is always given: as JSON for people where the client accepts nothing that there is.
pub fn negotiate_error(headers: &HeaderMap, query: &Query) -> Accepted {
    negotiate_document(headers, query).unwrap_or(Accepted { pretty: true, ..Accepted::JSON })
}

/// In the order in which a wildcard prefers them.
const ENCODINGS: [Encoding; 3] = [Encoding::Json, Encoding::Yaml, Encoding::Protobuf];

/// Whether JSON is set in lines: asked for by `pretty`, or read by a person (as upstream recognises the clients of people).
fn wants_pretty(headers: &HeaderMap, query: &Query) -> bool {
    if let Some(asked) = query.get("pretty") {
        return matches!(asked, "1" | "t" | "T" | "true" | "TRUE" | "True");
    }
    let agent = headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|client| agent.starts_with(client))
}

/// Whether what a Table is to hold of its objects is something that it can.
///
/// # Errors
/// 400 in upstream's words.
pub(crate) fn check_table(accepted: Accepted, query: &Query) -> Result<(), StatusError> {
    match (accepted.view, query.get("includeObject")) {
        (View::Table(_), Some(asked)) if !matches!(asked, "" | "None" | "Metadata" | "Object") => {
            let detail = "must be 'Metadata', 'Object', 'None', or empty";
            let error = FieldError::invalid(&Path::new("includeObject"), asked, detail);
            Err(StatusError::bad_request(format!("Unable to convert to Table as requested: {error}")))
        }
        _ => Ok(()),
    }
}

/// The view a clause asks for, `None` where it is one that does not exist.
fn view(clause: &Clause) -> Option<View> {
    if clause.param("stream").is_some_and(|stream| !matches!(stream, "" | "watch")) {
        return None;
    }
    if clause.param("sv").is_some_and(|version| !matches!(version, "" | "v1")) {
        return None;
    }
    let (kind, group, version) = (clause.param("as"), clause.param("g"), clause.param("v"));
    if (kind, group, version) == (None, None, None) {
        return Some(View::Object);
    }
    if group != Some("meta.k8s.io") {
        return None;
    }
    let stable = match version {
        Some("v1") => true,
        Some("v1beta1") => false,
        _ => return None,
    };
    match kind? {
        "Table" => Some(View::Table(stable)),
        "PartialObjectMetadata" | "PartialObjectMetadataList" => Some(View::Metadata(stable)),
        _ => None,
    }
}

/// The encoding of a request's body; no Content-Type is JSON.
///
/// # Errors
/// 415 for a type that is not understood.
pub fn body_encoding(headers: &HeaderMap) -> Result<Encoding, StatusError> {
    match content_type(headers).as_deref() {
        None | Some(JSON) => Ok(Encoding::Json),
        Some(YAML) => Ok(Encoding::Yaml),
        Some(PROTOBUF) => Ok(Encoding::Protobuf),
        Some(_) => Err(StatusError::unsupported_media_type(&[JSON, YAML, PROTOBUF])),
    }
}

/// The Content-Type without its parameters, lower case.
pub fn content_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(http::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    fn accept(value: &str, protobuf: bool) -> Result<Accepted, StatusError> {
        negotiate(&headers(&[(ACCEPT, value)]), &Query::default(), protobuf, true)
    }

    #[test]
    fn the_first_that_can_be_given_wins() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(accept(kubectl, true).unwrap().view, View::Table(true));
        let without = negotiate(&headers(&[(ACCEPT, kubectl)]), &Query::default(), true, false);
        assert_eq!(without.unwrap(), Accepted::JSON);
        let client_go = "application/vnd.kubernetes.protobuf, application/json";
        assert_eq!(accept(client_go, true).unwrap().encoding, Encoding::Protobuf);
        assert_eq!(accept(client_go, false).unwrap(), Accepted::JSON);
        assert_eq!(accept(PROTOBUF, false).unwrap_err().code(), 406);
        assert_eq!(accept("*/*, application/yaml;q=0.5", true).unwrap(), Accepted::JSON);
        assert_eq!(accept("application/*, application/yaml", true).unwrap().encoding, Encoding::Yaml);
        assert_eq!(accept("application/yaml;q=0.5, */*;q=0.1", true).unwrap().encoding, Encoding::Yaml);
        assert_eq!(
            accept("application/json;as=Foo;v=v1;g=meta.k8s.io, application/json", true).unwrap(),
            Accepted::JSON
        );
        assert_eq!(accept("application/json;stream=other", true).unwrap_err().code(), 406);
        assert_eq!(accept("application/cbor", true).unwrap_err().code(), 406);
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        let binary = accept(metadata, false).unwrap();
        assert_eq!((binary.encoding, binary.view), (Encoding::Protobuf, View::Metadata(true)));
        assert_eq!(
            accept("application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1", true).unwrap_err().code(),
            406
        );
        let refused = accept("text/html", true).unwrap_err();
        assert_eq!(
            refused.message,
            "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf"
        );
    }

    #[test]
    fn people_get_lines() {
        let pretty =
            |headers: &HeaderMap, query: &str| negotiate(headers, &Query::parse(query), true, true).unwrap().pretty;
        let (none, curl) = (HeaderMap::new(), headers(&[(USER_AGENT, "curl/8.0")]));
        assert!(!pretty(&none, "") && pretty(&none, "pretty=true") && pretty(&curl, "") && !pretty(&curl, "pretty=0"));
        assert!(accept("application/json;pretty=1", true).unwrap().pretty);
        assert!(
            !negotiate(&headers(&[(USER_AGENT, "curl/8.0"), (ACCEPT, YAML)]), &Query::default(), true, true)
                .unwrap()
                .pretty
        );
    }

    #[test]
    fn errors_are_negotiated_and_always_given() {
        let form = |accept: &str| negotiate_error(&headers(&[(ACCEPT, accept)]), &Query::default());
        assert_eq!(form("application/vnd.kubernetes.protobuf, */*").encoding, Encoding::Protobuf);
        assert_eq!(form("application/json;as=Table;v=v1;g=meta.k8s.io"), Accepted { pretty: true, ..Accepted::JSON });
        assert_eq!(form("text/html"), Accepted { pretty: true, ..Accepted::JSON });
        assert_eq!(negotiate_error(&HeaderMap::new(), &Query::default()), Accepted::JSON);
        assert_eq!(negotiate_document(&headers(&[(ACCEPT, "text/html")]), &Query::default()).unwrap_err().code(), 406);
    }
}
