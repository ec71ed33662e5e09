//! Sockets: accepting, TLS, limits per connection, and an orderly end.

use std::convert::Infallible;
use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use http::StatusCode;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::connection::{Activity, Addresses, Unstalled};
use crate::limits::Limits;
use crate::state::Server;
use crate::{authn, bootstrap, handler, reply, tls};

const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long running requests may take to end after the token is cancelled.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// After a failed accept (no descriptors left), so that it does not spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// Serves until the token is cancelled.
///
/// # Errors
/// If the configuration is unusable, or the store fails while serving.
pub async fn serve(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let tls = TlsAcceptor::from(Arc::new(tls::server(&config.tls)?));
    let listeners = listeners(&config)?;
    let server = Server::new(&config, shutdown.clone())?;
    let mut tasks = bootstrap::start(&server).await.context("cannot prepare the cluster's first objects")?;
    let connections = TaskTracker::new();
    let acceptor = Arc::new(Acceptor {
        server: Arc::clone(&server),
        tls,
        permits: Semaphore::new(config.limits.connections),
        addresses: Arc::default(),
        connections: connections.clone(),
        shutdown: shutdown.clone(),
    });
    let accepting: Vec<_> =
        listeners.into_iter().map(|listener| tokio::spawn(Arc::clone(&acceptor).run(listener))).collect();
    server.set_ready();
    tracing::info!(listeners = accepting.len(), "API server ready");
    let result = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        error = server.store.failed() => Err(anyhow::Error::new(error)),
        () = tasks.ended() => Err(anyhow::anyhow!("a background task of the API server panicked")),
    };
    // A failed store ends everything that a cancelled token would.
    shutdown.cancel();
    for task in accepting {
        // A listener that panicked has been reported by tokio already.
        let _ = task.await;
    }
    connections.close();
    if tokio::time::timeout(DRAIN_TIMEOUT, connections.wait()).await.is_err() {
        tracing::warn!("connections still open after the drain timeout");
    }
    tasks.shutdown().await;
    result
}

fn listeners(config: &Config) -> anyhow::Result<Vec<tokio::net::TcpListener>> {
    let adopt = |listener: &TcpListener| {
        let listener = listener.try_clone()?;
        listener.set_nonblocking(true)?;
        tokio::net::TcpListener::from_std(listener)
    };
    config.listeners.iter().map(adopt).collect::<Result<_, _>>().context("cannot adopt a listener")
}

struct Acceptor {
    server: Arc<Server>,
    tls: TlsAcceptor,
    permits: Semaphore,
    addresses: Arc<Addresses>,
    connections: TaskTracker,
    shutdown: CancellationToken,
}

impl Acceptor {
    async fn run(self: Arc<Self>, listener: tokio::net::TcpListener) {
        loop {
            let accepted = tokio::select! {
                () = self.shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    drop(self.connections.spawn(Arc::clone(&self).connection(stream, peer.ip())));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, address: IpAddr) {
        let limits = &self.server.limits;
        let Some(_place) = self.addresses.take(address, limits.connections_per_address) else {
            return tracing::debug!(%address, max = limits.connections_per_address, "too many connections of one address");
        };
        let Ok(_permit) = self.permits.try_acquire() else {
            return tracing::debug!(%address, max = limits.connections, "too many connections");
        };
        // Requests are small and waited for.
        let _ = stream.set_nodelay(true);
        let stream = match tokio::time::timeout(limits.handshake, self.tls.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
            Err(_) => return tracing::debug!("TLS handshake timed out"),
        };
        let session = stream.get_ref().1;
        let is_http2 = session.alpn_protocol() == Some(b"h2");
        let leaf = session.peer_certificates().and_then(|chain| chain.first());
        let user = leaf.and_then(|leaf| authn::certificate::user(leaf)).map(Arc::new);
        let activity = Activity::new();
        let stream = Unstalled::new(stream, Arc::clone(&activity), limits.stall);
        let service = service_fn(|request| {
            let (server, user, asked) = (Arc::clone(&self.server), user.clone(), activity.begin());
            async move {
                let response = handler::handle(server, user, request).await;
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    asked.upgrade();
                }
                Ok::<_, Infallible>(reply::holding(response, asked))
            }
        });
        let builder = builder(limits, is_http2);
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = self.shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            () = activity.idle(limits.idle) => {
                connection.as_mut().graceful_shutdown();
                let farewell = tokio::time::timeout(DRAIN_TIMEOUT, connection);
                farewell.await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = result {
            tracing::debug!(%error, "connection ended");
        }
    }
}

/// The protocol is what the handshake agreed on: looking for it in what a client sends would wait without a limit.
fn builder(limits: &Limits, is_http2: bool) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.head).max_buf_size(limits.head_bytes as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.head_bytes)
        .keep_alive_interval(HTTP2_PING_INTERVAL);
    if is_http2 { builder.http2_only() } else { builder.http1_only() }
}
