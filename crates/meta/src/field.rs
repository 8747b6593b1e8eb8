//! Field errors: a path, a kind and upstream's wording, gathered in a list that becomes an `Invalid` status.

use std::fmt;

use serde_json::Value;

/// A path to a field, written `spec.containers[0].env[name]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    /// A path of one member.
    pub fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The path that names the object itself; it prints as `<nil>`.
    pub fn root() -> Self {
        Self::default()
    }

    /// Adds a member.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Self(name.to_owned()) } else { Self(format!("{}.{name}", self.0)) }
    }

    /// Adds several members.
    #[must_use]
    pub fn children(&self, names: &[&str]) -> Self {
        names.iter().fold(self.clone(), |path, name| path.child(name))
    }

    /// Adds a list index.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// Adds a map key.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "<nil>" } else { &self.0 })
    }
}

/// What is wrong with a field; the closed set of upstream's error types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorType {
    /// The field refers to a value that does not exist.
    NotFound,
    /// A required value is absent or empty.
    Required,
    /// A value that must be unique occurs twice.
    Duplicate,
    /// The value is malformed or out of range.
    Invalid,
    /// The value is not one of those allowed.
    NotSupported,
    /// The value would be allowed under other conditions.
    Forbidden,
    /// The value has too many bytes.
    TooLong,
    /// The list has too many elements.
    TooMany,
    /// The check itself failed.
    Internal,
    /// The value is of another JSON type than the schema asks for.
    TypeInvalid,
}

impl ErrorType {
    /// The value of a status cause's `reason`.
    pub fn cause(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::Internal => "InternalError",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
        }
    }
}

/// One thing wrong with one field.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// What is wrong.
    pub kind: ErrorType,
    /// Path of the field as it is printed.
    pub field: String,
    /// The offending value where the wording shows it.
    pub value: Option<Value>,
    /// What would be right; may be empty.
    pub detail: String,
}

impl FieldError {
    fn new(kind: ErrorType, path: &Path, value: Option<Value>, detail: String) -> Self {
        Self { kind, field: path.to_string(), value, detail }
    }

    /// A required value is absent or empty.
    pub fn required(path: &Path, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Required, path, None, detail.into())
    }

    /// The value is malformed or out of range.
    pub fn invalid(path: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Invalid, path, Some(value.into()), detail.into())
    }

    /// The field as a whole is wrong, and its value too long to show.
    pub fn invalid_as_a_whole(path: &Path, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Invalid, path, None, detail.into())
    }

    /// An error whose value is shown as it is written here: a struct of upstream's, whose members have an order.
    pub fn shown(kind: ErrorType, path: &Path, value: &str, detail: &str) -> Self {
        Self::new(kind, path, None, format!("{value}: {detail}"))
    }

    /// The value is of another JSON type than the schema asks for.
    pub fn type_invalid(path: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::TypeInvalid, path, Some(value.into()), detail.into())
    }

    /// The value is none of `supported`, which is listed in the given order.
    pub fn not_supported(path: &Path, value: impl Into<Value>, supported: &[&str]) -> Self {
        let quoted: Vec<String> = supported.iter().map(|s| quote(s)).collect();
        let detail = if quoted.is_empty() { String::new() } else { format!("supported values: {}", quoted.join(", ")) };
        Self::new(ErrorType::NotSupported, path, Some(value.into()), detail)
    }

    /// The value is not permitted under the present conditions.
    pub fn forbidden(path: &Path, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Forbidden, path, None, detail.into())
    }

    /// The value occurs twice.
    pub fn duplicate(path: &Path, value: impl Into<Value>) -> Self {
        Self::new(ErrorType::Duplicate, path, Some(value.into()), String::new())
    }

    /// The value names something that does not exist.
    pub fn not_found(path: &Path, value: impl Into<Value>) -> Self {
        Self::new(ErrorType::NotFound, path, Some(value.into()), String::new())
    }

    /// The value has more than `max` bytes.
    pub fn too_long(path: &Path, max: usize) -> Self {
        let unit = if max == 1 { "byte" } else { "bytes" };
        Self::new(ErrorType::TooLong, path, None, format!("may not be more than {max} {unit}"))
    }

    /// The list has `actual` elements, more than `max`.
    pub fn too_many(path: &Path, actual: usize, max: usize) -> Self {
        let unit = if max == 1 { "item" } else { "items" };
        Self::new(ErrorType::TooMany, path, Some(actual.into()), format!("must have at most {max} {unit}"))
    }

    /// The check itself failed.
    pub fn internal(path: &Path, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Internal, path, None, detail.into())
    }

    /// The wording without the field's path.
    pub fn body(&self) -> String {
        let mut text = self.kind.text().to_owned();
        if let Some(value) = &self.value {
            text.push_str(": ");
            match value {
                Value::String(string) => text.push_str(&quote(string)),
                other => text.push_str(&other.to_string()),
            }
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

/// A string as Go's `%q` writes it.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c == '\u{7f}' => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Field errors in the order in which they were found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ErrorList(Vec<FieldError>);

impl ErrorList {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an error.
    pub fn push(&mut self, error: FieldError) {
        self.0.push(error);
    }

    /// Adds all errors of another list.
    pub fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// Adds an `Invalid` error for each message of a name check.
    pub fn invalid_each(&mut self, path: &Path, value: &str, messages: Vec<String>) {
        self.0.extend(messages.into_iter().map(|message| FieldError::invalid(path, value, message)));
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of errors.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The errors in order.
    pub fn iter(&self) -> std::slice::Iter<'_, FieldError> {
        self.0.iter()
    }
}

impl From<FieldError> for ErrorList {
    fn from(error: FieldError) -> Self {
        Self(vec![error])
    }
}

impl Extend<FieldError> for ErrorList {
    fn extend<T: IntoIterator<Item = FieldError>>(&mut self, errors: T) {
        self.0.extend(errors);
    }
}

impl IntoIterator for ErrorList {
    type Item = FieldError;
    type IntoIter = std::vec::IntoIter<FieldError>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a ErrorList {
    type Item = &'a FieldError;
    type IntoIter = std::slice::Iter<'a, FieldError>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl fmt::Display for ErrorList {
    /// One message alone, several as `[a, b]`; a message that repeats is written once.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut texts: Vec<String> = Vec::with_capacity(self.0.len());
        for error in &self.0 {
            let text = error.to_string();
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        match texts.as_slice() {
            [one] => f.write_str(one),
            many => write!(f, "[{}]", many.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn errors_read_like_upstream() {
        let path = Path::new("spec").child("containers").index(0);
        let cases = [
            (FieldError::required(&path.child("name"), ""), "spec.containers[0].name: Required value"),
            (FieldError::invalid(&path, "A b", "bad"), "spec.containers[0]: Invalid value: \"A b\": bad"),
            (
                FieldError::invalid(&path, -1, "must be positive"),
                "spec.containers[0]: Invalid value: -1: must be positive",
            ),
            (FieldError::invalid(&path, json!({"a": 1}), "x"), "spec.containers[0]: Invalid value: {\"a\":1}: x"),
            (
                FieldError::not_supported(&path, "X", &["A", "B"]),
                "spec.containers[0]: Unsupported value: \"X\": supported values: \"A\", \"B\"",
            ),
            (FieldError::duplicate(&path.key("k"), "x"), "spec.containers[0][k]: Duplicate value: \"x\""),
            (FieldError::too_long(&path, 63), "spec.containers[0]: Too long: may not be more than 63 bytes"),
            (FieldError::too_many(&path, 2, 1), "spec.containers[0]: Too many: 2: must have at most 1 item"),
            (FieldError::forbidden(&Path::root(), "no"), "<nil>: Forbidden: no"),
        ];
        for (error, text) in cases {
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn a_list_prints_each_message_once() {
        let mut list = ErrorList::from(FieldError::required(&Path::new("a"), ""));
        assert_eq!(list.to_string(), "a: Required value");
        list.push(FieldError::required(&Path::new("b"), ""));
        list.push(FieldError::required(&Path::new("a"), ""));
        assert_eq!(list.to_string(), "[a: Required value, b: Required value]");
    }
}
