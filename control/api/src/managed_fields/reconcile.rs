//! Sets that were written when the type merged in finer parts: what is atomic now is owned as a whole.

use super::compare::Node;
use super::set::{Element, FieldSet};
use crate::schema::Message;

/// The set as the type has it today.
pub(super) fn with_schema(message: &Message, fields: &FieldSet) -> FieldSet {
    walk(Node::Message(message), fields)
}

fn walk(node: Node<'_>, fields: &FieldSet) -> FieldSet {
    let mut out = FieldSet::new();
    for (element, member, below) in fields.elements() {
        let inner = match element {
            Element::Field(name) => node.child(name),
            _ => node.item(),
        };
        if matches!(inner, Node::Leaf) && !below.is_empty() {
            out.add(element.clone(), true, FieldSet::new());
        } else {
            out.add(element.clone(), member, walk(inner, below));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::schema::{Field, Merging, Shape};

    fn message(merging: Merging) -> Message {
        let list = Field { merging: Some(merging), ..Field::new("list", Shape::list(Shape::String)) };
        Message::new("Thing", vec![list, Field::new("map", Shape::map(Shape::String))])
    }

    fn set(fields: Value) -> FieldSet {
        FieldSet::from_json(&fields).unwrap()
    }

    #[test]
    fn sets_follow_their_type_to_coarser_parts_only() {
        let whole = set(json!({"f:list": {}}));
        let parts = set(json!({"f:list": {"v:\"a\"": {}, "v:\"b\"": {}}, "f:map": {".": {}, "f:k": {}}}));
        let coarser = set(json!({"f:list": {}, "f:map": {".": {}, "f:k": {}}}));
        assert_eq!(with_schema(&message(Merging::Atomic), &parts), coarser);
        assert_eq!(with_schema(&message(Merging::Atomic), &whole), whole);
        assert_eq!(with_schema(&message(Merging::Set), &parts), parts);
        assert_eq!(with_schema(&message(Merging::Set), &whole), whole);
    }
}
