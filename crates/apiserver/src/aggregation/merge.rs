//! One OpenAPI v2 document of several servers: a pure function.

use serde_json::{Map, Value};

/// Adds the paths below `prefix` of another server's document, and the definitions that they may refer to. What the
/// document has already stays as it is.
pub(crate) fn openapi_v2(document: &mut Value, other: &Value, prefix: &str) {
    let below = format!("{prefix}/");
    let paths: Map<String, Value> = members(other, "paths")
        .filter(|(path, _)| path.starts_with(&below) || path.as_str() == prefix)
        .map(|(path, item)| (path.clone(), item.clone()))
        .collect();
    if paths.is_empty() {
        return;
    }
    let definitions: Map<String, Value> =
        members(other, "definitions").map(|(name, definition)| (name.clone(), definition.clone())).collect();
    for (key, added) in [("paths", paths), ("definitions", definitions)] {
        let Some(document) = document.as_object_mut() else { return };
        let Some(own) = document.entry(key).or_insert_with(|| Map::new().into()).as_object_mut() else { continue };
        for (name, value) in added {
            own.entry(name).or_insert(value);
        }
    }
}

fn members<'a>(document: &'a Value, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    document.get(key).and_then(Value::as_object).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_of_the_group_come_with_their_definitions() {
        let mut document = json!({"paths": {"/version/": 1}, "definitions": {"A": 1}});
        let other = json!({"paths": {"/version/": 2, "/apis/g/v1/": 3, "/apis/g/v1/x": 4, "/apis/g/v10/x": 5},
            "definitions": {"A": 2, "B": 3}});
        openapi_v2(&mut document, &other, "/apis/g/v1");
        let wanted =
            json!({"paths": {"/version/": 1, "/apis/g/v1/": 3, "/apis/g/v1/x": 4}, "definitions": {"A": 1, "B": 3}});
        assert_eq!(document, wanted);
        openapi_v2(&mut document, &json!(7), "/apis/g/v1");
        assert_eq!(document, wanted);
    }
}
