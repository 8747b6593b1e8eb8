//! Columns that a custom resource's definition names, each a path into the object.

use serde_json::{Value, json};

use super::{Column, NAME};
use crate::{Object, time};
use jiff::Timestamp;

/// A column: what its header says and where its cells are.
#[derive(Clone, Debug)]
pub struct Printed {
    name: String,
    kind: String,
    format: String,
    description: String,
    priority: i64,
    path: Vec<Step>,
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Member(String),
    /// From the end where negative.
    Element(i64),
    All,
    /// The elements whose member at a path compares so.
    Where(Vec<Step>, Comparison),
}

#[derive(Clone, Debug, PartialEq)]
enum Comparison {
    Exists,
    Equal(Value),
    Different(Value),
}

impl Printed {
    /// From an entry of `additionalPrinterColumns`. A path that cannot be read has empty cells.
    pub fn new(definition: &Value) -> Self {
        let text = |member: &str| definition.get(member).and_then(Value::as_str).unwrap_or_default().to_owned();
        let path = text("jsonPath");
        let description = match text("description") {
            empty if empty.is_empty() => format!("Custom resource definition column (in JSONPath format): {path}"),
            given => given,
        };
        Self {
            name: text("name"),
            kind: text("type"),
            format: text("format"),
            description,
            priority: definition.get("priority").and_then(Value::as_i64).unwrap_or_default(),
            path: parse(&path).unwrap_or_else(|| vec![Step::Member(String::new())]),
        }
    }

    /// The column of a resource that names none: its age.
    pub fn age() -> Self {
        Self::new(&json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp",
            "description": "CreationTimestamp is a timestamp representing the server time when this object was created. It is not \
                guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is \
                represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: \
                https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata"}))
    }

    fn definition(&self) -> Value {
        json!({"name": self.name, "type": self.kind, "format": self.format, "priority": self.priority,
            "description": self.description})
    }

    fn cell(&self, root: &Value, now: Timestamp) -> Value {
        let Some(value) = find(root, &self.path) else { return Value::Null };
        match self.kind.as_str() {
            "string" => match value {
                Value::String(_) => value.clone(),
                Value::Null => Value::from("<nil>"),
                other => Value::from(other.to_string()),
            },
            "integer" => match value.as_i64() {
                Some(number) => number.into(),
                None => value.as_f64().map_or(Value::Null, |number| Value::from(number as i64)),
            },
            "number" if value.is_number() => value.clone(),
            "boolean" if value.is_boolean() => value.clone(),
            "date" => match value.as_str() {
                Some(text) => match time::parse(text) {
                    Some(at) => time::age(Some(at), now).into(),
                    None => "<invalid>".into(),
                },
                None => Value::Null,
            },
            _ => Value::Null,
        }
    }
}

/// The columns of a kind in one version.
#[derive(Clone)]
pub enum Columns {
    /// Of the table.
    Known(&'static [Column]),
    /// Of a definition; the name comes before them.
    Printed(std::sync::Arc<[Printed]>),
}

impl std::fmt::Debug for Columns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} columns", self.definitions().len())
    }
}

impl Columns {
    /// `columnDefinitions`.
    pub fn definitions(&self) -> Vec<Value> {
        match self {
            Self::Known(columns) => columns.iter().map(Column::definition).collect(),
            Self::Printed(columns) => {
                std::iter::once(NAME.definition()).chain(columns.iter().map(Printed::definition)).collect()
            }
        }
    }

    /// The cells of an object, one a column.
    pub fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        match self {
            Self::Known(columns) => super::cells(columns, object, now),
            Self::Printed(columns) => {
                let root = object.to_value();
                let cells = columns.iter().map(|column| column.cell(&root, now));
                std::iter::once(Value::from(object.name())).chain(cells).collect()
            }
        }
    }
}

/// The first value that a path leads to.
fn find<'a>(value: &'a Value, path: &[Step]) -> Option<&'a Value> {
    let Some((step, rest)) = path.split_first() else { return Some(value) };
    match step {
        Step::Member(name) => find(value.get(name)?, rest),
        Step::Element(index) => {
            let elements = value.as_array()?;
            let at = if *index < 0 { i64::try_from(elements.len()).ok()? + index } else { *index };
            find(elements.get(usize::try_from(at).ok()?)?, rest)
        }
        Step::All => match value {
            Value::Array(elements) => elements.iter().find_map(|element| find(element, rest)),
            Value::Object(map) => map.values().find_map(|member| find(member, rest)),
            _ => None,
        },
        Step::Where(path, comparison) => value.as_array()?.iter().find_map(|element| {
            let found = find(element, path);
            let holds = match comparison {
                Comparison::Exists => found.is_some(),
                Comparison::Equal(wanted) => found == Some(wanted),
                Comparison::Different(wanted) => found.is_some_and(|found| found != wanted),
            };
            if holds { find(element, rest) } else { None }
        }),
    }
}

/// Reads a path such as `.status.conditions[?(@.type=="Ready")].status`.
fn parse(text: &str) -> Option<Vec<Step>> {
    let (mut steps, mut rest) = (Vec::new(), text.trim());
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let end = closing(after)?;
            steps.push(bracket(after.get(..end)?)?);
            rest = after.get(end + 1..)?;
        } else {
            let after = rest.strip_prefix('.').unwrap_or(rest);
            let (mut name, mut end, mut escaped) = (String::new(), after.len(), false);
            for (at, c) in after.char_indices() {
                match c {
                    c if escaped => {
                        name.push(c);
                        escaped = false;
                    }
                    '\\' => escaped = true,
                    '.' | '[' => {
                        end = at;
                        break;
                    }
                    c => name.push(c),
                }
            }
            match name.as_str() {
                "" => {}
                "*" => steps.push(Step::All),
                _ => steps.push(Step::Member(name)),
            }
            rest = after.get(end..)?;
        }
    }
    Some(steps)
}

/// Where the bracket that was opened before `text` closes, strings and inner brackets aside.
fn closing(text: &str) -> Option<usize> {
    let (mut quote, mut depth) = (None, 0);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn bracket(text: &str) -> Option<Step> {
    let text = text.trim();
    if text == "*" {
        return Some(Step::All);
    }
    if let Some(name) = quoted(text) {
        return Some(Step::Member(name.to_owned()));
    }
    let Some(filter) = text.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) else {
        return text.parse().ok().map(Step::Element);
    };
    let (left, comparison) = if let Some((left, right)) = filter.split_once("==") {
        (left, Comparison::Equal(literal(right.trim())?))
    } else if let Some((left, right)) = filter.split_once("!=") {
        (left, Comparison::Different(literal(right.trim())?))
    } else {
        (filter, Comparison::Exists)
    };
    Some(Step::Where(parse(left.trim().strip_prefix('@')?)?, comparison))
}

fn quoted(text: &str) -> Option<&str> {
    let inner = |sign: char| text.strip_prefix(sign)?.strip_suffix(sign);
    inner('\'').or_else(|| inner('"'))
}

fn literal(text: &str) -> Option<Value> {
    match quoted(text) {
        Some(text) => Some(text.into()),
        None => serde_json::from_str(text).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_what_paths_lead_to() {
        let object = Object::try_from(json!({"metadata": {"name": "x", "creationTimestamp": "2024-01-01T00:00:00Z",
                "annotations": {"a.b/c": "d"}},
            "spec": {"replicas": 3, "ratio": 0.5, "on": true, "hosts": ["h1", "h2"], "part": {"a": 1}},
            "status": {"conditions": [{"type": "Synced", "status": "False"}, {"type": "Ready", "status": "True"}]}}))
        .unwrap();
        let now = "2024-01-01T01:00:00Z".parse().unwrap();
        for (kind, path, cell) in [
            ("integer", ".spec.replicas", json!(3)),
            ("string", ".spec.replicas", json!("3")),
            ("number", ".spec.ratio", json!(0.5)),
            ("boolean", ".spec.on", json!(true)),
            ("string", ".spec.hosts[1]", json!("h2")),
            ("string", ".spec.hosts[-1]", json!("h2")),
            ("string", ".spec.hosts[*]", json!("h1")),
            ("string", ".spec.part", json!("{\"a\":1}")),
            ("string", ".metadata.annotations.a\\.b/c", json!("d")),
            ("string", ".metadata.annotations['a.b/c']", json!("d")),
            ("string", ".status.conditions[?(@.type==\"Ready\")].status", json!("True")),
            ("string", ".status.conditions[?(@.type == 'Gone')].status", Value::Null),
            ("date", ".metadata.creationTimestamp", json!("60m")),
            ("date", ".metadata.name", json!("<invalid>")),
            ("string", ".spec.absent", Value::Null),
            ("integer", ".spec.on", Value::Null),
            ("string", ".spec.hosts[", Value::Null),
        ] {
            let column = Printed::new(&json!({"name": "C", "type": kind, "jsonPath": path}));
            let cells = Columns::Printed([column].into()).cells(&object, now);
            assert_eq!(cells, [json!("x"), cell], "{path}");
        }
        assert_eq!(Columns::Printed([Printed::age()].into()).definitions().len(), 2);
    }
}
