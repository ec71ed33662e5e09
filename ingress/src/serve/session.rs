//! One connection of a client, from its stream to its end.

use std::sync::Arc;

use pingora::apps::{HttpServerApp, ReusedHttpStream, ServerApp};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use tokio::sync::watch;

use super::progress::Progress;
use crate::proxy::Proxy;

/// Serves until the client or a limit ends it.
pub(super) async fn serve(
    proxy: &Arc<Proxy>,
    stream: Stream,
    http2: bool,
    progress: &Progress,
    draining: &watch::Receiver<bool>,
) {
    let session = async {
        if http2 {
            progress.head_begins();
            proxy.process_new(stream, draining).await;
        } else {
            serve_http1(proxy, stream, progress, draining).await;
        }
    };
    tokio::select! {
        () = session => {}
        () = progress.until_cut() => {}
    }
}

/// As pingora does it, but told when each header begins.
async fn serve_http1(proxy: &Arc<Proxy>, stream: Stream, progress: &Progress, draining: &watch::Receiver<bool>) {
    let mut session = ServerSession::new_http1(stream);
    // Before its first request a connection has the time for a header, which the stream measures. Zero is no limit.
    session.set_keepalive((!*draining.borrow()).then_some(0));
    loop {
        session.set_pipelining_enabled(true);
        progress.head_begins();
        let reused = proxy.process_new_http(session, draining).await;
        let Some((stream, settings)) = reused.map(ReusedHttpStream::consume) else { return };
        session = ServerSession::new_http1(stream);
        if let Some(settings) = settings {
            settings.apply_to_session(&mut session);
        }
    }
}
