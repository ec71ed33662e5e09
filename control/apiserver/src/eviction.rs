//! The `eviction` subresource of pods: a deletion that asks the pod's disruption budget first.

use std::sync::Arc;

use bytes::Bytes;
use control_api::meta;
use control_api::registry::{GroupVersionKind, Resource};
use control_api::schema::time::seconds;
use control_api::selector::LabelSelector;
use control_api::status::Status;
use control_store::{Error, Op, Range};
use http::StatusCode;
use serde_json::{Value, json};

use crate::delete::{self, Options};
use crate::handler::Context;
use crate::negotiate::{self, Offer};
use crate::reply::{self, Reply};
use crate::state::{parse, store_failure};
use crate::{body, object};

const ATTEMPTS_MAX: usize = 20;
/// Approved evictions that the disruption controller has not seen yet.
const DISRUPTED_PODS_MAX: usize = 2000;
const RETRY_SECONDS: u32 = 10;
const BLOCKED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
const CAUSE: &str = "DisruptionBudget";

/// Deletes a pod if its budget allows.
pub(crate) async fn evict(context: &Context, resource: &Arc<Resource>, body: Bytes) -> Reply {
    let wanted = negotiate::accept(&context.headers, Offer::Objects)?;
    let eviction = body::object(context, &GroupVersionKind::new("policy", "v1", "Eviction"), &body)?;
    let info = &context.info;
    if meta::name(&eviction) != info.name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let mut options = Options::of(context, &eviction["deleteOptions"])?;
    let found = context.server.read(resource, &info.namespace, &info.name).await?;
    let (_, pod) = found.ok_or_else(|| Status::not_found("", "pods", &info.name))?;
    let mut unhealthy_under = None;
    if !disrupts_nobody(&pod) {
        match approve(context, &pod, options.dry_run).await? {
            // The pod must still be what it was when its budget was asked.
            Approval::ByState(budget) if options.resource_version.is_none() => {
                options.resource_version = Some(meta::resource_version(&pod).to_owned());
                unhealthy_under = Some(budget);
            }
            Approval::Charged if options.resource_version.is_none() && !options.dry_run => {
                mark(context, resource).await?;
            }
            _ => {}
        }
    }
    match (delete::delete(context, resource, &info.namespace, &info.name, &options).await, unhealthy_under) {
        (Err(status), Some(budget)) if status.code == 409 => Err(still_processed(&budget)),
        (result, _) => {
            result?;
            let success =
                json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
            reply::value(StatusCode::CREATED, &success, wanted)
        }
    }
}

/// Why an eviction may go on.
#[derive(Debug)]
enum Approval {
    /// There is no budget, or it has been charged.
    Charged,
    /// The pod is unhealthy and does not count under this budget, as long as it stays what it is.
    ByState(String),
}

/// Pods that serve nobody are deleted without a question.
fn disrupts_nobody(pod: &Value) -> bool {
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    matches!(phase, "Pending" | "Succeeded" | "Failed") || meta::deletion_timestamp(pod).is_some()
}

fn is_ready(pod: &Value) -> bool {
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

async fn approve(context: &Context, pod: &Value, dry_run: bool) -> Result<Approval, Status> {
    let resource = context.server.builtin("policy", "poddisruptionbudgets")?;
    let budgets = budgets_of(context, &resource, pod).await?;
    let budget = match budgets.as_slice() {
        [] => return Ok(Approval::Charged),
        [one] => one,
        _ => {
            let text =
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(Status::new(500, "InternalError", text));
        }
    };
    if !is_ready(pod) && spares_unhealthy(budget) {
        return Ok(Approval::ByState(meta::name(budget).to_owned()));
    }
    let name = meta::name(budget).to_owned();
    let charge = |budget: &mut Value| {
        check(budget)?;
        charge(budget, meta::name(pod), jiff::Timestamp::now());
        Ok(())
    };
    rewrite(context, &resource, &name, dry_run, charge).await?;
    Ok(Approval::Charged)
}

/// Unhealthy pods may go while enough others are healthy, or always if the budget says so.
fn spares_unhealthy(budget: &Value) -> bool {
    let status = &budget["status"];
    let (healthy, wanted) = (status["currentHealthy"].as_i64(), status["desiredHealthy"].as_i64().unwrap_or(0));
    let is_met = wanted > 0 && healthy.unwrap_or(0) >= wanted;
    is_met || budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
}

async fn budgets_of(context: &Context, resource: &Resource, pod: &Value) -> Result<Vec<Value>, Status> {
    let range = Range::prefix(&resource.prefix(meta::namespace(pod)));
    let page = context.server.store.range(range).await.map_err(store_failure)?;
    let all = page.entries.into_iter().map(|entry| parse(entry).map(|(_, budget)| budget));
    let mut found = Vec::new();
    for budget in all {
        let budget = budget?;
        if selects(&budget, pod) {
            found.push(budget);
        }
    }
    Ok(found)
}

/// A budget without any requirement selects every pod of its namespace; one without a selector selects none.
fn selects(budget: &Value, pod: &Value) -> bool {
    let selector = &budget["spec"]["selector"];
    !selector.is_null()
        && LabelSelector::from_object(selector).is_ok_and(|selector| selector.matches(meta::labels(pod)))
}

fn check(budget: &Value) -> Result<(), Status> {
    let name = meta::name(budget);
    let status = &budget["status"];
    if status["observedGeneration"].as_i64().unwrap_or(0) < meta::generation(budget) {
        return Err(still_processed(name));
    }
    let forbidden = |why: &str| Err(Status::forbidden("policy", "poddisruptionbudget", name, why));
    let allowed = status["disruptionsAllowed"].as_i64().unwrap_or(0);
    if allowed < 0 {
        return forbidden("pdb disruptions allowed is negative");
    }
    if status["disruptedPods"].as_object().is_some_and(|pods| pods.len() > DISRUPTED_PODS_MAX) {
        return forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller");
    }
    if allowed == 0 {
        let count = |field: &str| status[field].as_i64().unwrap_or(0);
        let cause = format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            count("desiredHealthy"),
            count("currentHealthy")
        );
        return Err(Status::new(429, "TooManyRequests", BLOCKED).with_cause(CAUSE, &cause, ""));
    }
    Ok(())
}

fn still_processed(budget: &str) -> Status {
    let cause = format!("The disruption budget {budget} is still being processed by the server.");
    Status::too_many_requests(BLOCKED, RETRY_SECONDS).with_cause(CAUSE, &cause, "")
}

/// Takes one disruption from the budget and tells its controller which pod is about to go.
fn charge(budget: &mut Value, pod: &str, now: jiff::Timestamp) {
    let left = budget["status"]["disruptionsAllowed"].as_i64().unwrap_or(0) - 1;
    let generation = meta::generation(budget);
    let status = &mut budget["status"];
    status["disruptionsAllowed"] = left.into();
    status["disruptedPods"][pod] = seconds(now).into();
    if left > 0 {
        return;
    }
    let condition = json!({
        "type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods", "message": "",
        "lastTransitionTime": seconds(now), "observedGeneration": generation,
    });
    set_condition(status, condition);
}

fn set_condition(status: &mut Value, condition: Value) {
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let Some(conditions) = status["conditions"].as_array_mut() else { return };
    match conditions.iter_mut().find(|found| found["type"] == condition["type"]) {
        Some(found) => *found = condition,
        None => conditions.push(condition),
    }
}

/// Tells why the pod ends, for those who must not count this as its own failure.
async fn mark(context: &Context, resource: &Resource) -> Result<(), Status> {
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting", "lastTransitionTime": seconds(jiff::Timestamp::now()),
    });
    rewrite(context, resource, &context.info.name, false, |pod| {
        set_condition(&mut pod["status"], condition.clone());
        Ok(())
    })
    .await
}

/// Reads, changes and writes an object of the request's namespace until nobody writes in between.
async fn rewrite(
    context: &Context,
    resource: &Resource,
    name: &str,
    dry_run: bool,
    change: impl Fn(&mut Value) -> Result<(), Status>,
) -> Result<(), Status> {
    for _ in 0..ATTEMPTS_MAX {
        let found = context.server.read(resource, &context.info.namespace, name).await?;
        let (entry, mut value) = found.ok_or_else(|| Status::not_found(&resource.group, &resource.plural, name))?;
        change(&mut value)?;
        if dry_run {
            return Ok(());
        }
        let op = Op::update(&entry.key, object::encode(&value), entry.revision);
        match context.server.store.txn(vec![op]).await {
            Ok(_) => return Ok(()),
            Err(Error::Conflict { .. }) => {}
            Err(error) => return Err(store_failure(error)),
        }
    }
    Err(Status::timeout(format!("couldn't update {} {name:?} due to conflicts", resource.kind), RETRY_SECONDS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(allowed: i64) -> Value {
        json!({"metadata": {"name": "b", "generation": 2}, "spec": {"selector": {"matchLabels": {"a": "b"}}},
            "status": {"observedGeneration": 2, "disruptionsAllowed": allowed, "desiredHealthy": 2, "currentHealthy": 2}})
    }

    #[test]
    fn a_spent_budget_blocks_and_says_why() {
        let status = check(&budget(0)).expect_err("blocked").to_json();
        assert_eq!((&status["code"], &status["message"]), (&json!(429), &json!(BLOCKED)));
        assert_eq!(
            status["details"]["causes"],
            json!([{"reason": "DisruptionBudget",
                "message": "The disruption budget b needs 2 healthy pods and has 2 currently"}])
        );
        let mut unseen = budget(1);
        unseen["metadata"]["generation"] = 3.into();
        assert_eq!(check(&unseen).expect_err("unseen").to_json()["details"]["retryAfterSeconds"], 10);
        assert!(check(&budget(1)).is_ok());
    }

    #[test]
    fn an_approved_eviction_is_charged_once() {
        let mut budget = budget(1);
        charge(&mut budget, "p", "2026-01-01T00:00:00Z".parse().expect("time"));
        assert_eq!(budget["status"]["disruptionsAllowed"], 0);
        assert_eq!(budget["status"]["disruptedPods"], json!({"p": "2026-01-01T00:00:00Z"}));
        assert_eq!(budget["status"]["conditions"][0]["reason"], "InsufficientPods");
    }

    #[test]
    fn budgets_select_by_label_and_unhealthy_pods_only_count_when_few_are_left() {
        let pod = json!({"metadata": {"labels": {"a": "b"}}});
        assert!(selects(&budget(1), &pod));
        assert!(!selects(&json!({"spec": {}}), &pod));
        assert!(selects(&json!({"spec": {"selector": {}}}), &pod));
        assert!(spares_unhealthy(&budget(0)));
        assert!(!spares_unhealthy(&json!({"status": {"currentHealthy": 1, "desiredHealthy": 2}})));
    }
}
