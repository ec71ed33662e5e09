//! What routing reads from a request.

use http::header::HOST;
use pingora::http::RequestHeader;

/// The host that the request is for, as sent: the authority if the request line has one, else the `Host` field.
pub(super) fn host(request: &RequestHeader) -> &str {
    let authority = request.uri.authority().map(http::uri::Authority::as_str);
    let field = || request.headers.get(HOST).and_then(|value| value.to_str().ok());
    authority.or_else(field).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use pingora::http::RequestHeader;

    use super::host;

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
