//! `pods/NAME/log`: streamed from the kubelet of the pod's node.

use control_api::meta;
use control_api::registry::Resource;
use control_api::status::Status;
use futures::StreamExt;
use http::StatusCode;
use http_body_util::{BodyExt, BodyStream, Limited};
use hyper::body::Incoming;
use serde_json::Value;

use crate::handler::Context;
use crate::kubelet::Kubelet;
use crate::reply::{self, Reply};

const PARAMETERS: [&str; 8] =
    ["follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes", "stream"];
const ERROR_BYTES_MAX: usize = 64 << 10;

pub(crate) async fn get(context: &Context, resource: &Resource) -> Reply {
    let (server, info) = (&context.server, &context.info);
    let pod = pod(context, resource).await?;
    let container = container(&pod, info.query.get("container"))?;
    let (kubelet, node) = kubelet_of(context, &pod).await?;
    // Names of stored objects need no escaping in a path.
    let path = format!("/containerLogs/{}/{}/{container}?{}", info.namespace, info.name, query(context));
    let answer = kubelet.get(&node, &path).await?;
    if answer.status() != StatusCode::OK {
        return Err(refused(answer).await);
    }
    let shutdown = server.shutdown.clone();
    let chunks = BodyStream::new(answer.into_body()).map(|frame| match frame {
        Ok(frame) => Ok(frame.into_data().unwrap_or_default()),
        Err(error) => Err(std::io::Error::other(error)),
    });
    let chunks = chunks.take_until(async move { shutdown.cancelled().await });
    Ok(reply::with_type(StatusCode::OK, "text/plain", reply::stream(chunks)))
}

/// The pod that the request is about.
pub(crate) async fn pod(context: &Context, resource: &Resource) -> Result<Value, Status> {
    let info = &context.info;
    let found = context.server.read(resource, &info.namespace, &info.name).await?;
    let (_, pod) = found.ok_or_else(|| Status::not_found("", "pods", &info.name))?;
    Ok(pod)
}

/// The way to the kubelet of the pod's node, and that node.
pub(crate) async fn kubelet_of<'a>(context: &'a Context, pod: &Value) -> Result<(&'a Kubelet, Value), Status> {
    let server = &context.server;
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if node.is_empty() {
        return Err(Status::bad_request(format!("pod {} does not have a host assigned", context.info.name)));
    }
    let nodes = server.builtin("", "nodes")?;
    let found = server.read(&nodes, "", node).await?;
    let (_, node) = found.ok_or_else(|| Status::not_found("", "nodes", node))?;
    let kubelet = server.kubelet.as_ref();
    let kubelet = kubelet.ok_or_else(|| Status::unavailable("this server has no identity towards kubelets"))?;
    Ok((kubelet, node))
}

/// The parameters that mean something to a kubelet.
fn query(context: &Context) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for name in PARAMETERS {
        if let Some(value) = context.info.query.get(name) {
            query.append_pair(name, value);
        }
    }
    query.finish()
}

/// The named container, or the only one.
pub(crate) fn container<'a>(pod: &'a Value, wanted: Option<&'a str>) -> Result<&'a str, Status> {
    let names = |field: &str| -> Vec<&'a str> {
        pod["spec"][field].as_array().into_iter().flatten().filter_map(|container| container["name"].as_str()).collect()
    };
    let containers = names("containers");
    let init = names("initContainers");
    let Some(wanted) = wanted else {
        if let [only] = containers.as_slice() {
            return Ok(only);
        }
        let mut text = format!(
            "a container name must be specified for pod {}, choose one of: [{}]",
            meta::name(pod),
            containers.join(" ")
        );
        if !init.is_empty() {
            text.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
        }
        return Err(Status::bad_request(text));
    };
    let exists =
        containers.contains(&wanted) || init.contains(&wanted) || names("ephemeralContainers").contains(&wanted);
    if exists {
        Ok(wanted)
    } else {
        Err(Status::bad_request(format!("container {wanted} is not valid for pod {}", meta::name(pod))))
    }
}

async fn refused(answer: http::Response<Incoming>) -> Status {
    let (code, message) = error_text(answer).await;
    match code.as_u16() {
        400 => Status::bad_request(message),
        404 => Status::new(404, "NotFound", message),
        code => Status::internal(format!("kubelet answered {code}: {message}")),
    }
}

/// The kubelet's own words.
pub(crate) async fn error_text(answer: http::Response<Incoming>) -> (StatusCode, String) {
    let code = answer.status();
    let body = Limited::new(answer.into_body(), ERROR_BYTES_MAX).collect().await.map(|body| body.to_bytes());
    let body = body.unwrap_or_default();
    let text = String::from_utf8_lossy(&body);
    let message = match serde_json::from_slice::<Value>(&body) {
        Ok(status) if status["kind"] == "Status" => status["message"].as_str().unwrap_or_default().to_owned(),
        _ => text.trim().to_owned(),
    };
    (code, message)
}

#[cfg(test)]
mod tests {
    use super::container;
    use serde_json::json;

    #[test]
    fn the_container_must_be_named_if_there_are_several() {
        let one = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}]}});
        assert_eq!(container(&one, None).unwrap(), "a");
        assert_eq!(container(&one, Some("b")).unwrap_err().message, "container b is not valid for pod p");
        let two = json!({"metadata": {"name": "p"}, "spec": {
            "containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        assert_eq!(
            container(&two, None).unwrap_err().message,
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]"
        );
        assert_eq!(container(&two, Some("i")).unwrap(), "i");
    }
}
