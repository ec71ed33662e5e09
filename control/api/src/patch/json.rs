//! JSON patch (RFC 6902): a list of operations, all or none.

use json_patch::{Patch, PatchOperation};
use serde_json::Value;

use super::unprocessable;
use crate::status::Status;

/// The most operations that one patch may hold.
pub const OPERATIONS_MAX: usize = 10_000;
/// What all `copy` operations of a patch may add: a few of them could otherwise fill the memory.
const COPIED_BYTES_MAX: usize = 3 << 20;

/// Applies the operations in order.
///
/// # Errors
/// 400 for what is no JSON patch, 413 for too many operations, 422 when an operation fails.
pub fn json(document: &Value, patch: &Value) -> Result<Value, Status> {
    let operations = patch.as_array().map_or(0, Vec::len);
    if operations > OPERATIONS_MAX {
        let message = format!("The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {operations}");
        return Err(Status::too_large(message));
    }
    let patch: Patch = serde_json::from_value(patch.clone())
        .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
    let mut patched = document.clone();
    let mut copied = 0;
    for operation in patch.0 {
        if let PatchOperation::Copy(copy) = &operation {
            copied += patched.pointer(copy.from.as_str()).map_or(0, |value| value.to_string().len());
            if copied > COPIED_BYTES_MAX {
                return Err(unprocessable());
            }
        }
        json_patch::patch_unsafe(&mut patched, &[operation]).map_err(|_| unprocessable())?;
    }
    Ok(patched)
}
