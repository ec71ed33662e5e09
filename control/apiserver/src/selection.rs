//! Which objects a list, watch or deletion of many is about: selectors, and the name if only one is asked for.

use control_api::registry::Resource;
use control_api::selector::{FieldSelector, LabelSelector};
use control_api::status::Status;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::request::RequestInfo;

#[derive(Debug)]
pub(crate) struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
    /// The only name that can match.
    pub(crate) name: Option<String>,
}

#[derive(Deserialize)]
struct OnlyLabels {
    #[serde(default)]
    metadata: Labels,
}

#[derive(Default, Deserialize)]
struct Labels {
    labels: Option<Map<String, Value>>,
}

impl Selection {
    pub(crate) fn parse(resource: &Resource, info: &RequestInfo) -> Result<Self, Status> {
        let labels =
            info.query.get("labelSelector").map_or_else(|| Ok(LabelSelector::everything()), LabelSelector::parse)?;
        let fields = match info.query.get("fieldSelector") {
            Some(text) => FieldSelector::parse(resource, text)?,
            None => FieldSelector::everything(),
        };
        let by_path = Some(info.name.clone()).filter(|name| !name.is_empty());
        let name = by_path.or_else(|| fields.name().map(str::to_owned));
        Ok(Self { labels, fields, name })
    }

    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything() && self.name.is_none()
    }

    /// A cheap test before anything is parsed.
    pub(crate) fn may_match_key(&self, key: &str) -> bool {
        self.name.as_deref().is_none_or(|name| key.rsplit('/').next() == Some(name))
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = object["metadata"]["labels"].as_object();
        self.labels.matches(labels) && self.fields.matches(object)
    }

    /// Parses no more than it must.
    pub(crate) fn matches_stored(&self, key: &str, stored: &[u8]) -> bool {
        if !self.may_match_key(key) {
            return false;
        }
        if !self.fields.is_everything() {
            return serde_json::from_slice(stored).is_ok_and(|object| self.matches(&object));
        }
        if self.labels.is_everything() {
            return true;
        }
        serde_json::from_slice::<OnlyLabels>(stored)
            .is_ok_and(|object| self.labels.matches(object.metadata.labels.as_ref()))
    }
}
