//! Telling people about frontends that are not served as they should be: in the log, and as an Event of their Service.
//!
//! Each is told once, when it begins, and once in the log when it ends, however often it is retried in between.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dataplane_plan::{FrontendKey, ServiceName};
use k8s_openapi::api::core::v1::{ObjectReference, Service};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client, Resource};
use tokio::sync::mpsc;

use crate::reconcile::Refusal;
use crate::source::apiserver;

/// Lines and Events of one pass: a full map may refuse thousands at once, and the first few tell it all.
const TOLD_MAX: usize = 20;
/// Events that wait for the API server.
const WAITING_MAX: usize = 100;
const RETRY: Duration = Duration::from_secs(5);
const REASON: &str = "NotServed";
const ACTION: &str = "Program";
const CONTROLLER: &str = "tidegate.dev/agent";

/// A frontend that is not served as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    service: ServiceName,
    frontend: FrontendKey,
    reason: String,
}

/// What has been told.
pub(super) struct Refusals {
    known: BTreeMap<FrontendKey, Refusal>,
    complaints: Option<mpsc::Sender<Complaint>>,
}

/// What is new.
#[derive(Debug, Default, PartialEq, Eq)]
struct News {
    begun: Vec<(FrontendKey, Refusal)>,
    ended: Vec<FrontendKey>,
}

impl Refusals {
    /// Tells the log only, or also whoever takes complaints.
    pub(super) const fn new(complaints: Option<mpsc::Sender<Complaint>>) -> Self {
        Self { known: BTreeMap::new(), complaints }
    }

    /// Tells what is new since the last time.
    pub(super) fn tell(&mut self, refused: &BTreeMap<FrontendKey, Refusal>) {
        if self.known == *refused {
            return;
        }
        let News { begun, ended } = news(&self.known, refused);
        for (frontend, refusal) in begun.iter().take(TOLD_MAX) {
            let service = refusal.service.as_ref().map(ToString::to_string).unwrap_or_default();
            tracing::warn!(%frontend, service, reason = refusal.reason, "a frontend is not served as it should be");
            self.complain(*frontend, refusal);
        }
        if begun.len() > TOLD_MAX {
            tracing::warn!(frontends = begun.len() - TOLD_MAX, "more frontends are not served; /status names them all");
        }
        for frontend in ended.iter().take(TOLD_MAX) {
            tracing::info!(%frontend, "a frontend is served again, or no longer wanted");
        }
        self.known.clone_from(refused);
    }

    fn complain(&self, frontend: FrontendKey, refusal: &Refusal) {
        if let (Some(complaints), Some(service)) = (&self.complaints, &refusal.service) {
            let complaint = Complaint { service: service.clone(), frontend, reason: refusal.reason.clone() };
            // Events are a courtesy: when the API server is away for long, the log and the metric must do.
            let _ = complaints.try_send(complaint);
        }
    }
}

/// Refusals that began and ended. Another reason for the same frontend is no news: a retry may fail elsewhere.
fn news(known: &BTreeMap<FrontendKey, Refusal>, refused: &BTreeMap<FrontendKey, Refusal>) -> News {
    let keys = |map: &BTreeMap<FrontendKey, Refusal>| map.keys().copied().collect::<BTreeSet<_>>();
    let (before, now) = (keys(known), keys(refused));
    News {
        begun: refused
            .iter()
            .filter(|(key, _)| !before.contains(key))
            .map(|(key, refusal)| (*key, refusal.clone()))
            .collect(),
        ended: before.difference(&now).copied().collect(),
    }
}

/// Starts the task that makes Events of complaints; it ends when nobody complains any more.
pub(super) fn publish(kubeconfig: Option<PathBuf>, node: String) -> mpsc::Sender<Complaint> {
    let (sender, mut complaints) = mpsc::channel::<Complaint>(WAITING_MAX);
    tokio::spawn(async move {
        let mut publisher = None;
        while let Some(complaint) = complaints.recv().await {
            while let Err(error) = try_publish(&mut publisher, kubeconfig.as_deref(), &node, &complaint).await {
                if !is_passing(&error) {
                    tracing::warn!(service = %complaint.service, error = %format!("{error:#}"), "cannot write an event");
                    break;
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    });
    sender
}

/// Is it worth trying again? What the API server has judged it will judge again.
fn is_passing(error: &anyhow::Error) -> bool {
    !matches!(error.downcast_ref::<kube::Error>(), Some(kube::Error::Api(status)) if status.code < 500 && status.code != 429)
}

async fn try_publish(
    publisher: &mut Option<(Client, Recorder)>,
    kubeconfig: Option<&Path>,
    node: &str,
    complaint: &Complaint,
) -> anyhow::Result<()> {
    let (client, recorder) = match publisher {
        Some(known) => known,
        None => {
            let client = apiserver::client(kubeconfig).await?;
            let reporter = Reporter { controller: CONTROLLER.to_owned(), instance: Some(node.to_owned()) };
            publisher.insert((client.clone(), Recorder::new(client, reporter)))
        }
    };
    let services: Api<Service> = Api::namespaced(client.clone(), &complaint.service.namespace);
    // Its uid makes `kubectl describe` find the Event. A Service that is gone needs none.
    let Some(service) = services.get_opt(&complaint.service.name).await? else { return Ok(()) };
    let about: ObjectReference = service.object_ref(&());
    Ok(recorder.publish(&event(complaint, node), &about).await?)
}

fn event(complaint: &Complaint, node: &str) -> Event {
    let Complaint { frontend, reason, .. } = complaint;
    Event {
        type_: EventType::Warning,
        reason: REASON.to_owned(),
        note: Some(format!("{frontend} is not served as it should be on node {node}: {reason}")),
        action: ACTION.to_owned(),
        secondary: None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dataplane_plan::{FrontendKey, Protocol, Scope, ServiceName};
    use tokio::sync::mpsc;

    use super::{Refusals, TOLD_MAX, news};
    use crate::reconcile::Refusal;

    fn key(port: u16) -> FrontendKey {
        FrontendKey { address: [10, 96, 0, 1].into(), port, protocol: Protocol::Tcp, scope: Scope::Address }
    }

    fn refused(ports: std::ops::Range<u16>, reason: &str) -> BTreeMap<FrontendKey, Refusal> {
        let service = Some(ServiceName { namespace: "a".into(), name: "web".into() });
        ports.map(|port| (key(port), Refusal { service: service.clone(), reason: reason.to_owned() })).collect()
    }

    #[test]
    fn each_refusal_is_news_once() {
        let first = news(&BTreeMap::new(), &refused(1..3, "full"));
        assert_eq!(first.begun.len(), 2);
        assert_eq!(news(&refused(1..3, "full"), &refused(1..3, "failed")), super::News::default());
        assert_eq!(news(&refused(1..3, "full"), &refused(2..3, "full")).ended, [key(1)]);
    }

    #[test]
    fn complaints_are_bounded_and_never_wait() {
        let (sender, mut complaints) = mpsc::channel(3);
        let mut refusals = Refusals::new(Some(sender));
        refusals.tell(&refused(0..1_000, "full"));
        assert_eq!(complaints.len(), 3);
        assert_eq!(complaints.try_recv().map(|complaint| complaint.frontend), Ok(key(0)));
        let (sender, complaints) = mpsc::channel(1_000);
        let mut refusals = Refusals::new(Some(sender));
        for _ in 0..2 {
            refusals.tell(&refused(0..1_000, "full"));
        }
        assert_eq!(complaints.len(), TOLD_MAX);
    }
}
