//! Schemas of custom resources as documents show them.

use serde_json::{Map, Value};

use super::Style;
use crate::path::object_at;

/// What every object of Kubernetes has, as properties.
pub(super) type OwnMembers = [(&'static str, Value); 3];

/// The schema of a resource, with the members that every object has, at its root and in embedded objects.
///
/// Clients of version 2 read less than a schema may say: junctors are left out there, a value that may be null has no type, and one that
/// keeps unknown members has none that are known, for a client would refuse the others.
pub(super) fn published(source: Value, style: Style, own: &OwnMembers) -> Value {
    let mut out = if source.is_object() { source } else { serde_json::json!({"type": "object"}) };
    if style == Style::V2 && is(&out, "x-kubernetes-preserve-unknown-fields") {
        return serde_json::json!({"type": "object"});
    }
    if style == Style::V2 {
        simplify(&mut out);
    }
    embedded(&mut out, style, own, true);
    out
}

fn is(node: &Value, member: &str) -> bool {
    node.get(member).and_then(Value::as_bool).unwrap_or_default()
}

fn simplify(node: &mut Value) {
    let (nullable, open) = (is(node, "nullable"), is(node, "x-kubernetes-preserve-unknown-fields"));
    let Some(map) = node.as_object_mut() else { return };
    for junctor in ["allOf", "anyOf", "oneOf", "not"] {
        map.remove(junctor);
    }
    if nullable || open {
        map.remove("items");
        map.remove("properties");
    }
    let kind = map.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    if nullable || (kind == "array" && !map.contains_key("items")) || (open && kind == "object") {
        map.remove("type");
        map.remove("nullable");
    }
    let nullable_members: Vec<String> =
        members(map).filter(|(_, child)| is(child, "nullable")).map(|(name, _)| name).collect();
    if let Some(required) = map.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| !nullable_members.iter().any(|nullable| name == nullable));
        if required.is_empty() {
            map.remove("required");
        }
    }
    each_child(map, simplify);
}

fn members(map: &Map<String, Value>) -> impl Iterator<Item = (String, &Value)> {
    let properties = map.get("properties").and_then(Value::as_object).into_iter().flatten();
    properties.map(|(name, child)| (name.clone(), child))
}

fn each_child(map: &mut Map<String, Value>, mut change: impl FnMut(&mut Value)) {
    if let Some(properties) = map.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(&mut change);
    }
    for member in ["items", "additionalProperties"] {
        if let Some(child) = map.get_mut(member).filter(|child| child.is_object()) {
            change(child);
        }
    }
}

/// Adds the members of objects of Kubernetes to the root and to embedded ones.
fn embedded(node: &mut Value, style: Style, own: &OwnMembers, root: bool) {
    let open = style == Style::V2 && is(node, "x-kubernetes-preserve-unknown-fields");
    let whole = root || (is(node, "x-kubernetes-embedded-resource") && !open);
    let Some(map) = node.as_object_mut() else { return };
    each_child(map, |child| embedded(child, style, own, false));
    if whole {
        let properties = object_at(map, "properties");
        for (name, property) in own {
            properties.insert((*name).to_owned(), property.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn version_2_says_what_its_clients_can_read() {
        let own = [("apiVersion", json!({})), ("kind", json!({})), ("metadata", json!({}))];
        let source = json!({"type": "object", "properties": {"spec": {"type": "object", "required": ["a", "b"],
            "oneOf": [{"required": ["a"]}], "properties": {
                "a": {"type": "string", "nullable": true}, "b": {"type": "string"},
                "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"x": {"type": "string"}}},
                "pod": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}}}}}});
        let spec = published(source.clone(), Style::V2, &own)["properties"]["spec"].clone();
        assert_eq!((spec.get("oneOf"), &spec["required"]), (None, &json!(["b"])));
        assert_eq!(spec["properties"]["a"], json!({}));
        assert_eq!(spec["properties"]["open"], json!({"x-kubernetes-preserve-unknown-fields": true}));
        assert!(spec["properties"]["pod"]["properties"]["metadata"].is_object());
        let whole = published(source, Style::V3, &own);
        assert!(whole["properties"]["spec"]["oneOf"].is_array() && whole["properties"]["kind"].is_object());
        let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"spec": {}}});
        assert_eq!(published(open, Style::V2, &own), json!({"type": "object"}));
    }
}
