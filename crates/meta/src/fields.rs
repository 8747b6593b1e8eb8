//! Field selectors: `metadata.name=x,status.phase!=Running`.

use std::fmt;

use thiserror::Error;

/// Why a field selector cannot be read; the words are upstream's.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FieldSelectorError {
    /// A term has no operator.
    #[error("invalid selector: '{selector}'; can't understand '{term}'")]
    Term {
        /// The whole selector.
        selector: String,
        /// The term without an operator.
        term: String,
    },
    /// A backslash stands before a character that needs none, or at the end.
    #[error("invalid field selector: invalid escape sequence: {0}")]
    Escape(String),
    /// `,` or `=` stands in a value without a backslash.
    #[error("invalid field selector: unescaped character in value: {}", *.0 as u32)]
    Unescaped(char),
}

/// One condition on one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// The field's name, such as `metadata.name`.
    pub field: String,
    /// The value it is compared with.
    pub value: String,
    /// Whether the field must differ from the value.
    pub negated: bool,
}

/// Conditions on fields, all of which must hold. A field that is absent compares as the empty string.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    /// The conditions, sorted by their text.
    pub terms: Vec<Term>,
}

impl FieldSelector {
    /// Parses the string form; `=` and `==` are the same.
    ///
    /// # Errors
    /// When a term has no operator or a value is badly escaped. Which fields a resource knows is for the caller to check.
    pub fn parse(text: &str) -> Result<Self, FieldSelectorError> {
        let mut parts = split_terms(text);
        parts.sort_unstable();
        let mut terms = Vec::new();
        for part in parts.into_iter().filter(|p| !p.is_empty()) {
            let at = part.find('=').map(|i| if part[..i].ends_with('!') { i - 1 } else { i });
            let Some((field, rest)) = at.map(|at| part.split_at(at)) else {
                return Err(FieldSelectorError::Term { selector: text.to_owned(), term: part.to_owned() });
            };
            let negated = rest.starts_with('!');
            let value = ["!=", "==", "="].iter().find_map(|op| rest.strip_prefix(op)).unwrap_or_default();
            terms.push(Term { field: field.to_owned(), value: unescape(value)?, negated });
        }
        Ok(Self { terms })
    }

    /// Whether there is no condition.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether fields, given by a look-up, meet all conditions.
    pub fn matches_by<'a>(&self, lookup: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.terms.iter().all(|t| (lookup(&t.field).unwrap_or_default() == t.value) != t.negated)
    }

    /// The value that `field` must have, when one condition asks for exactly one.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|t| t.field == field && !t.negated).map(|t| t.value.as_str())
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, term) in self.terms.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let operator = if term.negated { "!=" } else { "=" };
            write!(f, "{comma}{}{operator}{}", term.field, escape(&term.value))?;
        }
        Ok(())
    }
}

/// A literal as it stands for a value in a field selector.
pub fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=")
}

fn split_terms(text: &str) -> Vec<&str> {
    let (mut terms, mut start, mut escaped) = (Vec::new(), 0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn unescape(value: &str) -> Result<String, FieldSelectorError> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                Some(other) => return Err(FieldSelectorError::Escape(format!("\\{other}"))),
                None => return Err(FieldSelectorError::Escape("\\".into())),
            },
            ',' | '=' => return Err(FieldSelectorError::Unescaped(c)),
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_parse_match_and_print() {
        let selector = FieldSelector::parse("status.phase!=Running,metadata.name==a\\,b").unwrap();
        assert_eq!(selector.to_string(), "metadata.name=a\\,b,status.phase!=Running");
        assert_eq!(selector.exact("metadata.name"), Some("a,b"));
        assert!(selector.matches_by(|f| (f == "metadata.name").then_some("a,b")));
        assert!(!selector.matches_by(|_| Some("Running")));
        assert!(FieldSelector::parse("").unwrap().is_empty());
        assert!(FieldSelector::parse("spec.nodeName=").unwrap().matches_by(|_| None));
    }

    #[test]
    fn malformed_selectors_are_refused() {
        let message = |text: &str| FieldSelector::parse(text).unwrap_err().to_string();
        assert_eq!(message("a"), "invalid selector: 'a'; can't understand 'a'");
        assert_eq!(message("a=b=c"), "invalid field selector: unescaped character in value: 61");
        assert_eq!(message("a=\\x"), "invalid field selector: invalid escape sequence: \\x");
    }
}
