//! What goes wrong: at compilation with its places in the source, at evaluation with a message.

use std::fmt;

use thiserror::Error;

/// A problem at a place of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// Offset in code points.
    pub offset: usize,
    /// What is wrong.
    pub message: String,
}

/// Why an expression does not compile. Its text is upstream's: each issue with its line, an excerpt and a caret.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text}")]
pub struct CompileError {
    text: String,
    /// The issues in order of their places.
    pub issues: Vec<Issue>,
}

/// So many issues are reported, and so long may the excerpted line be in bytes.
const MAX_ISSUES: usize = 100;
const MAX_SNIPPET: usize = 16384;

impl CompileError {
    pub(crate) fn new(source: &str, mut issues: Vec<Issue>) -> Self {
        issues.sort_by_key(|i| i.offset);
        let mut shown: Vec<String> = issues.iter().take(MAX_ISSUES).map(|i| display(source, i)).collect();
        if issues.len() > MAX_ISSUES {
            shown.push(format!("{} more errors were truncated", issues.len() - MAX_ISSUES));
        }
        CompileError { text: shown.join("\n"), issues }
    }
}

fn display(source: &str, issue: &Issue) -> String {
    let (mut line, mut column) = (1, 0);
    for c in source.chars().take(issue.offset) {
        if c == '\n' {
            (line, column) = (line + 1, 0);
        } else {
            column += 1;
        }
    }
    let mut text = format!("ERROR: <input>:{line}:{}: {}", column + 1, issue.message);
    let snippet = source.split('\n').nth(line - 1).unwrap_or_default().replace('\t', " ");
    if snippet.len() <= MAX_SNIPPET {
        let wide = |c: Option<char>| c.is_some_and(|c| c.len_utf8() > 1);
        text.push_str(&format!("\n | {snippet}\n | "));
        text.extend(snippet.chars().take(column).map(|c| if wide(Some(c)) { '\u{ff0e}' } else { '.' }));
        text.push(if wide(snippet.chars().nth(column)) { '\u{ff3e}' } else { '^' });
    }
    text
}

/// Why an evaluation gave no value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EvalError {
    /// The expression failed: `no such key: x`, `division by zero`, …
    #[error("{0}")]
    Failed(String),
    /// The expression cost more than a call may.
    #[error("operation cancelled: actual cost limit exceeded")]
    CostLimit,
}

impl EvalError {
    pub(crate) fn new(message: impl fmt::Display) -> Self {
        EvalError::Failed(message.to_string())
    }

    pub(crate) fn no_such_overload() -> Self {
        Self::new("no such overload")
    }

    pub(crate) fn no_such_key(key: impl fmt::Display) -> Self {
        Self::new(format_args!("no such key: {key}"))
    }

    /// Whether the call was cut off for its cost, so that no logical operator may absorb it.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, EvalError::CostLimit)
    }
}
