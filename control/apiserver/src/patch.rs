//! Patch bodies: which kind of patch, and what it makes of an object. Server-side apply is in [`crate::apply`].

use bytes::Bytes;
use control_api::decode::decode_json;
use control_api::patch;
use control_api::schema::Message;
use control_api::status::{Cause, Status};
use serde_json::Value;

use crate::body::{self, FieldValidation};
use crate::handler::Context;

const APPLY: &str = "application/apply-patch+yaml";
const TYPES: &[&str] =
    &["application/json-patch+json", "application/merge-patch+json", APPLY, "application/strategic-merge-patch+json"];
const MANAGER_BYTES_MAX: usize = 128;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Json,
    Merge,
    Strategic,
}

#[derive(Debug)]
pub(crate) struct Patch {
    kind: Kind,
    document: Value,
    /// `duplicate field "…"` and the like, of the patch itself.
    own_faults: Vec<String>,
    validation: FieldValidation,
}

/// Whether the body is what a client applies.
pub(crate) fn is_apply(context: &Context) -> bool {
    body::media_type(&context.headers) == APPLY
}

/// The query parameters of a patch that upstream checks.
pub(crate) fn check_options(context: &Context, is_apply: bool) -> Result<(), Status> {
    let query = &context.info.query;
    let manager = query.get("fieldManager").unwrap_or_default();
    let mut causes = Vec::new();
    let mut refuse = |reason: &str, message: &str, field: &str| {
        causes.push(Cause { reason: reason.into(), message: message.into(), field: field.into() });
    };
    if is_apply && manager.is_empty() {
        refuse("FieldValueRequired", "Required value: is required for apply patch", "fieldManager");
    }
    if !is_apply && query.has("force") {
        refuse("FieldValueForbidden", "Forbidden: may not be specified for non-apply patch", "force");
    }
    if manager.len() > MANAGER_BYTES_MAX {
        let message = format!("Too long: may not be more than {MANAGER_BYTES_MAX} bytes");
        refuse("FieldValueTooLong", &message, "fieldManager");
    }
    if manager.chars().any(char::is_control) {
        let message = format!("Invalid value: {manager:?}: should only contain printable characters");
        refuse("FieldValueInvalid", &message, "fieldManager");
    }
    if causes.is_empty() { Ok(()) } else { Err(Status::invalid("meta.k8s.io", "PatchOptions", "", causes)) }
}

impl Patch {
    pub(crate) fn read(context: &Context, body: &Bytes) -> Result<Self, Status> {
        let kind = match body::media_type(&context.headers) {
            "application/json-patch+json" => Kind::Json,
            "application/merge-patch+json" => Kind::Merge,
            "application/strategic-merge-patch+json" => Kind::Strategic,
            _ => return Err(Status::unsupported_media_type(TYPES)),
        };
        check_options(context, false)?;
        let validation = FieldValidation::of(context)?;
        let decoded = decode_json(body).map_err(|status| match kind {
            Kind::Strategic => status,
            Kind::Json | Kind::Merge => Status::bad_request(format!("error decoding patch: {}", status.message)),
        })?;
        let mut own_faults: Vec<String> =
            decoded.duplicates.iter().map(|path| format!("duplicate field {path:?}")).collect();
        if kind == Kind::Json {
            own_faults.extend(patch::unknown_fields(&decoded.value));
            own_faults.iter_mut().for_each(|fault| fault.insert_str(0, "json patch "));
        }
        Ok(Self { kind, document: decoded.value, own_faults, validation })
    }

    /// The object as the patch wants it.
    pub(crate) fn apply(&self, context: &Context, message: &Message, current: &Value) -> Result<Value, Status> {
        let patched = match self.kind {
            Kind::Json => patch::json(current, &self.document)?,
            Kind::Merge => patch::merge(current, &self.document)?,
            Kind::Strategic => patch::strategic(message, current, &self.document)?,
        };
        let quoted = (self.kind == Kind::Strategic).then_some(&self.document);
        let mut patched = patch::finish(message, patched, quoted)?;
        let own = |field| current.get(field).and_then(Value::as_str).unwrap_or_default();
        body::keep_type(own("apiVersion"), own("kind"), &mut patched.value)?;
        match self.validation {
            FieldValidation::Ignore => {}
            FieldValidation::Warn => {
                let mut warnings = context.warnings.lock();
                // A second attempt finds the same.
                for text in self.own_faults.iter().chain(&patched.strict) {
                    if !warnings.contains(text) {
                        warnings.push(text.clone());
                    }
                }
            }
            FieldValidation::Strict => {
                if let Some(status) = patched.strict_status(&self.own_faults) {
                    return Err(status);
                }
            }
        }
        Ok(patched.value)
    }
}
