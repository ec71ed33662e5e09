//! Who is asking: client certificates, service-account tokens, or nobody.

pub(crate) mod certificate;
pub(crate) mod impersonate;
pub(crate) mod token;

use std::collections::BTreeMap;
use std::sync::Arc;

use control_api::status::Status;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use serde_json::{Map, Value, json};

use crate::state::Server;

pub(crate) const ANONYMOUS: &str = "system:anonymous";
pub(crate) const AUTHENTICATED: &str = "system:authenticated";
pub(crate) const UNAUTHENTICATED: &str = "system:unauthenticated";
pub(crate) const MASTERS: &str = "system:masters";

/// An identity as authorisation sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) groups: Vec<String>,
    pub(crate) extra: BTreeMap<String, Vec<String>>,
}

impl User {
    fn anonymous() -> Self {
        Self { name: ANONYMOUS.into(), groups: vec![UNAUTHENTICATED.into()], ..Self::default() }
    }

    pub(crate) fn is_anonymous(&self) -> bool {
        self.name == ANONYMOUS
    }

    pub(crate) fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|member| member == group)
    }

    /// The name of the node that this identity belongs to.
    pub(crate) fn node(&self) -> Option<&str> {
        self.name.strip_prefix("system:node:").filter(|_| self.is_in("system:nodes"))
    }

    /// As reviews show it.
    pub(crate) fn to_json(&self) -> Value {
        let mut info = Map::new();
        info.insert("username".into(), self.name.as_str().into());
        if !self.uid.is_empty() {
            info.insert("uid".into(), self.uid.as_str().into());
        }
        info.insert("groups".into(), json!(self.groups));
        if !self.extra.is_empty() {
            info.insert("extra".into(), json!(self.extra));
        }
        info.into()
    }

    /// As a review's spec names somebody.
    pub(crate) fn from_spec(spec: &Value) -> Self {
        let strings = |value: &Value| -> Vec<String> {
            let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
            list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let extra = spec["extra"].as_object();
        Self {
            name: spec["user"].as_str().unwrap_or_default().into(),
            uid: spec["uid"].as_str().unwrap_or_default().into(),
            groups: strings(&spec["groups"]),
            extra: extra.into_iter().flatten().map(|(key, value)| (key.clone(), strings(value))).collect(),
        }
    }
}

/// Decides who sent a request: the connection's certificate first, then a bearer token.
///
/// # Errors
/// 401 if a token was sent and is not good.
pub(crate) async fn authenticate(
    server: &Server,
    certificate: Option<Arc<User>>,
    headers: &HeaderMap,
) -> Result<Arc<User>, Status> {
    if let Some(user) = certificate {
        return Ok(user);
    }
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(Arc::new(User::anonymous())) };
    let value = value.to_str().map_err(|_| Status::unauthorized())?;
    let (scheme, token) = value.split_once(' ').ok_or_else(Status::unauthorized)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Status::unauthorized());
    }
    match server.tokens.authenticate(server, token.trim(), &[]).await {
        Ok((user, _)) => Ok(Arc::new(user)),
        Err(reason) => {
            tracing::debug!(%reason, "token refused");
            Err(Status::unauthorized())
        }
    }
}
