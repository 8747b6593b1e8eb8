//! Media types: what a body is in, and what an answer should be in.

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};
use kminik_meta::StatusError;

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
}

impl Accepted {
    pub const JSON: Accepted = Accepted { encoding: Encoding::Json, view: View::Object };
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

/// The clauses of all Accept headers, the most wanted first.
pub fn clauses(headers: &HeaderMap) -> Vec<Clause> {
    let mut clauses: Vec<Clause> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(clause)
        .collect();
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
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

/// Chooses the form of an object, list or watch. `protobuf` tells whether the kind has a protobuf form; it is given to
/// clients that take nothing else, since JSON is what is stored.
///
/// # Errors
/// 406 when nothing the client accepts can be given.
pub fn negotiate(headers: &HeaderMap, protobuf: bool) -> Result<Accepted, StatusError> {
    let clauses = clauses(headers);
    if clauses.is_empty() {
        return Ok(Accepted::JSON);
    }
    let encodings = [Encoding::Json, Encoding::Yaml, Encoding::Protobuf];
    let chosen = clauses.iter().find_map(|clause| {
        let view = view(clause)?;
        let encoding = encodings
            .into_iter()
            .filter(|encoding| (protobuf && view == View::Object) || *encoding != Encoding::Protobuf)
            .find(|encoding| clause.covers(encoding.media_type()))?;
        Some(Accepted { encoding, view })
    });
    match chosen {
        Some(Accepted { encoding: Encoding::Protobuf, .. }) if clauses.iter().any(plain_json) => Ok(Accepted::JSON),
        Some(accepted) => Ok(accepted),
        None => Err(StatusError::not_acceptable(&[JSON, YAML, PROTOBUF])),
    }
}

fn plain_json(clause: &Clause) -> bool {
    view(clause) == Some(View::Object) && clause.covers(JSON)
}

fn view(clause: &Clause) -> Option<View> {
    let Some(kind) = clause.param("as") else { return Some(View::Object) };
    if clause.param("g") != Some("meta.k8s.io") {
        return None;
    }
    let stable = match clause.param("v") {
        Some("v1") => true,
        Some("v1beta1") => false,
        _ => return None,
    };
    match kind {
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

    fn accept(value: &str) -> Result<Accepted, StatusError> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, value.parse().unwrap());
        negotiate(&headers, false)
    }

    #[test]
    fn the_first_that_can_be_given_wins() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(accept(kubectl).unwrap().view, View::Table(true));
        assert_eq!(accept("application/vnd.kubernetes.protobuf, application/json").unwrap(), Accepted::JSON);
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, PROTOBUF.parse().unwrap());
        assert_eq!(negotiate(&headers, true).unwrap().encoding, Encoding::Protobuf);
        assert_eq!(negotiate(&headers, false).unwrap_err().code(), 406);
        assert_eq!(accept("application/yaml;q=0.5, */*;q=0.1").unwrap().encoding, Encoding::Yaml);
        assert_eq!(accept("application/json;as=Foo;v=v1;g=meta.k8s.io, application/json").unwrap(), Accepted::JSON);
        assert_eq!(accept("text/html").unwrap_err().code(), 406);
    }
}
