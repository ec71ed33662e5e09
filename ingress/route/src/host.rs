//! Host patterns and the one normal form in which hosts are compared.

use std::borrow::Cow;
use std::fmt;

use thiserror::Error;

/// The longest host name in bytes (RFC 1035).
const HOST_LEN_MAX: usize = 253;

/// How many labels the `*` of a wildcard stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WildcardLabels {
    /// One or more, as in Gateway API: `*.foo.com` matches `a.b.foo.com`.
    Many,
    /// Exactly one, as in Ingress: `*.foo.com` matches `a.foo.com` only.
    One,
}

/// The hosts that a rule applies to. Names are in the normal form of [`normalize_host`].
///
/// `Ord` is for stable listings; which pattern wins is a matter of [`Precedence`](crate::Precedence).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// Every host, also a missing one.
    Any,
    /// Names below `suffix` (which is kept without `*.`).
    Wildcard { suffix: Box<str>, labels: WildcardLabels },
    /// One name.
    Exact(Box<str>),
}

/// Why a text is not a host pattern.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HostError {
    #[error("host {0:?} has a wildcard that is not its whole first label")]
    MisplacedWildcard(String),
    #[error("host {0:?} has an empty label")]
    EmptyLabel(String),
    #[error("host is {0} bytes long, more than {HOST_LEN_MAX}")]
    TooLong(usize),
    #[error("host {0:?} has a character that no host name has")]
    BadCharacter(String),
}

impl HostPattern {
    /// Reads `""` (or `*`), `name` or `*.name`.
    ///
    /// # Errors
    /// If the text is neither.
    pub fn parse(text: &str, labels: WildcardLabels) -> Result<Self, HostError> {
        if text.is_empty() || text == "*" {
            return Ok(Self::Any);
        }
        if text.len() > HOST_LEN_MAX {
            return Err(HostError::TooLong(text.len()));
        }
        let (name, wildcard) = match text.strip_prefix("*.") {
            Some(suffix) => (suffix, true),
            None => (text, false),
        };
        if name.contains('*') {
            return Err(HostError::MisplacedWildcard(text.to_owned()));
        }
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
            return Err(HostError::BadCharacter(text.to_owned()));
        }
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase().into_boxed_str();
        if name.split('.').any(str::is_empty) {
            return Err(HostError::EmptyLabel(text.to_owned()));
        }
        Ok(if wildcard { Self::Wildcard { suffix: name, labels } } else { Self::Exact(name) })
    }

    /// Whether a host in normal form is one of this pattern's.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => **name == *host,
            Self::Wildcard { suffix, labels } => host
                .strip_suffix(&**suffix)
                .and_then(|rest| rest.strip_suffix('.'))
                .is_some_and(|rest| !rest.is_empty() && (*labels == WildcardLabels::Many || !rest.contains('.'))),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard { suffix, .. } => write!(f, "*.{suffix}"),
        }
    }
}

/// The normal form of a request's host: no port, no trailing dot, lower case. Borrows when nothing had to change.
#[must_use]
pub fn normalize_host(host: &str) -> Cow<'_, str> {
    let name = match host.strip_prefix('[') {
        Some(literal) => literal.find(']').map_or(host, |end| &host[..end + 2]),
        None => host.split_once(':').map_or(host, |(name, _port)| name),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

#[cfg(test)]
mod tests {
    use super::{HostError, HostPattern, WildcardLabels, normalize_host};

    fn parse(text: &str) -> Result<HostPattern, HostError> {
        HostPattern::parse(text, WildcardLabels::One)
    }

    #[test]
    fn a_request_host_loses_port_dot_and_case() {
        for (given, normal) in [
            ("foo.com", "foo.com"),
            ("FOO.com", "foo.com"),
            ("foo.com:8443", "foo.com"),
            ("foo.com.", "foo.com"),
            ("Foo.com.:80", "foo.com"),
            ("[2001:DB8::1]:80", "[2001:db8::1]"),
            ("[::1]", "[::1]"),
            ("[::1", "[::1"),
            ("10.0.0.1:80", "10.0.0.1"),
            ("", ""),
            (":80", ""),
            (".", ""),
        ] {
            assert_eq!(normalize_host(given), normal, "{given:?}");
        }
    }

    #[test]
    fn patterns_are_read_and_written() {
        assert_eq!(parse(""), Ok(HostPattern::Any));
        assert_eq!(parse("*"), Ok(HostPattern::Any));
        assert_eq!(parse("Foo.COM."), Ok(HostPattern::Exact("foo.com".into())));
        assert_eq!(parse("*.Foo.com").map(|p| p.to_string()), Ok("*.foo.com".to_owned()));
        assert_eq!(parse("a.*.com"), Err(HostError::MisplacedWildcard("a.*.com".into())));
        assert_eq!(parse("*.*.com"), Err(HostError::MisplacedWildcard("*.*.com".into())));
        assert_eq!(parse("a..com"), Err(HostError::EmptyLabel("a..com".into())));
        assert_eq!(parse("a b"), Err(HostError::BadCharacter("a b".into())));
        assert_eq!(parse(&"a".repeat(254)), Err(HostError::TooLong(254)));
    }

    #[test]
    fn an_ingress_wildcard_stands_for_one_label_and_a_gateway_wildcard_for_many() {
        let one = HostPattern::parse("*.foo.com", WildcardLabels::One).unwrap();
        let many = HostPattern::parse("*.foo.com", WildcardLabels::Many).unwrap();
        for (host, matches_one, matches_many) in [
            ("bar.foo.com", true, true),
            ("baz.bar.foo.com", false, true),
            ("foo.com", false, false),
            ("xfoo.com", false, false),
            (".foo.com", false, false),
        ] {
            assert_eq!((one.matches(host), many.matches(host)), (matches_one, matches_many), "{host}");
        }
    }
}
