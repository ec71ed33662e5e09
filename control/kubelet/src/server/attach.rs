//! `/attach`: a container's own process, in conversation with a client.

use control_runtime::AttachSpec;
use http::{Request, Response};
use hyper::body::Incoming;

use super::remote_command::{self, Client, Wanted};
use super::routes::{self, Body, Refusal, Routes};
use super::upgrade::switching;

pub(super) fn answer(
    routes: &Routes,
    mut request: Request<Incoming>,
    place: [&str; 3],
) -> Result<Response<Body>, Refusal> {
    let query = request.uri().query().unwrap_or_default();
    let wanted = Wanted::from_query(|name| routes::flag(query, name))?;
    let id = routes.running(place)?.id;
    let agreed = remote_command::agree(request.headers())?;
    let upgrade = hyper::upgrade::on(&mut request);
    let response = switching(&agreed);
    let runtime = routes.runtime.clone();
    tokio::spawn(async move {
        match Client::open(upgrade, &agreed, wanted).await {
            Ok(client) => {
                let Wanted { stdin, stdout, stderr, .. } = wanted;
                let process = runtime.attach(&id, AttachSpec { stdin, stdout, stderr }).await;
                client.converse(process, "attaching to").await;
            }
            Err(error) => tracing::info!(error = %format_args!("{error:#}"), "attach has not begun"),
        }
    });
    Ok(response)
}
