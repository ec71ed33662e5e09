//! Credentials for registries, from the Secrets that a pod names. Pure.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use control_runtime::{Credentials, Reference};
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;

/// The registry that references without one mean, under the name that `docker login` has for it.
const DEFAULT_REGISTRY: &str = "index.docker.io";

/// Who may pull from where; the most particular places first.
#[derive(Debug, Default)]
pub(crate) struct Keyring(Vec<(Place, Credentials)>);

/// A registry, or a part of one: `registry.example.com:5000/team`; its host may hold wildcards.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    host: String,
    port: Option<String>,
    path: String,
}

#[derive(Debug, Default, Deserialize)]
struct Config {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    username: String,
    password: String,
    /// Both at once, as Base64.
    auth: String,
}

impl Keyring {
    /// Takes what can be read of the Secrets; others hold no credentials.
    pub(crate) fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut keys: Vec<(Place, Credentials)> = secrets.into_iter().flat_map(entries).collect();
        keys.sort_by(|one, other| other.0.cmp(&one.0));
        Self(keys)
    }

    /// Everything that may open the repository, in the order in which to try.
    pub(crate) fn of(&self, image: &Reference) -> Vec<Credentials> {
        let place = Place::parse(&image.repository);
        let matching = |wanted: &Place| {
            let keys = self.0.iter().filter(|(known, _)| known.covers(wanted));
            keys.map(|(_, credentials)| credentials.clone()).collect::<Vec<_>>()
        };
        let found = matching(&place);
        if found.is_empty() && place.host == "docker.io" {
            return matching(&Place { host: DEFAULT_REGISTRY.into(), ..place });
        }
        found
    }
}

fn entries(secret: &Secret) -> Vec<(Place, Credentials)> {
    let data = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.as_slice());
    let auths = match secret.type_.as_deref() {
        Some("kubernetes.io/dockerconfigjson") => {
            data(".dockerconfigjson").and_then(|text| serde_json::from_slice::<Config>(text).ok()).map(|it| it.auths)
        }
        Some("kubernetes.io/dockercfg") => data(".dockercfg").and_then(|text| serde_json::from_slice(text).ok()),
        _ => None,
    };
    let known = |(place, entry): (String, Entry)| Some((Place::parse(&place), entry.credentials()?));
    auths.unwrap_or_default().into_iter().filter_map(known).collect()
}

impl Entry {
    fn credentials(self) -> Option<Credentials> {
        let Self { username, password, auth } = self;
        if auth.is_empty() {
            return (!username.is_empty()).then_some(Credentials { username, password });
        }
        // Some tools pad with zeroes.
        let text = STANDARD.decode(auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok())?;
        let (username, password) = text.trim_end_matches('\0').split_once(':')?;
        Some(Credentials { username: username.into(), password: password.into() })
    }
}

impl Place {
    fn parse(text: &str) -> Self {
        let text = text.trim_start_matches("https://").trim_start_matches("http://");
        let (authority, path) = text.split_once('/').unwrap_or((text, ""));
        // The API's version is no part of any repository's name.
        let path = path.strip_prefix("v1/").or_else(|| path.strip_prefix("v2/")).unwrap_or(path);
        let path = if matches!(path, "v1" | "v2") { "" } else { path };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port.to_owned())),
            _ => (authority, None),
        };
        Self { host: host.into(), port, path: path.into() }
    }

    fn covers(&self, wanted: &Self) -> bool {
        let labels = |host: &str| host.split('.').map(str::to_owned).collect::<Vec<_>>();
        let (pattern, host) = (labels(&self.host), labels(&wanted.host));
        self.port == wanted.port
            && wanted.path.starts_with(&self.path)
            && pattern.len() == host.len()
            && pattern.iter().zip(&host).all(|(pattern, label)| matches(pattern.as_bytes(), label.as_bytes()))
    }
}

/// `*` is any run of bytes, `?` any one.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            matches(rest, text) || text.split_first().is_some_and(|(_, text)| matches(pattern, text))
        }
        (Some((b'?', pattern)), Some((_, text))) => matches(pattern, text),
        (Some((one, pattern)), Some((other, text))) => one == other && matches(pattern, text),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use serde_json::json;

    use super::*;

    fn secret(kind: &str, key: &str, content: &serde_json::Value) -> Secret {
        Secret {
            type_: Some(kind.into()),
            data: Some([(key.to_owned(), ByteString(content.to_string().into_bytes()))].into()),
            ..Secret::default()
        }
    }

    fn config(auths: &serde_json::Value) -> Secret {
        secret("kubernetes.io/dockerconfigjson", ".dockerconfigjson", &json!({ "auths": auths }))
    }

    fn users(keyring: &Keyring, image: &str) -> Vec<String> {
        keyring.of(&Reference::parse(image).unwrap()).into_iter().map(|it| it.username).collect()
    }

    fn user(name: &str) -> serde_json::Value {
        json!({ "username": name, "password": "p" })
    }

    #[test]
    fn the_most_particular_place_comes_first() {
        let keyring = Keyring::new([&config(&json!({
            "https://index.docker.io/v1/": user("hub"),
            "registry.example.com": user("whole"),
            "registry.example.com/team": user("team"),
            "*.example.org": user("wild"),
            "127.0.0.1:5000": user("local"),
        }))]);
        for (image, want) in [
            ("busybox", &["hub"][..]),
            ("someone/thing", &["hub"]),
            ("registry.example.com/team/app", &["team", "whole"]),
            ("registry.example.com/other", &["whole"]),
            ("a.example.org/x", &["wild"]),
            ("a.b.example.org/x", &[]),
            ("example.org/x", &[]),
            ("127.0.0.1:5000/x", &["local"]),
            ("127.0.0.1:5001/x", &[]),
            ("registry.example.com:5000/team/app", &[]),
        ] {
            assert_eq!(users(&keyring, image), want, "{image}");
        }
    }

    #[test]
    fn every_form_of_credentials_is_read() {
        let encoded = STANDARD.encode("me:se:cret");
        let old = secret("kubernetes.io/dockercfg", ".dockercfg", &json!({ "a.b": { "auth": encoded } }));
        let other = secret("Opaque", ".dockerconfigjson", &json!({ "auths": { "a.b": user("opaque") } }));
        let broken = config(&json!({ "a.b": { "auth": "%%%" }, "c.d": {} }));
        let found = Keyring::new([&old, &other, &broken]).of(&Reference::parse("a.b/x").unwrap());
        assert_eq!(found, [Credentials { username: "me".into(), password: "se:cret".into() }]);
    }

    #[test]
    fn wildcards_match_as_a_shell_does() {
        for (pattern, text, want) in
            [("*", "", true), ("a*c", "abbc", true), ("a?c", "abc", true), ("a?c", "ac", false), ("a*", "b", false)]
        {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), want, "{pattern} {text}");
        }
    }
}
