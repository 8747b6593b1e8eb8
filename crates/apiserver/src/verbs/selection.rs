//! Label and field selectors over stored entries.

use kminik_meta::fields::Term;
use kminik_meta::{FieldSelector, LabelSelector, Object, StatusError};
use serde_json::Value;

use super::call::Call;
use crate::registry::def::SelectableField;
use crate::storage::entry::Entry;

/// Which objects a list, watch or deletecollection is about.
#[derive(Clone)]
pub(crate) struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
    selectable: Vec<SelectableField>,
}

impl Selection {
    /// Reads `labelSelector` and `fieldSelector`.
    ///
    /// # Errors
    /// 400 for a selector that cannot be parsed or names a field that is not selectable.
    pub(crate) fn of(call: &Call) -> Result<Self, StatusError> {
        let labels = LabelSelector::parse(call.query.get("labelSelector").unwrap_or_default())
            .map_err(|error| StatusError::bad_request(format!("unable to parse requirement: {error}")))?;
        let mut fields = FieldSelector::parse(call.query.get("fieldSelector").unwrap_or_default())
            .map_err(|error| StatusError::bad_request(error.to_string()))?;
        // The old form `/watch/…/NAME` is about one object, as is a selector of its name.
        let name = call.info.name.as_str();
        if !name.is_empty() && fields.exact("metadata.name") != Some(name) {
            if !fields.is_empty() {
                return Err(StatusError::bad_request("fieldSelector metadata.name doesn't match requested name"));
            }
            fields.terms.push(Term { field: "metadata.name".into(), value: name.to_owned(), negated: false });
        }
        let selectable = call.version.selectable_fields.clone();
        for term in &fields.terms {
            let known = match term.field.as_str() {
                "metadata.name" => true,
                "metadata.namespace" => call.row.namespaced(),
                other => selectable.iter().any(|field| field.label == other),
            };
            if !known {
                return Err(StatusError::bad_request(format!("field label not supported: {}", term.field)));
            }
        }
        Ok(Selection { labels, fields, selectable })
    }

    /// Selects all.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_everything() & self.fields.is_empty()
    }

    /// Whether it looks at anything of objects but their names, which are the same in every version.
    pub(crate) fn reads_objects(&self) -> bool {
        let named = |term: &Term| matches!(term.field.as_str(), "metadata.name" | "metadata.namespace");
        !self.labels.is_everything() || !self.fields.terms.iter().all(named)
    }

    /// The only name that can be selected, if the fields say so.
    pub(crate) fn only_name(&self) -> Option<&str> {
        self.fields.exact("metadata.name")
    }

    /// Whether an entry is selected. Decodes only if a field of the object's own is asked for.
    ///
    /// # Errors
    /// 500 where the entry cannot be decoded.
    pub(crate) fn matches(&self, entry: &Entry) -> Result<bool, StatusError> {
        if !self.labels.is_everything() {
            let labels = entry.labels();
            if !self.labels.matches_by(|key| labels.get(key).map(String::as_str)) {
                return Ok(false);
            }
        }
        if self.fields.is_empty() {
            return Ok(true);
        }
        let (namespace, name) = entry.namespace_and_name();
        let mut values: Vec<(&str, String)> = Vec::new();
        for term in &self.fields.terms {
            let value = match term.field.as_str() {
                "metadata.name" => name.to_owned(),
                "metadata.namespace" => namespace.to_owned(),
                other => {
                    let Some(field) = self.selectable.iter().find(|field| field.label == other) else { continue };
                    self.read(field, entry)?
                }
            };
            values.push((term.field.as_str(), value));
        }
        Ok(self
            .fields
            .matches_by(|field| values.iter().find(|(known, _)| *known == field).map(|(_, value)| value.as_str())))
    }

    fn read(&self, field: &SelectableField, entry: &Entry) -> Result<String, StatusError> {
        let known = entry.fields(|object| {
            self.selectable.iter().map(|field| (field.path.clone(), text_at(object, &field.path))).collect()
        })?;
        let value = match known.iter().find(|(path, _)| *path == field.path) {
            Some((_, value)) => value.clone(),
            // Another view of the same objects asked first, for other fields.
            None => text_at(&entry.decode()?, &field.path),
        };
        Ok(if value.is_empty() { field.default.to_string() } else { value })
    }
}

fn text_at(object: &Object, path: &str) -> String {
    let path: Vec<&str> = path.split('.').collect();
    match object.get(&path) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(flag)) => flag.to_string(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    }
}
