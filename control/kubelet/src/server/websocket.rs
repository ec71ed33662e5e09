//! WebSocket connections: channels marked by their first byte, or one stream of bytes.

use std::io;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};
use tokio_util::sync::CancellationToken;

pub(super) const STDIN: u8 = 0;
pub(super) const STDOUT: u8 = 1;
pub(super) const STDERR: u8 = 2;
pub(super) const STATUS: u8 = 3;
pub(super) const RESIZE: u8 = 4;
/// Says that nothing more comes on the channel that follows.
const CLOSE: u8 = 255;

const MESSAGE_BYTES_MAX: usize = 4 << 20;
const BUFFER_BYTES: usize = 64 << 10;
/// Messages that wait for the process, or for the client.
const QUEUED_MESSAGES: usize = 16;
/// Clients give up on a server that says nothing for about a minute; their questions may be stuck behind input that
/// the process does not take.
const PONG_INTERVAL: Duration = Duration::from_secs(15);
/// After the last word, for the client to close.
const GOODBYE_MAX: Duration = Duration::from_secs(5);

/// How bytes are put into messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Binary,
    /// Text; the channel is a digit.
    Base64,
}

/// The channels of a command.
pub(super) struct Channels {
    pub(super) stdin: mpsc::Receiver<Bytes>,
    pub(super) resize: mpsc::Receiver<Bytes>,
    pub(super) out: mpsc::Sender<Out>,
    pub(super) connection: Connection,
}

#[derive(Debug)]
pub(super) enum Out {
    Bytes(u8, Bytes),
    Close,
}

/// The hold on the connection.
pub(super) struct Connection {
    /// Cancelled when the client has gone.
    pub(super) gone: CancellationToken,
    out: mpsc::Sender<Out>,
    reader: JoinHandle<()>,
}

impl Channels {
    pub(super) async fn open<T>(connection: T, framing: Framing) -> Self
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sink, stream) = accept(connection).await.split();
        let (stdin_sender, stdin) = mpsc::channel(QUEUED_MESSAGES);
        let (resize_sender, resize) = mpsc::channel(QUEUED_MESSAGES);
        let (out, messages) = mpsc::channel(QUEUED_MESSAGES);
        let gone = CancellationToken::new();
        let guard = gone.clone().drop_guard();
        let reader = tokio::spawn(async move {
            read(stream, framing, stdin_sender, resize_sender).await;
            drop(guard);
        });
        let guard = gone.clone();
        tokio::spawn(async move {
            if let Err(error) = write(sink, framing, messages).await {
                tracing::debug!(%error, "WebSocket cannot be written to");
                guard.cancel();
            }
        });
        Self { stdin, resize, out: out.clone(), connection: Connection { gone, out, reader } }
    }
}

impl Connection {
    /// Ends the connection after everything that was sent.
    pub(super) async fn close(self) {
        let _ = self.out.send(Out::Close).await;
        let abort = self.reader.abort_handle();
        if tokio::time::timeout(GOODBYE_MAX, self.reader).await.is_err() {
            abort.abort();
        }
    }
}

/// The messages of a connection as one stream of bytes.
pub(super) async fn tunnel<T>(connection: T) -> impl AsyncRead + AsyncWrite + Send + 'static
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sink, stream) = accept(connection).await.split();
    let bytes = stream.filter_map(|message| {
        std::future::ready(match message {
            Ok(Message::Binary(bytes)) => Some(Ok(bytes)),
            Ok(_) => None,
            Err(error) => Some(Err(io::Error::other(error))),
        })
    });
    let sink = sink.with(|bytes: Bytes| std::future::ready(Ok::<_, Error>(Message::Binary(bytes))));
    tokio::io::join(StreamReader::new(bytes), SinkWriter::new(CopyToBytes::new(sink.sink_map_err(io::Error::other))))
}

async fn accept<T: AsyncRead + AsyncWrite + Unpin>(connection: T) -> WebSocketStream<T> {
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    WebSocketStream::from_raw_socket(connection, Role::Server, Some(config)).await
}

/// Hands out what the client says until it leaves.
async fn read<T: AsyncRead + AsyncWrite + Unpin>(
    mut stream: SplitStream<WebSocketStream<T>>,
    framing: Framing,
    stdin: mpsc::Sender<Bytes>,
    resize: mpsc::Sender<Bytes>,
) {
    let mut stdin = Some(stdin);
    while let Some(message) = stream.next().await {
        let message = match message {
            Ok(Message::Close(_)) => return,
            Ok(message) => message,
            Err(error) => return tracing::debug!(%error, "WebSocket ended"),
        };
        let Some((channel, bytes)) = unframe(message, framing) else { continue };
        match channel {
            STDIN if !bytes.is_empty() => {
                if let Some(stdin) = &stdin {
                    // Nobody may want it any more.
                    let _ = stdin.send(bytes).await;
                }
            }
            // Only the newest size matters, and the next one may already be the right one.
            RESIZE => drop(resize.try_send(bytes)),
            CLOSE if bytes.first() == Some(&STDIN) => stdin = None,
            _ => {}
        }
    }
}

async fn write<T: AsyncRead + AsyncWrite + Unpin>(
    mut sink: SplitSink<WebSocketStream<T>, Message>,
    framing: Framing,
    mut messages: mpsc::Receiver<Out>,
) -> Result<(), Error> {
    let mut pong = tokio::time::interval(PONG_INTERVAL);
    loop {
        let message = tokio::select! {
            message = messages.recv() => message,
            _ = pong.tick() => {
                sink.send(Message::Pong(Bytes::new())).await?;
                continue;
            }
        };
        match message {
            Some(Out::Bytes(channel, bytes)) => {
                sink.feed(frame(channel, &bytes, framing)).await?;
                if messages.is_empty() {
                    sink.flush().await?;
                }
            }
            Some(Out::Close) => {
                let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
                return sink.send(Message::Close(Some(frame))).await;
            }
            None => return Ok(()),
        }
    }
}

fn frame(channel: u8, bytes: &[u8], framing: Framing) -> Message {
    match framing {
        Framing::Binary => {
            let mut framed = BytesMut::with_capacity(bytes.len() + 1);
            framed.extend_from_slice(&[channel]);
            framed.extend_from_slice(bytes);
            Message::Binary(framed.freeze())
        }
        Framing::Base64 => Message::text(format!("{channel}{}", BASE64.encode(bytes))),
    }
}

fn unframe(message: Message, framing: Framing) -> Option<(u8, Bytes)> {
    let mut bytes = match message {
        Message::Binary(bytes) => bytes,
        Message::Text(text) => Bytes::from(text),
        _ => return None,
    };
    let channel = *bytes.first()?;
    let bytes = bytes.split_off(1);
    match framing {
        Framing::Binary => Some((channel, bytes)),
        Framing::Base64 => Some((channel.checked_sub(b'0')?, BASE64.decode(bytes).ok()?.into())),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    async fn pair(framing: Framing) -> (Channels, WebSocketStream<DuplexStream>) {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
        (Channels::open(ours, framing).await, client)
    }

    /// The next message that carries something.
    async fn hear(client: &mut WebSocketStream<DuplexStream>) -> Message {
        loop {
            match client.next().await.unwrap().unwrap() {
                Message::Pong(_) => {}
                message => return message,
            }
        }
    }

    #[tokio::test]
    async fn channels_are_told_apart() {
        let (mut channels, mut client) = pair(Framing::Binary).await;
        for message in [&b"\x00hi"[..], b"\x00", b"\x04{\"Width\":80}", b"\x09?", b"\xff\x00", b"\x00late"] {
            client.send(Message::binary(message)).await.unwrap();
        }
        assert_eq!(channels.stdin.recv().await.unwrap(), "hi");
        assert_eq!(channels.stdin.recv().await, None);
        assert_eq!(channels.resize.recv().await.unwrap(), "{\"Width\":80}");
        channels.out.send(Out::Bytes(STDOUT, Bytes::from_static(b"out"))).await.unwrap();
        assert_eq!(hear(&mut client).await, Message::binary(&b"\x01out"[..]));
        client.send(Message::Ping(Bytes::from_static(b"?"))).await.unwrap();
        assert_eq!(client.next().await.unwrap().unwrap(), Message::Pong(Bytes::from_static(b"?")));
        let closing = tokio::spawn(channels.connection.close());
        assert!(matches!(hear(&mut client).await, Message::Close(Some(frame)) if frame.code == CloseCode::Normal));
        drop(client);
        closing.await.unwrap();
    }

    #[tokio::test]
    async fn old_browsers_speak_base64() {
        let (mut channels, mut client) = pair(Framing::Base64).await;
        client.send(Message::text("0aGk=")).await.unwrap();
        client.send(Message::text("0!")).await.unwrap();
        assert_eq!(channels.stdin.recv().await.unwrap(), "hi");
        channels.out.send(Out::Bytes(STDERR, Bytes::from_static(b"hi"))).await.unwrap();
        assert_eq!(hear(&mut client).await, Message::text("2aGk="));
        drop(client);
        channels.connection.gone.cancelled().await;
        assert_eq!(channels.stdin.recv().await, None);
    }

    #[tokio::test]
    async fn a_tunnel_is_a_stream_of_bytes() {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let mut client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
        let mut tunnel = Box::pin(tunnel(ours).await);
        client.send(Message::binary(&b"ab"[..])).await.unwrap();
        client.send(Message::binary(&b"cd"[..])).await.unwrap();
        let mut four = [0; 4];
        tunnel.read_exact(&mut four).await.unwrap();
        assert_eq!(&four, b"abcd");
        tunnel.write_all(b"ef").await.unwrap();
        tunnel.flush().await.unwrap();
        assert_eq!(client.next().await.unwrap().unwrap(), Message::binary(&b"ef"[..]));
        tunnel.shutdown().await.unwrap();
        assert!(matches!(client.next().await.unwrap().unwrap(), Message::Close(_)));
    }
}
