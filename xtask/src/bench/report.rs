//! What a suite has found out: a table for people, JSON for programs.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

/// The figures of one suite.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    pub(crate) suite: &'static str,
    pub(crate) measures: Vec<Measure>,
}

/// One figure of ours beside a peer's.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Measure {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) ours: f64,
    pub(crate) peer: &'static str,
    pub(crate) peer_value: f64,
    /// What our value divided by the peer's should be.
    pub(crate) target: Target,
}

/// A bound on a ratio.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Target {
    AtMost(f64),
}

impl Target {
    fn is_met(self, ratio: f64) -> bool {
        match self {
            Self::AtMost(bound) => ratio <= bound,
        }
    }

    fn bound(self) -> f64 {
        match self {
            Self::AtMost(bound) => bound,
        }
    }
}

impl Measure {
    fn ratio(&self) -> f64 {
        self.ours / self.peer_value
    }

    fn is_met(&self) -> bool {
        self.target.is_met(self.ratio())
    }
}

impl Serialize for Measure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Measure", 8)?;
        object.serialize_field("name", &self.name)?;
        object.serialize_field("unit", self.unit)?;
        object.serialize_field("ours", &self.ours)?;
        object.serialize_field("peer", self.peer)?;
        object.serialize_field("peer_value", &self.peer_value)?;
        object.serialize_field("ratio", &self.ratio())?;
        object.serialize_field("target", &self.target.bound())?;
        object.serialize_field("met", &self.is_met())?;
        object.end()
    }
}

impl Report {
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let name_width = self.measures.iter().map(|measure| measure.name.len()).max().unwrap_or(0).max("MEASURE".len());
        let peer_width = self.measures.iter().map(|measure| measure.peer.len()).max().unwrap_or(0).max("PEER".len());
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{:name_width$}  {:>10}  {:>10}  {:10}  {:peer_width$}  {:>6}  {:>7}  MET",
            "MEASURE", "OURS", "THEIRS", "UNIT", "PEER", "RATIO", "TARGET"
        );
        for measure in &self.measures {
            let _ = writeln!(
                text,
                "{:name_width$}  {:>10.1}  {:>10.1}  {:10}  {:peer_width$}  {:>6.2}  {:>7}  {}",
                measure.name,
                measure.ours,
                measure.peer_value,
                measure.unit,
                measure.peer,
                measure.ratio(),
                format!("≤ {:.2}", measure.target.bound()),
                if measure.is_met() { "yes" } else { "NO" },
            );
        }
        text
    }

    pub(crate) fn write(&self, file: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }
}

/// The middle value; of an even number of values, the mean of the two in the middle.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.len().checked_sub(1)? / 2, values.len() / 2);
    Some((values[low] + values[high]) / 2.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Measure, Report, Target, median};

    fn report(ours: f64) -> Report {
        let (name, target) = ("a".to_owned(), Target::AtMost(1.5));
        Report {
            suite: "s",
            measures: vec![Measure { name, unit: "µs", ours, peer: "nginx", peer_value: 20.0, target }],
        }
    }

    #[test]
    fn the_document_says_what_was_asked_for_and_whether_it_was_met() {
        let measure = json!({
            "name": "a", "unit": "µs", "ours": 30.0, "peer": "nginx", "peer_value": 20.0, "ratio": 1.5, "target": 1.5, "met": true,
        });
        assert_eq!(serde_json::to_value(report(30.0)).unwrap(), json!({"suite": "s", "measures": [measure]}));
        assert_eq!(serde_json::to_value(report(31.0)).unwrap()["measures"][0]["met"], false);
        assert!(report(31.0).table().ends_with("1.55   ≤ 1.50  NO\n"), "{}", report(31.0).table());
    }

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
