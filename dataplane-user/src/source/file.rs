//! Reads Services and EndpointSlices from a file: YAML or JSON, any number of documents, lists or single objects.
//!
//! For tests and for machines without an API server. A file with an error is reported and changes nothing.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::Value;

use super::apiserver::Sink;
use super::{Change, Delta, NodeSpec, convert};

const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Follows a file until the sink is closed.
pub async fn watch(path: PathBuf, node: String, sink: Sink) {
    let mut seen: Option<(SystemTime, u64, u64)> = None;
    loop {
        let version =
            fs::metadata(&path).ok().and_then(|found| Some((found.modified().ok()?, found.len(), found.ino())));
        if version != seen {
            seen = version;
            match read(&path, &node) {
                Ok(changes) => {
                    if !changes.into_iter().all(|change| sink(change)) {
                        return;
                    }
                }
                Err(error) => {
                    tracing::error!(path = %path.display(), error = %format!("{error:#}"), "source file refused")
                }
            }
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn read(path: &Path, node: &str) -> anyhow::Result<Vec<Change>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text, node)
}

/// The complete state that a text describes: one replacement per kind.
///
/// # Errors
/// If it is no YAML, or holds an object that we do not understand.
pub fn parse(text: &str, node: &str) -> anyhow::Result<Vec<Change>> {
    let (mut services, mut slices, mut own) = (Vec::new(), Vec::new(), NodeSpec::default());
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).context("this is neither YAML nor JSON")?;
    let mut objects: Vec<Value> = documents.into_iter().filter(|document| !document.is_null()).rev().collect();
    while let Some(mut object) = objects.pop() {
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        if let Some(items) = object.get_mut("items").and_then(Value::as_array_mut) {
            let item_kind = kind.strip_suffix("List").filter(|kind| !kind.is_empty());
            let items = std::mem::take(items).into_iter().rev().map(|mut item| {
                if let Some(kind) = item_kind {
                    item["kind"] = kind.into();
                }
                item
            });
            objects.extend(items);
            continue;
        }
        let context = || format!("{kind} {}", object["metadata"]["name"]);
        match kind.as_str() {
            "Service" => {
                let object: Service = serde_json::from_value(object.clone()).with_context(context)?;
                services.extend(convert::service_name(&object).zip(convert::service(&object)));
            }
            "EndpointSlice" => {
                let object: EndpointSlice = serde_json::from_value(object.clone()).with_context(context)?;
                slices.extend(convert::slice_name(&object).zip(convert::slice(&object, node)));
            }
            "Node" => {
                let object: Node = serde_json::from_value(object.clone()).with_context(context)?;
                if let Some((_, spec)) = convert::node(&object).filter(|(name, _)| **name == *node) {
                    own = spec;
                }
            }
            other => bail!("cannot use an object of kind {other:?} here"),
        }
    }
    Ok(vec![
        Change::Node(Delta::Replace(vec![(Arc::from(node), own)])),
        Change::Slices(Delta::Replace(slices)),
        Change::Services(Delta::Replace(services)),
    ])
}

#[cfg(test)]
mod tests {
    use super::{Change, Delta, parse};

    const LIST: &str = "
apiVersion: v1
kind: List
items:
- kind: Service
  metadata: {namespace: a, name: web}
  spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}
---
kind: EndpointSliceList
items:
- metadata: {namespace: a, name: web-1, labels: {kubernetes.io/service-name: web}}
  addressType: IPv4
  endpoints: [{addresses: [10.0.0.1]}]
";

    #[test]
    fn lists_and_documents_are_read_alike() {
        let changes = parse(LIST, "here").unwrap();
        let counts: Vec<usize> = changes
            .iter()
            .map(|change| match change {
                Change::Services(Delta::Replace(all)) => all.len(),
                Change::Slices(Delta::Replace(all)) => all.len(),
                Change::Node(Delta::Replace(all)) => all.len(),
                other => panic!("{other:?} is no replacement"),
            })
            .collect();
        assert_eq!(counts, [1, 1, 1]);
        assert!(parse("{\"kind\": \"List\", \"items\": []}", "here").is_ok());
        assert!(parse("", "here").is_ok());
    }

    #[test]
    fn an_object_that_is_not_understood_refuses_the_file() {
        assert!(parse("kind: Pod\nmetadata: {name: x}\n", "here").is_err());
        assert!(parse("kind: [", "here").is_err());
    }
}
