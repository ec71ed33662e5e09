//! Who may do what: `system:masters` may everything, nodes what their pods need, everybody else what RBAC grants.

mod node;
mod policy;

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use control_api::rbac::{self, Rule};
use control_api::status::Status;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

pub(crate) use policy::{Policy, Sources};

use crate::authn::{MASTERS, User};
use crate::request::RequestInfo;

/// What a request wants to do, as rules speak of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes<'a> {
    pub(crate) verb: &'a str,
    pub(crate) group: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    /// Of requests that are about no resource.
    pub(crate) path: &'a str,
    pub(crate) is_resource: bool,
}

impl<'a> Attributes<'a> {
    pub(crate) fn of(info: &'a RequestInfo) -> Self {
        Self {
            verb: info.verb,
            group: &info.group,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: &info.namespace,
            name: if info.name.is_empty() { selected_name(info) } else { &info.name },
            path: &info.path,
            is_resource: info.is_resource,
        }
    }

    /// As the spec of an access review says it.
    pub(crate) fn of_spec(spec: &'a Value) -> Self {
        let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
        let text = |value: &'a Value, name: &str| value[name].as_str().unwrap_or_default();
        Self {
            verb: if resource.is_object() { text(resource, "verb") } else { text(path, "verb") },
            group: text(resource, "group"),
            resource: text(resource, "resource"),
            subresource: text(resource, "subresource"),
            namespace: text(resource, "namespace"),
            name: text(resource, "name"),
            path: text(path, "path"),
            is_resource: resource.is_object(),
        }
    }

    fn request(&self) -> rbac::Request<'a> {
        let Self { verb, group, resource, subresource, name, path, .. } = *self;
        if self.is_resource {
            rbac::Request::Resource { verb, group, resource, subresource, name }
        } else {
            rbac::Request::Path { verb, path }
        }
    }

    /// `resource` or `resource/subresource`.
    fn qualified(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.to_owned()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }

    /// Upstream's words for what was refused.
    fn refusal(&self, user: &User) -> String {
        if !self.is_resource {
            return format!("User \"{}\" cannot {} path \"{}\"", user.name, self.verb, self.path);
        }
        let place = if self.namespace.is_empty() || self.resource == "namespaces" {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace \"{}\"", self.namespace)
        };
        format!(
            "User \"{}\" cannot {} resource \"{}\" in API group \"{}\" {place}",
            user.name,
            self.verb,
            self.qualified(),
            self.group
        )
    }
}

/// Lists and watches of one object may be granted by its name.
fn selected_name(info: &RequestInfo) -> &str {
    if !matches!(info.verb, "list" | "watch" | "deletecollection") {
        return "";
    }
    let terms = info.query.get("fieldSelector").unwrap_or_default().split(',');
    let mut names = terms.filter_map(|term| term.strip_prefix("metadata.name="));
    names.next().map_or("", |name| name.trim_start_matches('='))
}

/// The outcome of asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) allowed: bool,
    pub(crate) reason: String,
}

/// Holds the policy in force; [`crate::follow`] replaces it when RBAC objects change.
#[derive(Default)]
pub(crate) struct Authorizer {
    policy: ArcSwap<Policy>,
    nodes: node::Graph,
    followers: OnceLock<Vec<mpsc::UnboundedSender<Waiter>>>,
}

/// Told when a follower knows everything that was written before it was asked.
pub(crate) type Waiter = oneshot::Sender<()>;

impl Authorizer {
    pub(crate) fn publish(&self, policy: Policy) {
        self.policy.store(Arc::new(policy));
    }

    pub(crate) fn nodes(&self) -> &node::Graph {
        &self.nodes
    }

    /// Sets who keeps the policy and the graph of nodes up to date, once.
    pub(crate) fn follow(&self, followers: Vec<mpsc::UnboundedSender<Waiter>>) {
        self.followers.get_or_init(|| followers);
    }

    /// Waits until every write that was acknowledged before is known here.
    pub(crate) async fn catch_up(&self) {
        for follower in self.followers.get().into_iter().flatten() {
            let (waiter, told) = oneshot::channel();
            // A follower that has ended ends the server, too.
            if follower.send(waiter).is_ok() {
                let _ = told.await;
            }
        }
    }

    /// Nobody is refused what was granted before he asked: a node gets at what a pod uses the moment it sees the pod.
    pub(crate) async fn decide(&self, user: &User, attributes: &Attributes<'_>) -> Decision {
        let decision = self.decide_by_what_is_known(user, attributes);
        if decision.allowed {
            return decision;
        }
        self.catch_up().await;
        self.decide_by_what_is_known(user, attributes)
    }

    fn decide_by_what_is_known(&self, user: &User, attributes: &Attributes<'_>) -> Decision {
        if user.is_in(MASTERS) {
            return Decision { allowed: true, reason: String::new() };
        }
        if let Some(node) = user.node()
            && self.nodes.allows(node, attributes)
        {
            return Decision { allowed: true, reason: String::new() };
        }
        match self.policy.load().granting(user, attributes) {
            Some(binding) => Decision { allowed: true, reason: format!("RBAC: allowed by {binding}") },
            None => Decision { allowed: false, reason: String::new() },
        }
    }

    /// Every rule that applies to the user in this namespace (for reviews).
    pub(crate) fn rules(&self, user: &User, namespace: &str) -> Vec<Rule> {
        if user.is_in(MASTERS) {
            return Rule::everything();
        }
        self.policy.load().rules(user, namespace)
    }

    /// What a role (in a namespace) or a cluster role (empty) grants.
    pub(crate) fn role(&self, namespace: &str, name: &str) -> Option<Arc<Vec<Rule>>> {
        self.policy.load().role(namespace, name)
    }

    /// # Errors
    /// 403 in upstream's words.
    pub(crate) async fn require(&self, user: &User, attributes: &Attributes<'_>) -> Result<(), Status> {
        let decision = self.decide(user, attributes).await;
        if decision.allowed {
            return Ok(());
        }
        let why = attributes.refusal(user);
        if attributes.is_resource {
            return Err(Status::forbidden(attributes.group, attributes.resource, attributes.name, why));
        }
        Err(Status::new(403, "Forbidden", format!("forbidden: {why}")))
    }
}
