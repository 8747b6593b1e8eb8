//! The resources of an extension server, from the old form of discovery into the aggregated one: a pure function.

use serde_json::{Value, json};

/// The resources of an APIResourceList as aggregated discovery lists them, subresources below their resource.
pub(super) fn resources(list: &Value, group: &str, version: &str) -> Vec<Value> {
    let listed = list.get("resources").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let text = |entry: &Value, key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let words = |entry: &Value, key: &str| {
        entry.get(key).cloned().filter(|words| words.as_array().is_some_and(|w| !w.is_empty()))
    };
    let kind = |entry: &Value| {
        let own =
            |key: &str, default: &str| Some(text(entry, key)).filter(|own| !own.is_empty()).unwrap_or(default.into());
        json!({"group": own("group", group), "version": own("version", version), "kind": text(entry, "kind")})
    };
    let mut resources: Vec<Value> = Vec::new();
    for entry in listed.iter().filter(|entry| !text(entry, "name").contains('/')) {
        let namespaced = entry.get("namespaced").and_then(Value::as_bool).unwrap_or_default();
        let mut resource = json!({
            "resource": text(entry, "name"),
            "responseKind": kind(entry),
            "scope": if namespaced { "Namespaced" } else { "Cluster" },
            "singularResource": text(entry, "singularName"),
            "verbs": words(entry, "verbs").unwrap_or_else(|| json!([])),
        });
        for key in ["shortNames", "categories"] {
            if let Some(words) = words(entry, key) {
                resource[key] = words;
            }
        }
        resources.push(resource);
    }
    for entry in listed {
        let name = text(entry, "name");
        let Some((of, subresource)) = name.split_once('/') else { continue };
        let below = json!({"subresource": subresource, "responseKind": kind(entry),
            "verbs": words(entry, "verbs").unwrap_or_else(|| json!([]))});
        let Some(resource) = resources.iter_mut().find(|resource| resource["resource"] == of) else { continue };
        match resource.get_mut("subresources").and_then(Value::as_array_mut) {
            Some(subresources) => subresources.push(below),
            None => resource["subresources"] = json!([below]),
        }
    }
    resources
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subresources_stand_below_their_resource() {
        let list = json!({"resources": [
            {"name": "things/status", "namespaced": true, "kind": "Thing", "verbs": ["get"]},
            {"name": "things", "singularName": "thing", "namespaced": true, "kind": "Thing", "verbs": ["get", "list"],
                "shortNames": ["th"]},
            {"name": "things/scale", "namespaced": true, "group": "autoscaling", "version": "v1", "kind": "Scale", "verbs": []}]});
        let found = resources(&list, "example.com", "v1");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0]["responseKind"], json!({"group": "example.com", "version": "v1", "kind": "Thing"}));
        assert_eq!((&found[0]["scope"], &found[0]["shortNames"]), (&json!("Namespaced"), &json!(["th"])));
        let subresources = found[0]["subresources"].as_array().unwrap();
        assert_eq!(subresources[1]["responseKind"], json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}));
        assert!(resources(&json!({}), "g", "v1").is_empty());
    }
}
