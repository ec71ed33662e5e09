//! A set of fields of an object: which parts one manager owns.
//!
//! A set is a tree of path elements. An element that is a member stands for the field itself (a leaf, or the existence of
//! a map entry or list item); its children stand for what is inside. The algebra treats every path on its own.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Element {
    /// A field of a struct or a key of a map.
    Field(String),
    /// An item of a keyed list: the JSON text of its keys, in the order of their names.
    Key(String),
    /// An item of a set: its JSON text.
    Value(String),
    Index(usize),
}

/// A set of paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSet {
    nodes: BTreeMap<Element, Node>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Node {
    member: bool,
    inner: FieldSet,
}

impl Element {
    #[must_use]
    pub fn field(name: impl Into<String>) -> Self {
        Self::Field(name.into())
    }

    /// The item of a keyed list that has these keys.
    #[must_use]
    pub fn key(keys: &BTreeMap<&str, &Value>) -> Self {
        let keys: Vec<String> = keys.iter().map(|(name, value)| format!("{}:{value}", Value::from(*name))).collect();
        Self::Key(format!("{{{}}}", keys.join(",")))
    }

    #[must_use]
    pub fn value(value: &Value) -> Self {
        Self::Value(value.to_string())
    }

    /// The keys of a list item.
    #[must_use]
    pub fn keys(&self) -> Option<Map<String, Value>> {
        match self {
            Self::Key(text) => serde_json::from_str(text).ok(),
            _ => None,
        }
    }
}

/// As messages show a path: `.spec.containers[name="main"].image`.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(_) => {
                let keys = self.keys().unwrap_or_default();
                let keys: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
                write!(f, "[{}]", keys.join(","))
            }
            Self::Value(value) => write!(f, "[={value}]"),
            Self::Index(at) => write!(f, "[{at}]"),
        }
    }
}

impl FieldSet {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A set of nothing, to point at.
    #[must_use]
    pub fn none() -> &'static Self {
        static NONE: FieldSet = FieldSet { nodes: BTreeMap::new() };
        &NONE
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        // No element is kept that neither is a member nor holds one.
        self.nodes.is_empty()
    }

    pub fn insert(&mut self, path: &[Element]) {
        if let Some((first, rest)) = path.split_first() {
            let node = self.nodes.entry(first.clone()).or_default();
            if rest.is_empty() { node.member = true } else { node.inner.insert(rest) }
        }
    }

    #[must_use]
    pub fn has(&self, path: &[Element]) -> bool {
        match path.split_first() {
            None => false,
            Some((first, rest)) => self
                .nodes
                .get(first)
                .is_some_and(|node| if rest.is_empty() { node.member } else { node.inner.has(rest) }),
        }
    }

    /// Whether the set has this path or anything below it.
    #[must_use]
    pub fn touches(&self, path: &[Element]) -> bool {
        match path.split_first() {
            None => !self.is_empty(),
            Some((first, rest)) => {
                self.nodes.get(first).is_some_and(|node| (rest.is_empty() && node.member) || node.inner.touches(rest))
            }
        }
    }

    #[must_use]
    pub fn union(mut self, other: &Self) -> Self {
        if self.is_empty() {
            return other.clone();
        }
        for (element, theirs) in &other.nodes {
            let node = self.nodes.entry(element.clone()).or_default();
            node.member |= theirs.member;
            node.inner = std::mem::take(&mut node.inner).union(&theirs.inner);
        }
        self
    }

    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.combine(other, |mine, theirs| mine && theirs, false)
    }

    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.combine(other, |mine, theirs| mine && !theirs, true)
    }

    /// Also takes away everything below a path of the other set.
    #[must_use]
    pub fn recursive_difference(&self, other: &Self) -> Self {
        let mut out = Self::new();
        for (element, node) in &self.nodes {
            let kept = match other.nodes.get(element) {
                None => node.clone(),
                Some(theirs) if theirs.member => continue,
                Some(theirs) => Node { member: node.member, inner: node.inner.recursive_difference(&theirs.inner) },
            };
            out.put(element, kept);
        }
        out
    }

    /// What is below a path element.
    pub(super) fn below(&self, element: &Element) -> Option<&Self> {
        self.nodes.get(element).map(|node| &node.inner)
    }

    pub(super) fn has_member(&self, element: &Element) -> bool {
        self.nodes.get(element).is_some_and(|node| node.member)
    }

    /// Every path, in order.
    #[must_use]
    pub fn paths(&self) -> Vec<Vec<Element>> {
        let mut paths = Vec::new();
        self.collect(&mut Vec::new(), &mut paths);
        paths
    }

    /// The first level: each element, whether it is a member, and what is inside.
    pub fn elements(&self) -> impl Iterator<Item = (&Element, bool, &FieldSet)> {
        self.nodes.iter().map(|(element, node)| (element, node.member, &node.inner))
    }

    pub(super) fn add(&mut self, element: Element, member: bool, inner: Self) {
        if !member && inner.is_empty() {
            return;
        }
        let node = self.nodes.entry(element).or_default();
        node.member |= member;
        node.inner = if node.inner.is_empty() { inner } else { std::mem::take(&mut node.inner).union(&inner) };
    }

    fn combine(&self, other: &Self, member: fn(bool, bool) -> bool, keep_own: bool) -> Self {
        let mut out = Self::new();
        for (element, node) in &self.nodes {
            let combined = match other.nodes.get(element) {
                Some(theirs) => Node {
                    member: member(node.member, theirs.member),
                    inner: node.inner.combine(&theirs.inner, member, keep_own),
                },
                None if keep_own => node.clone(),
                None => continue,
            };
            out.put(element, combined);
        }
        out
    }

    fn put(&mut self, element: &Element, node: Node) {
        if node.member || !node.inner.nodes.is_empty() {
            self.nodes.insert(element.clone(), node);
        }
    }

    fn collect(&self, prefix: &mut Vec<Element>, paths: &mut Vec<Vec<Element>>) {
        for (element, node) in &self.nodes {
            prefix.push(element.clone());
            if node.member {
                paths.push(prefix.clone());
            }
            node.inner.collect(prefix, paths);
            prefix.pop();
        }
    }
}

impl<'a> FromIterator<&'a [Element]> for FieldSet {
    fn from_iter<I: IntoIterator<Item = &'a [Element]>>(paths: I) -> Self {
        let mut set = Self::new();
        paths.into_iter().for_each(|path| set.insert(path));
        set
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn path() -> impl Strategy<Value = Vec<Element>> {
        let element = prop_oneof![
            "[ab]".prop_map(Element::Field),
            "[xy]".prop_map(|name| Element::value(&Value::from(name))),
            (0usize..2).prop_map(Element::Index),
        ];
        proptest::collection::vec(element, 1..4)
    }

    fn paths() -> impl Strategy<Value = BTreeSet<Vec<Element>>> {
        proptest::collection::btree_set(path(), 0..12)
    }

    fn set(paths: &BTreeSet<Vec<Element>>) -> FieldSet {
        paths.iter().map(Vec::as_slice).collect()
    }

    fn back(set: &FieldSet) -> BTreeSet<Vec<Element>> {
        set.paths().into_iter().collect()
    }

    proptest! {
        #[test]
        fn the_algebra_is_that_of_sets_of_paths(a in paths(), b in paths()) {
            let (left, right) = (set(&a), set(&b));
            prop_assert_eq!(back(&left), a.clone());
            prop_assert_eq!(back(&left.clone().union(&right)), &a | &b);
            prop_assert_eq!(left.intersection(&right), set(&(&a & &b)));
            prop_assert_eq!(left.difference(&right), set(&(&a - &b)));
            prop_assert_eq!(left.difference(&left).is_empty(), true);
            for path in &b {
                prop_assert_eq!(left.has(path), a.contains(path));
                prop_assert_eq!(left.touches(path), a.iter().any(|other| other.starts_with(path)));
            }
            let below: BTreeSet<_> = a.iter().filter(|path| !b.iter().any(|other| path.starts_with(other))).cloned().collect();
            prop_assert_eq!(back(&left.recursive_difference(&right)), below);
        }
    }

    #[test]
    fn keys_are_written_in_the_order_of_their_names() {
        let (port, protocol) = (Value::from(80), Value::from("TCP"));
        let element = Element::key(&[("protocol", &protocol), ("port", &port)].into_iter().collect());
        assert_eq!(element, Element::Key(r#"{"port":80,"protocol":"TCP"}"#.into()));
        assert_eq!(element.keys().unwrap()["port"], port);
    }
}
