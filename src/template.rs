//! The part of Go's templates that people give to `--format`: `{{.Field}}`, `{{"text"}}`, and text between them.

use crate::reason::{Failure, MK_USAGE, Outcome};

/// The template with its fields filled in.
///
/// # Errors
/// `MK_USAGE` for what is no template, or names a field that is not in `fields`.
pub fn render(template: &str, fields: &[(&str, &str)]) -> Outcome<String> {
    let bad = || {
        let known: Vec<String> = fields.iter().map(|(name, _)| format!(".{name}")).collect();
        Failure::new(&MK_USAGE, format!("--format={template:?} is not a template of known fields"))
            .advise(format!("Fields: {}", known.join(" ")))
    };
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        text.push_str(before);
        let (action, after) = after.split_once("}}").ok_or_else(bad)?;
        match action.trim() {
            literal if literal.starts_with('"') => {
                text.push_str(&serde_json::from_str::<String>(literal).map_err(|_| bad())?);
            }
            field => {
                let name = field.strip_prefix('.').ok_or_else(bad)?;
                let (_, value) = fields.iter().find(|(known, _)| *known == name).ok_or_else(bad)?;
                text.push_str(value);
            }
        }
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_literals() {
        let fields = [("Host", "Running"), ("Name", "x")];
        assert_eq!(render(r#"h={{.Host}}{{"\n"}}{{ .Name }}!"#, &fields).unwrap(), "h=Running\nx!");
        for bad in ["{{.Nope}}", "{{.Host", "{{Host}}", "{{\"x}}"] {
            assert_eq!(render(bad, &fields).unwrap_err().reason.id, "MK_USAGE", "{bad}");
        }
    }
}
