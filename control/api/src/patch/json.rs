//! JSON patch (RFC 6902): a list of operations, all or none.

use json_patch::{Patch, PatchOperation};
use serde_json::Value;

use super::unprocessable;
use crate::status::Status;
use crate::value::is_deeper;

/// The most operations that one patch may hold.
pub const OPERATIONS_MAX: usize = 10_000;
/// What all `copy` operations of a patch may add: a few of them could otherwise fill the memory.
const COPIED_BYTES_MAX: usize = 3 << 20;
/// How deep a patch may nest values: each `copy` could otherwise double what recursion takes of the stack.
const DEPTH_MAX: usize = 120;
/// What all `move` operations may carry, in bytes of JSON; each looks at all that it moves.
const MOVED_BYTES_MAX: usize = 256 << 20;

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
    let (mut copied, mut moved) = (0, 0);
    for operation in patch.0 {
        let is_sound = match &operation {
            PatchOperation::Add(add) => fits(&add.path, Some(&add.value)),
            PatchOperation::Replace(replace) => fits(&replace.path, Some(&replace.value)),
            PatchOperation::Copy(copy) => {
                let value = patched.pointer(copy.from.as_str());
                copied += value.map_or(0, |value| value.to_string().len());
                copied <= COPIED_BYTES_MAX && fits(&copy.path, value)
            }
            PatchOperation::Move(from) => {
                let value = patched.pointer(from.from.as_str());
                moved += value.map_or(0, |value| value.to_string().len());
                moved <= MOVED_BYTES_MAX && fits(&from.path, value)
            }
            PatchOperation::Remove(_) | PatchOperation::Test(_) => true,
        };
        if !is_sound {
            return Err(unprocessable());
        }
        json_patch::patch_unsafe(&mut patched, &[operation]).map_err(|_| unprocessable())?;
    }
    Ok(patched)
}

/// Whether a value nests no deeper than it may, once it is at its place.
fn fits(path: &json_patch::jsonptr::PointerBuf, value: Option<&Value>) -> bool {
    let depth = path.as_str().matches('/').count();
    value.is_none_or(|value| DEPTH_MAX.checked_sub(depth).is_some_and(|left| !is_deeper(value, left)))
}
