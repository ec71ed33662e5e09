//! `pods/NAME/exec`, `attach` and `portforward`: whatever protocol the client wants to speak is spoken with the kubelet of
//! the pod's node; this server carries the bytes.

use std::time::Duration;

use bytes::Bytes;
use control_api::registry::Resource;
use http::{Request, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::authz::Attributes;
use crate::handler::Context;
use crate::log;
use crate::reply::{self, Reply};

/// Subresources that are conversations.
pub(crate) const SUBRESOURCES: [&str; 3] = ["attach", "exec", "portforward"];
/// After the kubelet's last word, for the client to hang up.
const GOODBYE_MAX: Duration = Duration::from_secs(5);
/// For both ends to have changed protocols.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(30);
const COPY_BYTES: usize = 16 << 10;

pub(crate) async fn connect(context: &Context, resource: &Resource, mut request: Request<Bytes>) -> Reply {
    let (server, info) = (&context.server, &context.info);
    // A WebSocket begins with GET, but is no less than what POST does.
    server.authorizer.require(&context.user, &Attributes { verb: "create", ..Attributes::of(info) }).await?;
    let pod = log::pod(context, resource).await?;
    let query = request.uri().query().unwrap_or_default();
    let path = if info.subresource == "portforward" {
        format!("/portForward/{}/{}", info.namespace, info.name)
    } else {
        let container = log::container(&pod, info.query.get("container"))?;
        format!("/{}/{}/{}/{container}?{}", info.subresource, info.namespace, info.name, kubelet_query(query))
    };
    let (kubelet, node) = log::kubelet_of(context, &pod).await?;
    let mut answer = kubelet.upgrade(&node, request.method().clone(), &path, request.headers()).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let text = log::error_text(answer).await;
        return Ok(reply::text(text.0, text.1));
    }
    let (client, kubelet) = (hyper::upgrade::on(&mut request), hyper::upgrade::on(&mut answer));
    let place = context.place.lock().take();
    let (shutdown, idle) = (server.shutdown.clone(), server.limits.stream_idle);
    tokio::spawn(async move {
        carry(client, kubelet, shutdown, idle).await;
        drop(place);
    });
    let (parts, _) = answer.into_parts();
    Ok(Response::from_parts(parts, reply::full("")))
}

/// The parameters of an exec or attach in the kubelet's words.
fn kubelet_query(query: &str) -> String {
    let mut out = form_urlencoded::Serializer::new(String::new());
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let name = match name.as_ref() {
            "stdin" => "input",
            "stdout" => "output",
            "stderr" => "error",
            "tty" => "tty",
            "command" => "command",
            _ => continue,
        };
        out.append_pair(name, &value);
    }
    out.finish()
}

async fn carry(client: OnUpgrade, kubelet: OnUpgrade, shutdown: CancellationToken, idle: Duration) {
    let upgraded = async { tokio::try_join!(client, kubelet) };
    let Ok(upgraded) = tokio::time::timeout(UPGRADE_TIMEOUT, upgraded).await else {
        return tracing::debug!("stream has not begun in time");
    };
    let (client, kubelet) = match upgraded {
        Ok((client, kubelet)) => (TokioIo::new(client), TokioIo::new(kubelet)),
        Err(error) => return tracing::debug!(%error, "stream has not begun"),
    };
    tokio::select! {
        () = converse(client, kubelet, idle) => {}
        () = shutdown.cancelled() => {}
    }
}

/// Carries bytes until the kubelet has nothing more to say, or for too long nobody had.
async fn converse<C, K>(client: C, kubelet: K, idle: Duration)
where
    C: AsyncRead + AsyncWrite,
    K: AsyncRead + AsyncWrite,
{
    let (mut client_reader, mut client_writer) = tokio::io::split(client);
    let (mut kubelet_reader, mut kubelet_writer) = tokio::io::split(kubelet);
    let heard = Mutex::new(Instant::now());
    let up = async {
        // An error is an end, too.
        let _ = copy(&mut client_reader, &mut kubelet_writer, &heard).await;
        let _ = kubelet_writer.shutdown().await;
    };
    let down = async {
        let _ = copy(&mut kubelet_reader, &mut client_writer, &heard).await;
        let _ = client_writer.shutdown().await;
    };
    tokio::pin!(up);
    tokio::pin!(down);
    tokio::select! {
        () = &mut down => {
            // Closing with something unread would take back what the client has yet to read.
            let _ = tokio::time::timeout(GOODBYE_MAX, up).await;
        }
        () = &mut up => {
            tokio::select! {
                () = &mut down => {}
                () = silence(&heard, idle) => tracing::debug!("idle stream ended"),
            }
        }
        () = silence(&heard, idle) => tracing::debug!("idle stream ended"),
    }
}

async fn copy<R, W>(reader: &mut R, writer: &mut W, heard: &Mutex<Instant>) -> std::io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let read = reader.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        *heard.lock() = Instant::now();
        writer.write_all(&buffer[..read]).await?;
        writer.flush().await?;
    }
}

/// Returns once nothing has been heard for this long.
async fn silence(heard: &Mutex<Instant>, idle: Duration) {
    loop {
        let end = *heard.lock() + idle;
        if Instant::now() >= end {
            return;
        }
        tokio::time::sleep_until(end).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_is_translated_and_keeps_every_argument() {
        let query = "command=sh&command=-c&command=echo+a%26b&container=main&stdin=true&stdout=true&stderr=false&tty=1";
        let want = "command=sh&command=-c&command=echo+a%26b&input=true&output=true&error=false&tty=1";
        assert_eq!(kubelet_query(query), want);
        assert_eq!(kubelet_query(""), "");
    }

    #[tokio::test]
    async fn both_directions_end_each_on_its_own() {
        let (mut client, ours) = tokio::io::duplex(64);
        let (theirs, mut kubelet) = tokio::io::duplex(64);
        let carried = tokio::spawn(converse(ours, theirs, Duration::from_secs(60)));
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut text = String::new();
        kubelet.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "question");
        kubelet.write_all(b"answer").await.unwrap();
        drop(kubelet);
        text.clear();
        client.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "answer");
        carried.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_on_which_nobody_speaks_ends() {
        let (mut client, ours) = tokio::io::duplex(64);
        let (theirs, mut kubelet) = tokio::io::duplex(64);
        let carried = tokio::spawn(converse(ours, theirs, Duration::from_secs(100)));
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(80)).await;
            client.write_all(b"x").await.unwrap();
            kubelet.read_exact(&mut [0]).await.unwrap();
        }
        assert!(!carried.is_finished());
        let before = Instant::now();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        assert!(before.elapsed() >= Duration::from_secs(99));
        carried.await.unwrap();
    }
}
