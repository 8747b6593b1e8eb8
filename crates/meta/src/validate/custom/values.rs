//! Conditions of a custom resource's schema on values, in the words and order of the library that upstream checks them with.
//!
//! On an update a part that is as it was, and that can be told to be the same part, is not checked: objects that were good before
//! their schema became stricter can still be changed elsewhere.

use serde_json::Value;

use crate::field::{ErrorType, FieldError, Path, quote};
use crate::json_type;
use crate::schema::{Rules, Schema, Shape, Values};
use crate::validate::formats;

/// Errors that are reported for one object; who sends more has enough to do.
const MAX_ERRORS: usize = 500;

/// Checks a value against a node; `path` is where it stands, empty at the root.
pub(super) fn check(schema: &Schema, value: &Value, old: Option<&Value>, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    node(schema, value, old, path, &mut errors);
    errors.truncate(MAX_ERRORS);
    errors
}

fn node(schema: &Schema, value: &Value, old: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
    let Some(rules) = schema.rules.as_deref() else { return };
    if errors.len() >= MAX_ERRORS || old.is_some_and(|old| old == value) {
        return;
    }
    type_of(rules.types, schema.nullable, value, path, errors);
    let nothing = Values::default();
    let values = rules.values.as_deref().unwrap_or(&nothing);
    if value.is_null() {
        enumeration(values, value, path, errors);
        return;
    }
    let place = Place { rules, list_keys: schema, old };
    junctors(values, &place, value, path, errors);
    scalars(values, value, path, errors);
    if let (Value::Array(elements), Some(item)) = (value, schema.item()) {
        for (index, element) in elements.iter().enumerate() {
            node(item, element, place.element(element), &format!("{path}[{index}]"), errors);
        }
    }
    sizes(values, value, path, errors);
    enumeration(values, value, path, errors);
    let Value::Object(map) = value else { return };
    if !members(values, map, path, errors) {
        return;
    }
    for (name, member) in map {
        let schema = match &rules.metadata {
            Some(metadata) if name == "metadata" => Some(metadata.as_ref()),
            _ => schema.member(name),
        };
        if let Some(schema) = schema {
            node(schema, member, place.member(name), &child(path, name), errors);
        }
    }
}

/// Where a value stands: what is known of its old state.
struct Place<'a> {
    rules: &'a Rules,
    list_keys: &'a Schema,
    old: Option<&'a Value>,
}

impl<'a> Place<'a> {
    fn member(&self, name: &str) -> Option<&'a Value> {
        self.old.filter(|_| self.rules.granular)?.get(name)
    }

    fn element(&self, element: &Value) -> Option<&'a Value> {
        let elements = self.old.filter(|_| self.rules.granular)?.as_array()?;
        if !matches!(self.list_keys.shape, Shape::List { .. }) {
            return None;
        }
        elements.iter().find(|old| self.list_keys.list_keys().all(|key| old.get(key) == element.get(key)))
    }
}

fn child(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn place(path: &str) -> Path {
    if path.is_empty() { Path::root() } else { Path::new(path) }
}

/// Whether the value is of one of the types; `integer` takes numbers without a fraction, `number` takes integers.
fn type_of(types: &str, nullable: bool, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if types.is_empty() || (value.is_null() && nullable) {
        return;
    }
    let found = json_type(value);
    let fits = types.split(',').any(|wanted| match wanted {
        "integer" => found == "integer" || value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        other => other == found,
    });
    if !fits {
        let detail = format!("{path} in body must be of type {types}: {}", quote(found));
        errors.push(FieldError::type_invalid(&place(path), found, detail));
    }
}

/// `allOf`, `anyOf`, `oneOf` and `not`.
fn junctors(values: &Values, at: &Place<'_>, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let plain = |detail: String| FieldError::invalid(&Path::root(), "", detail);
    let found = |part: &Values| {
        let mut errors = Vec::new();
        nested(part, at, value, path, &mut errors);
        errors
    };
    let named = quote(path);
    if !values.any_of.is_empty() {
        let outcomes: Vec<_> = values.any_of.iter().map(found).collect();
        if outcomes.iter().all(|errors| !errors.is_empty()) {
            errors.push(plain(format!("{named} must validate at least one schema (anyOf)")));
            errors.extend(fewest(outcomes));
        }
    }
    if !values.one_of.is_empty() {
        let outcomes: Vec<_> = values.one_of.iter().map(found).collect();
        match outcomes.iter().filter(|errors| errors.is_empty()).count() {
            1 => {}
            0 => {
                errors.push(plain(format!("{named} must validate one and only one schema (oneOf). Found none valid")));
                errors.extend(fewest(outcomes));
            }
            several => errors.push(plain(format!(
                "{named} must validate one and only one schema (oneOf). Found {several} valid alternatives"
            ))),
        }
    }
    if !values.all_of.is_empty() {
        let outcomes: Vec<_> = values.all_of.iter().map(found).collect();
        let good = outcomes.iter().filter(|errors| errors.is_empty()).count();
        errors.extend(outcomes.into_iter().flatten());
        if good == 0 {
            errors.push(plain(format!("{named} must validate all the schemas (allOf). None validated")));
        } else if good < values.all_of.len() {
            errors.push(plain(format!("{named} must validate all the schemas (allOf)")));
        }
    }
    if values.not.as_deref().is_some_and(|not| found(not).is_empty()) {
        errors.push(plain(format!("{named} must not validate the schema (not)")));
    }
}

/// The errors of the alternative that comes closest.
fn fewest(outcomes: Vec<Vec<FieldError>>) -> Vec<FieldError> {
    outcomes.into_iter().min_by_key(Vec::len).unwrap_or_default()
}

/// Conditions inside a junctor.
fn nested(values: &Values, at: &Place<'_>, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    type_of(values.types, false, value, path, errors);
    if value.is_null() {
        enumeration(values, value, path, errors);
        return;
    }
    junctors(values, at, value, path, errors);
    scalars(values, value, path, errors);
    if let (Value::Array(elements), Some(items)) = (value, &values.items) {
        for (index, element) in elements.iter().enumerate() {
            let old = at.element(element);
            if old != Some(element) {
                nested(items, &Place { old, ..*at }, element, &format!("{path}[{index}]"), errors);
            }
        }
    }
    sizes(values, value, path, errors);
    enumeration(values, value, path, errors);
    let Value::Object(map) = value else { return };
    if members(values, map, path, errors) {
        for (name, values) in &values.properties {
            let Some(member) = map.get(name) else { continue };
            let old = at.member(name);
            if old != Some(member) {
                nested(values, &Place { old, ..*at }, member, &child(path, name), errors);
            }
        }
    }
}

/// Conditions on strings and numbers.
fn scalars(values: &Values, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let mut invalid = |detail: String| errors.push(FieldError::invalid(&place(path), value.clone(), detail));
    if let Value::String(text) = value {
        let length = text.chars().count() as u64;
        if let Some(most) = values.max_length.filter(|most| length > *most) {
            errors.push(FieldError::too_long(&place(path), usize::try_from(most).unwrap_or(usize::MAX)));
        } else if let Some(fewest) = values.min_length.filter(|fewest| length < *fewest) {
            invalid(format!("{path} in body should be at least {fewest} chars long"));
        } else if let Some(pattern) = values.pattern.as_ref().filter(|pattern| !pattern.matches(text)) {
            invalid(format!("{path} in body should match '{}'", pattern.as_str()));
        }
        if let Some(format) = values.format.as_ref().filter(|format| !formats::fits(format, text)) {
            let detail = format!("{path} in body must be of type {format}: {}", quote(text));
            errors.push(FieldError::type_invalid(&place(path), value.clone(), detail));
        }
    } else if let Some(number) = value.as_f64() {
        if let Some(factor) = values.multiple_of.filter(|factor| *factor > 0.0) {
            let quotient = number / factor;
            if (quotient - quotient.round()).abs() > 1e-9 {
                invalid(format!("{path} in body should be a multiple of {}", go_float(factor)));
            }
        }
        if let Some(most) = values.maximum {
            let limit = go_float(most);
            if values.exclusive_maximum && number >= most {
                invalid(format!("{path} in body should be less than {limit}"));
            } else if number > most {
                invalid(format!("{path} in body should be less than or equal to {limit}"));
            }
        }
        if let Some(least) = values.minimum {
            let limit = go_float(least);
            if values.exclusive_minimum && number <= least {
                invalid(format!("{path} in body should be greater than {limit}"));
            } else if number < least {
                invalid(format!("{path} in body should be greater than or equal to {limit}"));
            }
        }
    }
}

/// Conditions on the number of elements.
fn sizes(values: &Values, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let Value::Array(elements) = value else { return };
    let count = elements.len() as u64;
    if let Some(fewest) = values.min_items.filter(|fewest| count < *fewest) {
        let detail = format!("{path} in body should have at least {fewest} items");
        errors.push(FieldError::invalid(&place(path), count, detail));
    }
    if let Some(most) = values.max_items.filter(|most| count > *most) {
        errors.push(FieldError::too_many(&place(path), elements.len(), usize::try_from(most).unwrap_or(usize::MAX)));
    }
}

/// Conditions on the members of an object; tells whether their number is good, for else they are not looked at.
fn members(values: &Values, map: &serde_json::Map<String, Value>, path: &str, errors: &mut Vec<FieldError>) -> bool {
    let count = map.len() as u64;
    if let Some(fewest) = values.min_properties.filter(|fewest| count < *fewest) {
        let detail = format!("{path} in body should have at least {fewest} properties");
        errors.push(FieldError::invalid(&place(path), count, detail));
        return false;
    }
    if let Some(most) = values.max_properties.filter(|most| count > *most) {
        errors.push(FieldError::too_many(&place(path), map.len(), usize::try_from(most).unwrap_or(usize::MAX)));
        return false;
    }
    let missing = values.required.iter().filter(|name| !map.contains_key(*name));
    errors.extend(missing.map(|name| FieldError::required(&place(&child(path, name)), "")));
    true
}

fn enumeration(values: &Values, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if values.one_of_values.is_empty() || values.one_of_values.iter().any(|known| same(known, value)) {
        return;
    }
    let word = |value: &Value| quote(value.as_str().unwrap_or(&value.to_string()));
    let known: Vec<String> = values.one_of_values.iter().map(word).collect();
    errors.push(FieldError {
        kind: ErrorType::NotSupported,
        field: place(path).to_string(),
        value: Some(value.clone()),
        detail: format!("supported values: {}", known.join(", ")),
    });
}

/// Whether two values are the same number, or equal.
fn same(a: &Value, b: &Value) -> bool {
    a == b || (a.is_number() && b.is_number() && a.as_f64() == b.as_f64())
}

/// A number as Go's `%v` writes it.
fn go_float(number: f64) -> String {
    let exponent = if number == 0.0 { 0 } else { number.abs().log10().floor() as i32 };
    if (-4..6).contains(&exponent) {
        return number.to_string();
    }
    let text = format!("{number:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
    format!("{digits}e{sign}{exponent:0>2}")
}
