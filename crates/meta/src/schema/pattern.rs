//! Regular expressions of custom resources' schemas: Go's syntax, compiled when a value is first compared.

use std::sync::OnceLock;

use regex::Regex;

/// A `pattern` of a schema.
#[derive(Debug)]
pub struct Pattern {
    text: String,
    compiled: OnceLock<Option<Box<Regex>>>,
}

impl Pattern {
    /// Keeps the text; nothing is compiled.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), compiled: OnceLock::new() }
    }

    /// The expression as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it matches anywhere in a text. An expression that cannot be compiled matches all: it was refused when it was written.
    pub fn matches(&self, text: &str) -> bool {
        let compiled = self.compiled.get_or_init(|| Regex::new(&translate(&self.text)).ok().map(Box::new));
        compiled.as_ref().is_none_or(|regex| regex.is_match(text))
    }

    /// What is wrong with an expression; `None` for a good one. It is only parsed, which costs a hundredth of compiling it.
    pub fn check(text: &str) -> Option<String> {
        let error = regex_syntax::parse(&translate(text)).err()?;
        // The last line of the message says what is wrong, those before show where.
        let message = error.to_string();
        let last = message.lines().last().unwrap_or_default();
        Some(format!("error parsing regexp: {}", last.trim_start_matches("error: ")))
    }
}

/// Writes Go's syntax in this library's: perl classes are ASCII there, and a bracket or doubled sign in a class is itself.
fn translate(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut chars = text.chars().peekable();
    // Position in a class: `None` outside, else how many signs were read since it began.
    let mut class: Option<usize> = None;
    while let Some(c) = chars.next() {
        if c == '\\' {
            let Some(escaped) = chars.next() else {
                out.push('\\');
                break;
            };
            match (escaped, class.is_some()) {
                ('d', false) => out.push_str("[0-9]"),
                ('D', _) => out.push_str("[^0-9]"),
                ('w', false) => out.push_str("[0-9A-Za-z_]"),
                ('W', _) => out.push_str("[^0-9A-Za-z_]"),
                ('s', false) => out.push_str("[\\t\\n\\f\\r ]"),
                ('S', _) => out.push_str("[^\\t\\n\\f\\r ]"),
                ('d', true) => out.push_str("0-9"),
                ('w', true) => out.push_str("0-9A-Za-z_"),
                ('s', true) => out.push_str("\\t\\n\\f\\r "),
                ('b' | 'B', false) => out.push_str(&format!("(?-u:\\{escaped})")),
                ('Q', false) => {
                    let rest: String = chars.clone().collect();
                    let end = rest.find("\\E").unwrap_or(rest.len());
                    out.push_str(&regex::escape(rest.get(..end).unwrap_or_default()));
                    let skipped = rest.get(..(end + 2).min(rest.len())).unwrap_or_default().chars().count();
                    chars.by_ref().take(skipped).for_each(drop);
                }
                _ => {
                    out.push('\\');
                    out.push(escaped);
                }
            }
            class = class.map(|read| read + 1);
            continue;
        }
        match class {
            None if c == '[' => {
                class = Some(0);
                out.push('[');
                if chars.peek() == Some(&'^') {
                    chars.next();
                    out.push('^');
                }
            }
            None => out.push(c),
            // A bracket that stands first is a sign.
            Some(0) if c == ']' => {
                out.push_str("\\]");
                class = Some(1);
            }
            Some(_) if c == ']' => {
                out.push(']');
                class = None;
            }
            Some(read) => {
                if c == '[' && chars.peek() == Some(&':') {
                    // A named class stands for itself in both.
                    out.push('[');
                    for c in chars.by_ref() {
                        out.push(c);
                        if c == ']' {
                            break;
                        }
                    }
                } else {
                    if matches!(c, '[' | '&' | '~') || (c == '-' && chars.peek() == Some(&'-')) {
                        out.push('\\');
                    }
                    out.push(c);
                }
                class = Some(read + 1);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_mean_what_they_mean_in_go() {
        for (pattern, text, matches) in [
            (r"^\d+$", "12", true),
            (r"^\d+$", "١٢", false),
            (r"^[\w.]+$", "a.b_c", true),
            (r"^[^\d]+$", "ab", true),
            (r"^[a[b]+$", "a[b", true),
            (r"^[]a]+$", "]a", true),
            (r"^[a&&b]+$", "&a", true),
            (r"^[[:alpha:]]+$", "ab", true),
            (r"^\Qa.b\E$", "a.b", true),
            (r"^\Qa.b\E$", "axb", false),
            (r"^\p{Lu}", "Äb", true),
            (r"b", "abc", true),
        ] {
            assert_eq!(Pattern::new(pattern).matches(text), matches, "{pattern} {text}");
            assert!(Pattern::check(pattern).is_none(), "{pattern}");
        }
        assert!(Pattern::check("a(").unwrap().starts_with("error parsing regexp: "));
        assert!(Pattern::check("(?=a)").is_some());
    }
}
