//! Interactive exec and attach on real containers. Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot look has failed")]

mod harness;

use std::time::{Duration, Instant};

use control_runtime::{AttachSpec, ContainerState, ExecSpec, ProcessStreams, RuntimeError, Sandbox};
use harness::{Node, hex_digest, log_text};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);
const ATTACH: AttachSpec = AttachSpec { stdin: true, stdout: true, stderr: true };

fn shell(script: &str) -> ExecSpec {
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    ExecSpec { command, stdin: true, stdout: true, stderr: true, tty: false }
}

async fn idle(node: &Node, name: &str) -> (Sandbox, String) {
    let sandbox = node.sandbox(name).await;
    let id = node.start(&sandbox, node.shell("main", "sleep 1000")).await;
    (sandbox, id)
}

async fn all(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
    bytes
}

/// Reads until the text has come.
async fn until(stream: &mut (impl AsyncRead + Unpin), wanted: &str) -> String {
    let mut text = String::new();
    while !text.contains(wanted) {
        let mut buffer = [0; 4096];
        let count = timeout(PATIENCE, stream.read(&mut buffer)).await.expect(&text).unwrap();
        assert!(count > 0, "the stream ended after {text:?}");
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    text
}

async fn code(streams: &mut ProcessStreams) -> i32 {
    timeout(PATIENCE, streams.process.wait()).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_has_three_streams_and_a_code() {
    let node = Node::new().await;
    let (_, id) = idle(&node, "a").await;
    let mut streams = node.runtime.exec(&id, shell("echo out; echo err >&2; cat; exit 7")).await.unwrap();
    let mut stdin = streams.stdin.take().unwrap();
    stdin.write_all(b"in").await.unwrap();
    drop(stdin);
    assert_eq!(all(streams.stdout.as_mut().unwrap()).await, b"out\nin");
    assert_eq!(all(streams.stderr.as_mut().unwrap()).await, b"err\n");
    assert_eq!(code(&mut streams).await, 7);

    let quiet = ExecSpec { stdin: false, stderr: false, ..shell("cat; echo x >&2; echo y; kill -9 $$") };
    let mut streams = node.runtime.exec(&id, quiet).await.unwrap();
    assert!(streams.stdin.is_none() && streams.stderr.is_none() && streams.terminal.is_none());
    assert_eq!(all(streams.stdout.as_mut().unwrap()).await, b"y\n");
    assert_eq!(code(&mut streams).await, 137);

    let missing = ExecSpec { command: vec!["nonsense".to_owned()], ..shell("") };
    let error = node.runtime.exec(&id, missing).await.unwrap_err();
    assert!(matches!(&error, RuntimeError::CannotRun { message, .. } if message.contains("not found")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_megabytes_go_through_both_ways() {
    let node = Node::new().await;
    let (_, id) = idle(&node, "b").await;
    let mut streams = node.runtime.exec(&id, shell("cat")).await.unwrap();
    let data: Vec<u8> = (0..10 << 20).map(|index: u32| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let want = hex_digest(&data);
    let mut stdin = streams.stdin.take().unwrap();
    let writer = tokio::spawn(async move { stdin.write_all(&data).await });
    let got = all(streams.stdout.as_mut().unwrap()).await;
    writer.await.unwrap().unwrap();
    assert_eq!((got.len(), hex_digest(&got)), (10 << 20, want));
    assert_eq!(code(&mut streams).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_echoes_resizes_and_interrupts() {
    let node = Node::new().await;
    let (sandbox, id) = idle(&node, "c").await;
    let state = node.dir.path().join("run").join(&sandbox.id).join("libcontainer").join(&id);
    let before = std::fs::read_dir(&state).unwrap().count();
    let terminal = ExecSpec { tty: true, ..shell("tty; read line; stty size; echo $TERM; exec cat") };
    let mut streams = node.runtime.exec(&id, terminal).await.unwrap();
    let (mut stdin, mut stdout) = (streams.stdin.take().unwrap(), streams.stdout.take().unwrap());
    until(&mut stdout, "/dev/pts/0\r\n").await;
    streams.terminal.as_ref().unwrap().resize(132, 43).unwrap();
    stdin.write_all(b"go\n").await.unwrap();
    let text = until(&mut stdout, "xterm\r\n").await;
    assert!(text.contains("43 132\r\n"), "{text:?}");
    stdin.write_all(&[3]).await.unwrap();
    assert_eq!(code(&mut streams).await, 130);
    assert!(String::from_utf8(all(&mut stdout).await).unwrap().ends_with("^C"));
    assert_eq!(std::fs::read_dir(&state).unwrap().count(), before, "nothing is left of an exec");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_ends_with_its_client() {
    let node = Node::new().await;
    let (_, id) = idle(&node, "d").await;
    for (tty, script) in
        [(false, "echo $$; sleep 1001"), (true, "trap '' HUP; echo $$; while true; do sleep 1001; done")]
    {
        let mut streams = node.runtime.exec(&id, ExecSpec { tty, ..shell(script) }).await.unwrap();
        until(streams.stdout.as_mut().unwrap(), "\n").await;
        drop(streams);
        let deadline = Instant::now() + PATIENCE;
        while node.exec(&id, "ps | grep -q '[s]leep 1001'").await.0 == 0 {
            assert!(Instant::now() < deadline, "it is still there");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_end_with_their_container() {
    let node = Node::new().await;
    let (_, id) = idle(&node, "e").await;
    let mut streams = node.runtime.exec(&id, shell("sleep 1000")).await.unwrap();
    node.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    assert_eq!(code(&mut streams).await, 137);
    let error = node.runtime.exec(&id, shell("true")).await.unwrap_err();
    assert!(error.to_string().contains("is not running"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_attaches_sees_new_output_and_the_log_gets_it_too() {
    let node = Node::new().await;
    let sandbox = node.sandbox("f").await;
    let mut spec = node.shell("main", "echo before; while read line; do echo got $line; echo e >&2; done; exit 3");
    (spec.stdin, spec.stdin_once) = (true, true);
    let log = spec.log_path.clone();
    let id = node.start(&sandbox, spec).await;
    node.until(&id, |_| log_text(&log).contains("before")).await;
    let mut first = node.runtime.attach(&id, ATTACH).await.unwrap();
    let mut second = node.runtime.attach(&id, AttachSpec { stdin: false, ..ATTACH }).await.unwrap();
    assert!(second.stdin.is_none());
    first.stdin.as_mut().unwrap().write_all(b"one\n").await.unwrap();
    for streams in [&mut first, &mut second] {
        assert_eq!(until(streams.stdout.as_mut().unwrap(), "\n").await, "got one\n");
        assert_eq!(until(streams.stderr.as_mut().unwrap(), "\n").await, "e\n");
    }
    drop(first.stdin.take());
    first.process.end_input().await.unwrap();
    assert_eq!((code(&mut first).await, code(&mut second).await), (3, 3));
    assert_eq!(all(first.stdout.as_mut().unwrap()).await, b"");
    assert_eq!(log_text(&log), "before\ngot one\ne\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn input_outlives_a_client_unless_it_is_for_one_only() {
    let node = Node::new().await;
    let sandbox = node.sandbox("g").await;
    let mut spec = node.shell("main", "while read line; do echo got $line; done");
    spec.stdin = true;
    let id = node.start(&sandbox, spec.clone()).await;
    for _ in 0..2 {
        let mut streams = node.runtime.attach(&id, ATTACH).await.unwrap();
        streams.stdin.as_mut().unwrap().write_all(b"x\n").await.unwrap();
        assert_eq!(until(streams.stdout.as_mut().unwrap(), "\n").await, "got x\n");
    }
    assert_eq!(node.runtime.container(&id).await.unwrap().state, ContainerState::Running);

    (spec.name, spec.stdin_once) = ("once".to_owned(), true);
    let id = node.start(&sandbox, spec).await;
    drop(node.runtime.attach(&id, ATTACH).await.unwrap());
    assert_eq!(node.exited(&id).await.exit_code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_with_a_terminal_can_be_attached_to() {
    let node = Node::new().await;
    let sandbox = node.sandbox("h").await;
    let mut spec = node.shell("main", "read line; stty size; echo done $line");
    (spec.stdin, spec.tty) = (true, true);
    let log = spec.log_path.clone();
    let id = node.start(&sandbox, spec).await;
    let mut streams = node.runtime.attach(&id, ATTACH).await.unwrap();
    streams.terminal.as_ref().unwrap().resize(100, 50).unwrap();
    streams.stdin.as_mut().unwrap().write_all(b"hello\n").await.unwrap();
    let text = until(streams.stdout.as_mut().unwrap(), "done hello\r\n").await;
    assert!(text.contains("50 100"), "{text:?}");
    assert_eq!(code(&mut streams).await, 0);
    assert!(log_text(&log).contains("done hello"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_attaches_and_does_not_read_holds_nothing_up_for_ever() {
    let node = Node::new().await;
    let sandbox = node.sandbox("i").await;
    let mut spec = node.shell("main", "read go; dd if=/dev/zero bs=64k count=16 | tr '\\0' 'x'; echo; echo end");
    spec.stdin = true;
    let log = spec.log_path.clone();
    let id = node.start(&sandbox, spec).await;
    let mut lazy = node.runtime.attach(&id, ATTACH).await.unwrap();
    let mut eager = node.runtime.attach(&id, AttachSpec { stdin: false, ..ATTACH }).await.unwrap();
    lazy.stdin.as_mut().unwrap().write_all(b"go\n").await.unwrap();
    let got = all(eager.stdout.as_mut().unwrap()).await;
    assert_eq!(got.len(), (1 << 20) + 5);
    assert_eq!(node.exited(&id).await.exit_code, Some(0));
    assert!(log_text(&log).contains("end\n"));
}
