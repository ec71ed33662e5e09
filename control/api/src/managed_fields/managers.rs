//! The entries of `managedFields`: one per manager, operation, version and subresource.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::compare::Comparison;
use super::set::FieldSet;
use crate::schema;

/// The most entries that stem from updates. The oldest are merged once there are more.
pub const UPDATE_MANAGERS_MAX: usize = 10;
/// Who owns what the merged managers owned.
const ANCIENT: &str = "ancient-changes";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    Apply,
    Update,
}

/// What tells one entry from another. An applier keeps its entry when it changes its API version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Manager {
    pub name: String,
    pub operation: Operation,
    pub api_version: String,
    pub subresource: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Owned {
    fields: FieldSet,
    time: Option<String>,
}

/// Who owns which fields of one object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Managers(BTreeMap<Manager, Owned>);

impl Managers {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads entries; `None` when one of them is malformed.
    #[must_use]
    pub fn from_json(entries: &Value) -> Option<Self> {
        let mut managers = Self::default();
        for entry in entries.as_array()? {
            let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            let operation = match text("operation").as_str() {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return None,
            };
            let api_version = text("apiVersion");
            if api_version.is_empty() || text("fieldsType") != "FieldsV1" {
                return None;
            }
            let fields = entry.get("fieldsV1").map_or(Some(FieldSet::new()), FieldSet::from_json)?;
            let time = entry.get("time").and_then(Value::as_str).map(str::to_owned);
            let manager = Manager { name: text("manager"), operation, api_version, subresource: text("subresource") };
            managers.set(manager, fields, time);
        }
        Some(managers)
    }

    /// The entries as they are stored: appliers first, then by age.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut sorted: Vec<(&Manager, &Owned)> = self.0.iter().collect();
        sorted.sort_by_key(|(manager, owned)| (manager.operation, seconds(owned), *manager));
        sorted.into_iter().map(|(manager, owned)| entry(manager, owned)).collect()
    }

    #[must_use]
    pub fn fields(&self, manager: &Manager) -> Option<&FieldSet> {
        self.0.get(manager).map(|owned| &owned.fields)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Manager, &FieldSet)> {
        self.0.iter().map(|(manager, owned)| (manager, &owned.fields))
    }

    /// When a manager last changed the object.
    #[must_use]
    pub fn time(&self, manager: &Manager) -> Option<String> {
        self.0.get(manager).and_then(|owned| owned.time.clone())
    }

    /// What an applier owns, in whichever version it applied, and since when.
    pub(super) fn applied(&self, me: &Manager) -> Option<(FieldSet, Option<String>)> {
        let mine = |other: &Manager| {
            other.operation == Operation::Apply && (&other.name, &other.subresource) == (&me.name, &me.subresource)
        };
        let (_, owned) = self.0.iter().find(|(other, _)| mine(other))?;
        Some((owned.fields.clone(), owned.time.clone()))
    }

    /// Who else owns any of these fields, and which.
    pub(super) fn owning(&self, me: &Manager, fields: &FieldSet) -> Vec<(Manager, FieldSet)> {
        let others = self.0.iter().filter(|(other, _)| *other != me);
        let owning = others.map(|(other, owned)| (other.clone(), owned.fields.intersection(fields)));
        owning.filter(|(_, owned)| !owned.is_empty()).collect()
    }

    /// Takes fields away from everybody else.
    pub(super) fn disown(&mut self, me: &Manager, fields: &FieldSet) {
        for (other, owned) in &mut self.0 {
            if other != me {
                owned.fields = owned.fields.difference(fields);
            }
        }
        self.0.retain(|_, owned| !owned.fields.is_empty());
    }

    /// Takes fields away from one.
    pub(super) fn own_less(&mut self, me: &Manager, fields: &FieldSet) {
        if let Some(owned) = self.0.get_mut(me) {
            owned.fields = owned.fields.difference(fields);
        }
        self.0.retain(|_, owned| !owned.fields.is_empty());
    }

    pub(super) fn map_fields(&mut self, map: impl Fn(&FieldSet) -> FieldSet) {
        self.0.values_mut().for_each(|owned| owned.fields = map(&owned.fields));
    }

    pub(super) fn set_time(&mut self, manager: &Manager, time: &str) {
        if let Some(owned) = self.0.get_mut(manager) {
            owned.time = Some(time.to_owned());
        }
    }

    /// Sets what a manager owns; nothing removes the entry.
    pub fn set(&mut self, manager: Manager, fields: FieldSet, time: Option<String>) {
        if manager.operation == Operation::Apply {
            self.0.retain(|other, _| {
                other.operation != Operation::Apply
                    || (&other.name, &other.subresource) != (&manager.name, &manager.subresource)
            });
        }
        if fields.is_empty() {
            self.0.remove(&manager);
        } else {
            self.0.insert(manager, Owned { fields, time });
        }
    }

    /// An update takes what it added or changed away from everybody else, and what it removed from everybody.
    pub fn record_update(&mut self, me: &Manager, changes: &Comparison, time: &str) {
        let taken = changes.added.clone().union(&changes.modified);
        let lost = taken.clone().union(&changes.removed);
        // All versions of a kind name their fields alike here: conversion changes nothing but the version.
        for (manager, owned) in &mut self.0 {
            owned.fields = owned.fields.difference(if manager == me { &changes.removed } else { &lost });
        }
        if !taken.is_empty() {
            let before = self.fields(me).cloned().unwrap_or_default();
            self.set(me.clone(), before.union(&taken), Some(time.to_owned()));
        }
        self.0.retain(|_, owned| !owned.fields.is_empty());
    }

    /// Merges the oldest update entries of each version while there are too many.
    pub fn cap_updates(&mut self) {
        let mut updates: Vec<Manager> =
            self.0.keys().filter(|manager| manager.operation == Operation::Update).cloned().collect();
        let mut count = updates.len();
        updates.sort_by_key(|manager| (self.0.get(manager).map_or(i64::MIN, seconds), manager.clone()));
        let mut first_of: BTreeMap<String, Manager> = BTreeMap::new();
        for manager in updates {
            if count <= UPDATE_MANAGERS_MAX {
                break;
            }
            let bucket = Manager {
                name: ANCIENT.into(),
                operation: Operation::Update,
                api_version: manager.api_version.clone(),
                subresource: String::new(),
            };
            let Some(first) = first_of.get(&manager.api_version) else {
                first_of.insert(manager.api_version.clone(), manager);
                continue;
            };
            let merged: Vec<Owned> =
                [&bucket, first, &manager].into_iter().filter_map(|key| self.0.remove(key)).collect();
            count = count + 1 - merged.len();
            let time = merged.iter().max_by_key(|owned| seconds(owned)).and_then(|owned| owned.time.clone());
            let fields = merged.iter().fold(FieldSet::new(), |all, owned| all.union(&owned.fields));
            first_of.insert(manager.api_version, bucket.clone());
            self.0.insert(bucket, Owned { fields, time });
        }
    }
}

fn seconds(owned: &Owned) -> i64 {
    owned.time.as_deref().and_then(|time| schema::time::parse(time).ok()).map_or(0, |time| time.as_second())
}

fn entry(manager: &Manager, owned: &Owned) -> Value {
    let mut entry = Map::new();
    entry.insert("manager".into(), manager.name.as_str().into());
    entry.insert("operation".into(), if manager.operation == Operation::Apply { "Apply" } else { "Update" }.into());
    entry.insert("apiVersion".into(), manager.api_version.as_str().into());
    if let Some(time) = &owned.time {
        entry.insert("time".into(), time.as_str().into());
    }
    entry.insert("fieldsType".into(), json!("FieldsV1"));
    entry.insert("fieldsV1".into(), owned.fields.to_json());
    if !manager.subresource.is_empty() {
        entry.insert("subresource".into(), manager.subresource.as_str().into());
    }
    entry.into()
}
