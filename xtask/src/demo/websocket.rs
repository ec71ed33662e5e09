//! A WebSocket through the gateway is held while the endpoints of its Service change, its own among them.

use std::io::{self, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use tungstenite::Message;
use tungstenite::protocol::WebSocket;

use crate::demo::checks::{PATIENCE, wait_for_pods};
use crate::demo::cluster::{Cluster, HTTPS_PORT, eventually};
use crate::demo::load::ask_gateway;
use crate::exec::command;

const MESSAGE_INTERVAL: Duration = Duration::from_millis(50);
/// How long the socket is used after the endpoint behind it has left the Service.
const AFTERWARDS: Duration = Duration::from_secs(2);

/// The proof of the promise; returns its figure.
pub(super) fn survives(cluster: &Cluster) -> anyhow::Result<String> {
    wait_for_pods(cluster, 3)?;
    let held = Held::open("echo.test")?;
    let pod = held.served_by.clone();
    let scale = |replicas: usize| -> anyhow::Result<()> {
        cluster.kubectl(&["scale", "deployment", "-n", "sample", "echo", &format!("--replicas={replicas}")])?;
        wait_for_pods(cluster, replicas)
    };
    scale(4)?;
    // The pod lives on, but belongs to no Service and no Deployment any more.
    cluster.kubectl(&["label", "pod", "-n", "sample", &pod, "app=retired", "--overwrite"])?;
    eventually("the socket's endpoint leaves the gateway", PATIENCE, || {
        Ok(!ask_gateway("--http2", "echo.test", "/", 30)?.contains_key(&pod))
    })?;
    let left_at = Instant::now();
    scale(3)?;
    std::thread::sleep(AFTERWARDS);
    let messages = held.close()?;
    let after = left_at.elapsed().as_secs_f64();
    cluster.kubectl(&["delete", "pod", "-n", "sample", &pod, "--wait=false"])?;
    Ok(format!(
        "{messages} of {messages} messages came back from {pod}, the last {after:.1} s after it left the Service"
    ))
}

/// A WebSocket in constant use.
struct Held {
    served_by: String,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<u32>>,
}

impl Held {
    fn open(host: &str) -> anyhow::Result<Self> {
        let (socket, answer) = tungstenite::client(format!("wss://{host}:{HTTPS_PORT}/ws"), Tls::connect(host)?)
            .map_err(|error| anyhow!("cannot open a WebSocket to {host}: {error}"))?;
        let served_by = answer.headers().get("x-served-by").context("the answer does not say who serves")?;
        let served_by = served_by.to_str()?.to_owned();
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread = std::thread::spawn(move || converse(socket, &asked));
        Ok(Self { served_by, stop, thread })
    }

    /// Closes orderly and returns the number of messages that came back.
    fn close(self) -> anyhow::Result<u32> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().map_err(|_| anyhow!("the WebSocket's thread panicked"))?
    }
}

fn converse(mut socket: WebSocket<Tls>, stop: &AtomicBool) -> anyhow::Result<u32> {
    let mut count = 0;
    while !stop.load(Ordering::SeqCst) {
        let message = Message::text(format!("message {count}"));
        let lost = || format!("the WebSocket broke after {count} messages");
        socket.send(message.clone()).with_context(lost)?;
        let echo = socket.read().with_context(lost)?;
        ensure!(echo == message, "message {count} came back as {echo}");
        count += 1;
        std::thread::sleep(MESSAGE_INTERVAL);
    }
    socket.close(None)?;
    let answer = socket.read()?;
    ensure!(answer.is_close(), "closing was answered with {answer}");
    Ok(count)
}

/// A TLS connection to the gateway, held by a real TLS client.
struct Tls {
    client: Child,
    input: ChildStdin,
    output: ChildStdout,
}

impl Tls {
    fn connect(host: &str) -> anyhow::Result<Self> {
        let mut openssl = command("openssl");
        openssl.args(["s_client", "-quiet", "-servername", host, "-alpn", "http/1.1"]);
        openssl.args(["-connect", &format!("127.0.0.1:{HTTPS_PORT}")]);
        openssl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut client = openssl.spawn().context("cannot run openssl")?;
        let (input, output) = (client.stdin.take(), client.stdout.take());
        Ok(Self { client, input: input.context("no input")?, output: output.context("no output")? })
    }
}

impl Read for Tls {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.output.read(buffer)
    }
}

impl Write for Tls {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.input.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.input.flush()
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        // It may have ended with the connection.
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}
