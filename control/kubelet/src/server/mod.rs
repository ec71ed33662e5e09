//! The node's port 10250: logs, pods, health and metrics, for the API server alone (mutual TLS).
//!
//! `tls` decides who may connect, `routes` what is answered, `logs` streams container logs, `cri_log` reads their format.
//! `exec`, `attach` and `port_forward` leave HTTP: `upgrade` agrees on `websocket` or `spdy`, `remote_command` carries a
//! process's streams.

pub(crate) mod attach;
pub(crate) mod cri_log;
pub(crate) mod exec;
pub(crate) mod logs;
pub(crate) mod port_forward;
pub(crate) mod remote_command;
pub(crate) mod routes;
pub(crate) mod spdy;
pub(crate) mod tls;
pub(crate) mod upgrade;
pub(crate) mod websocket;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use routes::Routes;
use tls::Tls;

/// Accepts on every listener until the token is cancelled.
pub(crate) async fn serve(
    listeners: Vec<std::net::TcpListener>,
    tls: Arc<Tls>,
    routes: Arc<Routes>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let mut loops = tokio::task::JoinSet::new();
    for listener in listeners {
        let listener = TcpListener::from_std(listener).context("cannot use a listening socket")?;
        loops.spawn(accept(listener, Arc::clone(&tls), Arc::clone(&routes), shutdown.clone()));
    }
    while let Some(ended) = loops.join_next().await {
        ended.context("the server panicked")?;
    }
    Ok(())
}

async fn accept(listener: TcpListener, tls: Arc<Tls>, routes: Arc<Routes>, shutdown: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                tokio::spawn(connection(stream, peer, Arc::clone(&tls), Arc::clone(&routes)));
            }
            // Out of descriptors, most likely: more of the same does not help.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, tls: Arc<Tls>, routes: Arc<Routes>) {
    let stream = match tls.accept(stream).await {
        Ok(stream) => stream,
        Err(error) => return tracing::info!(%peer, error = %format!("{error:#}"), "connection refused"),
    };
    let service = service_fn(move |request| {
        let routes = Arc::clone(&routes);
        async move { Ok::<_, std::convert::Infallible>(routes.answer(request).await) }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    if let Err(error) = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
        tracing::debug!(%peer, error = %error, "connection ended");
    }
}

/// Listening sockets on these addresses.
pub(crate) fn bind(addresses: &[SocketAddr]) -> anyhow::Result<Vec<std::net::TcpListener>> {
    let listen = |address: &SocketAddr| {
        let listener = std::net::TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    addresses.iter().map(listen).collect()
}
