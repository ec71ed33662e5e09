//! The server side of SPDY/3.1: many streams of bytes over one connection, as `kubectl port-forward` wants them.
//!
//! `frame` is what goes over the wire, `headers` its compressed part; this is the session. There is no flow control: the
//! peers that matter know none, so a stream whose bytes nobody takes holds up the others, until it is reset.

mod frame;
mod headers;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use frame::{Decoder, Encoder, Frame, ResetCode};
pub(crate) use headers::Headers;

/// Streams that may be open at once.
const STREAMS_MAX: usize = 2048;
/// Frames of one stream that wait to be taken.
const QUEUED_FRAMES: usize = 128;
/// Frames of all streams that wait to be written.
const OUTGOING_FRAMES: usize = 16;
/// Longest data frame that is sent.
const DATA_BYTES_MAX: usize = 64 << 10;
const READ_BYTES: usize = 32 << 10;
/// After the last word, for the client to close.
const GOODBYE_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}")]
    Headers(&'static str),
    #[error("frame has {0} bytes")]
    FrameTooLong(usize),
    #[error("frame is of SPDY version {0}")]
    Version(u16),
    #[error("frame of type {0} is cut")]
    Cut(u16),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// One connection.
pub(crate) struct Session {
    incoming: mpsc::Receiver<Stream>,
    outgoing: mpsc::Sender<Outgoing>,
    /// Cancelled when the connection has ended.
    pub(crate) gone: CancellationToken,
    reader: JoinHandle<()>,
}

/// One stream of a session, opened by the client.
pub(crate) struct Stream {
    pub(crate) headers: Headers,
    pub(crate) reader: mpsc::Receiver<Bytes>,
    pub(crate) writer: StreamWriter,
}

/// The way back to the client.
pub(crate) struct StreamWriter {
    id: u32,
    outgoing: mpsc::Sender<Outgoing>,
    /// Cancelled when the client has reset the stream, or has gone.
    pub(crate) reset: CancellationToken,
    streams: Streams,
}

#[derive(Debug)]
enum Outgoing {
    Reply(u32),
    Data { id: u32, fin: bool, bytes: Bytes },
    Reset(u32, ResetCode),
    Ping(u32),
    GoAway,
}

type Streams = Arc<Mutex<HashMap<u32, Entry>>>;

struct Entry {
    /// Until the client has said that nothing more comes.
    queue: Option<mpsc::Sender<Bytes>>,
    reset: CancellationToken,
}

impl Session {
    /// Speaks over a connection. A stream whose bytes nobody takes for as long as `stall_max` is reset.
    pub(crate) fn start<T>(connection: T, stall_max: Option<Duration>) -> Self
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (input, output) = tokio::io::split(connection);
        let (sender, incoming) = mpsc::channel(1);
        let (outgoing, frames) = mpsc::channel(OUTGOING_FRAMES);
        let gone = CancellationToken::new();
        let reader = Reader {
            decoder: Decoder::new(),
            streams: Streams::default(),
            accepted: sender,
            outgoing: outgoing.clone(),
            stall_max,
            gone: gone.clone(),
        };
        let reader = tokio::spawn(reader.run(input));
        let writer_gone = gone.clone();
        tokio::spawn(async move {
            if let Err(error) = write(output, frames).await {
                tracing::debug!(%error, "SPDY connection cannot be written to");
                writer_gone.cancel();
            }
        });
        Self { incoming, outgoing, gone, reader }
    }

    /// The next stream that the client opens; `None` at the end of the connection.
    pub(crate) async fn accept(&mut self) -> Option<Stream> {
        self.incoming.recv().await
    }

    /// Ends the connection after everything that was sent.
    pub(crate) async fn close(self) {
        let _ = self.outgoing.send(Outgoing::GoAway).await;
        let abort = self.reader.abort_handle();
        if tokio::time::timeout(GOODBYE_MAX, self.reader).await.is_err() {
            abort.abort();
        }
    }
}

impl StreamWriter {
    /// False if the client is gone.
    pub(crate) async fn send(&self, mut bytes: Bytes) -> bool {
        while !bytes.is_empty() {
            let part = bytes.split_to(bytes.len().min(DATA_BYTES_MAX));
            if !self.put(Outgoing::Data { id: self.id, fin: false, bytes: part }).await {
                return false;
            }
        }
        true
    }

    /// Says that nothing more comes.
    pub(crate) async fn finish(&self) {
        self.put(Outgoing::Data { id: self.id, fin: true, bytes: Bytes::new() }).await;
    }

    pub(crate) async fn abort(&self) {
        self.put(Outgoing::Reset(self.id, ResetCode::Cancel)).await;
    }

    async fn put(&self, frame: Outgoing) -> bool {
        tokio::select! {
            sent = self.outgoing.send(frame) => sent.is_ok(),
            () = self.reset.cancelled() => false,
        }
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        self.streams.lock().remove(&self.id);
    }
}

struct Reader {
    decoder: Decoder,
    streams: Streams,
    accepted: mpsc::Sender<Stream>,
    outgoing: mpsc::Sender<Outgoing>,
    stall_max: Option<Duration>,
    gone: CancellationToken,
}

impl Reader {
    async fn run<T: AsyncRead>(mut self, mut input: ReadHalf<T>) {
        let gone = self.gone.clone();
        let result = tokio::select! {
            result = self.read(&mut input) => result,
            () = gone.cancelled() => Ok(()),
        };
        if let Err(error) = result {
            tracing::debug!(%error, "SPDY session ended");
        }
        self.gone.cancel();
        for (_, entry) in self.streams.lock().drain() {
            entry.reset.cancel();
        }
    }

    async fn read<T: AsyncRead>(&mut self, input: &mut ReadHalf<T>) -> Result<(), Error> {
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        loop {
            while let Some(frame) = self.decoder.decode(&mut buffer)? {
                if !self.take(frame).await {
                    return Ok(());
                }
            }
            buffer.reserve(READ_BYTES);
            if input.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
    }

    /// False when nothing more is to be read.
    async fn take(&mut self, frame: Frame) -> bool {
        match frame {
            Frame::Open { id, fin, headers } => self.open(id, fin, headers).await,
            Frame::Data { id, fin, bytes } => {
                self.data(id, fin, bytes).await;
                true
            }
            Frame::Reset { id } => {
                if let Some(entry) = self.streams.lock().remove(&id) {
                    entry.reset.cancel();
                }
                true
            }
            Frame::Ping { id } => {
                // Ours would be even. A client that does not read needs no answer either.
                if id % 2 == 1 {
                    let _ = self.outgoing.try_send(Outgoing::Ping(id));
                }
                true
            }
            Frame::GoAway | Frame::Other => true,
        }
    }

    async fn open(&self, id: u32, fin: bool, headers: Headers) -> bool {
        let (queue, reader) = mpsc::channel(QUEUED_FRAMES);
        // A stream ends with its connection.
        let reset = self.gone.child_token();
        let refused = {
            let mut streams = self.streams.lock();
            if id.is_multiple_of(2) || streams.contains_key(&id) {
                Some(ResetCode::ProtocolError)
            } else if streams.len() >= STREAMS_MAX {
                Some(ResetCode::RefusedStream)
            } else {
                streams.insert(id, Entry { queue: (!fin).then_some(queue), reset: reset.clone() });
                None
            }
        };
        if let Some(code) = refused {
            return self.outgoing.send(Outgoing::Reset(id, code)).await.is_ok();
        }
        let writer = StreamWriter { id, outgoing: self.outgoing.clone(), reset, streams: Arc::clone(&self.streams) };
        let opened = self.outgoing.send(Outgoing::Reply(id)).await.is_ok();
        // Nobody takes new streams when the session is being closed.
        let _ = self.accepted.send(Stream { headers, reader, writer }).await;
        opened
    }

    async fn data(&self, id: u32, fin: bool, bytes: Bytes) {
        let entry = self.streams.lock().get(&id).map(|entry| entry.queue.clone());
        let Some(queue) = entry else {
            // It has ended here, and the client has yet to hear of it.
            let _ = self.outgoing.try_send(Outgoing::Reset(id, ResetCode::InvalidStream));
            return;
        };
        if let (Some(queue), false) = (queue, bytes.is_empty())
            && !self.deliver(&queue, bytes).await
        {
            if let Some(entry) = self.streams.lock().remove(&id) {
                entry.reset.cancel();
            }
            let _ = self.outgoing.send(Outgoing::Reset(id, ResetCode::Cancel)).await;
            return;
        }
        if fin && let Some(entry) = self.streams.lock().get_mut(&id) {
            entry.queue = None;
        }
    }

    /// False if nobody takes it for too long. Bytes that nobody wants any more are dropped.
    async fn deliver(&self, queue: &mpsc::Sender<Bytes>, bytes: Bytes) -> bool {
        let sent = queue.send(bytes);
        match self.stall_max {
            Some(limit) => tokio::time::timeout(limit, sent).await.is_ok(),
            None => {
                let _ = sent.await;
                true
            }
        }
    }
}

async fn write<T: AsyncWrite>(mut output: WriteHalf<T>, mut frames: mpsc::Receiver<Outgoing>) -> Result<(), Error> {
    let mut encoder = Encoder::new();
    let (mut buffer, mut last) = (BytesMut::new(), 0);
    while let Some(frame) = frames.recv().await {
        let mut next = Some(frame);
        // Whatever else is ready goes along.
        while let Some(frame) = next.take() {
            match frame {
                Outgoing::Reply(id) => {
                    last = id;
                    encoder.reply(id, &mut buffer)?;
                }
                Outgoing::Data { id, fin, bytes } => Encoder::data(id, fin, &bytes, &mut buffer),
                Outgoing::Reset(id, code) => Encoder::reset(id, code, &mut buffer),
                Outgoing::Ping(id) => Encoder::ping(id, &mut buffer),
                Outgoing::GoAway => {
                    Encoder::go_away(last, &mut buffer);
                    output.write_all_buf(&mut buffer).await?;
                    output.shutdown().await?;
                    return Ok(());
                }
            }
            if buffer.len() < DATA_BYTES_MAX {
                next = frames.try_recv().ok();
            }
        }
        output.write_all_buf(&mut buffer).await?;
        output.flush().await?;
    }
    Ok(())
}

/// What a client says that opens streams of these types, 1, 3 and so on, and writes to one of them.
#[cfg(test)]
pub(super) fn client_bytes(types: &[&str], id: u32, bytes: &[u8]) -> BytesMut {
    let (mut encoder, mut wire) = (Encoder::new(), BytesMut::new());
    for (stream, kind) in (1..).step_by(2).zip(types) {
        encoder.open(stream, &[("streamtype", *kind)], &mut wire);
    }
    Encoder::data(id, false, bytes, &mut wire);
    wire
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;

    use super::*;

    fn session(stall_max: Option<Duration>) -> (Session, DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(256 << 10);
        (Session::start(ours, stall_max), theirs)
    }

    /// The frames that the server sends, until there is nothing more for a while.
    async fn hear(client: &mut DuplexStream, count: usize) -> Vec<Frame> {
        let (mut decoder, mut buffer, mut frames) = (Decoder::new(), BytesMut::new(), Vec::new());
        while frames.len() < count {
            assert!(client.read_buf(&mut buffer).await.unwrap() > 0, "after {frames:?}");
            while let Some(frame) = decoder.decode(&mut buffer).unwrap() {
                frames.push(frame);
            }
        }
        frames
    }

    #[tokio::test]
    async fn streams_go_both_ways_and_end_each_on_its_own() {
        let (mut session, mut client) = session(None);
        let (mut encoder, mut wire) = (Encoder::new(), BytesMut::new());
        encoder.open(1, &[("streamtype", "data")], &mut wire);
        Encoder::data(1, false, b"ping", &mut wire);
        Encoder::data(1, true, b"", &mut wire);
        Encoder::ping(3, &mut wire);
        client.write_all(&wire).await.unwrap();
        let mut stream = session.accept().await.unwrap();
        assert_eq!(stream.headers["streamtype"], "data");
        assert_eq!(stream.reader.recv().await.unwrap(), "ping");
        assert_eq!(stream.reader.recv().await, None);
        assert!(stream.writer.send(Bytes::from_static(b"pong")).await);
        stream.writer.finish().await;
        let frames = hear(&mut client, 4).await;
        assert!(frames.contains(&Frame::Ping { id: 3 }));
        assert!(frames.contains(&Frame::Data { id: 1, fin: false, bytes: Bytes::from_static(b"pong") }));
        assert!(frames.contains(&Frame::Data { id: 1, fin: true, bytes: Bytes::new() }));
        drop(client);
        assert!(session.accept().await.is_none());
        session.gone.cancelled().await;
    }

    #[tokio::test]
    async fn a_reset_ends_one_stream_and_bad_ones_are_refused() {
        let (mut session, mut client) = session(None);
        let (mut encoder, mut wire) = (Encoder::new(), BytesMut::new());
        for id in [1, 2, 3, 3] {
            encoder.open(id, &[], &mut wire);
        }
        Encoder::reset(1, ResetCode::Cancel, &mut wire);
        client.write_all(&wire).await.unwrap();
        let (first, third) = (session.accept().await.unwrap(), session.accept().await.unwrap());
        first.writer.reset.cancelled().await;
        assert!(!third.writer.reset.is_cancelled());
        let resets: Vec<_> =
            hear(&mut client, 4).await.into_iter().filter(|it| matches!(it, Frame::Reset { .. })).collect();
        assert_eq!(resets, [Frame::Reset { id: 2 }, Frame::Reset { id: 3 }]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_nobody_reads_does_not_stop_the_others_for_ever() {
        let (mut session, mut client) = session(Some(Duration::from_secs(30)));
        let (mut encoder, mut wire) = (Encoder::new(), BytesMut::new());
        encoder.open(1, &[], &mut wire);
        encoder.open(3, &[], &mut wire);
        for _ in 0..=QUEUED_FRAMES {
            Encoder::data(1, false, b"x", &mut wire);
        }
        Encoder::data(3, false, b"y", &mut wire);
        client.write_all(&wire).await.unwrap();
        let stuck = session.accept().await.unwrap();
        let mut other = session.accept().await.unwrap();
        assert_eq!(other.reader.recv().await.unwrap(), "y");
        assert!(stuck.writer.reset.is_cancelled());
    }

    #[tokio::test]
    async fn closing_sends_everything_first() {
        let (mut session, mut client) = session(None);
        let (mut encoder, mut wire) = (Encoder::new(), BytesMut::new());
        encoder.open(1, &[], &mut wire);
        client.write_all(&wire).await.unwrap();
        let stream = session.accept().await.unwrap();
        let big = Bytes::from(vec![7; 200 << 10]);
        assert!(stream.writer.send(big.clone()).await);
        stream.writer.finish().await;
        let closing = tokio::spawn(session.close());
        let mut got = 0;
        for frame in hear(&mut client, 7).await {
            if let Frame::Data { bytes, .. } = frame {
                got += bytes.len();
            }
        }
        assert_eq!(got, big.len());
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
        drop(client);
        closing.await.unwrap();
    }
}
