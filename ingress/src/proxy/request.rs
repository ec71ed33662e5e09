//! What routing reads from a request, and its target in the form that routing and the endpoint see.

use std::borrow::Cow;

use http::Uri;
use http::header::HOST;
use http::uri::PathAndQuery;
use pingora::http::RequestHeader;

use super::refusal::Refusal;
use crate::request_path::normalize;

/// The host that the request is for, as sent: the authority if the request line has one, else the `Host` field.
pub(super) fn host(request: &RequestHeader) -> &str {
    let authority = request.uri.authority().map(http::uri::Authority::as_str);
    let field = || request.headers.get(HOST).and_then(|value| value.to_str().ok());
    authority.or_else(field).unwrap_or_default()
}

/// Brings the target into the form in which it is routed and sent on: a path in its one form, and its query as it came.
/// A URL (RFC 9112 §3.2.2) is reduced to that; its authority is the `Host`, which pingora has compared.
pub(super) fn settle_target(request: &mut RequestHeader, keep_slashes: bool) -> Result<(), Refusal> {
    let raw = request.raw_path();
    let (path, settled) = match raw.first() {
        Some(b'/') => (raw, true),
        // Options of the server as a whole have no path.
        Some(b'*') if raw.len() == 1 => return Ok(()),
        _ => (path_of_url(request, raw)?, false),
    };
    let (path, query) = path.split_at(path.iter().position(|byte| *byte == b'?').unwrap_or(path.len()));
    let path = match normalize(path, keep_slashes).map_err(Refusal::BadPath)? {
        Cow::Borrowed(_) if settled => return Ok(()),
        path => path,
    };
    let target = [&*path, query].concat();
    set_target(request, &target).map_err(|_| Refusal::BadTarget)
}

/// The path and query of an `http` URL that names the server that `Host` does.
fn path_of_url<'a>(request: &RequestHeader, url: &'a [u8]) -> Result<&'a [u8], Refusal> {
    let is_scheme = |scheme: &[u8]| url.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    let scheme = [b"http://".as_slice(), b"https://"].into_iter().find(|scheme| is_scheme(scheme));
    let rest = &url[scheme.ok_or(Refusal::BadTarget)?.len()..];
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    // Without a `Host` (HTTP/1.0) nothing says that this server is meant.
    if !request.headers.contains_key(HOST) {
        return Err(Refusal::BadTarget);
    }
    match &rest[end..] {
        path if path.starts_with(b"/") => Ok(path),
        [] => Ok(b"/"),
        _ => Err(Refusal::BadTarget),
    }
}

fn set_target(request: &mut RequestHeader, target: &[u8]) -> pingora::Result<()> {
    // Over HTTP/2 the URI has the authority too, which is to stay.
    let mut parts = request.uri.clone().into_parts();
    if parts.authority.is_some()
        && let Ok(path_and_query) = PathAndQuery::try_from(target)
    {
        parts.path_and_query = Some(path_and_query);
        if let Ok(uri) = Uri::from_parts(parts) {
            request.set_uri(uri);
            return Ok(());
        }
    }
    request.set_raw_path(target)
}

#[cfg(test)]
mod tests {
    use pingora::http::RequestHeader;

    use super::{Refusal, host, settle_target};
    use crate::request_path::BadPath;

    fn settle(target: &str) -> Result<String, Refusal> {
        let mut request = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
        request.insert_header("Host", "a.test").unwrap();
        settle_target(&mut request, false)?;
        assert_eq!(
            request.uri.path(),
            request.raw_path().split(|byte| *byte == b'?').next().map(std::str::from_utf8).unwrap().unwrap()
        );
        Ok(String::from_utf8(request.raw_path().to_vec()).unwrap())
    }

    #[test]
    fn a_target_becomes_a_path_in_its_one_form_and_its_query_stays() {
        for (target, settled) in [
            ("/a/../b?x=/../y//z", Ok("/b?x=/../y//z")),
            ("/a//b", Ok("/a/b")),
            ("/a?b", Ok("/a?b")),
            ("*", Ok("*")),
            ("http://a.test/x/./y?q", Ok("/x/y?q")),
            ("HTTPS://a.test", Ok("/")),
            ("/../b", Err(Refusal::BadPath(BadPath::AboveRoot))),
            ("http://a.test/..", Err(Refusal::BadPath(BadPath::AboveRoot))),
            ("ftp://a.test/", Err(Refusal::BadTarget)),
            ("http://a.test?q", Err(Refusal::BadTarget)),
        ] {
            assert_eq!(settle(target), settled.map(str::to_owned), "{target}");
        }
    }

    #[test]
    fn over_http2_the_authority_stays() {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        request.set_uri("https://a.test/a/../b?c".parse().unwrap());
        settle_target(&mut request, false).unwrap();
        assert_eq!((request.uri.to_string().as_str(), host(&request)), ("https://a.test/b?c", "a.test"));
    }

    #[test]
    fn the_authority_goes_before_the_host_field() {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        assert_eq!(host(&request), "");
        request.insert_header("Host", "a.test:80").unwrap();
        assert_eq!(host(&request), "a.test:80");
        request.set_uri("https://b.test/x".parse().unwrap());
        assert_eq!(host(&request), "b.test");
    }
}
