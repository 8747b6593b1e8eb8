//! JSON patch: the operations are the json-patch crate's; bounded here in number and in what copies add.

use json_patch::PatchOperation;
use serde_json::Value;

use super::{MAX_JSON_PATCH_OPERATIONS, PatchError};
use crate::Object;

/// Bytes by which the copies of one patch may enlarge the object together.
const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;

pub(super) fn apply(object: &Object, patch: &[u8]) -> Result<Object, PatchError> {
    let operations: Vec<Value> = serde_json::from_slice(patch).map_err(|e| PatchError::Decode(e.to_string()))?;
    if operations.len() > MAX_JSON_PATCH_OPERATIONS {
        return Err(PatchError::TooManyOperations(operations.len()));
    }
    let mut document = object.to_value();
    let mut copied = 0;
    for operation in operations {
        let operation: PatchOperation =
            serde_json::from_value(operation).map_err(|e| PatchError::Decode(e.to_string()))?;
        if let PatchOperation::Copy(copy) = &operation
            && let Some(source) = document.pointer(copy.from.as_str())
        {
            copied += serde_json::to_vec(source).map_or(0, |bytes| bytes.len());
            if copied > MAX_COPIED_BYTES {
                return Err(PatchError::CopyTooLarge(copied, MAX_COPIED_BYTES));
            }
        }
        json_patch::patch(&mut document, &[operation]).map_err(|e| PatchError::Operation(e.to_string()))?;
    }
    Object::try_from(document).map_err(|_| PatchError::NotAnObject)
}
