//! `/exec`: a command in a container, in conversation with a client.

use control_runtime::ExecSpec;
use http::{Request, Response, StatusCode};
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
    let command: Vec<String> = form_urlencoded::parse(query.as_bytes())
        .filter(|(name, _)| name == "command")
        .map(|(_, value)| value.into_owned())
        .collect();
    if command.is_empty() {
        return Err((StatusCode::BAD_REQUEST, "you must specify at least 1 command for this exec".to_owned()));
    }
    let id = routes.running(place)?.id;
    let agreed = remote_command::agree(request.headers())?;
    let upgrade = hyper::upgrade::on(&mut request);
    let response = switching(&agreed);
    let runtime = routes.runtime.clone();
    tokio::spawn(async move {
        match Client::open(upgrade, &agreed, wanted).await {
            Ok(client) => {
                let Wanted { stdin, stdout, stderr, tty } = wanted;
                let process = runtime.exec(&id, ExecSpec { command, stdin, stdout, stderr, tty }).await;
                client.converse(process, "executing command in").await;
            }
            Err(error) => tracing::info!(error = %format_args!("{error:#}"), "exec has not begun"),
        }
    });
    Ok(response)
}
