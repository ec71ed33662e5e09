//! What every namespace gets: the ServiceAccount `default` and the cluster's CA in ConfigMap `kube-root-ca.crt`.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;
use tokio::task::JoinSet;

use crate::Cluster;
use crate::meta;
use crate::queue::{self, Key, Next};

pub(crate) const ROOT_CA: &str = "kube-root-ca.crt";
const DEFAULT: &str = "default";
const CA_KEY: &str = "ca.crt";

pub(crate) fn start(cluster: &Arc<Cluster>, tasks: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    let path = &cluster.config.root_ca;
    let ca = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let shared = Arc::clone(cluster);
    let queue = queue::start("serviceaccount", tasks, move |key| {
        let (cluster, ca) = (Arc::clone(&shared), ca.clone());
        async move { reconcile(&cluster, &key.name, &ca).await }
    });
    let namespaces = queue.clone();
    cluster.namespaces.on_change(move |_, new| {
        if let Some(namespace) = new {
            namespaces.add(Key::of(namespace));
        }
    });
    let accounts = queue.clone();
    cluster.service_accounts.on_change(move |old, new| {
        if let (Some(account), None) = (old, new) {
            accounts.add(Key::new("", account.metadata.namespace.clone().unwrap_or_default()));
        }
    });
    cluster.config_maps.on_change(move |old, new| {
        if let Some(map) = new.or(old) {
            queue.add(Key::new("", map.metadata.namespace.clone().unwrap_or_default()));
        }
    });
    Ok(())
}

async fn reconcile(cluster: &Cluster, namespace: &str, ca: &str) -> anyhow::Result<Next> {
    if cluster.namespaces.get("", namespace).is_none_or(|found| meta::is_deleting(&*found)) {
        return Ok(Next::Await);
    }
    if cluster.service_accounts.get(namespace, DEFAULT).is_none() {
        let account = ServiceAccount { metadata: named(DEFAULT), ..ServiceAccount::default() };
        let api: Api<ServiceAccount> = Api::namespaced(cluster.client.clone(), namespace);
        ignore_existing(api.create(&PostParams::default(), &account).await)?;
    }
    let data = BTreeMap::from([(CA_KEY.to_owned(), ca.to_owned())]);
    let api: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), namespace);
    match cluster.config_maps.get(namespace, ROOT_CA) {
        None => {
            let metadata = named(ROOT_CA);
            let map = ConfigMap { metadata, data: Some(data), ..ConfigMap::default() };
            ignore_existing(api.create(&PostParams::default(), &map).await)?;
        }
        Some(found) if found.data.as_ref() != Some(&data) => {
            let mut map = (*found).clone();
            map.data = Some(data);
            api.replace(ROOT_CA, &PostParams::default(), &map).await?;
        }
        Some(_) => {}
    }
    Ok(Next::Await)
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() }
}

fn ignore_existing<T>(result: kube::Result<T>) -> anyhow::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(()),
        result => Ok(result.map(drop)?),
    }
}
