//! Discovery, OpenAPI and token-key documents over HTTP.

use bytes::Bytes;
use control_api::discovery;
use control_api::openapi::swagger;
use control_api::status::Status;
use http::header::{ACCEPT, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use http::{Response, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::handler::Context;
use crate::reply::{self, Body, Reply};

const PATHS: [&str; 9] =
    ["/api", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"];

pub(crate) fn answer(context: &Context, path: &str) -> Reply {
    let registry = context.server.registry.load();
    let segments: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let document = match segments.as_slice() {
        ["api"] => return root(context, true),
        ["apis"] => return root(context, false),
        ["api", version] => discovery::api_resource_list(&registry, "", version),
        ["apis", group] => discovery::api_group(&registry, group),
        ["apis", group, version] => discovery::api_resource_list(&registry, group, version),
        ["openapi", "v2"] => return Ok(swagger(context)),
        ["openapi", "v3", rest @ ..] => return openapi(context, &rest.join("/")),
        [".well-known", "openid-configuration"] => Some(context.server.tokens.openid_configuration()),
        ["openid", "v1", "jwks"] => return Ok(jwks(context)),
        [] => Some(json!({"paths": PATHS})),
        _ => None,
    };
    Ok(reply::json(StatusCode::OK, &document.ok_or_else(Status::no_such_path)?))
}

fn jwks(context: &Context) -> Response<Body> {
    reply::with_type(StatusCode::OK, "application/jwk-set+json", reply::full(context.server.tokens.jwks().to_string()))
}

/// `/api` and `/apis`, whole trees for clients that can read them.
fn root(context: &Context, core: bool) -> Reply {
    let registry = context.server.registry.load();
    let version = aggregated_version(context);
    let (document, content_type) = match version {
        Some("v2") => (
            discovery::aggregated(&registry, core, "v2"),
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        ),
        Some(_) => (
            discovery::aggregated(&registry, core, "v2beta1"),
            "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        ),
        None if core => (discovery::api_versions(&server_address(context)), "application/json"),
        None => (discovery::api_group_list(&registry), "application/json"),
    };
    Ok(tagged(context, &document, content_type))
}

fn server_address(context: &Context) -> String {
    let advertised = &context.server.advertised;
    let address = advertised.addresses.first();
    address.map_or_else(String::new, |address| std::net::SocketAddr::new(*address, advertised.port).to_string())
}

/// The aggregated form that the client prefers over plain JSON.
fn aggregated_version(context: &Context) -> Option<&'static str> {
    let values = context.headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    for alternative in values.flat_map(|value| value.split(',')) {
        let parts: Vec<&str> = alternative.split(';').map(str::trim).collect();
        if !parts.contains(&"as=APIGroupDiscoveryList") {
            if matches!(parts[0], "application/json" | "*/*") {
                return None;
            }
            continue;
        }
        match parts.iter().find_map(|part| part.strip_prefix("v=")) {
            Some("v2") => return Some("v2"),
            Some("v2beta1") => return Some("v2beta1"),
            _ => {}
        }
    }
    None
}

/// Answers 304 if the client has this very document.
fn tagged(context: &Context, document: &Value, content_type: &'static str) -> Response<Body> {
    tagged_bytes(context, document.to_string().into(), content_type)
}

fn tagged_bytes(context: &Context, body: Bytes, content_type: &'static str) -> Response<Body> {
    let tag: String = Sha256::digest(&body).iter().map(|byte| format!("{byte:02X}")).collect();
    let tag = format!("\"{tag}\"");
    let known = context.headers.get(IF_NONE_MATCH).is_some_and(|value| value.as_bytes() == tag.as_bytes());
    let mut response = if known {
        reply::with_type(StatusCode::NOT_MODIFIED, content_type, reply::full(""))
    } else {
        reply::with_type(StatusCode::OK, content_type, reply::full(body))
    };
    if known {
        response.headers_mut().remove(CONTENT_TYPE);
    }
    if let Ok(value) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, value);
    }
    response.headers_mut().append(VARY, HeaderValue::from_static("Accept"));
    response
}

fn openapi(context: &Context, path: &str) -> Reply {
    let registry = context.server.registry.load();
    let body = context.server.openapi.document(&registry, path).ok_or_else(Status::no_such_path)?;
    Ok(reply::with_type(StatusCode::OK, "application/json", reply::full(body)))
}

/// Swagger 2.0: protobuf for those who ask for it, which all Go clients do, else JSON.
fn swagger(context: &Context) -> Response<Body> {
    let registry = context.server.registry.load_full();
    let document = context.server.openapi.swagger(&registry);
    let accepted = context.headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut types =
        accepted.flat_map(|value| value.split(',')).filter_map(|kind| kind.split(';').next()).map(str::trim);
    if types.any(|kind| swagger::PROTOBUF_MEDIA_TYPES.contains(&kind)) {
        let [_, content_type] = swagger::PROTOBUF_MEDIA_TYPES;
        return tagged_bytes(context, document.protobuf.clone(), content_type);
    }
    tagged_bytes(context, document.json.clone(), "application/json")
}
