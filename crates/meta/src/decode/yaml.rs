//! YAML to JSON, as far as objects need it: keys are text, tags are passed over.

use serde::de::DeserializeSeed;
use serde_json::Value;

use super::json::Reader;
use super::{DecodeError, MAX_ISSUES};
use crate::field::quote;

/// What the report of upstream's YAML library begins with.
pub(super) const REPORT: &str = "yaml: unmarshal errors:\n";

/// Parses one document; of members given twice the last one counts, and a report names the lines of the further ones. Aliases
/// and nesting are bounded by the parser.
pub(super) fn parse(bytes: &[u8]) -> Result<(Value, Option<String>), DecodeError> {
    let mut duplicates = Vec::new();
    let value = Reader::new(&mut duplicates)
        .deserialize(serde_yaml::Deserializer::from_slice(bytes))
        .map_err(|error| DecodeError::Yaml(error.to_string()))?;
    Ok((value, (!duplicates.is_empty()).then(|| report(bytes))))
}

/// The parser tells lines only of errors, so each duplicate is made one in turn.
fn report(bytes: &[u8]) -> String {
    let mut lines = Vec::new();
    for passed in 0..MAX_ISSUES {
        let (mut found, mut left, mut stopped) = (Vec::new(), passed, None);
        let read = Reader::stopping(&mut found, &mut left, &mut stopped)
            .deserialize(serde_yaml::Deserializer::from_slice(bytes));
        let (Err(error), Some(key)) = (read, stopped) else { break };
        let line = error.location().map_or(0, |location| location.line());
        lines.push(format!("  line {line}: key {} already set in map", quote(&key)));
    }
    format!("{REPORT}{}", lines.join("\n"))
}
