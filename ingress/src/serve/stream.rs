//! The stream under a client's HTTP session, plain or TLS, as pingora wants it.
//!
//! Pingora's own stream keeps large buffers for as long as a connection lives. This one holds output only between a
//! write and the next flush, so that an idle connection has no buffers here; and it gathers what is written in between,
//! so that a small response is one TLS record and one system call.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::SslDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::connection::Client;

/// The most output to gather: one TLS record.
const GATHER_MAX: usize = 16 * 1024;

#[derive(Debug)]
pub(crate) struct ClientStream<S> {
    io: S,
    pending: BytesMut,
    fd: RawFd,
    http2: bool,
    ssl: Option<Arc<SslDigest>>,
    client: Option<Arc<ProxyDigest>>,
    socket: Arc<SocketDigest>,
}

impl<S> ClientStream<S> {
    pub(crate) fn new(io: S, fd: RawFd, local: SocketAddr, client: Client, http2: bool) -> Self {
        let socket = SocketDigest::from_raw_fd(fd);
        // Both cells are empty: the digest was made a line above.
        let _ = socket.peer_addr.set(Some(client.address.into()));
        let _ = socket.local_addr.set(Some(local.into()));
        let ssl = client.tls.as_ref().map(|tls| SslDigest::new(tls.cipher, tls.version, None, None, Vec::new()));
        Self {
            io,
            pending: BytesMut::new(),
            fd,
            http2,
            ssl: ssl.map(Arc::new),
            client: client.into_digest(),
            socket: Arc::new(socket),
        }
    }
}

impl<S: AsyncWrite + Unpin> ClientStream<S> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.pending.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.pending))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.pending.advance(written);
        }
        self.pending = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ClientStream<S> {
    /// Sends what was gathered before waiting for the client: a response header whose body is late must not wait too.
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.pending.is_empty() && self.poll_drain(cx)?.is_ready() {
            let _ = Pin::new(&mut self.io).poll_flush(cx)?;
        }
        match ready!(Pin::new(&mut self.io).poll_read(cx, buf)) {
            Err(error) if is_gone(&error) => Poll::Ready(Ok(())),
            result => Poll::Ready(result),
        }
    }
}

/// A client that vanishes, by a reset or without closing TLS, is at its end like one that closes: HTTP has its own
/// framing to notice what was cut short, and pingora would log each one as an error.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ClientStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.pending.len() + buf.len() <= GATHER_MAX {
            self.pending.extend_from_slice(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len: usize = bufs.iter().map(|buf| buf.len()).sum();
        if self.pending.len() + len <= GATHER_MAX {
            for buf in bufs {
                self.pending.extend_from_slice(buf);
            }
            return Poll::Ready(Ok(len));
        }
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[async_trait]
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Shutdown for ClientStream<S> {
    async fn shutdown(&mut self) {
        if let Err(error) = AsyncWriteExt::shutdown(self).await {
            tracing::debug!(%error, "client connection did not close cleanly");
        }
    }
}

impl<S> UniqueID for ClientStream<S> {
    fn id(&self) -> i32 {
        self.fd
    }
}

impl<S> Ssl for ClientStream<S> {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.ssl.clone()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.http2.then_some(ALPN::H2)
    }
}

impl<S> GetTimingDigest for ClientStream<S> {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl<S> GetProxyDigest for ClientStream<S> {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.client.clone()
    }
}

impl<S> GetSocketDigest for ClientStream<S> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::clone(&self.socket))
    }
}

impl<S> Peek for ClientStream<S> {}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::{Client, ClientStream, GATHER_MAX};

    fn pair() -> (ClientStream<tokio::io::DuplexStream>, tokio::io::DuplexStream) {
        let (near, far) = tokio::io::duplex(1 << 20);
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        (ClientStream::new(near, -1, address, Client::new(address, 1), false), far)
    }

    #[tokio::test]
    async fn small_writes_arrive_together_at_the_flush() {
        let (mut near, mut far) = pair();
        near.write_all(b"head").await.unwrap();
        near.write_all(b"body").await.unwrap();
        assert_eq!(near.pending.len(), 8);
        near.flush().await.unwrap();
        let mut got = [0; 16];
        assert_eq!(far.read(&mut got).await.unwrap(), 8);
        assert_eq!((&got[..8], near.pending.capacity()), (&b"headbody"[..], 0));
    }

    #[tokio::test]
    async fn a_large_write_keeps_its_place() {
        let (mut near, mut far) = pair();
        near.write_all(b"x").await.unwrap();
        near.write_all(&vec![b'y'; GATHER_MAX * 2]).await.unwrap();
        near.write_all(b"z").await.unwrap();
        near.shutdown().await.unwrap();
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        assert_eq!((got.len(), got[0], got[got.len() - 1]), (GATHER_MAX * 2 + 2, b'x', b'z'));
    }

    #[tokio::test]
    async fn waiting_for_the_client_sends_what_was_written() {
        let (mut near, mut far) = pair();
        near.write_all(b"head").await.unwrap();
        let reader = tokio::spawn(async move {
            let mut got = [0; 1];
            near.read_exact(&mut got).await.map(|_| got[0])
        });
        let mut got = [0; 4];
        far.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"head");
        far.write_all(b"!").await.unwrap();
        assert_eq!(reader.await.unwrap().unwrap(), b'!');
    }
}
