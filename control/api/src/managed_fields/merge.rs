//! Merging what a client applies into what is there, and taking fields out again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Map, Value};

use super::compare::{Node, element_of};
use super::set::{Element, FieldSet};

/// The live value with the applied one merged in: structs and granular maps by field, lists by item where their items have
/// names, everything else as a whole.
pub(super) fn merge(node: Node<'_>, live: &Value, config: &Value) -> Value {
    let takes_another_form = !config.is_null() && std::mem::discriminant(live) != std::mem::discriminant(config);
    if takes_another_form || node.is_leaf([Some(live), Some(config)]) {
        return config.clone();
    }
    if node.is_list() {
        return merge_lists(node, live.as_array(), config.as_array()).into();
    }
    let mut merged = live.as_object().cloned().unwrap_or_default();
    for (name, config) in config.as_object().into_iter().flatten() {
        let value = match merged.get(name) {
            Some(live) => merge(node.child(name), live, config),
            None => config.clone(),
        };
        merged.insert(name.clone(), value);
    }
    merged.into()
}

/// The value without the fields of a set. What is emptied by that becomes null.
pub(super) fn without(node: Node<'_>, value: &Value, gone: &FieldSet) -> Value {
    let rest = |element: &Element, inner: Node<'_>, value: &Value| match gone.below(element) {
        _ if gone.has_member(element) => None,
        Some(below) if !below.is_empty() => Some(without(inner, value, below)),
        _ => Some(value.clone()),
    };
    match value {
        Value::Object(map) if node.is_map() => {
            let kept = map.iter().filter_map(|(name, value)| {
                rest(&Element::field(name.as_str()), node.child(name), value).map(|value| (name.clone(), value))
            });
            Some(kept.collect::<Map<_, _>>()).filter(|kept| !kept.is_empty()).map_or(Value::Null, Value::Object)
        }
        Value::Array(list) if node.is_list() => {
            let kept = list.iter().filter_map(|item| match element_of(node, item) {
                Some(element) => rest(&element, node.item(), item),
                None => Some(item.clone()),
            });
            Some(kept.collect::<Vec<_>>()).filter(|kept| !kept.is_empty()).map_or(Value::Null, Value::Array)
        }
        other => other.clone(),
    }
}

/// The applied items come in their own order; items that only the live list has stay before the shared item that they
/// stood before.
fn merge_lists(node: Node<'_>, live: Option<&Vec<Value>>, config: Option<&Vec<Value>>) -> Vec<Value> {
    let (live, config) = (items(node, live), items(node, config));
    let mut known: BTreeMap<&Element, Option<&Value>> = BTreeMap::new();
    for (element, item) in live.iter().filter_map(|(element, item)| Some((element.as_ref()?, *item))) {
        // Of repeated items none is the one to merge with: an applied one takes the place of all.
        known.entry(element).and_modify(|known| *known = None).or_insert(Some(item));
    }
    let applied: BTreeSet<&Element> = config.iter().filter_map(|(element, _)| element.as_ref()).collect();
    let mut shared: VecDeque<&Element> = config
        .iter()
        .filter_map(|(element, _)| element.as_ref())
        .filter(|element| known.contains_key(element))
        .collect();
    let mut merged = Vec::with_capacity(live.len().max(config.len()));
    let (mut l, mut c) = (0, 0);
    while l < live.len() || c < config.len() {
        let next = shared.front().copied();
        match (live.get(l), config.get(c)) {
            (Some((mine, item)), _) if mine.as_ref().is_none_or(|mine| !applied.contains(mine)) => {
                merged.push((*item).clone());
                l += 1;
                continue;
            }
            (Some((mine, _)), Some((theirs, _))) if mine == theirs => l += 1,
            // A shared item whose turn has not come: it moves to where the applied list has it.
            (Some((mine, _)), Some(_)) if next.is_some() && next != mine.as_ref() => {
                l += 1;
                continue;
            }
            (Some((mine, _)), _) if next != mine.as_ref() => l += 1,
            _ => {}
        }
        let Some((element, item)) = config.get(c) else { continue };
        c += 1;
        if next.is_some() && next == element.as_ref() {
            shared.pop_front();
        }
        let before = element.as_ref().and_then(|element| known.get(element).copied().flatten());
        merged.push(before.map_or_else(|| (*item).clone(), |before| merge(node.item(), before, item)));
    }
    merged
}

fn items<'a>(node: Node<'_>, list: Option<&'a Vec<Value>>) -> Vec<(Option<Element>, &'a Value)> {
    list.into_iter().flatten().map(|item| (element_of(node, item), item)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::{Field, Merging, Message, Shape};

    fn keyed() -> Field {
        let item = Message::new("Item", vec![Field::new("name", Shape::String), Field::new("value", Shape::Int32)]);
        let shape = Shape::list(Shape::Message(std::sync::Arc::new(item).into()));
        Field { merging: Some(Merging::Map(vec!["name".into()])), ..Field::new("list", shape) }
    }

    fn names(text: &str) -> Value {
        text.chars().map(|name| json!({"name": name.to_string()})).collect()
    }

    #[test]
    fn applied_items_keep_their_order_and_live_ones_their_neighbours() {
        // live, applied, merged
        let cases = [
            ("abc", "", "abc"),
            ("", "abc", "abc"),
            ("abc", "abc", "abc"),
            ("abc", "cba", "cba"),
            ("abc", "bd", "abcd"),
            ("abc", "dab", "dabc"),
            ("ab", "cd", "abcd"),
            ("axbyc", "cab", "xycab"),
            ("abcde", "bexd", "abcexd"),
        ];
        let field = keyed();
        for (live, applied, expected) in cases {
            let merged = merge(Node::of_field(&field), &names(live), &names(applied));
            let merged: String = merged.as_array().unwrap().iter().filter_map(|item| item["name"].as_str()).collect();
            assert_eq!(merged, expected, "{live} + {applied}");
        }
    }

    #[test]
    fn items_are_merged_and_repeated_ones_replaced() {
        let field = keyed();
        let live = json!([{"name": "a", "value": 1}, {"name": "b", "value": 1}, {"name": "b", "value": 2}]);
        let merged = merge(Node::of_field(&field), &live, &json!([{"name": "a"}, {"name": "b"}]));
        assert_eq!(merged, json!([{"name": "a", "value": 1}, {"name": "b"}]));
    }

    #[test]
    fn what_has_no_schema_is_merged_by_its_form() {
        let cases = [
            (json!({"a": 1, "b": {"c": 1}}), json!({"b": {"d": 2}}), json!({"a": 1, "b": {"c": 1, "d": 2}})),
            (json!({"a": [1, 2]}), json!({"a": [3]}), json!({"a": [3]})),
            (json!({"a": {"b": 1}}), json!({"a": "text"}), json!({"a": "text"})),
            (json!({"a": {"b": 1}}), json!({"a": null}), json!({"a": {"b": 1}})),
            (json!({"a": 1}), json!({"a": null}), json!({"a": null})),
            (json!({"a": {}}), json!({"a": {"b": {}}}), json!({"a": {"b": {}}})),
        ];
        for (live, config, expected) in cases {
            assert_eq!(merge(Node::Free, &live, &config), expected, "{live} + {config}");
        }
    }

    #[test]
    fn taking_fields_out_leaves_null_where_nothing_is_left() {
        let (a, b) = (Element::field("a"), Element::field("b"));
        let gone: FieldSet = [[a.clone(), b.clone()].as_slice()].into_iter().collect();
        assert_eq!(without(Node::Free, &json!({"a": {"b": 1, "c": 2}}), &gone), json!({"a": {"c": 2}}));
        assert_eq!(without(Node::Free, &json!({"a": {"b": 1}, "b": 1}), &gone), json!({"a": null, "b": 1}));
        let list = Element::Key(r#"{"name":"a"}"#.into());
        let gone: FieldSet = [[list].as_slice()].into_iter().collect();
        let field = keyed();
        assert_eq!(without(Node::of_field(&field), &names("ab"), &gone), names("b"));
        assert_eq!(without(Node::of_field(&field), &names("a"), &gone), Value::Null);
    }
}
