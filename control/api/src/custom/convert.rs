//! Between the version that is served and the version that is stored. Only the `None` strategy: they differ in their
//! `apiVersion`, and each schema takes out what it does not know.

use serde_json::Value;

use super::{Kind, defaults, prune};
use crate::value::set;

impl Kind {
    /// Makes a stored object one of this version.
    pub(crate) fn read_stored(&self, api_version: &str, object: &mut Value) {
        set(object, "apiVersion", api_version);
        prune(&self.schema, object);
        defaults::apply(&self.schema, object);
    }

    /// Makes an object of this version what is stored.
    pub(crate) fn make_stored(&self, object: &mut Value) {
        set(object, "apiVersion", self.stored_as.as_str());
        if let Some(schema) = &self.stored_schema {
            prune(schema, object);
        }
    }
}
