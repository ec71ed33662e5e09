//! Named quantities that are added and compared: `cpu=2,pods=3`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use crate::quantity::Quantity;
use crate::value::{entries, text};

/// Quantities by name, in the order of the names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Amounts(BTreeMap<String, Quantity>);

impl Amounts {
    /// Reads a resource list; what is no quantity was refused before it was stored.
    #[must_use]
    pub fn read(list: &Value) -> Self {
        let parse = |value: &Value| match value {
            Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
            other => Quantity::parse(text(other)).ok(),
        };
        Self(entries(list).filter_map(|(name, value)| Some((name.clone(), parse(value)?))).collect())
    }

    #[must_use]
    pub fn to_json(&self) -> Value {
        self.0.iter().map(|(name, quantity)| (name.clone(), Value::from(quantity.to_string()))).collect()
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    #[must_use]
    pub fn get(&self, name: &str) -> Option<Quantity> {
        self.0.get(name).copied()
    }

    /// Zero if it is not there.
    #[must_use]
    pub fn value(&self, name: &str) -> Quantity {
        self.get(name).unwrap_or(Quantity::ZERO)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn set(&mut self, name: &str, quantity: Quantity) {
        self.0.insert(name.into(), quantity);
    }

    pub fn add(&mut self, other: &Self) {
        for (name, quantity) in &other.0 {
            self.set(name, self.value(name).plus(*quantity));
        }
    }

    pub fn subtract(&mut self, other: &Self) {
        for (name, quantity) in &other.0 {
            self.set(name, self.value(name).minus(*quantity));
        }
    }

    /// Of each name the larger quantity.
    pub fn raise_to(&mut self, other: &Self) {
        for (name, quantity) in &other.0 {
            if self.get(name).is_none_or(|found| found < *quantity) {
                self.set(name, *quantity);
            }
        }
    }

    /// Those with these names.
    #[must_use]
    pub fn only(&self, names: &BTreeSet<&str>) -> Self {
        let chosen = self.0.iter().filter(|(name, _)| names.contains(name.as_str()));
        Self(chosen.map(|(name, quantity)| (name.clone(), *quantity)).collect())
    }

    pub fn drop_zeros(&mut self) {
        self.0.retain(|_, quantity| !quantity.is_zero());
    }
}

impl fmt::Display for Amounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, quantity)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{name}={quantity}")?;
        }
        Ok(())
    }
}
