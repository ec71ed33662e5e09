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
    pub(crate) peer: Option<Peer>,
    /// What our value divided by the peer's should be, or, without a peer, our value itself.
    pub(crate) target: Option<Target>,
}

/// The same figure of somebody else, from the same run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) value: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    fn is_met(self, ratio: f64) -> bool {
        match self {
            Self::AtMost(bound) => ratio <= bound,
            Self::AtLeast(bound) => ratio >= bound,
        }
    }

    fn bound(self) -> f64 {
        match self {
            Self::AtMost(bound) | Self::AtLeast(bound) => bound,
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = match self {
            Self::AtMost(_) => '≤',
            Self::AtLeast(_) => '≥',
        };
        write!(f, "{sign} {:.2}", self.bound())
    }
}

impl Measure {
    fn ratio(&self) -> Option<f64> {
        self.peer.map(|peer| self.ours / peer.value)
    }

    fn is_met(&self) -> Option<bool> {
        self.target.map(|target| target.is_met(self.ratio().unwrap_or(self.ours)))
    }
}

impl Serialize for Measure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Measure", 8)?;
        object.serialize_field("name", &self.name)?;
        object.serialize_field("unit", self.unit)?;
        object.serialize_field("ours", &self.ours)?;
        object.serialize_field("peer", &self.peer.map(|peer| peer.name))?;
        object.serialize_field("peer_value", &self.peer.map(|peer| peer.value))?;
        object.serialize_field("ratio", &self.ratio())?;
        object.serialize_field("target", &self.target.map(Target::bound))?;
        object.serialize_field("met", &self.is_met())?;
        object.end()
    }
}

impl Report {
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let name_width = self.measures.iter().map(|measure| measure.name.len()).max().unwrap_or(0).max("MEASURE".len());
        let peers = self.measures.iter().filter_map(|measure| measure.peer);
        let peer_width = peers.map(|peer| peer.name.len()).max().unwrap_or(0).max("PEER".len());
        let number = |value: Option<f64>, digits| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.digits$}"));
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{:name_width$}  {:>10}  {:>10}  {:10}  {:peer_width$}  {:>6}  {:>7}  MET",
            "MEASURE", "OURS", "THEIRS", "UNIT", "PEER", "RATIO", "TARGET"
        );
        for measure in &self.measures {
            let _ = writeln!(
                text,
                "{:name_width$}  {:>10.1}  {:>10}  {:10}  {:peer_width$}  {:>6}  {:>7}  {}",
                measure.name,
                measure.ours,
                number(measure.peer.map(|peer| peer.value), 1),
                measure.unit,
                measure.peer.map_or("-", |peer| peer.name),
                number(measure.ratio(), 2),
                measure.target.map_or_else(|| "-".to_owned(), |target| target.to_string()),
                match measure.is_met() {
                    Some(true) => "yes",
                    Some(false) => "NO",
                    None => "-",
                },
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

    use super::{Measure, Peer, Report, Target, median};

    fn report(ours: f64) -> Report {
        let peer = Peer { name: "nginx", value: 20.0 };
        let with = |name: &str, peer, target| Measure { name: name.to_owned(), unit: "µs", ours, peer, target };
        Report { suite: "s", measures: vec![with("a", Some(peer), Some(Target::AtMost(1.5))), with("b", None, None)] }
    }

    #[test]
    fn the_document_says_what_was_asked_for_and_whether_it_was_met() {
        let measure = json!({
            "name": "a", "unit": "µs", "ours": 30.0, "peer": "nginx", "peer_value": 20.0, "ratio": 1.5, "target": 1.5, "met": true,
        });
        let alone = json!({
            "name": "b", "unit": "µs", "ours": 30.0, "peer": null, "peer_value": null, "ratio": null, "target": null,
            "met": null,
        });
        assert_eq!(serde_json::to_value(report(30.0)).unwrap(), json!({"suite": "s", "measures": [measure, alone]}));
        assert_eq!(serde_json::to_value(report(31.0)).unwrap()["measures"][0]["met"], false);
        let table = report(31.0).table();
        assert!(table.lines().nth(1).is_some_and(|line| line.ends_with("1.55   ≤ 1.50  NO")), "{table}");
    }

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
