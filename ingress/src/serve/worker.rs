//! The serving threads: accept loops, and the stages of shutting down.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use pingora::apps::ServerApp;
use pingora::protocols::Stream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::connection::Client;
use super::crowd::Crowd;
use super::head::HeadLimits;
use super::listen::{Listeners, Scheme};
use super::stream::ClientStream;
use super::{handshake, proxy_protocol, session};
use crate::proxy::{self, Proxy};
use crate::shared::Shared;

/// How long to stop accepting after an error such as "too many open files".
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The stages of a shutdown, in order.
#[derive(Clone, Debug)]
pub(crate) struct Signals {
    /// Becomes true: answers close their connections, HTTP/2 connections get GOAWAY.
    pub(crate) draining: watch::Receiver<bool>,
    /// No more connections are accepted.
    pub(crate) stop_accepting: CancellationToken,
    /// HTTP/1 connections that wait for a request are closed.
    pub(crate) close_idle: CancellationToken,
    /// Everything ends.
    pub(crate) stop: CancellationToken,
}

/// The running threads.
#[derive(Debug)]
pub(crate) struct Workers {
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    pub(crate) fn start(
        count: usize,
        listeners: &Listeners,
        shared: &Arc<Shared>,
        signals: &Signals,
    ) -> io::Result<Self> {
        let permits = Arc::new(Semaphore::new(shared.limits.connections().min(Semaphore::MAX_PERMITS)));
        let crowd = shared.limits.max_client_connections.map(|max| Arc::new(Crowd::new(max)));
        let threads = (0..count)
            .map(|index| {
                let (shared, signals, permits) = (Arc::clone(shared), signals.clone(), Arc::clone(&permits));
                let (sockets, drain_backlog, crowd) = (listeners.share()?, !listeners.inherited, crowd.clone());
                // Built here, so that a failure is the caller's to report.
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                std::thread::Builder::new().name(format!("ingress-{index}")).spawn(move || {
                    let server = |scheme, proxy: &Arc<Proxy>| Server {
                        scheme,
                        proxy: Arc::clone(proxy),
                        shared: Arc::clone(&shared),
                        permits: Arc::clone(&permits),
                        crowd: crowd.clone(),
                        draining: signals.draining.clone(),
                    };
                    if let Err(error) = runtime.block_on(serve(sockets, drain_backlog, &shared, server, &signals)) {
                        tracing::error!(%error, "serving thread ended");
                    }
                    runtime.shutdown_background();
                })
            })
            .collect::<io::Result<_>>()?;
        Ok(Self { threads })
    }

    pub(crate) fn join(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("serving thread panicked");
            }
        }
    }
}

async fn serve(
    sockets: Vec<(Scheme, std::net::TcpListener)>,
    drain_backlog: bool,
    shared: &Arc<Shared>,
    server: impl Fn(Scheme, &Arc<Proxy>) -> Server,
    signals: &Signals,
) -> io::Result<()> {
    let proxy = Arc::new(proxy::build(Arc::clone(shared)));
    for (scheme, socket) in sockets {
        let listener = TcpListener::from_std(socket)?;
        let stop = signals.stop_accepting.clone();
        tokio::spawn(accept_loop(listener, server(scheme, &proxy), stop, drain_backlog));
    }
    signals.close_idle.cancelled().await;
    ServerApp::cleanup(&*proxy).await;
    signals.stop.cancelled().await;
    Ok(())
}

#[derive(Clone)]
struct Server {
    scheme: Scheme,
    proxy: Arc<Proxy>,
    shared: Arc<Shared>,
    permits: Arc<Semaphore>,
    crowd: Option<Arc<Crowd>>,
    draining: watch::Receiver<bool>,
}

async fn accept_loop(listener: TcpListener, server: Server, stop: CancellationToken, drain_backlog: bool) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, address)) => {
                // At the limit the others wait in the socket, and this one here.
                let permit = tokio::select! {
                    () = stop.cancelled() => None,
                    permit = Arc::clone(&server.permits).acquire_owned() => permit.ok(),
                };
                server.spawn(tcp, address, permit);
            }
            Err(error) if is_the_connections_fault(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Connections that the kernel already accepted for us would be reset by closing the socket.
    while drain_backlog && let Some(Ok((tcp, address))) = now_or_never(listener.accept()).await {
        server.spawn(tcp, address, None);
    }
}

impl Server {
    fn spawn(&self, tcp: TcpStream, address: SocketAddr, permit: Option<OwnedSemaphorePermit>) {
        let server = self.clone();
        tokio::spawn(async move {
            let _open = server.shared.metrics.connection_opened(server.scheme);
            if let Err(error) = server.handle(tcp, address).await {
                tracing::debug!(client = %address, %error, "connection failed");
            }
            drop(permit);
        });
    }

    async fn handle(&self, mut tcp: TcpStream, peer: SocketAddr) -> io::Result<()> {
        tcp.set_nodelay(true)?;
        let (fd, local) = (tcp.as_raw_fd(), tcp.local_addr()?);
        let limits = &self.shared.limits;
        let mut client = Client::new(peer, local.port());
        if limits.proxy_protocol {
            let announced = proxy_protocol::accept(&mut tcp, limits.trusts(peer.ip())).await;
            let announced = announced.inspect_err(|_| self.shared.metrics.refused("proxy_protocol"));
            if let Some(path) = announced.map_err(io::Error::other)? {
                client = Client::new(path.source, path.destination.port());
            }
        }
        let ip = client.address.ip();
        let place = self.crowd.as_ref().filter(|_| !limits.trusts(ip)).map(|crowd| crowd.admit(ip));
        if place.as_ref().is_some_and(Option::is_none) {
            self.shared.metrics.refused("client_connections");
            return Err(io::Error::other("client has too many connections"));
        }
        let progress = Arc::clone(&client.progress);
        let head = HeadLimits {
            timeout: limits.header_timeout,
            size_max: limits.header_size_max as usize,
            target_size_max: limits.target_size_max as usize,
        };
        let (stream, http2): (Stream, bool) = match self.scheme {
            Scheme::Http => (Box::new(ClientStream::new(tcp, fd, local, client, false, head)), false),
            Scheme::Https => match handshake::accept(tcp, &self.shared).await {
                Ok((tls, info, http2)) => {
                    self.shared.metrics.handshake("ok");
                    client.tls = Some(info);
                    (Box::new(ClientStream::new(tls, fd, local, client, http2, head)), http2)
                }
                Err(error) => {
                    self.shared.metrics.handshake(error.label());
                    return Err(io::Error::other(error));
                }
            },
        };
        session::serve(&self.proxy, stream, http2, &progress, &self.draining).await;
        if let Some(refusal) = progress.refusal() {
            self.shared.metrics.refused(refusal.as_str());
            tracing::debug!(client = %peer, reason = refusal.as_str(), "header refused");
        }
        Ok(())
    }
}

fn is_the_connections_fault(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn now_or_never<F: Future>(future: F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = std::future::ready(()) => None,
    }
}
