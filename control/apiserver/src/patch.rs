//! Patch bodies: which kind of patch, and what it makes of an object.

use control_api::decode::decode_json;
use control_api::patch;
use control_api::schema::Message;
use control_api::status::Status;
use hyper::body::Incoming;
use serde_json::Value;

use crate::body::{self, FieldValidation};
use crate::handler::Context;

const TYPES: &[&str] =
    &["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json"];

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
    /// `duplicate field "…"` of the patch itself.
    duplicates: Vec<String>,
    validation: FieldValidation,
}

impl Patch {
    pub(crate) async fn read(context: &Context, body: Incoming) -> Result<Self, Status> {
        let kind = match body::media_type(&context.headers) {
            "application/json-patch+json" => Kind::Json,
            "application/merge-patch+json" => Kind::Merge,
            "application/strategic-merge-patch+json" => Kind::Strategic,
            "application/apply-patch+yaml" => {
                return Err(Status::new(
                    415,
                    "UnsupportedMediaType",
                    format!(
                        "server-side apply is not supported by this server; accepted media types include: {}",
                        TYPES.join(", ")
                    ),
                ));
            }
            _ => return Err(Status::unsupported_media_type(TYPES)),
        };
        let validation = FieldValidation::of(context)?;
        let bytes = body::read(body).await?;
        let decoded = decode_json(&bytes)?;
        let duplicates = decoded.duplicates.iter().map(|path| format!("duplicate field {path:?}")).collect();
        Ok(Self { kind, document: decoded.value, duplicates, validation })
    }

    /// The object as the patch wants it.
    pub(crate) fn apply(&self, context: &Context, message: &Message, current: &Value) -> Result<Value, Status> {
        let patched = match self.kind {
            Kind::Json => patch::json(current, &self.document)?,
            Kind::Merge => patch::merge(current, &self.document)?,
            Kind::Strategic => patch::strategic(message, current, &self.document)?,
        };
        let quoted = (self.kind == Kind::Strategic).then_some(&self.document);
        let patched = patch::finish(message, patched, quoted)?;
        match self.validation {
            FieldValidation::Ignore => {}
            FieldValidation::Warn => {
                let mut warnings = context.warnings.lock();
                // A second attempt finds the same.
                for text in self.duplicates.iter().chain(&patched.strict) {
                    if !warnings.contains(text) {
                        warnings.push(text.clone());
                    }
                }
            }
            FieldValidation::Strict => {
                if let Some(status) = patched.strict_status(&self.duplicates) {
                    return Err(status);
                }
            }
        }
        Ok(patched.value)
    }
}
