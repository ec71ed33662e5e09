//! A container's environment: sources, references and `$(VAR)` expansion, in upstream's order.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::fields::{self, FieldError, PodFacts};

/// The ConfigMaps and Secrets of the pod's namespace, as far as its environment names them.
#[derive(Debug, Default, Clone)]
pub(crate) struct EnvObjects {
    pub config_maps: BTreeMap<String, BTreeMap<String, String>>,
    pub secrets: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// By volume and path.
    pub files: BTreeMap<(String, String), EnvFile>,
}

/// The variables of a file in a volume; none if there is no such file.
pub(crate) type EnvFile = Option<BTreeMap<String, String>>;

/// Why a container cannot be made yet; waiting reason `CreateContainerConfigError`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum EnvError {
    #[error("{kind} \"{name}\" not found")]
    Object { kind: &'static str, name: String },
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    Key { kind: &'static str, namespace: String, name: String, key: String },
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("environment variable {0} has a source of an unsupported kind")]
    Source(String),
}

/// An environment, and the keys of whole-object sources that no environment can hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Env {
    pub variables: Vec<(String, String)>,
    pub skipped: Vec<SkippedKeys>,
}

/// Keys of one `envFrom` source that were left out; an event names them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SkippedKeys {
    pub kind: &'static str,
    pub name: String,
    pub keys: Vec<String>,
}

/// The container's variables: `envFrom` first, then `env` in order; Services fill only names that nothing else sets,
/// but can be referred to.
pub(crate) fn build(
    pod: &Pod,
    container: &Container,
    facts: &PodFacts,
    services: Vec<(String, String)>,
    objects: &EnvObjects,
) -> Result<Env, EnvError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let services: BTreeMap<String, String> = services.into_iter().collect();
    let mut env = Env::default();
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    for source in container.env_from.as_deref().unwrap_or_default() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let (kind, name, entries) = if let Some(reference) = &source.config_map_ref {
            let entries = whole(&objects.config_maps, "configmap", &reference.name, reference.optional)?;
            ("ConfigMap", reference.name.clone(), entries.cloned().unwrap_or_default())
        } else if let Some(reference) = &source.secret_ref {
            let entries = whole(&objects.secrets, "secret", &reference.name, reference.optional)?;
            ("Secret", reference.name.clone(), entries.map(texts).unwrap_or_default())
        } else {
            continue;
        };
        let mut skipped = Vec::new();
        for (key, value) in entries {
            let variable = format!("{prefix}{key}");
            if is_name(&variable) {
                known.insert(variable, value);
            } else {
                skipped.push(variable);
            }
        }
        if !skipped.is_empty() {
            env.skipped.push(SkippedKeys { kind, name, keys: skipped });
        }
    }
    let mut order: Vec<String> = known.keys().cloned().collect();
    for variable in container.env.as_deref().unwrap_or_default() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(text), _) if !text.is_empty() => {
                Some(expand(text, |name| known.get(name).or_else(|| services.get(name)).map(String::as_str)))
            }
            (_, Some(source)) => from_source(pod, container, facts, objects, namespace, &variable.name, source)?,
            _ => Some(String::new()),
        };
        let Some(value) = value else { continue };
        if known.insert(variable.name.clone(), value).is_none() {
            order.push(variable.name.clone());
        }
    }
    env.variables =
        order.into_iter().filter_map(|name| known.get(&name).map(|value| (name.clone(), value.clone()))).collect();
    env.variables.extend(services.into_iter().filter(|(name, _)| !known.contains_key(name)));
    Ok(env)
}

/// Replaces `$(NAME)` of known names; `$$` is one `$`; unknown references stay as they are.
pub(crate) fn expand<'a>(text: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        result.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            result.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match lookup(name) {
                Some(value) => result.push_str(value),
                None => {
                    result.push_str("$(");
                    result.push_str(name);
                    result.push(')');
                }
            }
            rest = after;
        } else {
            result.push('$');
        }
    }
    result.push_str(rest);
    result
}

fn from_source(
    pod: &Pod,
    container: &Container,
    facts: &PodFacts,
    objects: &EnvObjects,
    namespace: &str,
    variable: &str,
    source: &k8s_openapi::api::core::v1::EnvVarSource,
) -> Result<Option<String>, EnvError> {
    let missing = |kind, name: &str, key: &str| EnvError::Key {
        kind,
        namespace: namespace.into(),
        name: name.into(),
        key: key.into(),
    };
    if let Some(reference) = &source.field_ref {
        return Ok(Some(fields::field(pod, facts, &reference.field_path)?));
    }
    if let Some(selector) = &source.resource_field_ref {
        return Ok(Some(fields::resource(pod, facts, &container.name, selector)?));
    }
    if let Some(reference) = &source.config_map_key_ref {
        let optional = reference.optional.unwrap_or(false);
        let map = whole(&objects.config_maps, "configmap", &reference.name, reference.optional)?;
        return match map.and_then(|map| map.get(&reference.key)) {
            Some(value) => Ok(Some(value.clone())),
            None if optional => Ok(None),
            None => Err(missing("ConfigMap", &reference.name, &reference.key)),
        };
    }
    if let Some(reference) = &source.secret_key_ref {
        let optional = reference.optional.unwrap_or(false);
        let map = whole(&objects.secrets, "secret", &reference.name, reference.optional)?;
        return match map.and_then(|map| map.get(&reference.key)) {
            Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
            None if optional => Ok(None),
            None => Err(missing("Secret", &reference.name, &reference.key)),
        };
    }
    if let Some(selector) = &source.file_key_ref {
        let file = objects.files.get(&(selector.volume_name.clone(), selector.path.clone()));
        return match file.and_then(Option::as_ref).and_then(|file| file.get(&selector.key)) {
            Some(value) => Ok(Some(value.clone())),
            None if selector.optional.unwrap_or(false) => Ok(None),
            None => Err(missing("file", &selector.path, &selector.key)),
        };
    }
    Err(EnvError::Source(variable.into()))
}

fn whole<'a, V>(
    maps: &'a BTreeMap<String, V>,
    kind: &'static str,
    name: &str,
    optional: Option<bool>,
) -> Result<Option<&'a V>, EnvError> {
    match maps.get(name) {
        None if !optional.unwrap_or(false) => Err(EnvError::Object { kind, name: name.into() }),
        found => Ok(found),
    }
}

fn texts(map: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, String> {
    map.iter().map(|(key, value)| (key.clone(), String::from_utf8_lossy(value).into_owned())).collect()
}

/// Since 1.34 any printable ASCII without `=` names a variable.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'=')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn pod(container: &Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "shop", "uid": "u"}, "spec": {"containers": [container]}
        }))
        .unwrap()
    }

    fn objects() -> EnvObjects {
        let text = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        EnvObjects {
            config_maps: [("cm".into(), text(&[("color", "red"), ("bad=key", "x")]))].into(),
            secrets: [("sec".into(), [("pw".into(), b"hush".to_vec())].into())].into(),
            files: [(("v".into(), "env".into()), Some([("K".into(), "from a file".into())].into()))].into(),
        }
    }

    fn run(container: Value) -> Result<Env, EnvError> {
        let pod = pod(&container);
        let services = vec![("WEB_SERVICE_HOST".into(), "10.96.0.7".into()), ("COLOR".into(), "service".into())];
        build(&pod, &pod.spec.as_ref().unwrap().containers[0], &PodFacts::default(), services, &objects())
    }

    #[test]
    fn expansion_knows_escapes_and_leaves_the_unknown() {
        let lookup =
            |name: &str| [("A", "1"), ("B", "$(A)")].iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        for (text, expanded) in [
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$(MISSING)", "$(MISSING)"),
            ("$(B)", "$(A)"),
            ("$A ${A} $", "$A ${A} $"),
            ("$(A", "$(A"),
            ("", ""),
        ] {
            assert_eq!(expand(text, lookup), expanded, "{text}");
        }
    }

    #[test]
    fn sources_are_resolved_in_order() {
        let env = run(json!({"name": "c", "envFrom": [
                {"prefix": "X_", "configMapRef": {"name": "cm"}}, {"secretRef": {"name": "gone", "optional": true}}],
            "env": [
                {"name": "ONE", "value": "1"},
                {"name": "TWO", "value": "$(ONE)-$(THREE)-$(X_color)-$(WEB_SERVICE_HOST)"},
                {"name": "THREE", "value": "3"},
                {"name": "PW", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "pw"}}},
                {"name": "NONE", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "no", "optional": true}}},
                {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "COLOR", "value": "own"}]}))
        .unwrap();
        let expected = [
            ("X_color", "red"),
            ("ONE", "1"),
            ("TWO", "1-$(THREE)-red-10.96.0.7"),
            ("THREE", "3"),
            ("PW", "hush"),
            ("NAME", "p"),
            ("COLOR", "own"),
            ("WEB_SERVICE_HOST", "10.96.0.7"),
        ];
        assert_eq!(env.variables, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
        assert_eq!(env.skipped, [SkippedKeys { kind: "ConfigMap", name: "cm".into(), keys: vec!["X_bad=key".into()] }]);
    }

    #[test]
    fn missing_objects_and_keys_are_told_apart() {
        let object = run(json!({"name": "c", "envFrom": [{"configMapRef": {"name": "gone"}}]})).unwrap_err();
        assert_eq!(object.to_string(), "configmap \"gone\" not found");
        let key = json!({"name": "A", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "no"}}});
        let key = run(json!({"name": "c", "env": [key]})).unwrap_err();
        assert_eq!(key.to_string(), "couldn't find key no in Secret shop/sec");
    }

    proptest! {
        #[test]
        fn text_without_dollars_stays(text in "[^$]*") {
            prop_assert_eq!(expand(&text, |_| Some("x")), text);
        }

        #[test]
        fn doubled_dollars_are_the_inverse_of_expansion(text in ".*") {
            prop_assert_eq!(expand(&text.replace('$', "$$"), |_| Some("x")), text);
        }
    }
}
