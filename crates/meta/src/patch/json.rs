//! JSON patch: the operations are the json-patch crate's; bounded here in number and in what copies add.

use json_patch::{PatchErrorKind, PatchOperation};
use serde_json::Value;

use super::{MAX_JSON_PATCH_OPERATIONS, PatchError, Patched};
use crate::Object;
use crate::decode;

/// Bytes by which the copies of one patch may enlarge the object together.
const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;

/// Members of an operation.
const MEMBERS: [&str; 4] = ["op", "path", "from", "value"];

/// Whether an operation tests that an object has no such member, and it has none: to Go's library that is null. Clients add the
/// first finalizer so.
fn finds_nothing(operation: &PatchOperation, document: &Value) -> bool {
    let PatchOperation::Test(test) = operation else { return false };
    let path = test.path.as_str();
    let Some((parent, _)) = path.rsplit_once('/') else { return false };
    test.value.is_null() && document.pointer(parent).is_some_and(Value::is_object) && document.pointer(path).is_none()
}

pub(super) fn apply(object: &Object, patch: &[u8]) -> Result<Patched, PatchError> {
    let (parsed, mut warnings) = decode::parse_value(patch).map_err(|e| PatchError::Decode(e.to_string()))?;
    let Value::Array(operations) = parsed else {
        let found = crate::json_type(&parsed);
        return Err(PatchError::Decode(format!(
            "json: cannot unmarshal {found} into Go value of type []handlers.jsonPatchOp"
        )));
    };
    if operations.len() > MAX_JSON_PATCH_OPERATIONS {
        return Err(PatchError::TooManyOperations(operations.len()));
    }
    for (index, operation) in operations.iter().enumerate() {
        let members = operation.as_object().into_iter().flat_map(|members| members.keys());
        let unknown = members.filter(|member| !MEMBERS.contains(&member.as_str()));
        warnings.extend(unknown.map(|member| format!("unknown field \"[{index}].{member}\"")));
    }
    let mut document = object.to_value();
    let mut copied = 0;
    for operation in operations {
        if !operation.is_object() {
            let found = crate::json_type(&operation);
            return Err(PatchError::Decode(format!(
                "json: cannot unmarshal {found} into Go value of type handlers.jsonPatchOp"
            )));
        }
        // An operation that is none is found when it is its turn.
        let operation: PatchOperation =
            serde_json::from_value(operation).map_err(|e| PatchError::Operation(e.to_string()))?;
        if let PatchOperation::Copy(copy) = &operation
            && let Some(source) = document.pointer(copy.from.as_str())
        {
            copied += serde_json::to_vec(source).map_or(0, |bytes| bytes.len());
            if copied > MAX_COPIED_BYTES {
                return Err(PatchError::CopyTooLarge(copied, MAX_COPIED_BYTES));
            }
        }
        if finds_nothing(&operation, &document) {
            continue;
        }
        json_patch::patch(&mut document, &[operation]).map_err(|error| match error.kind {
            PatchErrorKind::TestFailed => PatchError::Test(error.to_string()),
            _ => PatchError::Operation(error.to_string()),
        })?;
    }
    let object = Object::try_from(document).map_err(|_| PatchError::NotAnObject)?;
    let warnings = warnings.into_iter().map(|warning| format!("json patch {warning}")).collect();
    Ok(Patched { object, warnings })
}
