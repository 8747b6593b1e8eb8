//! Label selectors: the string form of query parameters and the object form of specs, with upstream's rules and words.

use std::fmt;

use serde_json::Value;
use thiserror::Error;

use crate::field::{ErrorList, FieldError, Path};
use crate::{Object, names};

/// How a requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// The value is one of those given (`in`, `In`).
    In,
    /// The label is absent or its value is none of those given (`notin`, `NotIn`).
    NotIn,
    /// The value is the one given (`=`).
    Equals,
    /// The same, written `==`.
    DoubleEquals,
    /// The label is absent or has another value (`!=`).
    NotEquals,
    /// The label is present.
    Exists,
    /// The label is absent.
    DoesNotExist,
    /// The value is an integer above the one given.
    GreaterThan,
    /// The value is an integer below the one given.
    LessThan,
}

/// Why a selector cannot be used.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum SelectorError {
    /// The string form cannot be read; the words are upstream's.
    #[error("{0}")]
    Syntax(String),
    /// A requirement breaks a rule.
    #[error("{0}")]
    Requirement(ErrorList),
    /// A requirement of the string form breaks a rule.
    #[error("unable to parse requirement: {0}")]
    Unparsable(Box<SelectorError>),
    /// The object form has an operator that does not exist.
    #[error("{0:?} is not a valid label selector operator")]
    Operator(String),
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    key: String,
    operator: Operator,
    /// Sorted, without repetition.
    values: Vec<String>,
}

impl Requirement {
    /// A requirement that keeps upstream's rules.
    ///
    /// # Errors
    /// When the key or a value is malformed, or the number of values does not fit the operator.
    pub fn new(key: &str, operator: Operator, mut values: Vec<String>) -> Result<Self, SelectorError> {
        let mut errors = ErrorList::new();
        let (key_path, value_path) = (Path::new("key"), Path::new("values"));
        let messages = names::qualified_name(key);
        if !messages.is_empty() {
            errors.push(FieldError::invalid(&key_path, key, messages.join("; ")));
        }
        let mut wrong = |message: &str| errors.push(FieldError::invalid(&value_path, values.clone(), message));
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                wrong("for 'in', 'notin' operators, values set can't be empty");
            }
            Operator::Equals | Operator::DoubleEquals | Operator::NotEquals if values.len() != 1 => {
                wrong("exact-match compatibility requires one single value");
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                wrong("values set must be empty for exists and does not exist");
            }
            Operator::GreaterThan | Operator::LessThan if values.len() != 1 => {
                wrong("for 'Gt', 'Lt' operators, exactly one value is required");
            }
            _ => {}
        }
        for (i, value) in values.iter().enumerate() {
            let path = value_path.index(i);
            if matches!(operator, Operator::GreaterThan | Operator::LessThan) && value.parse::<i64>().is_err() {
                let message = "for 'Gt', 'Lt' operators, the value must be an integer";
                errors.push(FieldError::invalid(&path, value.as_str(), message));
            }
            let messages = names::label_value(value);
            if !messages.is_empty() {
                errors.push(FieldError::invalid(&path.key(key), value.as_str(), messages.join("; ")));
            }
        }
        if !errors.is_empty() {
            return Err(SelectorError::Requirement(errors));
        }
        values.sort();
        values.dedup();
        Ok(Self { key: key.to_owned(), operator, values })
    }

    /// Whether a label's value, `None` when it is absent, meets the condition.
    pub fn matches(&self, value: Option<&str>) -> bool {
        let has = |v: &str| self.values.iter().any(|own| own == v);
        let number = |v: &str| v.parse::<i64>().ok();
        let bound = || self.values.first().and_then(|v| number(v));
        match self.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => value.is_some_and(has),
            Operator::NotIn | Operator::NotEquals => !value.is_some_and(has),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => value.and_then(number).zip(bound()).is_some_and(|(v, b)| v > b),
            Operator::LessThan => value.and_then(number).zip(bound()).is_some_and(|(v, b)| v < b),
        }
    }

    /// The label's key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The comparison.
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// The values, sorted.
    pub fn values(&self) -> &[String] {
        &self.values
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, values) = (&self.key, self.values.join(","));
        match self.operator {
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::DoubleEquals => write!(f, "{key}=={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

/// Conditions on labels, all of which must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelSelector {
    /// `None` matches nothing, an empty list everything.
    requirements: Option<Vec<Requirement>>,
}

impl LabelSelector {
    /// Matches every object.
    pub fn everything() -> Self {
        Self { requirements: Some(Vec::new()) }
    }

    /// Matches no object: what an absent selector of a spec means.
    pub fn nothing() -> Self {
        Self { requirements: None }
    }

    /// Parses the string form: `a=b,c!=d,e in (f,g),!h,i>3`.
    ///
    /// # Errors
    /// In upstream's words, which the API server puts behind `unable to parse requirement` and the like.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Parser::new(text).parse()?;
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements: Some(requirements) })
    }

    /// Reads the object form with `matchLabels` and `matchExpressions`; an absent selector matches nothing, an empty one everything.
    ///
    /// # Errors
    /// When a requirement breaks a rule.
    pub fn from_value(selector: Option<&Value>) -> Result<Self, SelectorError> {
        let Some(selector) = selector.filter(|s| !s.is_null()) else { return Ok(Self::nothing()) };
        let mut built = Self::from_map(selector.get("matchLabels"))?;
        let requirements = built.requirements.get_or_insert_default();
        for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let operator = match expression.get("operator").and_then(Value::as_str).unwrap_or_default() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(SelectorError::Operator(other.to_owned())),
            };
            let values = expression.get("values").and_then(Value::as_array).into_iter().flatten();
            let values = values.filter_map(|v| v.as_str().map(str::to_owned)).collect();
            let key = expression.get("key").and_then(Value::as_str).unwrap_or_default();
            requirements.push(Requirement::new(key, operator, values)?);
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(built)
    }

    /// Reads a plain map of labels, the selector of Services and replication controllers; absent or empty matches everything.
    ///
    /// # Errors
    /// When a key or value is malformed.
    pub fn from_map(map: Option<&Value>) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for (key, value) in map.and_then(Value::as_object).into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_owned();
            requirements.push(Requirement::new(key, Operator::Equals, vec![value])?);
        }
        Ok(Self { requirements: Some(requirements) })
    }

    /// Whether labels, given by a look-up, meet all conditions.
    pub fn matches_by<'a>(&self, lookup: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.as_ref().is_some_and(|all| all.iter().all(|r| r.matches(lookup(&r.key))))
    }

    /// Whether an object's labels meet all conditions.
    pub fn matches(&self, object: &Object) -> bool {
        self.matches_by(|key| object.label(key))
    }

    /// Whether the members of a JSON object of labels meet all conditions; an absent one has no labels.
    pub fn matches_labels(&self, labels: Option<&Value>) -> bool {
        self.matches_by(|key| labels.and_then(|l| l.get(key)).and_then(Value::as_str))
    }

    /// Whether every object matches.
    pub fn is_everything(&self) -> bool {
        self.requirements.as_ref().is_some_and(Vec::is_empty)
    }

    /// Whether no object can match because the selector is absent.
    pub fn is_nothing(&self) -> bool {
        self.requirements.is_none()
    }

    /// The conditions; none for a selector that matches nothing.
    pub fn requirements(&self) -> &[Requirement] {
        self.requirements.as_deref().unwrap_or_default()
    }
}

impl fmt::Display for LabelSelector {
    /// Writes the string form, in order of the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.requirements().iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{requirement}")?;
        }
        Ok(())
    }
}

/// A selector, in the object form or as a plain map, as the string that `scale` subresources show.
///
/// # Errors
/// When a requirement breaks a rule.
pub fn to_string_form(selector: Option<&Value>) -> Result<String, SelectorError> {
    let members = selector.and_then(Value::as_object);
    // The members of the object form are an object and a list.
    let plain = members.is_some_and(|members| members.values().any(Value::is_string));
    let read = if plain { LabelSelector::from_map } else { LabelSelector::from_value };
    read(selector).map(|selector| selector.to_string())
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    End,
    Close,
    Comma,
    Not,
    DoubleEquals,
    Equals,
    Greater,
    Less,
    NotEquals,
    Open,
    /// A key or a value, or the words `in` and `notin`.
    Word,
}

struct Parser {
    tokens: Vec<(Token, String)>,
    position: usize,
}

fn syntax(found: &str, expected: &str) -> SelectorError {
    SelectorError::Syntax(format!("found '{found}', expected: {expected}"))
}

impl Parser {
    fn new(text: &str) -> Self {
        let special = |c: char| "=!(),><".contains(c);
        let blank = |c: char| " \t\r\n".contains(c);
        let mut tokens = Vec::new();
        let mut rest = text.trim_start_matches(blank);
        while let Some(first) = rest.chars().next() {
            let (token, length) = match first {
                ')' => (Token::Close, 1),
                ',' => (Token::Comma, 1),
                '(' => (Token::Open, 1),
                '>' => (Token::Greater, 1),
                '<' => (Token::Less, 1),
                '=' if rest.starts_with("==") => (Token::DoubleEquals, 2),
                '=' => (Token::Equals, 1),
                '!' if rest.starts_with("!=") => (Token::NotEquals, 2),
                '!' => (Token::Not, 1),
                _ => (Token::Word, rest.find(|c| special(c) || blank(c)).unwrap_or(rest.len())),
            };
            let (word, after) = rest.split_at(length);
            tokens.push((token, word.to_owned()));
            rest = after.trim_start_matches(blank);
        }
        tokens.push((Token::End, String::new()));
        Self { tokens, position: 0 }
    }

    fn peek(&self) -> (Token, String) {
        self.tokens.get(self.position).cloned().unwrap_or((Token::End, String::new()))
    }

    fn next(&mut self) -> (Token, String) {
        let token = self.peek();
        self.position += 1;
        token
    }

    fn parse(&mut self) -> Result<Vec<Requirement>, SelectorError> {
        let mut requirements = Vec::new();
        loop {
            match self.peek() {
                (Token::End, _) => return Ok(requirements),
                (Token::Word | Token::Not, _) => {
                    let requirement = self.requirement().map_err(|e| SelectorError::Unparsable(Box::new(e)))?;
                    requirements.push(requirement);
                }
                (_, found) => return Err(syntax(&found, "!, identifier, or 'end of string'")),
            }
            match self.next() {
                (Token::End, _) => return Ok(requirements),
                (Token::Comma, _) => {
                    let (token, found) = self.peek();
                    if !matches!(token, Token::Word | Token::Not) {
                        return Err(syntax(&found, "identifier after ','"));
                    }
                }
                (_, found) => return Err(syntax(&found, "',' or 'end of string'")),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let (mut token, mut key) = self.next();
        let negated = token == Token::Not;
        if negated {
            (token, key) = self.next();
        }
        if token != Token::Word {
            return Err(syntax(&key, "identifier"));
        }
        let messages = names::qualified_name(&key);
        if !messages.is_empty() {
            let error = FieldError::invalid(&Path::root(), key.as_str(), messages.join("; "));
            return Err(SelectorError::Requirement(error.into()));
        }
        if negated {
            return Requirement::new(&key, Operator::DoesNotExist, Vec::new());
        }
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Requirement::new(&key, Operator::Exists, Vec::new());
        }
        let operator = match self.next() {
            (Token::Word, word) if word == "in" => Operator::In,
            (Token::Word, word) if word == "notin" => Operator::NotIn,
            (Token::Equals, _) => Operator::Equals,
            (Token::DoubleEquals, _) => Operator::DoubleEquals,
            (Token::NotEquals, _) => Operator::NotEquals,
            (Token::Greater, _) => Operator::GreaterThan,
            (Token::Less, _) => Operator::LessThan,
            (_, found) => return Err(syntax(&found, "in, notin, =, ==, !=, gt, lt")),
        };
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => vec![self.exact_value()?],
        };
        Requirement::new(&key, operator, values)
    }

    fn exact_value(&mut self) -> Result<String, SelectorError> {
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok(String::new());
        }
        match self.next() {
            (Token::Word, value) => Ok(value),
            (_, found) => Err(syntax(&found, "identifier")),
        }
    }

    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        if let (token, found) = self.next()
            && token != Token::Open
        {
            return Err(SelectorError::Syntax(format!("found '{found}' expected: '('")));
        }
        let mut values = vec![];
        // An element may be empty: `(,a)` and `()` hold the empty string.
        let mut element = String::new();
        let mut filled = false;
        loop {
            match self.next() {
                (Token::Word, word) if !filled => {
                    element = word;
                    filled = true;
                }
                (Token::Word, word) => return Err(syntax(&word, "',' or ')'")),
                (token @ (Token::Comma | Token::Close), _) => {
                    values.push(std::mem::take(&mut element));
                    filled = false;
                    if token == Token::Close {
                        values.sort();
                        values.dedup();
                        return Ok(values);
                    }
                }
                (_, found) => return Err(syntax(&found, "',', ')' or identifier")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn matches(selector: &str, labels: Value) -> bool {
        LabelSelector::parse(selector).unwrap().matches_labels(Some(&labels))
    }

    #[test]
    fn string_forms_match() {
        let labels = json!({"app": "web", "n": "5", "example.com/x": ""});
        for yes in [
            "",
            "app",
            "app=web",
            "app==web",
            "app!=db",
            "!db",
            "app in (web, db)",
            "app notin (db)",
            "db notin (x)",
            "n>4",
            "n<6",
            "example.com/x=",
            "app=web,n>4",
            "example.com/x in ()",
            "db!=x",
        ] {
            assert!(matches(yes, labels.clone()), "{yes}");
        }
        for no in ["!app", "app=db", "db", "n>5", "n<5", "app>1", "app in (db,,x)", "app=web,db"] {
            assert!(!matches(no, labels.clone()), "{no}");
        }
    }

    #[test]
    fn string_forms_print_canonically() {
        for (text, want) in [
            ("b=1,a in (z,y)", "a in (y,z),b=1"),
            ("x in (,a)", "x in (,a)"),
            ("!a , b", "!a,b"),
            ("in in (in,notin)", "in in (in,notin)"),
            ("a==b", "a==b"),
        ] {
            assert_eq!(LabelSelector::parse(text).unwrap().to_string(), want, "{text}");
        }
    }

    #[test]
    fn malformed_selectors_are_refused() {
        let message = |text: &str| LabelSelector::parse(text).unwrap_err().to_string();
        assert_eq!(message("=a"), "found '=', expected: !, identifier, or 'end of string'");
        assert_eq!(message("a=b,"), "found '', expected: identifier after ','");
        assert_eq!(message("a b"), "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt");
        assert_eq!(message("a in b"), "unable to parse requirement: found 'b' expected: '('");
        assert_eq!(message("a=b c"), "found 'c', expected: ',' or 'end of string'");
        assert!(
            message("-a=b").starts_with("unable to parse requirement: <nil>: Invalid value: \"-a\": name part must")
        );
        assert!(message("a=-b").contains("values[0][a]: Invalid value: \"-b\": a valid label must be"));
        assert!(message("a>x").contains("the value must be an integer"));
        assert!(LabelSelector::parse("a in (b").is_err());
    }

    #[test]
    fn object_forms_match() {
        let selector = json!({"matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["db"]}]});
        let selector = LabelSelector::from_value(Some(&selector)).unwrap();
        assert!(selector.matches_labels(Some(&json!({"app": "web"}))));
        assert!(!selector.matches_labels(Some(&json!({"app": "web", "tier": "db"}))));
        assert_eq!(selector.to_string(), "app=web,tier notin (db)");
        assert!(!LabelSelector::from_value(None).unwrap().matches_labels(None));
        assert!(LabelSelector::from_value(Some(&json!({}))).unwrap().matches_labels(None));
        let bad = json!({"matchExpressions": [{"key": "a", "operator": "Near"}]});
        assert_eq!(
            LabelSelector::from_value(Some(&bad)).unwrap_err().to_string(),
            "\"Near\" is not a valid label selector operator"
        );
    }
}
