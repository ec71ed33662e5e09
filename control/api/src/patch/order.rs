//! The order of a merged list: the wished order first, then that of the list before.

use std::collections::HashMap;

use serde_json::Value;

use super::strategic::{DIRECTIVE, Refusal};

/// Sorts a merged list. Items that `wished` names come in its order; the others keep their place among their old
/// neighbours in `before`.
pub(super) fn arrange(
    merged: Vec<Value>,
    wished: &[Value],
    before: &[Value],
    key: Option<&str>,
) -> Result<Vec<Value>, Refusal> {
    if let Some(key) = key {
        for item in merged.iter().chain(wished) {
            let Value::Object(map) = item else { return Err(Refusal::wrong_type("map[string]interface {}", item)) };
            if !map.contains_key(key) {
                return Err(Refusal::no_merge_key(map, key));
            }
        }
    }
    let (wished, before) = (Places::of(wished, key), Places::of(before, key));
    let (mut from_patch, mut from_server): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| wished.find(item).is_some());
    from_patch.sort_by_cached_key(|item| wished.find(item));
    from_server.sort_by_cached_key(|item| before.find(item).unwrap_or(usize::MAX));
    Ok(interleave(
        from_server,
        from_patch,
        |server, patch| matches!((before.find(server), before.find(patch)), (Some(server), Some(patch)) if server < patch),
    ))
}

/// Refuses a patch whose items do not come in the order that it asks for, or are not named in it.
pub(super) fn check(items: &[Value], order: &[Value], key: Option<&str>) -> Result<(), Refusal> {
    if items.is_empty() || order.is_empty() {
        return Ok(());
    }
    let kept: Vec<&Value> = items.iter().filter(|item| item.get(DIRECTIVE).is_none()).collect();
    let mut rest = order.iter();
    for item in kept {
        if !rest.any(|wished| id(item, key) == id(wished, key)) {
            let print = |list: &[Value]| super::print::plain(&Value::Array(list.to_vec()));
            return Err(Refusal::Other(format!(
                "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
                print(items),
                print(order)
            )));
        }
    }
    Ok(())
}

/// Where the items of a list are, by the value of their merge key or, without one, by their own value.
pub(super) struct Places<'a> {
    key: Option<&'a str>,
    by_id: HashMap<String, usize>,
}

impl<'a> Places<'a> {
    pub(super) fn of(list: &[Value], key: Option<&'a str>) -> Self {
        let mut places = Self { key, by_id: HashMap::with_capacity(list.len()) };
        list.iter().enumerate().for_each(|(at, item)| places.add(item, at));
        places
    }

    /// The first of several items with one id is the one that counts.
    pub(super) fn add(&mut self, item: &Value, at: usize) {
        if let Some(id) = id(item, self.key) {
            self.by_id.entry(id.to_string()).or_insert(at);
        }
    }

    pub(super) fn find(&self, item: &Value) -> Option<usize> {
        self.by_id.get(&id(item, self.key)?.to_string()).copied()
    }
}

fn id<'a>(item: &'a Value, key: Option<&str>) -> Option<&'a Value> {
    key.map_or(Some(item), |key| item.get(key))
}

/// Merges two lists; an item of the first goes ahead only where `first` says so.
fn interleave(left: Vec<Value>, right: Vec<Value>, first: impl Fn(&Value, &Value) -> bool) -> Vec<Value> {
    let mut out = Vec::with_capacity(left.len() + right.len());
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    loop {
        let next = match (left.peek(), right.peek()) {
            (Some(l), Some(r)) if first(l, r) => left.next(),
            (_, Some(_)) => right.next(),
            (_, None) => left.next(),
        };
        match next {
            Some(item) => out.push(item),
            None => return out,
        }
    }
}
