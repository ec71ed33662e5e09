//! LimitRanges of the namespace: fill in what pods leave unsaid, refuse what is out of bounds.

use control_api::status::Status;
use control_api::{limits, meta};
use serde_json::Value;

use super::{Operation, Request, Step, objects};

pub(super) struct LimitRanger;

#[async_trait::async_trait]
impl Step for LimitRanger {
    async fn mutate(&self, request: &Request<'_>, pod: &mut Value) -> Result<(), Status> {
        if request.is(Operation::Create, "", "pods") {
            for range in ranges(request, pod).await? {
                limits::fill_in(&range, pod);
            }
        }
        Ok(())
    }

    async fn validate(&self, request: &Request<'_>, pod: &Value) -> Result<(), Status> {
        if request.is(Operation::Create, "", "pods") {
            for range in ranges(request, pod).await? {
                if let Some(why) = limits::complaint(&range, pod) {
                    return Err(request.forbidden(meta::name(pod), why));
                }
            }
        }
        Ok(())
    }
}

async fn ranges(request: &Request<'_>, pod: &Value) -> Result<Vec<Value>, Status> {
    let found = objects(request, "", "limitranges", meta::namespace(pod)).await?;
    Ok(found.into_iter().map(|(_, range)| range).collect())
}
