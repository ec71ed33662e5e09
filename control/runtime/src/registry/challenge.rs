//! What a registry asks for when it refuses: the `WWW-Authenticate` header (RFC 9110, 11.6.1). Pure.

/// One challenge that can be met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    /// A token is to be fetched from `realm`.
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

/// The best of the challenges in a header: a token, if one is offered.
pub(super) fn parse(header: &str) -> Option<Challenge> {
    let mut rest = header.trim();
    let mut basic = None;
    while !rest.is_empty() {
        let (scheme, after) = split_token(rest)?;
        let (parameters, next) = parameters(after.trim_start());
        let value = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(Challenge::Bearer {
                realm: value("realm")?,
                service: value("service"),
                scope: value("scope"),
            });
        }
        if scheme.eq_ignore_ascii_case("basic") {
            basic = Some(Challenge::Basic);
        }
        rest = next.trim_start_matches([',', ' ']);
    }
    basic
}

/// `name=value` pairs up to the next scheme, and what follows them.
fn parameters(mut text: &str) -> (Vec<(String, String)>, &str) {
    let mut found = Vec::new();
    loop {
        text = text.trim_start_matches([',', ' ']);
        let Some((name, after)) = split_token(text) else { return (found, text) };
        // A word without a value is the next scheme.
        let Some(after) = after.trim_start().strip_prefix('=') else { return (found, text) };
        let Some((value, after)) = value(after.trim_start()) else { return (found, "") };
        found.push((name.to_ascii_lowercase(), value));
        text = after;
    }
}

fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        return split_token(text).map(|(token, rest)| (token.to_owned(), rest));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            other => value.push(other),
        }
    }
    None
}

fn split_token(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| c == ',' || c == '=' || c == '"' || c.is_whitespace()).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Some(Challenge::Bearer { realm: realm.into(), service: owned(service), scope: owned(scope) })
    }

    #[test]
    fn what_registries_send_is_understood() {
        let docker = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/busybox:pull""#;
        let want =
            bearer("https://auth.docker.io/token", Some("registry.docker.io"), Some("repository:library/busybox:pull"));
        assert_eq!(parse(docker), want);
        for (header, want) in [
            (r#"Basic realm="Registry Realm""#, Some(Challenge::Basic)),
            ("basic", Some(Challenge::Basic)),
            (r#"bearer Realm="https://a/t""#, bearer("https://a/t", None, None)),
            ("Bearer realm=https://a/t , service=s", bearer("https://a/t", Some("s"), None)),
            (r#"Basic realm="x", Bearer realm="https://a/t",scope="a,b""#, bearer("https://a/t", None, Some("a,b"))),
            (r#"Negotiate, Basic realm="x""#, Some(Challenge::Basic)),
            (r#"Bearer realm="with \" quote""#, bearer(r#"with " quote"#, None, None)),
            ("Negotiate", None),
            ("Bearer service=x", None),
            (r#"Bearer realm="open"#, None),
            ("", None),
            ("=,=", None),
        ] {
            assert_eq!(parse(header), want, "{header}");
        }
    }
}
