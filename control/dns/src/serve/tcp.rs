//! Connections: questions one after the other, each with its length before it.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::message::Transport;
use crate::responder::{Responder, Step};

/// Connections of one listener at once; more wait in the kernel.
const CONNECTIONS_MAX: usize = 512;
/// How long a client may take for a question, or to take in an answer.
const PATIENCE: Duration = Duration::from_secs(10);
const ERROR_PAUSE: Duration = Duration::from_millis(10);

pub(super) async fn serve(listener: TcpListener, responder: Arc<Responder>) -> Infallible {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // The semaphore is never closed.
        let permit = Arc::clone(&permits).acquire_owned().await.ok();
        match listener.accept().await {
            Ok((stream, client)) => {
                let responder = Arc::clone(&responder);
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, &responder).await {
                        tracing::debug!(%client, %error, "connection ended");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "cannot accept");
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }
}

async fn converse(mut stream: TcpStream, responder: &Responder) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    loop {
        let Ok(len) = timeout(PATIENCE, stream.read_u16()).await? else { return Ok(()) };
        buffer.resize(len.into(), 0);
        timeout(PATIENCE, stream.read_exact(&mut buffer)).await??;
        let bytes = match responder.begin(&buffer, Transport::Tcp) {
            Step::Done(None) => return Ok(()),
            Step::Done(Some(bytes)) => bytes,
            Step::Wait(pending) => responder.finish(*pending).await,
        };
        let len = u16::try_from(bytes.len()).map_err(io::Error::other)?;
        let framed = [&len.to_be_bytes(), bytes.as_slice()].concat();
        timeout(PATIENCE, stream.write_all(&framed)).await??;
    }
}
