//! The one form of a request's path, for routing and for the endpoint alike: if the two were to see different paths, a
//! request could be routed by one rule and be answered as if another had let it in.
//!
//! RFC 3986 §6.2.2: what need not be encoded is decoded (`%2e` is a dot, `%61` an `a`), and dot segments are removed. Runs
//! of slashes become one, unless the operator keeps them. Everything else stays as it was sent, above all `%2F`, which is
//! not a slash.

use std::borrow::Cow;

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadPath {
    /// `..` beyond the root.
    AboveRoot,
    /// An encoded zero byte.
    Null,
}

impl BadPath {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::AboveRoot => "path_above_root",
            Self::Null => "null_in_path",
        }
    }
}

/// Brings a path into its one form. What does not begin with a slash (`*`) is left alone.
pub(crate) fn normalize(path: &[u8], keep_slashes: bool) -> Result<Cow<'_, [u8]>, BadPath> {
    if path.first() != Some(&b'/') || !may_change(path) {
        return Ok(Cow::Borrowed(path));
    }
    let normal = resolve(&decode(path)?, keep_slashes)?;
    Ok(if normal == path { Cow::Borrowed(path) } else { Cow::Owned(normal) })
}

/// The same for text.
pub(crate) fn normalize_str(path: &str, keep_slashes: bool) -> Result<Cow<'_, str>, BadPath> {
    Ok(match normalize(path.as_bytes(), keep_slashes)? {
        Cow::Borrowed(_) => Cow::Borrowed(path),
        // Only ASCII was decoded and only whole segments went.
        Cow::Owned(normal) => Cow::Owned(String::from_utf8_lossy(&normal).into_owned()),
    })
}

/// False for the usual path, which then costs one look at each byte.
fn may_change(path: &[u8]) -> bool {
    path.contains(&b'%') || path.windows(2).any(|pair| pair[0] == b'/' && matches!(pair[1], b'/' | b'.'))
}

fn decode(path: &[u8]) -> Result<Vec<u8>, BadPath> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match encoded(*byte, after) {
            Some(0) => return Err(BadPath::Null),
            Some(value) if value.is_ascii_alphanumeric() || matches!(value, b'-' | b'.' | b'_' | b'~') => {
                decoded.push(value);
                rest = &after[2..];
            }
            _ => decoded.push(*byte),
        }
    }
    Ok(decoded)
}

/// The value of an escape: a percent sign and two hexadecimal digits.
fn encoded(byte: u8, after: &[u8]) -> Option<u8> {
    let digit = |index: usize| char::from(*after.get(index)?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    if byte == b'%' { Some(digit(0)? << 4 | digit(1)?) } else { None }
}

/// Removes dot segments and, unless kept, empty ones. The path begins with a slash.
fn resolve(path: &[u8], keep_slashes: bool) -> Result<Vec<u8>, BadPath> {
    let mut segments: Vec<&[u8]> = Vec::new();
    let mut is_folder = false;
    for segment in path[1..].split(|byte| *byte == b'/') {
        is_folder = matches!(segment, b"" | b"." | b"..");
        match segment {
            b"." => {}
            b"" if !keep_slashes => {}
            b".." => {
                segments.pop().ok_or(BadPath::AboveRoot)?;
            }
            _ => segments.push(segment),
        }
    }
    // A kept empty last segment is the slash at the end.
    if keep_slashes && path.ends_with(b"/") {
        segments.pop();
    }
    let mut normal = Vec::with_capacity(path.len());
    for segment in segments {
        normal.push(b'/');
        normal.extend_from_slice(segment);
    }
    if is_folder || normal.is_empty() {
        normal.push(b'/');
    }
    Ok(normal)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::{BadPath, normalize, normalize_str};

    #[test]
    fn dots_go_escapes_of_plain_characters_go_and_slashes_merge() {
        for (path, merged, kept) in [
            ("/", "/", "/"),
            ("/foo/bar", "/foo/bar", "/foo/bar"),
            ("/foo/../bar", "/bar", "/bar"),
            ("/foo/%2e%2E/bar", "/bar", "/bar"),
            ("/foo/.%2e/bar", "/bar", "/bar"),
            ("/foo/./bar/.", "/foo/bar/", "/foo/bar/"),
            ("/foo/bar/..", "/foo/", "/foo/"),
            ("/foo/..", "/", "/"),
            ("//", "/", "//"),
            ("//foo///bar//", "/foo/bar/", "//foo///bar//"),
            ("/foo//../bar", "/bar", "/foo/bar"),
            ("/.well-known/x", "/.well-known/x", "/.well-known/x"),
            ("/..foo/...", "/..foo/...", "/..foo/..."),
            ("/%61dmin%7e", "/admin~", "/admin~"),
            ("/a%2Fb%2f..%2fc", "/a%2Fb%2f..%2fc", "/a%2Fb%2f..%2fc"),
            ("/100%", "/100%", "/100%"),
            ("/%zz%4", "/%zz%4", "/%zz%4"),
            ("/%252e%252e/x", "/%252e%252e/x", "/%252e%252e/x"),
            ("/b%C3%A9", "/b%C3%A9", "/b%C3%A9"),
            ("*", "*", "*"),
        ] {
            assert_eq!(normalize_str(path, false).as_deref(), Ok(merged), "{path}");
            assert_eq!(normalize_str(path, true).as_deref(), Ok(kept), "{path}, slashes kept");
        }
    }

    #[test]
    fn nothing_leaves_the_root() {
        for path in ["/..", "/../x", "/a/../../x", "/%2e%2e/x", "//..", "/./.."] {
            assert_eq!(normalize_str(path, false), Err(BadPath::AboveRoot), "{path}");
        }
        assert_eq!(normalize_str("/a%00b", false), Err(BadPath::Null));
    }

    #[test]
    fn the_form_is_stable_and_the_usual_path_is_not_copied() {
        assert!(matches!(normalize(b"/usual/path.html", false), Ok(Cow::Borrowed(_))));
        // Every path of up to seven of these pieces.
        let pieces = ["/", ".", "%2e", "a", "%2F"];
        for number in 0..5_usize.pow(7) {
            let path: String = (0..7).map(|place| pieces[number / 5_usize.pow(place) % 5]).collect();
            let Ok(once) = normalize_str(&path, false) else { continue };
            assert_eq!(normalize_str(&once, false).as_deref(), Ok(&*once), "{path}");
            if path.starts_with('/') {
                assert!(!once.split('/').any(|segment| matches!(segment, "." | "..")), "{path} is {once}");
                assert!(!once.contains("//") && once.starts_with('/'), "{path} is {once}");
            }
        }
    }
}
