//! The status of a definition: which names it gets, whether it is established, whether its group is approved.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::definition::{Definition, Names};
use crate::schema::time::seconds;
use crate::value::{items, text};

pub(super) const APPROVAL: &str = "api-approved.kubernetes.io";
const PROPOSALS: &str = "see https://github.com/kubernetes/enhancements/pull/1111";

/// What a definition's status should say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    pub accepted: Names,
    conditions: Vec<[String; 4]>,
}

/// The names of a group that others hold.
#[derive(Debug, Default, Clone)]
pub struct Taken {
    pub resources: BTreeSet<String>,
    pub kinds: BTreeSet<String>,
}

impl Taken {
    pub fn add(&mut self, names: &Names) {
        self.resources.extend(names.resources().map(str::to_owned));
        self.kinds.extend(names.kinds().map(str::to_owned));
    }
}

impl Definition {
    /// What the status should become; `None` if it says so already.
    #[must_use]
    pub fn settle(&self, taken: &Taken) -> Option<Settled> {
        let (accepted, names) = self.choose_names(taken);
        let is_accepted = names[1] == "True";
        let mut conditions = vec![names];
        if !is_true(&self.conditions, "Established") {
            conditions.push(if is_accepted {
                condition_of("Established", "True", "InitialNamesAccepted", "the initial names have been accepted")
            } else {
                condition_of("Established", "False", "NotAccepted", "not all names are accepted")
            });
        }
        conditions.extend(self.approval());
        let is_there = |[kind, status, reason, message]: &[String; 4]| {
            self.conditions.iter().any(|found| {
                found["type"] == kind.as_str()
                    && found["status"] == status.as_str()
                    && found["reason"] == reason.as_str()
                    && found["message"] == message.as_str()
            })
        };
        let done = accepted == self.accepted && conditions.iter().all(is_there);
        (!done).then_some(Settled { accepted, conditions })
    }

    /// Names that nobody else holds. Of several conflicts the last is reported, as upstream.
    fn choose_names(&self, taken: &Taken) -> (Names, [String; 4]) {
        let wanted = &self.requested;
        let mut names = self.accepted.clone();
        let mut conflicts = vec![
            choose("PluralConflict", &wanted.plural, &mut names.plural, &taken.resources),
            choose("SingularConflict", &wanted.singular, &mut names.singular, &taken.resources),
        ];
        let is_held = |name: &&String| !self.accepted.short_names.contains(name) && taken.resources.contains(*name);
        let held: Vec<String> = wanted.short_names.iter().filter(is_held).map(|name| in_use(name)).collect();
        match held.as_slice() {
            [] => names.short_names.clone_from(&wanted.short_names),
            [one] => conflicts.push(Some(("ShortNamesConflict", one.clone()))),
            several => conflicts.push(Some(("ShortNamesConflict", format!("[{}]", several.join(", "))))),
        }
        conflicts.push(choose("KindConflict", &wanted.kind, &mut names.kind, &taken.kinds));
        conflicts.push(choose("ListKindConflict", &wanted.list_kind, &mut names.list_kind, &taken.kinds));
        names.categories.clone_from(&wanted.categories);
        let condition = match conflicts.into_iter().flatten().next_back() {
            Some((reason, message)) => condition_of("NamesAccepted", "False", reason, &message),
            None => condition_of("NamesAccepted", "True", "NoConflicts", "no conflicts found"),
        };
        (names, condition)
    }

    fn approval(&self) -> Option<[String; 4]> {
        let (status, reason, message) = match approval(&self.group, &self.approval)? {
            Approval::Approved(message) => ("True", "ApprovedAnnotation", message),
            Approval::Bypassed(message) => ("False", "UnapprovedAnnotation", message),
            Approval::Missing(message) => ("False", "MissingAnnotation", message),
            Approval::Invalid(message) => ("False", "InvalidAnnotation", message),
        };
        Some(condition_of("KubernetesAPIApprovalPolicyConformant", status, reason, &message))
    }
}

impl Settled {
    /// Writes it into the definition.
    pub fn write(&self, definition: &mut Value, now: Timestamp) {
        definition["status"]["acceptedNames"] = self.accepted.to_json();
        for [kind, status, reason, message] in &self.conditions {
            set_condition(definition, kind, status, reason, message, now);
        }
    }
}

/// Whether the community approves of a resource in one of its own groups.
pub(crate) enum Approval {
    Approved(String),
    Bypassed(String),
    Missing(String),
    Invalid(String),
}

/// `None` for groups that anybody may use.
pub(crate) fn approval(group: &str, annotation: &str) -> Option<Approval> {
    let is_protected = ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|domain| group.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')));
    if !is_protected {
        return None;
    }
    let is_url = annotation.split_once("://").is_some_and(|(scheme, rest)| {
        !scheme.is_empty()
            && scheme.bytes().all(|byte| byte.is_ascii_alphabetic())
            && !rest.split('/').all(str::is_empty)
    });
    Some(if annotation.is_empty() {
        Approval::Missing(format!("protected groups must have approval annotation {APPROVAL:?}, {PROPOSALS}"))
    } else if annotation.starts_with("unapproved") {
        Approval::Bypassed(format!("not approved: {annotation:?}"))
    } else if is_url {
        Approval::Approved(format!("approved in {annotation}"))
    } else {
        Approval::Invalid(format!(
            "protected groups must have approval annotation {APPROVAL:?} with either a URL or a reason starting with \
             \"unapproved\", {PROPOSALS}"
        ))
    })
}

/// Takes a name if it is free; says why not.
fn choose(
    reason: &'static str,
    wanted: &str,
    held: &mut String,
    taken: &BTreeSet<String>,
) -> Option<(&'static str, String)> {
    if wanted != held && taken.contains(wanted) {
        return Some((reason, in_use(wanted)));
    }
    wanted.clone_into(held);
    None
}

fn in_use(name: &str) -> String {
    format!("{name:?} is already in use")
}

fn condition_of(kind: &str, status: &str, reason: &str, message: &str) -> [String; 4] {
    [kind, status, reason, message].map(str::to_owned)
}

/// The condition of a type.
#[must_use]
pub fn condition<'a>(conditions: &'a [Value], kind: &str) -> Option<&'a Value> {
    conditions.iter().find(|condition| condition["type"] == kind)
}

#[must_use]
pub fn is_true(conditions: &[Value], kind: &str) -> bool {
    condition(conditions, kind).is_some_and(|condition| condition["status"] == "True")
}

/// Sets a condition of a definition; its time changes with its status only.
pub fn set_condition(definition: &mut Value, kind: &str, status: &str, reason: &str, message: &str, now: Timestamp) {
    let mut conditions = items(&definition["status"]["conditions"]).to_vec();
    put(&mut conditions, kind, status, reason, message, now);
    definition["status"]["conditions"] = conditions.into();
}

fn put(conditions: &mut Vec<Value>, kind: &str, status: &str, reason: &str, message: &str, now: Timestamp) {
    let mut new = json!({"type": kind, "status": status, "reason": reason, "message": message});
    match conditions.iter_mut().find(|condition| condition["type"] == kind) {
        Some(old) => {
            let keeps_time = old["status"] == status && !text(&old["lastTransitionTime"]).is_empty();
            new["lastTransitionTime"] =
                if keeps_time { old["lastTransitionTime"].clone() } else { seconds(now).into() };
            *old = new;
        }
        None => {
            new["lastTransitionTime"] = seconds(now).into();
            conditions.push(new);
        }
    }
}
