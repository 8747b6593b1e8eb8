//! Defaults in schemas: they must be what an object of the schema could be.

use serde_json::Value;

use super::schema::{children, flag};
use crate::decode;
use crate::field::{ErrorList, FieldError, Path};
use crate::schema::compile_node;
use crate::validate::custom;

/// Checks all defaults of a schema that is structural.
pub(super) fn check(schema: &Value, pruned: bool, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    visit(schema, path, true, &mut |node, path| {
        let Some(default) = node.get("default") else { return };
        let (compiled, path) = (compile_node(node), path.child("default"));
        if pruned && !decode::unknown_fields(default, &compiled).is_empty() {
            errors.push(FieldError::invalid(&path, default.clone(), "must not have unknown fields"));
        }
        errors.extend(custom::check_default(&compiled, default).into_iter().map(|mut error| {
            error.field = match error.field.as_str() {
                "<nil>" => path.to_string(),
                inner => format!("{path}.{inner}"),
            };
            error
        }));
    });
    errors
}

/// Places of defaults that hold what the schema does not know.
pub(super) fn unknown_fields(schema: &Value) -> Vec<Path> {
    let mut found = Vec::new();
    visit(schema, &Path::root(), true, &mut |node, path| {
        if let Some(default) = node.get("default")
            && !decode::unknown_fields(default, &compile_node(node)).is_empty()
        {
            found.push(path.clone());
        }
    });
    found
}

/// Visits each node that may have a default: not those of junctors, of map's values, and of objects' own members.
fn visit(node: &Value, path: &Path, root: bool, see: &mut dyn FnMut(&Value, &Path)) {
    if node.get("default").is_some_and(|default| !default.is_null()) {
        see(node, path);
    }
    let whole = root || flag(node, "x-kubernetes-embedded-resource");
    for (place, child) in children(node) {
        let text = place.to_string();
        let own = ["properties[metadata]", "properties[kind]", "properties[apiVersion]"].contains(&text.as_str());
        if (text == "items" || text.starts_with("properties[")) && !(whole && own) {
            visit(child, &Path::new(&format!("{path}.{text}")), false, see);
        }
    }
}
