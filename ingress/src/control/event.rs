//! Events: telling the owners of an Ingress what is wrong with it.

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::sync::mpsc;

use super::problem::Problem;
use crate::model::ObjectKey;

/// The API's limit on messages, in bytes.
const MESSAGE_LEN_MAX: usize = 1024;
/// Events that wait to be written; more are dropped, they are hints and not state.
pub(crate) const QUEUE_LEN: usize = 256;

/// A problem to report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) ingress: ObjectKey,
    pub(crate) uid: Box<str>,
    pub(crate) problem: Problem,
}

/// Writes Events one after the other.
pub(crate) async fn write_all(client: Client, component: String, mut reports: mpsc::Receiver<Report>) {
    while let Some(report) = reports.recv().await {
        let api: Api<core::Event> = Api::namespaced(client.clone(), &report.ingress.namespace);
        let event = event(&report, &component, Timestamp::now(), rand::random());
        if let Err(error) = api.create(&PostParams::default(), &event).await {
            tracing::warn!(ingress = %report.ingress, reason = report.problem.reason(), %error, "cannot write event");
        }
    }
}

fn event(report: &Report, component: &str, now: Timestamp, unique: u64) -> core::Event {
    let mut message = report.problem.message();
    message.truncate(message.floor_char_boundary(MESSAGE_LEN_MAX));
    core::Event {
        metadata: ObjectMeta {
            namespace: Some(report.ingress.namespace.to_string()),
            name: Some(format!("{}.{unique:016x}", report.ingress.name)),
            ..ObjectMeta::default()
        },
        involved_object: core::ObjectReference {
            api_version: Some("networking.k8s.io/v1".to_owned()),
            kind: Some("Ingress".to_owned()),
            namespace: Some(report.ingress.namespace.to_string()),
            name: Some(report.ingress.name.to_string()),
            uid: Some(report.uid.to_string()),
            ..core::ObjectReference::default()
        },
        type_: Some("Warning".to_owned()),
        reason: Some(report.problem.reason().to_owned()),
        message: Some(message),
        source: Some(core::EventSource { component: Some(component.to_owned()), host: None }),
        reporting_component: Some(component.to_owned()),
        reporting_instance: Some(component.to_owned()),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        count: Some(1),
        ..core::Event::default()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::{MESSAGE_LEN_MAX, Report, event};
    use crate::control::problem::Problem;
    use crate::model::ObjectKey;

    #[test]
    fn an_event_names_its_ingress_and_stays_within_the_limit() {
        let problem = Problem::InvalidRule("ä".repeat(MESSAGE_LEN_MAX));
        let report = Report { ingress: ObjectKey::new("shop", "web"), uid: "u1".into(), problem };
        let event = event(&report, "tidegate.dev/ingress", Timestamp::UNIX_EPOCH, 7);
        assert_eq!(event.metadata.name.as_deref(), Some("web.0000000000000007"));
        assert_eq!(event.metadata.namespace, event.involved_object.namespace);
        assert_eq!(event.involved_object.uid.as_deref(), Some("u1"));
        assert!(event.message.is_some_and(|message| message.len() <= MESSAGE_LEN_MAX));
    }
}
