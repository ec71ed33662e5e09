//! Values that depend on other objects or on the cluster: priority, tolerations, the default ingress class.

use control_api::meta;
use control_api::status::Status;
use serde_json::{Value, json};

use super::{Operation, Request, Step, objects};

/// No runtime classes are served here, so that none can be asked for.
pub(super) struct RuntimeClass;
pub(super) struct Priority;
pub(super) struct DefaultTolerationSeconds;
pub(super) struct DefaultIngressClass;

const TOLERATION_SECONDS: i64 = 300;
const DEFAULT_CLASS_ANNOTATION: &str = "ingressclass.kubernetes.io/is-default-class";

#[async_trait::async_trait]
impl Step for RuntimeClass {
    async fn mutate(&self, request: &Request<'_>, pod: &mut Value) -> Result<(), Status> {
        let name = pod["spec"]["runtimeClassName"].as_str().unwrap_or_default();
        if name.is_empty() || !request.is(Operation::Create, "", "pods") {
            return Ok(());
        }
        Err(request.forbidden(meta::name(pod), format!("pod rejected: RuntimeClass {name:?} not found")))
    }
}

#[async_trait::async_trait]
impl Step for Priority {
    async fn mutate(&self, request: &Request<'_>, pod: &mut Value) -> Result<(), Status> {
        if !request.is(Operation::Create, "", "pods") {
            return Ok(());
        }
        let name = pod["spec"]["priorityClassName"].as_str().unwrap_or_default().to_owned();
        let class = if name.is_empty() {
            self.global_default(request).await?
        } else {
            Some(self.named(request, pod, &name).await?)
        };
        let priority = class.as_ref().and_then(|class| class["value"].as_i64()).unwrap_or(0);
        if let Some(asked) = pod["spec"]["priority"].as_i64().filter(|asked| *asked != priority) {
            let why = format!(
                "the integer value of priority ({asked}) must not be provided in pod spec; priority admission controller \
                 computed {priority} from the given PriorityClass name"
            );
            return Err(request.forbidden(meta::name(pod), why));
        }
        let spec = &mut pod["spec"];
        spec["priority"] = priority.into();
        let policy = class.as_ref().and_then(|class| class["preemptionPolicy"].as_str());
        if spec["preemptionPolicy"].is_null() {
            spec["preemptionPolicy"] = policy.unwrap_or("PreemptLowerPriority").into();
        }
        if let Some(class) = class.filter(|_| name.is_empty()) {
            spec["priorityClassName"] = meta::name(&class).into();
        }
        Ok(())
    }
}

impl Priority {
    async fn named(&self, request: &Request<'_>, pod: &Value, name: &str) -> Result<Value, Status> {
        let server = &request.context.server;
        let classes = server.builtin("scheduling.k8s.io", "priorityclasses")?;
        let found = server.read(&classes, "", name).await?;
        let missing = || request.forbidden(meta::name(pod), format!("no PriorityClass with name {name} was found"));
        found.map(|(_, class)| class).ok_or_else(missing)
    }

    async fn global_default(&self, request: &Request<'_>) -> Result<Option<Value>, Status> {
        let classes = all(request, "scheduling.k8s.io", "priorityclasses").await?;
        let defaults = classes.into_iter().filter(|class| class["globalDefault"] == true);
        Ok(defaults.min_by_key(|class| class["value"].as_i64()))
    }
}

#[async_trait::async_trait]
impl Step for DefaultTolerationSeconds {
    async fn mutate(&self, request: &Request<'_>, pod: &mut Value) -> Result<(), Status> {
        if !request.is(Operation::Create, "", "pods") {
            return Ok(());
        }
        for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
            let tolerations = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
            if tolerations.iter().any(|toleration| tolerates(toleration, key)) {
                continue;
            }
            let mut tolerations = tolerations;
            tolerations.push(json!({
                "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION_SECONDS,
            }));
            pod["spec"]["tolerations"] = tolerations.into();
        }
        Ok(())
    }
}

fn tolerates(toleration: &Value, key: &str) -> bool {
    let text = |field: &str| toleration[field].as_str().unwrap_or_default();
    (text("key") == key || text("key").is_empty()) && matches!(text("effect"), "NoExecute" | "")
}

#[async_trait::async_trait]
impl Step for DefaultIngressClass {
    async fn mutate(&self, request: &Request<'_>, ingress: &mut Value) -> Result<(), Status> {
        let named = !ingress["spec"]["ingressClassName"].is_null()
            || meta::annotation(ingress, "kubernetes.io/ingress.class").is_some();
        if !request.is(Operation::Create, "networking.k8s.io", "ingresses") || named {
            return Ok(());
        }
        let classes = all(request, "networking.k8s.io", "ingressclasses").await?;
        let defaults = classes.iter().filter(|class| meta::annotation(class, DEFAULT_CLASS_ANNOTATION) == Some("true"));
        // Of several defaults the newest counts, then the first name.
        let newest = defaults.min_by(|a, b| {
            let newer = meta::creation_timestamp(b).cmp(meta::creation_timestamp(a));
            newer.then_with(|| meta::name(a).cmp(meta::name(b)))
        });
        if let Some(class) = newest {
            ingress["spec"]["ingressClassName"] = meta::name(class).into();
        }
        Ok(())
    }
}

/// Every object of a cluster-scoped kind.
async fn all(request: &Request<'_>, group: &str, plural: &str) -> Result<Vec<Value>, Status> {
    Ok(objects(request, group, plural, "").await?.into_iter().map(|(_, object)| object).collect())
}
