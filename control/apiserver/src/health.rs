//! Health, version, metrics: what load balancers and monitoring ask.

use control_api::status::Status;
use control_api::{KUBERNETES_MINOR as MINOR, KUBERNETES_RELEASE};
use http::StatusCode;
use serde_json::json;

use crate::handler::Context;
use crate::reply::{self, Reply};

/// `None` if the path is none of these.
pub(crate) fn answer(context: &Context, path: &str) -> Option<Reply> {
    Some(match path.trim_end_matches('/') {
        "/version" => Ok(reply::json(StatusCode::OK, &version())),
        "/metrics" => metrics(context),
        health => {
            let mut parts = health.strip_prefix('/')?.splitn(2, '/');
            let endpoint = parts.next().filter(|endpoint| matches!(*endpoint, "healthz" | "livez" | "readyz"))?;
            checks(context, endpoint, parts.next())
        }
    })
}

fn version() -> serde_json::Value {
    json!({
        "major": "1",
        "minor": MINOR,
        "gitVersion": format!("{KUBERNETES_RELEASE}+tidegate"),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, go_architecture()),
        "emulationMajor": "1",
        "emulationMinor": MINOR,
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35",
    })
}

fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn metrics(context: &Context) -> Reply {
    let server = &context.server;
    let body = server.metrics.render(server.store.revision());
    let body = body.map_err(|error| Status::internal(format!("cannot encode metrics: {error}")))?;
    Ok(reply::with_type(StatusCode::OK, prometheus::TEXT_FORMAT, reply::full(body)))
}

fn checks(context: &Context, endpoint: &str, only: Option<&str>) -> Reply {
    let server = &context.server;
    let store_works = futures::FutureExt::now_or_never(server.store.failed()).is_none();
    let mut all = vec![("ping", true), ("store", store_works)];
    if endpoint == "readyz" {
        all.push(("bootstrap", server.is_ready()));
        all.push(("shutdown", !server.shutdown.is_cancelled()));
    }
    if let Some(only) = only {
        // etcd is upstream's name for the store.
        all.retain(|(name, _)| *name == only || (*name == "store" && only == "etcd"));
        if all.is_empty() {
            return Err(Status::no_such_path());
        }
    }
    let healthy = all.iter().all(|(_, ok)| *ok);
    let code = if healthy { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
    if healthy && !context.info.query.has("verbose") {
        return Ok(reply::text(code, "ok"));
    }
    let mut body: String = all
        .iter()
        .map(|(name, ok)| if *ok { format!("[+]{name} ok\n") } else { format!("[-]{name} failed\n") })
        .collect();
    body.push_str(&format!("{endpoint} check {}\n", if healthy { "passed" } else { "failed" }));
    Ok(reply::text(code, body))
}
