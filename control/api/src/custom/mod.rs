//! Custom resources: kinds that a CustomResourceDefinition describes at run time.
//!
//! [`Definition`] reads a CustomResourceDefinition; [`Kind`] is what one of its versions adds to a
//! [`Resource`](crate::registry::Resource): a structural [`Schema`] that decodes, prunes, defaults and validates objects,
//! the [`Message`] by which patches, field tracking and apply see them, columns, selectable fields and the scale
//! subresource. Rules written in CEL
//! (`x-kubernetes-validations`) are in [`cel`].

mod cel;
mod check;
mod columns;
mod convert;
mod defaults;
mod definition;
mod embedded;
mod format;
mod lists;
mod message;
mod number;
mod parse;
mod path;
mod pattern;
mod prune;
mod scale;
mod schema;
mod settle;
mod version;

use std::sync::Arc;

use serde_json::Value;

pub use cel::Rule;
pub use columns::Columns;
pub use definition::{Definition, FINALIZER, GROUP, Names, PLURAL, is_definition};
pub use schema::{Additional, List, Rules, Schema, Type};
pub use settle::{Settled, Taken, condition, is_true, set_condition};

pub(crate) use cel::check as check_rule;
pub(crate) use check::check;
pub(crate) use embedded::check as check_embedded;
pub(crate) use path::JsonPath;
pub(crate) use pattern::Pattern;
pub(crate) use prune::{findings, is_pruned, prune};
pub(crate) use scale::Scale;
pub(crate) use settle::{Approval, approval};
pub(crate) use version::compare as compare_versions;

use crate::schema::Message;
use crate::validation::Errors;

/// What one version of a custom resource is.
#[derive(Debug)]
pub struct Kind {
    pub schema: Arc<Schema>,
    pub message: Message,
    pub columns: Columns,
    /// What a field selector may name beside the metadata.
    pub selectable: Vec<String>,
    pub(crate) scale: Option<Scale>,
    /// The `apiVersion` under which objects are stored.
    pub stored_as: String,
    /// The schema of the stored version, where that is another one.
    stored_schema: Option<Arc<Schema>>,
    /// Only a webhook could convert what is stored; there is no client for them here.
    pub needs_webhook: bool,
    /// The schema as its definition spells it, to be published; JSON text, because it is large and seldom read.
    pub published: Box<str>,
    has_status: bool,
}

impl Kind {
    /// Fills in the defaults of an object.
    pub fn defaults(&self, object: &mut Value) {
        defaults::apply(&self.schema, object);
    }

    /// What is wrong with a new object, or with an old one after a change; what did not change is not held against it.
    pub(crate) fn validate(&self, old: Option<&Value>, object: &Value, errors: &mut Errors) {
        check(&self.schema, object, old, "", errors);
        self.validate_scale(object, errors);
        check_embedded(&self.schema, object, "", errors);
        self.validate_lists(old, object, errors);
        cel::validate(&self.schema, object, old, errors);
    }

    /// The same where only the status was written.
    pub(crate) fn validate_status(&self, old: &Value, object: &Value, errors: &mut Errors) {
        if let (Some(schema), Some(status)) = (self.schema.properties.get("status"), object.get("status")) {
            check(schema, status, old.get("status"), "status", errors);
        }
        if let Some(scale) = &self.scale {
            scale.validate_status(object, errors);
        }
        self.validate_lists(Some(old), object, errors);
        cel::validate(&self.schema, object, Some(old), errors);
    }

    fn validate_scale(&self, object: &Value, errors: &mut Errors) {
        if let Some(scale) = &self.scale {
            scale.validate_spec(object, errors);
            scale.validate_status(object, errors);
        }
    }

    /// Lists that had repeated items before may keep them.
    fn validate_lists(&self, old: Option<&Value>, object: &Value, errors: &mut Errors) {
        let had_any = old.is_some_and(|old| {
            let mut errors = Errors::default();
            lists::check(&self.schema, old, &mut errors);
            !errors.into_causes().is_empty()
        });
        if !had_any {
            lists::check(&self.schema, object, errors);
        }
    }

    /// Whether the status is written only through its subresource.
    #[must_use]
    pub fn has_status(&self) -> bool {
        self.has_status
    }
}

#[cfg(test)]
mod tests;
