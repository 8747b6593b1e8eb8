//! The query of a request, read as upstream reads it.

/// Decoded pairs, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn of(uri: &http::Uri) -> Query {
        Query(url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect())
    }

    /// The first value that is not empty.
    pub(super) fn get<'a>(&'a self, key: &'a str) -> Option<&'a str> {
        self.all(key).find(|value| !value.is_empty())
    }

    pub(super) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// `1` or `true` under any of the names.
    pub(super) fn flag(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.all(name).any(|value| matches!(value, "1" | "true" | "True" | "TRUE")))
    }
}
