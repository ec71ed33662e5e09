//! One client's connection: how many its address has, whether anything is asked on it, and whether it takes what is sent.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

/// The connections of each address.
#[derive(Debug, Default)]
pub(crate) struct Addresses(Mutex<HashMap<IpAddr, usize>>);

/// A place that an open connection takes.
pub(crate) struct Place {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

impl Addresses {
    /// `None` if this address has as many as it may.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr, max: usize) -> Option<Place> {
        let address = address.to_canonical();
        let mut all = self.0.lock();
        let open = all.entry(address).or_default();
        if *open >= max {
            return None;
        }
        *open += 1;
        Some(Place { addresses: Arc::clone(self), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.addresses.0.lock();
        if let Some(open) = all.get_mut(&self.address) {
            *open -= 1;
            if *open == 0 {
                all.remove(&self.address);
            }
        }
    }
}

/// What goes on on a connection.
pub(crate) struct Activity {
    requests: watch::Sender<usize>,
    /// It has become a stream between client and kubelet: who reads slowly there has reasons.
    upgraded: AtomicBool,
}

/// A request, until its answer is out.
pub(crate) struct Asked(Arc<Activity>);

impl Activity {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { requests: watch::Sender::new(0), upgraded: AtomicBool::new(false) })
    }

    pub(crate) fn begin(self: &Arc<Self>) -> Asked {
        self.requests.send_modify(|requests| *requests += 1);
        Asked(Arc::clone(self))
    }

    /// Returns once nothing has been asked for this long.
    pub(crate) async fn idle(&self, timeout: Duration) {
        let mut requests = self.requests.subscribe();
        loop {
            // The sender lives as long as this.
            let _ = requests.wait_for(|requests| *requests == 0).await;
            if tokio::time::timeout(timeout, requests.changed()).await.is_err() {
                return;
            }
        }
    }
}

impl Asked {
    /// The connection is no longer one of requests.
    pub(crate) fn upgrade(&self) {
        self.0.upgraded.store(true, Ordering::Relaxed);
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.requests.send_modify(|requests| *requests -= 1);
    }
}

/// A stream whose other end must go on taking what is written.
pub(crate) struct Unstalled<S> {
    stream: S,
    activity: Arc<Activity>,
    timeout: Duration,
    /// Runs while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Unstalled<S> {
    pub(crate) fn new(stream: S, activity: Arc<Activity>, timeout: Duration) -> Self {
        Self { stream, activity, timeout, stalled: None }
    }

    fn judge<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() || self.activity.upgraded.load(Ordering::Relaxed) {
            self.stalled = None;
            return written;
        }
        let timeout = self.timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + timeout)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Unstalled<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Unstalled<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(context, buf);
        this.judge(context, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(context, bufs);
        this.judge(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(context);
        this.judge(context, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shut = Pin::new(&mut this.stream).poll_shutdown(context);
        this.judge(context, shut)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::AsyncWriteExt;

    use super::*;

    #[test]
    fn an_address_has_no_more_places_than_it_may() {
        let addresses = Arc::new(Addresses::default());
        let (one, other) = (IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from([10, 0, 0, 1]));
        let places: Vec<_> = (0..2).map(|_| addresses.take(one, 2).unwrap()).collect();
        assert!(addresses.take(one, 2).is_none());
        assert!(addresses.take("::ffff:127.0.0.1".parse().unwrap(), 2).is_none(), "the same address");
        assert!(addresses.take(other, 2).is_some());
        drop(places);
        assert!(addresses.take(one, 2).is_some());
        assert!(addresses.0.lock().is_empty(), "nothing is kept of those that left");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_only_when_nothing_is_asked() {
        let activity = Activity::new();
        let asked = activity.begin();
        let idle = activity.idle(Duration::from_secs(90));
        tokio::pin!(idle);
        assert!(tokio::time::timeout(Duration::from_secs(500), &mut idle).await.is_err());
        drop(asked);
        assert!(tokio::time::timeout(Duration::from_secs(89), &mut idle).await.is_err());
        drop(activity.begin());
        assert!(tokio::time::timeout(Duration::from_secs(89), &mut idle).await.is_err());
        tokio::time::timeout(Duration::from_secs(2), &mut idle).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_given_up() {
        let (stream, _client) = tokio::io::duplex(16);
        let mut stream = Unstalled::new(stream, Activity::new(), Duration::from_secs(300));
        let error = stream.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let (stream, _client) = tokio::io::duplex(16);
        let activity = Activity::new();
        activity.begin().upgrade();
        let mut stream = Unstalled::new(stream, activity, Duration::from_secs(300));
        let waits = tokio::time::timeout(Duration::from_secs(3600), stream.write_all(&[0; 64])).await;
        assert!(waits.is_err(), "a paused terminal is left alone");
    }
}
