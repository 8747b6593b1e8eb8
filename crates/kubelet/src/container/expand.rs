//! `$(NAME)` in commands, arguments, values and subPathExpr.

/// Replaces every `$(NAME)` that `lookup` knows; others stay as they are, `$$` becomes `$`.
pub(crate) fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

/// As [`expand`], but every name has to be known.
///
/// # Errors
/// The first name that is not.
pub(crate) fn expand_all(text: &str, lookup: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let missing = std::cell::RefCell::new(None);
    let expanded = expand(text, |name| {
        let value = lookup(name);
        if value.is_none() {
            missing.borrow_mut().get_or_insert_with(|| name.to_string());
        }
        value
    });
    missing.into_inner().map_or(Ok(expanded), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_are_told() {
        let lookup = |name: &str| (name == "A").then(|| "a".to_string());
        assert_eq!(expand_all("$(A)/$$(B)", lookup), Ok("a/$(B)".into()));
        assert_eq!(expand_all("$(A)/$(B)", lookup), Err("B".into()));
    }

    #[test]
    fn as_upstream() {
        let lookup = |name: &str| match name {
            "VAR_A" => Some("A".to_string()),
            "VAR_REF" => Some("$(VAR_A)".to_string()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        for (input, wanted) in [
            ("$(VAR_A)", "A"),
            ("___$(VAR_A)___", "___A___"),
            ("$(VAR_REF)", "$(VAR_A)"),
            ("$$(VAR_A)_$(VAR_A)", "$(VAR_A)_A"),
            ("$$$(VAR_A)", "$A"),
            ("foo$(UNKNOWN)bar", "foo$(UNKNOWN)bar"),
            ("f$(EMPTY)o", "fo"),
            ("$(VAR_A", "$(VAR_A"),
            ("$VAR_A$", "$VAR_A$"),
            ("$$", "$"),
        ] {
            assert_eq!(expand(input, lookup), wanted, "{input}");
        }
    }
}
