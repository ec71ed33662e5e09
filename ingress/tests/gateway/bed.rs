//! What most tests start from: one gateway, one endpoint, one route.

use serde_json::json;

use crate::api_server::{ApiServer, Streaming};
use crate::backend::Backend;
use crate::objects::{class, ingress, rule, served};
use crate::process::Gateway;

/// A gateway with these arguments that sends everything for `a.test` to one endpoint.
pub(crate) async fn started(arguments: &[&str]) -> (ApiServer, Backend, Gateway) {
    let api = ApiServer::start(Streaming::Supported).await;
    class(&api);
    let web = Backend::start("web", 0).await;
    served(&api, "web", [&web]);
    ingress(&api, "main", json!({"rules": [rule("a.test", "Prefix", "/", "web")]}));
    let gateway = Gateway::start(&api, arguments).await;
    (api, web, gateway)
}
