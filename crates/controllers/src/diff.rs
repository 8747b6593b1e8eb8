//! JSON merge patches as the difference of two states.

use serde_json::{Map, Value};

/// The merge patch (RFC 7386) that makes `new` of `old`; `None` if they are equal. Arrays are replaced whole.
pub(crate) fn merge_patch(old: &Value, new: &Value) -> Option<Value> {
    if old == new {
        return None;
    }
    let (Value::Object(old), Value::Object(new)) = (old, new) else { return Some(new.clone()) };
    let mut patch = Map::new();
    for (key, value) in new {
        match old.get(key) {
            Some(before) => {
                if let Some(change) = merge_patch(before, value) {
                    patch.insert(key.clone(), change);
                }
            }
            None => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    Some(Value::Object(patch))
}

/// The patch replaces a list: what another added to it meanwhile would be lost.
pub(crate) fn replaces_list(patch: &Value) -> bool {
    match patch {
        Value::Array(_) => true,
        Value::Object(fields) => fields.values().any(replaces_list),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_only_what_differs() {
        let old = json!({"a": 1, "b": {"c": [1, 2], "d": 2}, "gone": true});
        let new = json!({"a": 1, "b": {"c": [1], "d": 2}, "new": "x"});
        assert_eq!(merge_patch(&old, &new), Some(json!({"b": {"c": [1]}, "gone": null, "new": "x"})));
        assert_eq!(merge_patch(&new, &new), None);
        assert!(replaces_list(&json!({"b": {"c": [1]}})) && !replaces_list(&json!({"a": 2, "b": {"d": null}})));
    }
}
