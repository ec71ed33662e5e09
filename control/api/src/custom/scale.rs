//! The `scale` subresource of custom resources: where replicas and selector are found.

use serde_json::{Value, json};

use crate::status::Status;
use crate::validation::{Errors, Path};
use crate::value::text;

const REPLICAS_MAX: i64 = 2_147_483_647;

/// Paths such as `.spec.replicas`.
#[derive(Debug)]
pub(crate) struct Scale {
    spec_replicas: String,
    status_replicas: String,
    selector: Option<String>,
}

impl Scale {
    pub(super) fn parse(scale: &Value) -> Option<Self> {
        let selector = text(&scale["labelSelectorPath"]);
        scale.is_object().then(|| Self {
            spec_replicas: text(&scale["specReplicasPath"]).to_owned(),
            status_replicas: text(&scale["statusReplicasPath"]).to_owned(),
            selector: Some(selector.to_owned()).filter(|path| !path.is_empty()),
        })
    }

    /// Wanted and actual replicas and the selector, as a Scale shows them.
    ///
    /// # Errors
    /// If the object does not say how many replicas it wants.
    pub(crate) fn read(&self, object: &Value) -> Result<(i64, Value), Status> {
        let found = at(object, &self.spec_replicas).and_then(Value::as_i64);
        let wanted = found.ok_or_else(|| {
            let path = &self.spec_replicas;
            Status::internal(format!("the spec replicas field {path:?} does not exist"))
        })?;
        let replicas = at(object, &self.status_replicas).and_then(Value::as_i64).unwrap_or(0);
        let mut status = json!({"replicas": replicas});
        let selector = self.selector.as_deref().and_then(|path| at(object, path)).map_or("", text);
        if !selector.is_empty() {
            status["selector"] = selector.into();
        }
        Ok((wanted, status))
    }

    pub(crate) fn spec_path(&self) -> Vec<&str> {
        names(&self.spec_replicas).collect()
    }

    /// Writes the number of replicas that are wanted.
    pub(crate) fn write(&self, object: &mut Value, replicas: i64) {
        let mut place = object;
        for name in names(&self.spec_replicas) {
            if !place.is_object() {
                *place = json!({});
            }
            place = &mut place[name];
        }
        *place = replicas.into();
    }

    pub(super) fn validate_spec(&self, object: &Value, errors: &mut Errors) {
        replicas(object, &self.spec_replicas, errors);
    }

    pub(super) fn validate_status(&self, object: &Value, errors: &mut Errors) {
        replicas(object, &self.status_replicas, errors);
        if let Some(path) = &self.selector
            && let Some(found) = at(object, path).filter(|found| !found.is_string())
        {
            let detail = accessor(path, found, "string");
            errors.invalid(&Path::new(path), "", &detail);
        }
    }
}

fn names(path: &str) -> impl Iterator<Item = &str> {
    path.strip_prefix('.').unwrap_or(path).split('.')
}

fn at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    names(path).try_fold(object, |value, name| value.get(name))
}

fn replicas(object: &Value, path: &str, errors: &mut Errors) {
    let Some(found) = at(object, path) else { return };
    let place = Path::new(path);
    match found.as_i64() {
        None => errors.invalid(&place, 0, &accessor(path, found, "int64")),
        Some(count) if count < 0 => errors.invalid(&place, count, "should be a non-negative integer"),
        Some(count) if count > REPLICAS_MAX => {
            errors.invalid(&place, count, &format!("should be less than or equal to {REPLICAS_MAX}"));
        }
        Some(_) => {}
    }
}

fn accessor(path: &str, found: &Value, wanted: &str) -> String {
    let kind = match found {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_i64() => "int64",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    };
    let shown = found.as_str().map_or_else(|| found.to_string(), str::to_owned);
    format!("{path} accessor error: {shown} is of the type {kind}, expected {wanted}")
}
