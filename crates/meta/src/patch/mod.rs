//! Patches: JSON patch (RFC 6902), merge patch (RFC 7386) and strategic merge patch. Server-side apply is in [`crate::apply`].
//!
//! A patch is applied to an object as clients see it; the result still has to be brought into normal form
//! ([`crate::decode::conform`]), defaulted and validated.

mod json;
mod strategic;

use serde_json::{Map, Value};
use thiserror::Error;

use crate::decode::{self, DecodeError};
use crate::field::{ErrorList, FieldError, Path};
use crate::schema::Schema;
use crate::{Object, StatusError};

/// Operations that one JSON patch may have.
pub const MAX_JSON_PATCH_OPERATIONS: usize = 10_000;

/// Which kind of patch a request holds, from its content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    /// `application/json-patch+json`.
    Json,
    /// `application/merge-patch+json`.
    Merge,
    /// `application/strategic-merge-patch+json`.
    Strategic,
    /// `application/apply-patch+yaml`: server-side apply.
    Apply,
}

impl PatchType {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Json, Self::Merge, Self::Strategic, Self::Apply];

    /// Reads a content type without parameters.
    pub fn from_content_type(content_type: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.content_type() == content_type)
    }

    /// The content type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json-patch+json",
            Self::Merge => "application/merge-patch+json",
            Self::Strategic => "application/strategic-merge-patch+json",
            Self::Apply => "application/apply-patch+yaml",
        }
    }
}

/// Why a patch cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PatchError {
    /// The patch is not JSON, or of the wrong shape.
    #[error("error decoding patch: {0}")]
    Decode(String),
    /// The body is no JSON object.
    #[error(transparent)]
    Body(#[from] DecodeError),
    /// A JSON patch has too many operations.
    #[error("The allowed maximum operations in a JSON patch is {MAX_JSON_PATCH_OPERATIONS}, got {0}")]
    TooManyOperations(usize),
    /// The copies of a JSON patch add up to more than the object may grow by.
    #[error("Unable to complete the copy, the accumulated size increase of copy is {0}, exceeding the limit {1}")]
    CopyTooLarge(usize, usize),
    /// An operation of a JSON patch fails.
    #[error("{0}")]
    Operation(String),
    /// A test of a JSON patch does not hold.
    #[error("{0}")]
    Test(String),
    /// The patch turns the object into something else.
    #[error("the patched document is not an object")]
    NotAnObject,
    /// `$patch` has a value that does not exist.
    #[error("unknown patch type: {0} in map: {1}")]
    Directive(Value, Value),
    /// `$patch: merge` stands in a list.
    #[error("merging lists cannot yet be specified in the patch")]
    MergeInList,
    /// An element of a list lacks the member that tells elements apart.
    #[error("map: {element} does not contain declared merge key: {key}")]
    NoMergeKey {
        /// The element.
        element: Value,
        /// Name of the member.
        key: String,
    },
    /// `$retainKeys` is no list.
    #[error("invalid patch format of retainKeys")]
    RetainKeysFormat,
    /// `$retainKeys` does not list a member that the patch sets.
    #[error("patch content doesn't match retainKeys list")]
    RetainKeys,
    /// `$setElementOrder` is no list.
    #[error("invalid patch format of setElementOrder list")]
    ElementOrderFormat,
    /// `$deleteFromPrimitiveList` is no list.
    #[error("invalid patch format of primitive list")]
    PrimitiveList,
    /// `$setElementOrder` lacks an element of the patch, or has it elsewhere.
    #[error("The order in patch list:\n{patch}\n doesn't match $setElementOrder list:\n{order}\n")]
    ElementOrder {
        /// The patch's list.
        patch: Value,
        /// The order given.
        order: Value,
    },
    /// A list holds elements of several types.
    #[error("unable to apply a list of mixed elements")]
    MixedList,
}

impl PatchError {
    /// The status of a request with this patch.
    pub fn status(&self) -> StatusError {
        match self {
            Self::TooManyOperations(_) => StatusError::too_large(self),
            Self::Operation(_) | Self::Test(_) | Self::CopyTooLarge(..) | Self::RetainKeys => {
                StatusError::unprocessable()
            }
            Self::NotAnObject => refused("", self),
            Self::Decode(_)
            | Self::Body(_)
            | Self::RetainKeysFormat
            | Self::PrimitiveList
            | Self::ElementOrderFormat => StatusError::bad_request(self.to_string()),
            Self::Directive(..)
            | Self::MergeInList
            | Self::NoMergeKey { .. }
            | Self::ElementOrder { .. }
            | Self::MixedList => StatusError::unknown(self.to_string()),
        }
    }
}

/// The 422 for a patch whose outcome is no object of its kind, or has unknown or duplicate fields under strict validation.
/// `patched` is what upstream shows: the outcome as JSON, or a strategic merge patch as Go prints it.
pub fn refused(patched: &str, why: impl std::fmt::Display) -> StatusError {
    let error = FieldError::invalid(&Path::new("patch"), patched, why.to_string());
    StatusError::invalid("", "", "", &ErrorList::from(error))
}

/// The outcome of a patch.
#[derive(Clone, Debug, PartialEq)]
pub struct Patched {
    /// The patched object, not yet in normal form.
    pub object: Object,
    /// A warning for each member that the patch gives twice; with strict validation they refuse the request.
    pub warnings: Vec<String>,
}

/// Applies a JSON patch.
///
/// # Errors
/// When the patch is malformed, too long, or an operation fails; nothing is changed then.
pub fn json(object: &Object, patch: &[u8]) -> Result<Patched, PatchError> {
    json::apply(object, patch)
}

/// Applies a merge patch: objects merge, `null` removes, everything else replaces.
///
/// # Errors
/// When the patch is no JSON object.
pub fn merge(object: &Object, patch: &[u8]) -> Result<Patched, PatchError> {
    let patch = decode::parse(patch)?;
    let mut object = object.clone();
    merge_map(object.map_mut(), Value::from(patch.object));
    Ok(Patched { object, warnings: patch.warnings })
}

/// Applies a strategic merge patch, whose lists merge as the schema says.
///
/// # Errors
/// When the patch is no JSON object or misuses a directive.
pub fn strategic(object: &Object, patch: &[u8], schema: &Schema) -> Result<Patched, PatchError> {
    let patch = decode::parse(patch)?;
    let mut patch_map = patch.object;
    let merged = strategic::merge_map(object.map().clone(), std::mem::take(patch_map.map_mut()), Some(schema))?;
    Ok(Patched { object: Object::from(merged), warnings: patch.warnings })
}

fn merge_map(target: &mut Map<String, Value>, patch: Value) {
    let Value::Object(patch) = patch else { return };
    for (key, value) in patch {
        match value {
            Value::Null => {
                target.remove(&key);
            }
            Value::Object(_) => merge_map(crate::path::object_at(target, &key), value),
            other => {
                target.insert(key, other);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::gvk::Gvk;
    use crate::schema::lookup;

    fn object(value: Value) -> Object {
        Object::try_from(value).unwrap()
    }

    #[test]
    fn merge_patches_merge_and_remove() {
        let base = object(json!({"a": {"b": 1, "c": 2}, "d": [1, 2], "e": "x"}));
        let patched = merge(&base, br#"{"a":{"b":null,"z":{"n":null,"m":1}},"d":[3],"e":{"f":1}}"#).unwrap();
        assert_eq!(patched.object.to_value(), json!({"a": {"c": 2, "z": {"m": 1}}, "d": [3], "e": {"f": 1}}));
        assert_eq!(merge(&base, br#"{"a":1,"a":2}"#).unwrap().warnings, ["duplicate field \"a\""]);
        assert_eq!(merge(&base, b"[]").unwrap_err().status().code(), 400);
    }

    #[test]
    fn what_is_absent_tests_as_null() {
        let base = object(json!({"a": {"b": null}, "c": [1]}));
        let code = |path: &str| {
            let patch = json!([{"op": "test", "path": path, "value": null}, {"op": "add", "path": "/z", "value": 1}]);
            json(&base, patch.to_string().as_bytes()).map_or_else(|error| error.status().code(), |_| 200)
        };
        assert_eq!([code("/x"), code("/a/x"), code("/a/b")], [200, 200, 200]);
        assert_eq!([code("/x/y"), code("/c/7"), code("/c")], [422, 422, 422]);
    }

    #[test]
    fn json_patches_apply_or_change_nothing() {
        let base = object(json!({"a": {"b": [1, 2]}, "c": 1}));
        let patch = br#"[{"op":"test","path":"/c","value":1},{"op":"add","path":"/a/b/-","value":3},
            {"op":"replace","path":"/c","value":2},{"op":"remove","path":"/a/b/0"},{"op":"copy","from":"/a","path":"/d"},
            {"op":"move","from":"/c","path":"/e~1f"}]"#;
        assert_eq!(
            json(&base, patch).unwrap().object.to_value(),
            json!({"a": {"b": [2, 3]}, "d": {"b": [2, 3]}, "e/f": 2})
        );
        for (patch, code) in [
            (r#"[{"op":"remove","path":"/nothing"}]"#.to_owned(), 422),
            (r#"[{"op":"test","path":"/c","value":9}]"#.to_owned(), 422),
            (r#"[{"op":"replace","path":"","value":9}]"#.to_owned(), 422),
            (r#"{"op":"remove"}"#.to_owned(), 400),
            ("[1]".to_owned(), 400),
            (r#"[{"op":"paint","path":"/c"}]"#.to_owned(), 422),
            (r#"[{"path":"/c"}]"#.to_owned(), 422),
            ("[".to_owned(), 400),
            (format!("[{}]", vec![r#"{"op":"test","path":"/c","value":1}"#; 10_001].join(",")), 413),
        ] {
            assert_eq!(json(&base, patch.as_bytes()).unwrap_err().status().code(), code, "{:.60}", patch);
        }
        // Copies of copies would grow without bound.
        let bomb = format!(
            r#"[{{"op":"add","path":"/x","value":"{}"}},{}]"#,
            "x".repeat(1000),
            (0..40).map(|i| format!(r#"{{"op":"copy","from":"","path":"/y{i}"}}"#)).collect::<Vec<_>>().join(",")
        );
        assert!(matches!(json(&base, bomb.as_bytes()), Err(PatchError::CopyTooLarge(..))));
        let odd = br#"[{"op":"test","path":"/c","path":"/c","value":1,"extra":2}]"#;
        let warnings = json(&base, odd).unwrap().warnings;
        assert_eq!(warnings, ["json patch duplicate field \"[0].path\"", "json patch unknown field \"[0].extra\""]);
    }

    #[test]
    fn refusals_show_the_outcome_as_upstream_does() {
        assert_eq!(
            crate::go::text(&json!({"b": ["x", 1, null], "a": {"c": true}})),
            "map[a:map[c:true] b:[x 1 <nil>]]"
        );
        let status = refused("{}", "why");
        assert_eq!(
            (status.code(), status.message.as_str()),
            (422, " \"\" is invalid: patch: Invalid value: \"{}\": why")
        );
    }

    fn smp(base: Value, patch: Value) -> Result<Value, PatchError> {
        let schema = lookup(&Gvk::new("apps", "v1", "Deployment")).unwrap();
        strategic(&object(base), &serde_json::to_vec(&patch).unwrap(), schema).map(|p| p.object.to_value())
    }

    fn containers(list: Value) -> Value {
        json!({"spec": {"template": {"spec": {"containers": list}}}})
    }

    #[test]
    fn lists_merge_by_key() {
        let base = containers(json!([{"name": "a", "image": "1", "ports": [{"containerPort": 80}]}, {"name": "b"}]));
        let patch = containers(json!([{"name": "a", "image": "2", "ports": [{"containerPort": 81}]}, {"name": "c"}]));
        assert_eq!(
            smp(base.clone(), patch).unwrap(),
            containers(json!([
                {"name": "a", "image": "2", "ports": [{"containerPort": 81}, {"containerPort": 80}]},
                {"name": "c"}, {"name": "b"}]))
        );
        let delete = containers(json!([{"name": "a", "$patch": "delete"}]));
        assert_eq!(smp(base.clone(), delete).unwrap(), containers(json!([{"name": "b"}])));
        let replace = containers(json!([{"$patch": "replace"}, {"name": "x"}]));
        assert_eq!(smp(base.clone(), replace).unwrap(), containers(json!([{"name": "x"}])));
        let keyless = smp(base.clone(), containers(json!([{"image": "x"}]))).unwrap_err();
        assert!(keyless.to_string().ends_with("does not contain declared merge key: name"), "{keyless}");
        let atomic = json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "command": ["y"]}]}}}});
        let merged = smp(containers(json!([{"name": "a", "command": ["x", "z"]}])), atomic.clone()).unwrap();
        assert_eq!(merged, atomic);
    }

    #[test]
    fn order_and_primitive_directives() {
        let base = containers(json!([{"name": "a"}, {"name": "b"}, {"name": "c"}]));
        let patch = json!({"spec": {"template": {"spec": {
            "$setElementOrder/containers": [{"name": "c"}, {"name": "a"}],
            "containers": [{"name": "a", "image": "x"}]}}}});
        assert_eq!(
            smp(base.clone(), patch).unwrap(),
            containers(json!([{"name": "b"}, {"name": "c"}, {"name": "a", "image": "x"}]))
        );
        let bad = json!({"spec": {"template": {"spec": {
            "$setElementOrder/containers": [{"name": "c"}], "containers": [{"name": "a"}]}}}});
        assert!(matches!(smp(base, bad), Err(PatchError::ElementOrder { .. })));
        let finalizers = json!({"metadata": {"finalizers": ["a", "b"]}});
        assert_eq!(
            smp(finalizers.clone(), json!({"metadata": {"finalizers": ["c", "a"]}})).unwrap(),
            json!({"metadata": {"finalizers": ["c", "a", "b"]}})
        );
        assert_eq!(
            smp(finalizers, json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}})).unwrap(),
            json!({"metadata": {"finalizers": ["b"]}})
        );
    }

    #[test]
    fn maps_and_retained_keys() {
        let base = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"strategy": {"type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": 1}}}});
        let patch = json!({"metadata": {"labels": {"a": null, "c": "3"}},
            "spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
        assert_eq!(
            smp(base.clone(), patch).unwrap(),
            json!({"metadata": {"labels": {"b": "2", "c": "3"}}, "spec": {"strategy": {"type": "Recreate"}}})
        );
        let patch = json!({"metadata": {"labels": {"$patch": "replace", "x": "y"}}, "spec": {"strategy": {"$patch": "delete"}}});
        assert_eq!(
            smp(base.clone(), patch).unwrap(),
            json!({"metadata": {"labels": {"x": "y"}}, "spec": {"strategy": {}}})
        );
        assert_eq!(
            smp(base.clone(), json!({"spec": {"strategy": {"$retainKeys": ["type"], "rollingUpdate": {}}}})),
            Err(PatchError::RetainKeys)
        );
        assert_eq!(
            smp(base.clone(), json!({"spec": {"strategy": {"$retainKeys": 1}}})),
            Err(PatchError::RetainKeysFormat)
        );
        assert_eq!(PatchError::RetainKeys.status().code(), 422);
        assert!(matches!(smp(base.clone(), json!({"spec": {"$patch": "sum"}})), Err(PatchError::Directive(..))));
        // What is new in the object carries no directives and no nulls.
        let fresh =
            smp(json!({}), json!({"spec": {"$patch": "merge", "template": {"a": null, "b": 1, "$retainKeys": ["b"]}}}));
        assert_eq!(fresh.unwrap(), json!({"spec": {"template": {"b": 1}}}));
    }
}
