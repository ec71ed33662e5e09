//! JSON patch (RFC 6902): a list of operations, all or none.

use json_patch::PatchOperation;
use serde::Deserialize;
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
/// 400 for what is no list of operations, 413 for too many operations, 422 when an operation makes no sense or fails.
pub fn json(document: &Value, patch: &Value) -> Result<Value, Status> {
    check_types(patch).map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
    let operations = patch.as_array().map(Vec::as_slice).unwrap_or_default();
    if operations.len() > OPERATIONS_MAX {
        let (most, got) = (OPERATIONS_MAX, operations.len());
        let message = format!("The allowed maximum operations in a JSON patch is {most}, got {got}");
        return Err(Status::too_large(message));
    }
    let mut patched = document.clone();
    let (mut copied, mut moved) = (0, 0);
    for operation in operations {
        let operation = PatchOperation::deserialize(operation).map_err(|_| unprocessable())?;
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

/// What Go's decoder says of a patch whose parts are of other types than theirs.
fn check_types(patch: &Value) -> Result<(), String> {
    let refuse = |value: &Value, place: &str| {
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        Err(format!("json: cannot unmarshal {kind} into Go {place}"))
    };
    let operations = match patch {
        Value::Null => return Ok(()),
        Value::Array(operations) => operations,
        other => return refuse(other, "value of type []handlers.jsonPatchOp"),
    };
    for operation in operations.iter().filter(|operation| !operation.is_null()) {
        let Value::Object(fields) = operation else {
            return refuse(operation, "value of type handlers.jsonPatchOp");
        };
        for (name, value) in fields.iter().filter(|(name, _)| matches!(name.as_str(), "op" | "path" | "from")) {
            if !value.is_null() && !value.is_string() {
                return refuse(value, &format!("struct field jsonPatchOp.{name} of type string"));
            }
        }
    }
    Ok(())
}

/// Fields of operations that mean nothing.
#[must_use]
pub fn unknown_fields(patch: &Value) -> Vec<String> {
    let mut unknown = Vec::new();
    for (index, operation) in patch.as_array().into_iter().flatten().enumerate() {
        for (name, _) in operation.as_object().into_iter().flatten() {
            if !matches!(name.as_str(), "op" | "path" | "from" | "value") {
                unknown.push(format!("unknown field \"[{index}].{name}\""));
            }
        }
    }
    unknown
}

/// Whether a value nests no deeper than it may, once it is at its place.
fn fits(path: &json_patch::jsonptr::PointerBuf, value: Option<&Value>) -> bool {
    let depth = path.as_str().matches('/').count();
    value.is_none_or(|value| DEPTH_MAX.checked_sub(depth).is_some_and(|left| !is_deeper(value, left)))
}
