//! A client in conversation with a process: what exec and attach have in common, whatever carries their streams.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use control_runtime::{ProcessHandle, ProcessStreams, RuntimeError, StreamFile, Terminal};
use http::{HeaderMap, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::spdy;
use super::upgrade::{Agreed, Spoken, Transport, negotiate};
use super::websocket::{self, Channels, Framing, Out};

const PROTOCOLS: Spoken = Spoken {
    websocket: &[
        "v5.channel.k8s.io",
        "v4.channel.k8s.io",
        "v4.base64.channel.k8s.io",
        "channel.k8s.io",
        "base64.channel.k8s.io",
        "",
    ],
    spdy: &["v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"],
};
const CHUNK: usize = 32 << 10;
/// A client opens all its streams at once.
const STREAMS_WAIT_MAX: Duration = Duration::from_secs(30);
/// What the children of an ended process may still have to say, if they keep its streams open.
const DRAIN_IDLE_MAX: Duration = Duration::from_secs(2);

/// The streams that a client asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) tty: bool,
}

/// A client that has been talked into a protocol.
pub(super) struct Client {
    stdin: Option<mpsc::Receiver<Bytes>>,
    resize: Option<mpsc::Receiver<Bytes>>,
    stdout: Option<Sink>,
    stderr: Option<Sink>,
    status: Sink,
    status_form: StatusForm,
    /// Ways back that nobody writes to; a stream is open for as long as it has one.
    silent: Vec<spdy::StreamWriter>,
    connection: Connection,
}

/// Where one stream of a process goes.
enum Sink {
    WebSocket(u8, mpsc::Sender<Out>),
    Spdy(spdy::StreamWriter),
}

enum Connection {
    WebSocket(websocket::Connection),
    Spdy(spdy::Session),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StatusForm {
    /// A `Status` object, in any case.
    Json,
    /// Text, only of failures.
    Text,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

pub(super) fn agree(headers: &HeaderMap) -> Result<Agreed, (StatusCode, String)> {
    negotiate(headers, &PROTOCOLS)
}

impl Wanted {
    pub(super) fn from_query(flag: impl Fn(&str) -> bool) -> Result<Self, (StatusCode, String)> {
        let tty = flag("tty");
        let wanted = Self { stdin: flag("input"), stdout: flag("output"), stderr: flag("error") && !tty, tty };
        if !(wanted.stdin || wanted.stdout || wanted.stderr) {
            let text = "you must specify at least 1 of stdin, stdout, stderr";
            return Err((StatusCode::BAD_REQUEST, text.to_owned()));
        }
        Ok(wanted)
    }
}

impl Client {
    /// Waits for the connection to leave HTTP, and for all its streams.
    pub(super) async fn open(connection: OnUpgrade, agreed: &Agreed, wanted: Wanted) -> anyhow::Result<Self> {
        let connection = TokioIo::new(connection.await?);
        let status_form = match agreed.protocol {
            "v5.channel.k8s.io" | "v4.channel.k8s.io" | "v4.base64.channel.k8s.io" => StatusForm::Json,
            _ => StatusForm::Text,
        };
        match agreed.transport {
            Transport::WebSocket { .. } => {
                let framing = if agreed.protocol.contains("base64") { Framing::Base64 } else { Framing::Binary };
                Ok(Self::of_channels(Channels::open(connection, framing).await, wanted, status_form))
            }
            Transport::Spdy => {
                // Only the process's input can be stuck, and nothing but it is held up.
                let mut session = spdy::Session::start(connection, None);
                let streams = timeout(STREAMS_WAIT_MAX, Streams::collect(&mut session, agreed.protocol, wanted)).await;
                Self::of_streams(streams.unwrap_or_default(), session, status_form)
            }
        }
    }

    fn of_channels(channels: Channels, wanted: Wanted, status_form: StatusForm) -> Self {
        let sink = |channel| Sink::WebSocket(channel, channels.out.clone());
        Self {
            stdout: wanted.stdout.then(|| sink(websocket::STDOUT)),
            stderr: wanted.stderr.then(|| sink(websocket::STDERR)),
            status: sink(websocket::STATUS),
            stdin: wanted.stdin.then_some(channels.stdin),
            resize: wanted.tty.then_some(channels.resize),
            status_form,
            silent: Vec::new(),
            connection: Connection::WebSocket(channels.connection),
        }
    }

    fn of_streams(streams: Streams, session: spdy::Session, status_form: StatusForm) -> anyhow::Result<Self> {
        let status = streams.error.ok_or_else(|| anyhow::anyhow!("client has not opened its streams"))?;
        let mut silent = Vec::new();
        let mut listen = |stream: spdy::Stream| {
            silent.push(stream.writer);
            stream.reader
        };
        Ok(Self {
            stdin: streams.stdin.map(&mut listen),
            resize: streams.resize.map(&mut listen),
            stdout: streams.stdout.map(|stream| Sink::Spdy(stream.writer)),
            stderr: streams.stderr.map(|stream| Sink::Spdy(stream.writer)),
            status: Sink::Spdy(status.writer),
            status_form,
            silent,
            connection: Connection::Spdy(session),
        })
    }

    /// Connects the client with its process until the process ends or the client leaves.
    pub(super) async fn converse(mut self, process: Result<ProcessStreams, RuntimeError>, what: &str) {
        let gone = self.connection.gone();
        let outcome = match process {
            Ok(process) => tokio::select! {
                outcome = carry(&mut self, process) => outcome,
                () = gone.cancelled() => return,
            },
            Err(error) => Err(error),
        };
        if let Some(text) = status(&outcome, what, self.status_form) {
            self.status.send(text.into()).await;
        }
        for sink in [self.stdout.take(), self.stderr.take(), Some(self.status)].into_iter().flatten() {
            sink.finish().await;
        }
        for stream in &self.silent {
            stream.finish().await;
        }
        self.connection.close().await;
    }
}

/// The streams of a SPDY client.
#[derive(Default)]
struct Streams {
    error: Option<spdy::Stream>,
    stdin: Option<spdy::Stream>,
    stdout: Option<spdy::Stream>,
    stderr: Option<spdy::Stream>,
    resize: Option<spdy::Stream>,
}

impl Streams {
    async fn collect(session: &mut spdy::Session, protocol: &str, wanted: Wanted) -> Self {
        let knows_resize = !matches!(protocol, "v2.channel.k8s.io" | "channel.k8s.io");
        let expected =
            [true, wanted.stdin, wanted.stdout, wanted.stderr, wanted.tty && knows_resize].into_iter().filter(|it| *it);
        let mut streams = Self::default();
        for _ in 0..expected.count() {
            let Some(stream) = session.accept().await else { break };
            let slot = match stream.headers.get("streamtype").map(String::as_str) {
                Some("error") => &mut streams.error,
                Some("stdin") => &mut streams.stdin,
                Some("stdout") => &mut streams.stdout,
                Some("stderr") => &mut streams.stderr,
                Some("resize") => &mut streams.resize,
                _ => continue,
            };
            *slot = Some(stream);
        }
        streams
    }
}

impl Sink {
    /// False if the client is gone.
    async fn send(&self, bytes: Bytes) -> bool {
        match self {
            Self::WebSocket(channel, out) => out.send(Out::Bytes(*channel, bytes)).await.is_ok(),
            Self::Spdy(stream) => stream.send(bytes).await,
        }
    }

    async fn finish(&self) {
        match self {
            // A WebSocket's channels end with the connection.
            Self::WebSocket(..) => {}
            Self::Spdy(stream) => stream.finish().await,
        }
    }
}

impl Connection {
    fn gone(&self) -> CancellationToken {
        match self {
            Self::WebSocket(connection) => connection.gone.clone(),
            Self::Spdy(session) => session.gone.clone(),
        }
    }

    async fn close(self) {
        match self {
            Self::WebSocket(connection) => connection.close().await,
            Self::Spdy(session) => session.close().await,
        }
    }
}

/// Carries everything both ways; returns the exit code after the last output.
async fn carry(client: &mut Client, process: ProcessStreams) -> Result<i32, RuntimeError> {
    let (exited, has_exited) = watch::channel(false);
    let input_ended = Notify::new();
    let inputs = async {
        tokio::join!(
            carry_input(client.stdin.take(), process.stdin, &input_ended),
            carry_sizes(client.resize.take(), process.terminal),
        );
        std::future::pending::<()>().await;
    };
    let outputs = async {
        tokio::join!(
            wait(process.process, &input_ended, exited),
            carry_output(process.stdout, client.stdout.as_ref(), has_exited.clone()),
            carry_output(process.stderr, client.stderr.as_ref(), has_exited),
        )
    };
    tokio::select! {
        (code, (), ()) = outputs => code,
        // Never ends by itself.
        () = inputs => Ok(0),
    }
}

async fn wait(
    mut process: ProcessHandle,
    input_ended: &Notify,
    exited: watch::Sender<bool>,
) -> Result<i32, RuntimeError> {
    let early = tokio::select! {
        code = process.wait() => Some(code),
        () = input_ended.notified() => None,
    };
    let code = match early {
        Some(code) => code,
        None => {
            // If that fails the process is gone, and the next question says so.
            let _ = process.end_input().await;
            process.wait().await
        }
    };
    exited.send_replace(true);
    code
}

async fn carry_input(from: Option<mpsc::Receiver<Bytes>>, to: Option<StreamFile>, ended: &Notify) {
    let Some(mut from) = from else { return };
    let mut to = to;
    while let Some(bytes) = from.recv().await {
        if let Some(file) = &mut to
            && file.write_all(&bytes).await.is_err()
        {
            // The process has closed its end; the rest is dropped so that nothing else waits behind it.
            to = None;
        }
    }
    drop(to);
    ended.notify_one();
}

async fn carry_sizes(from: Option<mpsc::Receiver<Bytes>>, terminal: Option<Terminal>) {
    let Some(mut from) = from else { return };
    while let Some(bytes) = from.recv().await {
        let last = serde_json::Deserializer::from_slice(&bytes).into_iter::<Size>().filter_map(Result::ok).last();
        if let (Some(Size { width, height }), Some(terminal)) = (last, &terminal)
            && let Err(error) = terminal.resize(width, height)
        {
            tracing::debug!(%error, width, height, "cannot resize a terminal");
        }
    }
}

async fn carry_output(from: Option<StreamFile>, to: Option<&Sink>, mut exited: watch::Receiver<bool>) {
    let (Some(mut from), Some(to)) = (from, to) else { return };
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        let read = tokio::select! {
            read = from.read_buf(&mut buffer) => read,
            () = idle_after_exit(&mut exited) => return,
        };
        match read {
            Ok(0) => return,
            Ok(_) if to.send(buffer.split().freeze()).await => {}
            Ok(_) => return,
            Err(error) => return tracing::debug!(%error, "output of a process cannot be read"),
        }
    }
}

async fn idle_after_exit(exited: &mut watch::Receiver<bool>) {
    // The sender is never dropped without having said so.
    let _ = exited.wait_for(|exited| *exited).await;
    tokio::time::sleep(DRAIN_IDLE_MAX).await;
}

/// What the client is told in the end.
fn status(outcome: &Result<i32, RuntimeError>, what: &str, form: StatusForm) -> Option<String> {
    let (message, status): (_, Value) = match outcome {
        Ok(0) => (None, json!({"metadata": {}, "status": "Success"})),
        Ok(code) => {
            let message = format!("command terminated with non-zero exit code: exit status {code}");
            let causes = json!([{"reason": "ExitCode", "message": code.to_string()}]);
            let status = json!({
                "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode", "message": message,
                "details": {"causes": causes},
            });
            (Some(message), status)
        }
        Err(error) => {
            let cause = format!("error {what} container: {error}");
            let message = format!("Internal error occurred: {cause}");
            let status = json!({
                "metadata": {}, "status": "Failure", "reason": "InternalError", "message": message, "code": 500,
                "details": {"causes": [{"message": cause}]},
            });
            (Some(message), status)
        }
    };
    match form {
        StatusForm::Json => Some(status.to_string()),
        StatusForm::Text => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_told_in_every_protocol() {
        let parsed = |outcome: Result<i32, RuntimeError>| -> Value {
            serde_json::from_str(&status(&outcome, "attaching to", StatusForm::Json).unwrap()).unwrap()
        };
        assert_eq!(parsed(Ok(0))["status"], "Success");
        let failed = parsed(Ok(7));
        assert_eq!(
            (&failed["reason"], &failed["details"]["causes"][0]["message"]),
            (&json!("NonZeroExitCode"), &json!("7"))
        );
        let error = parsed(Err(RuntimeError::NoContainer("c".to_owned())));
        assert_eq!(error["message"], "Internal error occurred: error attaching to container: container c is not known");
        assert_eq!(status(&Ok(0), "", StatusForm::Text), None);
        assert!(status(&Ok(7), "", StatusForm::Text).unwrap().contains("exit status 7"));
    }

    #[tokio::test]
    async fn input_comes_over_spdy() {
        let (ours, mut theirs) = tokio::io::duplex(64 << 10);
        let wire = spdy::client_bytes(&["error", "stdin", "stdout"], 3, b"hello");
        theirs.write_all(&wire).await.unwrap();
        let mut session = spdy::Session::start(ours, None);
        let wanted = Wanted { stdin: true, stdout: true, ..Wanted::default() };
        let streams = Streams::collect(&mut session, "v4.channel.k8s.io", wanted).await;
        let mut client = Client::of_streams(streams, session, StatusForm::Json).unwrap();
        // After the streams have been sorted out, too.
        theirs.write_all(&spdy::client_bytes(&[], 3, b"again")).await.unwrap();
        let stdin = client.stdin.as_mut().unwrap();
        assert_eq!(stdin.recv().await.unwrap(), "hello");
        assert_eq!(stdin.recv().await.unwrap(), "again");
        assert!(client.stderr.is_none() && client.resize.is_none());
    }

    #[test]
    fn a_terminal_has_no_stderr_and_something_must_be_wanted() {
        let wanted = |flags: &'static [&'static str]| Wanted::from_query(|flag| flags.contains(&flag));
        let all = wanted(&["input", "output", "error", "tty"]).unwrap();
        assert_eq!(all, Wanted { stdin: true, stdout: true, stderr: false, tty: true });
        assert_eq!(wanted(&["tty"]).unwrap_err().0, StatusCode::BAD_REQUEST);
    }
}
