//! The stream under a client's HTTP session, plain or TLS, as pingora wants it.
//!
//! Pingora's own stream keeps large buffers for as long as a connection lives. This one holds output only between a
//! write and the next flush, so that an idle connection has no buffers here; and it gathers what is written in between,
//! so that a small response is one TLS record and one system call.

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::SslDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::connection::Client;
use super::head::{BadHead, HeadLimits, HeadWatch};
use super::progress::Progress;

/// The most output to gather: one TLS record.
const GATHER_MAX: usize = 16 * 1024;
/// How long a refused client may go on sending: closing at once would reset the connection, and the answer would be lost.
const LINGER: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct ClientStream<S> {
    io: S,
    pending: BytesMut,
    fd: RawFd,
    http2: bool,
    head: HeadWatch,
    progress: Arc<Progress>,
    /// Runs while a client whose header was refused may still be sending.
    lingering: Option<Pin<Box<Sleep>>>,
    ssl: Option<Arc<SslDigest>>,
    client: Option<Arc<ProxyDigest>>,
    socket: Arc<SocketDigest>,
}

impl<S> ClientStream<S> {
    pub(crate) fn new(io: S, fd: RawFd, local: SocketAddr, client: Client, http2: bool, limits: HeadLimits) -> Self {
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
            head: HeadWatch::new(limits, http2),
            progress: Arc::clone(&client.progress),
            lingering: None,
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

impl<S: AsyncRead + AsyncWrite + Unpin> ClientStream<S> {
    /// Reads at most `room` bytes.
    fn poll_read_some(&mut self, room: usize, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
        let before = buf.filled().len();
        let result = if buf.remaining() <= room {
            ready!(Pin::new(&mut self.io).poll_read(cx, buf))
        } else {
            let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
            let result = ready!(Pin::new(&mut self.io).poll_read(cx, &mut part));
            let read = part.filled().len();
            buf.advance(read);
            result
        };
        match result {
            Err(error) if is_gone(&error) => Poll::Ready(Ok(0)),
            result => Poll::Ready(result.map(|()| buf.filled().len() - before)),
        }
    }

    /// Reads a part of the header with this number, or begins to refuse it.
    fn poll_read_head(&mut self, number: u32, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.head.poll_room(number, cx) {
            Ok(room) => {
                let before = buf.filled().len();
                ready!(self.poll_read_some(room, cx, buf))?;
                match self.head.received(&buf.filled()[before..]) {
                    Ok(true) => self.progress.head_ends(),
                    Ok(false) => {}
                    Err(why) => {
                        buf.set_filled(before);
                        return self.refuse(why, cx);
                    }
                }
                Poll::Ready(Ok(()))
            }
            Err(why) => self.refuse(why, cx),
        }
    }

    fn refuse(&mut self, why: BadHead, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.progress.refuse(why);
        if !self.http2 {
            self.pending.extend_from_slice(why.answer().as_bytes());
        }
        self.lingering = Some(Box::pin(sleep(LINGER)));
        self.poll_linger(cx)
    }

    /// Sends the answer, discards what still comes, then has the connection cut. Never ready: there is nothing to read.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let over = self.lingering.as_mut().is_none_or(|timer| timer.as_mut().poll(cx).is_ready());
        if over || self.http2 || self.poll_answered_and_ended(cx).is_ready() {
            self.progress.cut();
        }
        Poll::Pending
    }

    fn poll_answered_and_ended(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
        let mut rest = [0; 4096];
        while ready!(self.poll_read_some(usize::MAX, cx, &mut ReadBuf::new(&mut rest)))? > 0 {}
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ClientStream<S> {
    /// Sends what was gathered before waiting for the client: a response header whose body is late must not wait too.
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_some() {
            return self.poll_linger(cx);
        }
        if !self.pending.is_empty() && self.poll_drain(cx)?.is_ready() {
            let _ = Pin::new(&mut self.io).poll_flush(cx)?;
        }
        match self.progress.head() {
            Some(number) => self.poll_read_head(number, cx, buf),
            None => self.poll_read_some(usize::MAX, cx, buf).map_ok(|_| ()),
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
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::{Client, ClientStream, GATHER_MAX, HeadLimits};

    fn pair() -> (ClientStream<tokio::io::DuplexStream>, tokio::io::DuplexStream) {
        let (near, far) = tokio::io::duplex(1 << 20);
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let limits = HeadLimits { timeout: Duration::from_secs(15), size_max: 8192, target_size_max: 4096 };
        (ClientStream::new(near, -1, address, Client::new(address, 1), false, limits), far)
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

    #[tokio::test(start_paused = true)]
    async fn a_header_has_a_size_and_a_time() {
        for (sent, pause, answer) in [
            ("x\r\n".to_owned() + &"x".repeat(9000), 0, "HTTP/1.1 431 "),
            ("x".repeat(5000), 0, "HTTP/1.1 414 "),
            ("x".repeat(100), 16, "HTTP/1.1 408 "),
            (String::new(), 16, ""),
        ] {
            let (mut near, mut far) = pair();
            let progress = std::sync::Arc::clone(&near.progress);
            progress.head_begins();
            let reader = tokio::spawn(async move {
                let mut got = Vec::new();
                near.read_to_end(&mut got).await.map(|_| got)
            });
            far.write_all(sent.as_bytes()).await.unwrap();
            tokio::time::sleep(Duration::from_secs(pause)).await;
            let mut got = String::new();
            far.read_to_string(&mut got).await.unwrap();
            assert!(got.starts_with(answer), "{got}");
            assert!(!reader.is_finished(), "the session gets no more to see");
            progress.until_cut().await;
            reader.abort();
        }
    }

    #[tokio::test]
    async fn a_header_of_just_the_size_passes_and_bodies_have_no_limit_here() {
        let (mut near, mut far) = pair();
        near.progress.head_begins();
        far.write_all(&[b"GET\n".as_slice(), &[b'h'; 8188]].concat()).await.unwrap();
        let mut got = vec![0; 8192];
        near.read_exact(&mut got).await.unwrap();
        near.progress.head_ends();
        far.write_all(&vec![b'b'; 100_000]).await.unwrap();
        let mut got = vec![0; 100_000];
        near.read_exact(&mut got).await.unwrap();
        near.progress.head_begins();
        far.write_all(b"next").await.unwrap();
        assert_eq!(near.read(&mut got).await.unwrap(), 4, "each header is counted anew");
    }
}
