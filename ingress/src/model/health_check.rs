//! The active health check that a Service asks for by annotations.
//!
//! Kubernetes probes pods itself, so this is for what it cannot see: a path between the gateway and a pod, or endpoints
//! that are no pods.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::units::parse_duration;

const KIND: &str = "tidegate.dev/health-check";
const PATH: &str = "tidegate.dev/health-check-path";
const INTERVAL: &str = "tidegate.dev/health-check-interval";
const TIMEOUT: &str = "tidegate.dev/health-check-timeout";

const INTERVAL_DEFAULT: Duration = Duration::from_secs(5);
/// The gateway is not a load generator.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HealthCheck {
    pub(crate) probe: Probe,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// A connection can be made.
    Tcp,
    /// A GET of this path is answered with 2xx or 3xx.
    Http { path: Box<str> },
}

impl HealthCheck {
    /// What the annotations ask for. An error says what is wrong with them; then there is no check.
    pub(crate) fn from_annotations(annotations: &BTreeMap<String, String>) -> Result<Option<Self>, String> {
        let get = |name| annotations.get(name).map(String::as_str);
        let probe = match get(KIND) {
            None => return Ok(None),
            Some("tcp") => Probe::Tcp,
            Some("http") => Probe::Http { path: path(get(PATH).unwrap_or("/"))? },
            Some(other) => return Err(format!("{KIND} is {other:?}, neither \"http\" nor \"tcp\"")),
        };
        let duration = |name, default| match get(name) {
            None => Ok(default),
            Some(text) => parse_duration(text).map_err(|why| format!("{name} is {text:?}: {why}")),
        };
        let (interval, timeout) = (duration(INTERVAL, INTERVAL_DEFAULT)?, duration(TIMEOUT, TIMEOUT_DEFAULT)?);
        if interval < INTERVAL_MIN || timeout.is_zero() {
            return Err(format!("{INTERVAL} is less than {} ms or {TIMEOUT} is zero", INTERVAL_MIN.as_millis()));
        }
        Ok(Some(Self { probe, interval, timeout }))
    }
}

/// It becomes part of a request line, so nothing that could end one is let in.
fn path(text: &str) -> Result<Box<str>, String> {
    if text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(text.into())
    } else {
        Err(format!("{PATH} is {text:?}, not an absolute path of printable ASCII"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{HealthCheck, Probe};

    fn read(annotations: &[(&str, &str)]) -> Result<Option<HealthCheck>, String> {
        let named = |(name, value): &(&str, &str)| (format!("tidegate.dev/health-check{name}"), (*value).to_owned());
        HealthCheck::from_annotations(&annotations.iter().map(named).collect())
    }

    #[test]
    fn annotations_ask_for_a_check() {
        assert_eq!(read(&[("-path", "/x")]), Ok(None));
        let check = read(&[("", "http"), ("-path", "/up?x=1"), ("-interval", "1s"), ("-timeout", "300ms")]);
        let expected = HealthCheck {
            probe: Probe::Http { path: "/up?x=1".into() },
            interval: Duration::from_secs(1),
            timeout: Duration::from_millis(300),
        };
        assert_eq!(check, Ok(Some(expected)));
        assert_eq!(read(&[("", "tcp")]).map(|check| check.map(|check| check.probe)), Ok(Some(Probe::Tcp)));
    }

    #[test]
    fn nonsense_is_said_to_be_nonsense() {
        for bad in [
            &[("", "ping")][..],
            &[("", "http"), ("-path", "x")],
            &[("", "http"), ("-path", "/ HTTP/1.1\r\nX: y")],
            &[("", "tcp"), ("-interval", "often")],
            &[("", "tcp"), ("-interval", "1ms")],
            &[("", "tcp"), ("-timeout", "0")],
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
