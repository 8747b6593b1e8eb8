//! The `fieldPath` of a rule: members as `.name` or `['name']`, held against the schema.

use kminik_meta::field::Path;
use serde_json::Value as Json;

/// Reads a field path below a schema.
///
/// # Errors
/// Why it is no path, or leads nowhere.
pub fn field_path(source: &str, schema: &Json) -> Result<Path, String> {
    let mut path = Path::root();
    let mut schema = schema;
    let mut rest = source;
    while !rest.is_empty() {
        let name = if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[', ']']).unwrap_or(after.len());
            if end == 0 {
                return Err("unexpected end of JSON path".into());
            }
            rest = &after[end..];
            after[..end].to_owned()
        } else if let Some(after) = rest.strip_prefix('[') {
            let (name, after) = quoted(after)?;
            rest = after.strip_prefix(']').ok_or("expected ]")?;
            name
        } else {
            return Err(format!("expected [ or . but got: {rest}"));
        };
        let nowhere = || "does not refer to a valid field".to_owned();
        if let Some(properties) = schema.get("properties").and_then(Json::as_object) {
            schema = properties.get(&name).ok_or_else(nowhere)?;
            path = path.child(&name);
        } else {
            schema = schema.get("additionalProperties").filter(|a| a.is_object()).ok_or_else(nowhere)?;
            path = path.key(&name);
        }
    }
    Ok(path)
}

/// Reads a string in single quotes; gives what follows it.
fn quoted(source: &str) -> Result<(String, &str), String> {
    let mut chars = source.char_indices();
    if chars.next().is_none_or(|(_, c)| c != '\'') {
        return Err(format!("expected single quoted string but got {source}"));
    }
    let mut name = String::new();
    while let Some((i, c)) = chars.next() {
        match c {
            '\'' => return Ok((name, &source[i + 1..])),
            '\\' => name.push(match chars.next().map(|(_, c)| c) {
                Some('a') => '\u{7}',
                Some('b') => '\u{8}',
                Some('f') => '\u{c}',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some('v') => '\u{b}',
                Some(c @ ('\'' | '\\')) => c,
                other => {
                    return Err(format!("invalid string literal: invalid escape char \\{}", other.unwrap_or_default()));
                }
            }),
            c => name.push(c),
        }
    }
    Err("unexpected end of JSON path".into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_follow_the_schema() {
        let schema = json!({"properties": {"a": {"properties": {"b.c": {}}}, "m": {"additionalProperties": {"type": "string"}}}});
        for (source, expected) in [
            (".a", Some("a")),
            (".a['b.c']", Some("a.b.c")),
            (".m['x\\'y']", Some("m[x'y]")),
            (".m.k", Some("m[k]")),
            (".b", None),
            ("a", None),
            (".a[0]", None),
            (".a['b", None),
            ("..a", None),
        ] {
            assert_eq!(field_path(source, &schema).ok().map(|p| p.to_string()).as_deref(), expected, "{source}");
        }
    }
}
