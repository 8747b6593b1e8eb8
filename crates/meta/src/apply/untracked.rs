//! Apply configurations of admission: merged like those of server-side apply, but nobody comes to own what they set.

use serde_json::Value;

use super::ApplyError;
use super::typed::{canonical, merge, to_set};
use crate::Object;
use crate::schema::{ListType, Schema, Shape};

/// Merges a configuration into an object. Its managed fields stay as they are.
///
/// # Errors
/// For a configuration that does not fit the schema, or that has atomic parts: what it leaves out of such a part would be gone.
pub fn merge_untracked(object: &Object, configuration: &Object, schema: &Schema) -> Result<Object, ApplyError> {
    let mut wanted = configuration.to_value();
    canonical(&mut wanted, schema);
    to_set(&wanted, Some(schema), "")?;
    let mut atomics = Vec::new();
    find_atomics(&wanted, schema, "", &mut atomics);
    if !atomics.is_empty() {
        return Err(ApplyError::Atomics(atomics));
    }
    let merged = merge(Some(&object.to_value()), Some(&wanted), Some(schema))?;
    Ok(merged.and_then(|merged| Object::try_from(merged).ok()).unwrap_or_default())
}

fn find_atomics(value: &Value, schema: &Schema, path: &str, found: &mut Vec<String>) {
    match (&schema.shape, value) {
        (Shape::Struct { atomic, .. } | Shape::Map { atomic, .. }, Value::Object(members)) => {
            if *atomic {
                found.push(path.to_owned());
            }
            for (name, value) in members {
                if let Some(below) = schema.field(name) {
                    find_atomics(value, below.schema(), &format!("{path}.{name}"), found);
                }
            }
        }
        (Shape::List { item, list_type, .. }, Value::Array(elements)) => {
            if *list_type == ListType::Atomic {
                found.push(path.to_owned());
            }
            for (index, value) in elements.iter().enumerate() {
                find_atomics(value, item.get(), &format!("{path}[{index}]"), found);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Gvk;
    use crate::schema;

    fn merged(configuration: Value) -> Result<Value, String> {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"a": "1"}},
            "spec": {"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]}});
        let schema = schema::lookup(&Gvk::new("", "v1", "Pod")).unwrap();
        let [pod, configuration] = [pod, configuration].map(|value| Object::try_from(value).unwrap());
        merge_untracked(&pod, &configuration, schema).map(Value::from).map_err(|error| error.to_string())
    }

    #[test]
    fn lists_merge_by_their_keys() {
        let after = merged(json!({"metadata": {"labels": {"b": "2"}},
            "spec": {"containers": [{"name": "b", "stdin": true}]}}))
        .unwrap();
        assert_eq!(after["metadata"], json!({"name": "p", "labels": {"a": "1", "b": "2"}}));
        let containers = json!([{"name": "a", "image": "x"}, {"name": "b", "image": "y", "stdin": true}]);
        assert_eq!(after["spec"]["containers"], containers);
    }

    #[test]
    fn atomic_parts_and_unknown_members_are_refused() {
        let refusal = merged(json!({"spec": {"containers": [{"name": "a", "command": ["x"]}]}})).unwrap_err();
        assert_eq!(
            refusal,
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.containers[0].command"
        );
        assert!(merged(json!({"spec": {"nothing": 1}})).unwrap_err().contains(".spec.nothing: field not declared"));
    }
}
