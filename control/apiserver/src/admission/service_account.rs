//! Pods run as a service account of their namespace and get its token mounted.

use std::time::Duration;

use control_api::status::Status;
use control_api::{meta, names};
use serde_json::{Value, json};

use super::{Operation, Request, Step};

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// An hour and a little, so that kubelets know a token that they may renew.
const TOKEN_SECONDS: i64 = 3607;
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
/// The default account of a new namespace comes a moment after it.
const LOOKUPS: usize = 10;
const LOOKUP_INTERVAL: Duration = Duration::from_millis(100);

pub(super) struct ServiceAccount;

#[async_trait::async_trait]
impl Step for ServiceAccount {
    async fn mutate(&self, request: &Request<'_>, pod: &mut Value) -> Result<(), Status> {
        if !request.is(Operation::Create, "", "pods") || meta::annotation(pod, MIRROR_ANNOTATION).is_some() {
            return Ok(());
        }
        if pod["spec"]["serviceAccountName"].as_str().unwrap_or_default().is_empty() {
            let old_name = pod["spec"]["serviceAccount"].as_str().filter(|name| !name.is_empty()).unwrap_or("default");
            pod["spec"]["serviceAccountName"] = old_name.into();
        }
        pod["spec"]["serviceAccount"] = pod["spec"]["serviceAccountName"].clone();
        let account = self.account(request, pod).await?;
        let by_account = account["automountServiceAccountToken"].as_bool();
        if pod["spec"]["automountServiceAccountToken"].as_bool().or(by_account).unwrap_or(true) {
            mount_token(pod, &names::suffix(rand::random()));
        }
        let has_secrets = pod["spec"]["imagePullSecrets"].as_array().is_some_and(|secrets| !secrets.is_empty());
        let secrets = &account["imagePullSecrets"];
        if !has_secrets && secrets.as_array().is_some_and(|secrets| !secrets.is_empty()) {
            pod["spec"]["imagePullSecrets"] = secrets.clone();
        }
        Ok(())
    }
}

impl ServiceAccount {
    async fn account(&self, request: &Request<'_>, pod: &Value) -> Result<Value, Status> {
        let server = &request.context.server;
        let accounts = server.builtin("", "serviceaccounts")?;
        let (namespace, name) = (meta::namespace(pod), pod["spec"]["serviceAccountName"].as_str().unwrap_or_default());
        let lookups = if name == "default" { LOOKUPS } else { 1 };
        for lookup in 0..lookups {
            if let Some((_, account)) = server.read(&accounts, namespace, name).await? {
                return Ok(account);
            }
            if lookup + 1 < lookups {
                tokio::time::sleep(LOOKUP_INTERVAL).await;
            }
        }
        let why = format!("error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found");
        Err(request.forbidden(meta::name(pod), why))
    }
}

/// Adds the projected volume and mounts it in every container that has nothing in its place.
fn mount_token(pod: &mut Value, suffix: &str) {
    let volumes = pod["spec"]["volumes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let existing = volumes.iter().find_map(|volume| {
        let name = volume["name"].as_str().filter(|name| name.starts_with(VOLUME_PREFIX))?;
        volume["projected"].is_object().then(|| name.to_owned())
    });
    let name = existing.clone().unwrap_or_else(|| format!("{VOLUME_PREFIX}{suffix}"));
    let mut mounted = false;
    for containers in ["initContainers", "containers"] {
        let containers = pod["spec"].get_mut(containers).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let mounts = container["volumeMounts"].as_array().map(Vec::as_slice).unwrap_or_default();
            if mounts.iter().any(|mount| mount["mountPath"] == MOUNT_PATH) {
                continue;
            }
            push(container, "volumeMounts", json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH}));
            mounted = true;
        }
    }
    if mounted && existing.is_none() {
        push(
            &mut pod["spec"],
            "volumes",
            json!({
                "name": name,
                "projected": {"defaultMode": 0o644, "sources": [
                    {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
                    {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                    {"downwardAPI": {"items": [
                        {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
                ]},
            }),
        );
    }
}

fn push(object: &mut Value, field: &str, item: Value) {
    match object[field].as_array_mut() {
        Some(list) => list.push(item),
        None => object[field] = json!([item]),
    }
}

#[cfg(test)]
mod tests {
    use super::{MOUNT_PATH, mount_token};
    use serde_json::json;

    #[test]
    fn every_container_without_a_mount_of_its_own_gets_the_token() {
        let mut pod = json!({"spec": {"containers": [
            {"name": "a"},
            {"name": "b", "volumeMounts": [{"name": "mine", "mountPath": MOUNT_PATH}]}]}});
        mount_token(&mut pod, "abcde");
        assert_eq!(
            pod["spec"]["containers"][0]["volumeMounts"],
            json!([{"name": "kube-api-access-abcde", "readOnly": true, "mountPath": MOUNT_PATH}])
        );
        assert_eq!(pod["spec"]["containers"][1]["volumeMounts"].as_array().unwrap().len(), 1);
        assert_eq!(pod["spec"]["volumes"][0]["projected"]["defaultMode"], 420);
        let once = pod.clone();
        mount_token(&mut pod, "fghij");
        assert_eq!(pod, once);
    }
}
