//! Path matches: exact, or by whole elements.

use std::fmt;

use thiserror::Error;

/// The longest path of a rule, in bytes. Bounds the work of one lookup together with [`PATH_DEPTH_MAX`].
pub const PATH_LEN_MAX: usize = 2048;
/// The most elements in the path of a rule.
pub const PATH_DEPTH_MAX: usize = 64;

/// The paths that a rule applies to. Paths are compared as sent: case-sensitive and not decoded.
///
/// `Ord` is for stable listings; which match wins is a matter of [`Precedence`](crate::Precedence).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathMatch {
    /// Every path, but only if no other rule of the host wants it: a default backend.
    Fallback,
    /// Paths that begin with these elements; kept without trailing slashes, so that `/` is the empty text.
    Prefix(Box<str>),
    /// This path, byte for byte.
    Exact(Box<str>),
}

/// Why a text is not a path.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PathError {
    #[error("path {0:?} does not begin with a slash")]
    NotAbsolute(String),
    #[error("path is {0} bytes long, more than {PATH_LEN_MAX}")]
    TooLong(usize),
    #[error("path has {0} elements, more than {PATH_DEPTH_MAX}")]
    TooDeep(usize),
}

impl PathMatch {
    /// The path itself and nothing else.
    ///
    /// # Errors
    /// If it is not an absolute path within the limits.
    pub fn exact(path: &str) -> Result<Self, PathError> {
        check(path)?;
        Ok(Self::Exact(path.into()))
    }

    /// The path and everything below it; a trailing slash means nothing.
    ///
    /// # Errors
    /// If it is not an absolute path within the limits.
    pub fn prefix(path: &str) -> Result<Self, PathError> {
        check(path)?;
        Ok(Self::Prefix(path.trim_end_matches('/').into()))
    }

    /// Whether a request's path is one of these.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Fallback => true,
            Self::Exact(exact) => **exact == *path,
            Self::Prefix(prefix) => {
                path.strip_prefix(&**prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                    || prefix.is_empty()
            }
        }
    }
}

impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fallback => f.write_str("(default)"),
            Self::Exact(path) => write!(f, "={path}"),
            Self::Prefix(path) => write!(f, "{path}/"),
        }
    }
}

fn check(path: &str) -> Result<(), PathError> {
    if !path.starts_with('/') {
        return Err(PathError::NotAbsolute(path.to_owned()));
    }
    if path.len() > PATH_LEN_MAX {
        return Err(PathError::TooLong(path.len()));
    }
    let depth = path.bytes().filter(|b| *b == b'/').count();
    if depth > PATH_DEPTH_MAX {
        return Err(PathError::TooDeep(depth));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{PATH_DEPTH_MAX, PATH_LEN_MAX, PathError, PathMatch};

    /// The single-rule rows of the table in the Kubernetes documentation of Ingress path types.
    #[test]
    fn paths_match_as_the_ingress_documentation_says() {
        let exact = |path| PathMatch::exact(path).unwrap();
        let prefix = |path| PathMatch::prefix(path).unwrap();
        for (rule, path, matches) in [
            (prefix("/"), "/", true),
            (prefix("/"), "/anything/at/all", true),
            (exact("/foo"), "/foo", true),
            (exact("/foo"), "/bar", false),
            (exact("/foo"), "/foo/", false),
            (exact("/foo"), "/FOO", false),
            (exact("/foo/"), "/foo", false),
            (prefix("/foo"), "/foo", true),
            (prefix("/foo"), "/foo/", true),
            (prefix("/foo/"), "/foo", true),
            (prefix("/foo/"), "/foo/", true),
            (prefix("/foo"), "/FOO", false),
            (prefix("/aaa/bb"), "/aaa/bbb", false),
            (prefix("/aaa/bbb"), "/aaa/bbb", true),
            (prefix("/aaa/bbb/"), "/aaa/bbb", true),
            (prefix("/aaa/bbb"), "/aaa/bbb/", true),
            (prefix("/aaa/bbb"), "/aaa/bbb/ccc", true),
            (prefix("/aaa/bbb"), "/aaa/bbbxyz", false),
            (prefix("/aaa"), "/ccc", false),
            (prefix("/"), "*", true),
            (PathMatch::Fallback, "/whatever", true),
        ] {
            assert_eq!(rule.matches(path), matches, "{rule} on {path}");
        }
    }

    #[test]
    fn a_path_beyond_the_limits_is_refused() {
        assert_eq!(PathMatch::prefix("foo"), Err(PathError::NotAbsolute("foo".into())));
        assert_eq!(PathMatch::exact(""), Err(PathError::NotAbsolute(String::new())));
        let long = format!("/{}", "a".repeat(PATH_LEN_MAX));
        assert_eq!(PathMatch::exact(&long), Err(PathError::TooLong(long.len())));
        let deep = "/a".repeat(PATH_DEPTH_MAX + 1);
        assert_eq!(PathMatch::prefix(&deep), Err(PathError::TooDeep(PATH_DEPTH_MAX + 1)));
        assert!(PathMatch::prefix(&"/a".repeat(PATH_DEPTH_MAX)).is_ok());
    }
}
