//! What a client is told whose apply would change what others own.

use std::collections::BTreeMap;

use super::managers::{Manager, Operation};
use super::set::{Element, FieldSet};
use crate::status::Status;

/// The fields in question, by who owns them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Conflicts(pub(super) Vec<(Manager, FieldSet)>);

impl Conflicts {
    pub(super) fn fields(&self) -> FieldSet {
        self.0.iter().fold(FieldSet::new(), |all, (_, fields)| all.union(fields))
    }

    /// 409 with one cause for each field and owner.
    pub(super) fn into_status(self) -> Status {
        let mut by_owner: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (manager, fields) in &self.0 {
            by_owner.entry(shown(manager)).or_default().extend(paths(fields));
        }
        let causes: Vec<(&String, &String)> =
            by_owner.iter().flat_map(|(owner, paths)| paths.iter().map(move |path| (owner, path))).collect();
        let message = match causes.as_slice() {
            [(owner, path)] => format!("Apply failed with 1 conflict: conflict with {owner}: {path}"),
            several => {
                let lines = by_owner.iter().flat_map(|(owner, paths)| {
                    std::iter::once(format!("conflicts with {owner}:"))
                        .chain(paths.iter().map(|path| format!("- {path}")))
                });
                let lines: Vec<String> = lines.collect();
                format!("Apply failed with {} conflicts: {}", several.len(), lines.join("\n"))
            }
        };
        causes.iter().fold(Status::new(409, "Conflict", message), |status, (owner, path)| {
            status.with_cause("FieldManagerConflict", &format!("conflict with {owner}"), path)
        })
    }
}

/// `"kubectl" with subresource "scale" using apps/v1`; appliers change their version at will, so theirs is not shown.
fn shown(manager: &Manager) -> String {
    let mut text = format!("{:?}", manager.name);
    if !manager.subresource.is_empty() {
        text += &format!(" with subresource {:?}", manager.subresource);
    }
    if manager.operation == Operation::Update {
        text += &format!(" using {}", manager.api_version);
    }
    text
}

/// Members before what is inside of any of them.
fn paths(fields: &FieldSet) -> Vec<String> {
    fn collect(prefix: &str, set: &FieldSet, out: &mut Vec<String>) {
        let below = |element: &Element| format!("{prefix}{element}");
        out.extend(set.elements().filter(|(_, member, _)| *member).map(|(element, ..)| below(element)));
        for (element, _, inner) in set.elements() {
            collect(&below(element), inner, out);
        }
    }
    let mut out = Vec::new();
    collect("", fields, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn manager(name: &str, operation: Operation, subresource: &str) -> Manager {
        Manager { name: name.into(), operation, api_version: "apps/v1".into(), subresource: subresource.into() }
    }

    fn set(fields: serde_json::Value) -> FieldSet {
        FieldSet::from_json(&fields).unwrap()
    }

    #[test]
    fn one_conflict_is_told_in_a_line() {
        let fields = set(json!({"f:spec": {"f:replicas": {}}}));
        let status = Conflicts(vec![(manager("kubectl-edit", Operation::Update, ""), fields)]).into_status();
        assert_eq!(
            status.to_json(),
            json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 409, "reason": "Conflict",
                "message": "Apply failed with 1 conflict: conflict with \"kubectl-edit\" using apps/v1: .spec.replicas",
                "details": {"causes": [{"reason": "FieldManagerConflict", "field": ".spec.replicas",
                    "message": "conflict with \"kubectl-edit\" using apps/v1"}]},
            })
        );
    }

    #[test]
    fn several_are_listed_by_owner() {
        let containers = json!({"k:{\"name\":\"a\"}": {".": {}, "f:image": {}}, "v:\"x\"": {}});
        let conflicts = vec![
            (manager("b", Operation::Update, "scale"), set(json!({"f:spec": {"f:replicas": {}}}))),
            (
                manager("a", Operation::Apply, ""),
                set(json!({"f:spec": {"f:containers": containers, "f:replicas": {}}})),
            ),
        ];
        assert_eq!(
            Conflicts(conflicts).into_status().message,
            "Apply failed with 5 conflicts: conflicts with \"a\":\n- .spec.replicas\n- .spec.containers[name=\"a\"]\n\
             - .spec.containers[=\"x\"]\n- .spec.containers[name=\"a\"].image\n\
             conflicts with \"b\" with subresource \"scale\" using apps/v1:\n- .spec.replicas"
        );
    }
}
