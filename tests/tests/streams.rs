//! exec, attach, cp, run and port-forward with the real kubectl, oldest and newest supported, over WebSocket and over
//! SPDY, on a whole cluster.

#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tidegate_tests::cluster::{Cluster, Ended, Kubectl, PATIENCE, VERSIONS};

/// Larger than every buffer between the two ends.
const BIG: usize = 10 << 20;
const CONNECTIONS: usize = 20;
const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: box}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: busybox:dev
    command: [sh, -c, "mkdir /www && dd if=/dev/urandom of=/www/big bs=1M count=2 && httpd -p 8080 -h /www && exec sleep 1000"]
---
apiVersion: v1
kind: Pod
metadata: {name: talk}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: busybox:dev
    stdin: true
    command: [sh, -c, 'while read line; do echo "got $line"; done']
---
apiVersion: v1
kind: Pod
metadata: {name: terminal}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: busybox:dev
    stdin: true
    tty: true
    command: [sh]
"#;

#[test]
fn the_real_kubectl_converses_with_pods() {
    let cluster = Cluster::start();
    let newest = cluster.kubectl();
    newest.apply(PODS);
    let pods = ["pod/box", "pod/talk", "pod/terminal"];
    let _ = newest.ok(&["wait", "--for=condition=Ready", pods[0], pods[1], pods[2], "--timeout=120s"]);
    for version in VERSIONS {
        for kubectl in [cluster.kubectl_version(version), cluster.kubectl_version(version).over_spdy()] {
            println!("{kubectl:?}");
            exec(&kubectl);
            exec_in_a_terminal(&kubectl);
            copy(&cluster, &kubectl);
            attach(&kubectl);
            attach_to_a_terminal(&kubectl);
            run(&kubectl);
            port_forward(&kubectl);
        }
    }
}

fn exec(kubectl: &Kubectl<'_>) {
    assert_eq!(kubectl.ok(&["exec", "box", "--", "echo", "hello"]), "hello\n");
    let failed = kubectl.run(&["exec", "box", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!(failed.status.code(), Some(7));
    assert_eq!(text(&failed.stdout), "out\n");
    assert_eq!(text(&failed.stderr), "err\ncommand terminated with exit code 7\n");
    for (args, wanted) in [
        (&["exec", "box", "--", "nonsense"][..], "not found"),
        (&["exec", "box", "-c", "other", "--", "true"], "other"),
        (&["exec", "other", "--", "true"], "pods \"other\" not found"),
    ] {
        let refused = kubectl.run(args);
        let said = text(&refused.stderr);
        assert!(!refused.status.success() && said.contains(wanted), "{args:?}: {said}");
    }
    let data = random(BIG);
    let sum = kubectl.feed(&["exec", "-i", "box", "--", "sha256sum"], &data);
    assert_eq!(text(&sum.stdout), format!("{}  -\n", digest(&data)), "{}", text(&sum.stderr));
    let back = kubectl.feed(&["exec", "-i", "box", "--", "cat"], &data);
    assert_eq!((back.stdout.len(), digest(&back.stdout)), (data.len(), digest(&data)), "{}", text(&back.stderr));
    // Whoever reads no input does not hold up its writer.
    let deaf = kubectl.feed(&["exec", "-i", "box", "--", "sh", "-c", "exec <&-; exit 3"], &data);
    assert_eq!(deaf.status.code(), Some(3), "{}", text(&deaf.stderr));
}

fn exec_in_a_terminal(kubectl: &Kubectl<'_>) {
    let size = |size| format!("until [ \"$(stty size 2>&1)\" = \"{size}\" ]; do sleep 0.1; done; echo now {size}");
    let mut session = Terminal::start(
        kubectl,
        &format!("exec -it box -- sh -c 'tty; {}; {}; exit 5'", size("33 99"), size("44 88")),
        // The terminal changes its size once the command has begun.
        "(sleep 2; stty -F /dev/tty rows 44 cols 88) &",
    );
    session.wait_for("/dev/pts/");
    session.wait_for("now 33 99");
    session.wait_for("now 44 88");
    assert_eq!(session.end(), 5);
}

fn copy(cluster: &Cluster, kubectl: &Kubectl<'_>) {
    let data = random(BIG);
    fs::create_dir_all(cluster.path("there/below")).unwrap();
    fs::write(cluster.path("there/below/data"), &data).unwrap();
    let _ = kubectl.ok(&["exec", "box", "--", "rm", "-rf", "/tmp/there"]);
    let _ = kubectl.ok(&["cp", "there", "box:/tmp/there"]);
    let _ = kubectl.ok(&["cp", "box:/tmp/there", "back"]);
    assert_eq!(digest(&fs::read(cluster.path("back/below/data")).unwrap()), digest(&data));
    fs::remove_dir_all(cluster.path("back")).unwrap();
    let absent = kubectl.run(&["cp", "box:/tmp/nothing", "nothing"]);
    assert!(!cluster.path("nothing").exists(), "{}", text(&absent.stderr));
}

fn attach(kubectl: &Kubectl<'_>) {
    let mut attach = kubectl.command(&["attach", "-i", "talk"]);
    let mut child = Ended(attach.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut stdin = child.0.stdin.take().unwrap();
    let lines = lines(child.0.stdout.take().unwrap());
    // Nothing says when an attach has begun.
    let got = (0..100).find_map(|_| {
        stdin.write_all(b"one\n").unwrap();
        lines.recv_timeout(Duration::from_millis(200)).ok()
    });
    assert_eq!(got.as_deref(), Some("got one"));
}

/// One client after another at the same shell, which remembers.
fn attach_to_a_terminal(kubectl: &Kubectl<'_>) {
    for command in ["word=$((40 + 2)); echo first-$word\n", "echo again-$word\n"] {
        let mut session = Terminal::start(kubectl, "attach -it terminal", "");
        session.wait_for("command prompt");
        session.say(command);
        session.wait_for(if command.starts_with("word") { "first-42" } else { "again-42" });
    }
}

fn run(kubectl: &Kubectl<'_>) {
    let name = format!("once-{}", random(4).iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    let args = ["run", &name, "--rm", "-i", "--quiet", "--restart=Never", "--image=busybox:dev", "--", "wc", "-c"];
    let counted = kubectl.feed(&args, &[b'x'; 1000]);
    assert!(text(&counted.stdout).contains("1000"), "{counted:?}");

    let mut session = Terminal::start(kubectl, &format!("run {name} --rm -it --restart=Never --image=busybox:dev"), "");
    session.wait_for("command prompt");
    session.say("echo a$((40 + 2))b\n");
    session.wait_for("a42b");
    session.say("exit 0\n");
    session.wait_for("deleted");
    assert_eq!(session.end(), 0);
    assert!(kubectl.get(&["pod", &name]).is_null());
}

fn port_forward(kubectl: &Kubectl<'_>) {
    let mut forward = kubectl.command(&["port-forward", "pod/box", ":8080", ":9"]);
    let mut child = Ended(forward.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let said = lines(child.0.stdout.take().unwrap());
    let port_of = |remote: &str| {
        let line = std::iter::from_fn(|| said.recv_timeout(PATIENCE).ok())
            .find(|line| line.contains("127.0.0.1") && line.ends_with(remote))
            .unwrap();
        line.split(['>', ' ', ':']).find_map(|word| word.parse::<u16>().ok()).unwrap()
    };
    let (port, closed) = (port_of("-> 8080"), port_of("-> 9"));
    let want = kubectl.ok(&["exec", "box", "--", "sha256sum", "/www/big"]);
    let fetch = || {
        let mut connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
        connection.write_all(b"GET /big HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).unwrap();
        let body = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        format!("{}  /www/big\n", digest(&answer[body..]))
    };
    thread::scope(|scope| {
        let fetches: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(fetch)).collect();
        for got in fetches {
            assert_eq!(got.join().unwrap(), want);
        }
    });
    // A port where nobody listens is told to the client.
    let mut connection = TcpStream::connect(("127.0.0.1", closed)).unwrap();
    let _ = connection.write_all(b"x");
    let complaint = lines(child.0.stderr.take().unwrap()).recv_timeout(PATIENCE).unwrap();
    assert!(complaint.contains("onnection refused"), "{complaint}");
}

/// kubectl at a terminal of its own, which `script` makes.
struct Terminal {
    child: Ended,
    output: Receiver<u8>,
    seen: String,
}

impl Terminal {
    fn start(kubectl: &Kubectl<'_>, args: &str, before: &str) -> Self {
        let line = format!("stty rows 33 cols 99; {before} {} {args}", kubectl.program().display());
        let mut command = Command::new("script");
        kubectl.prepare(&mut command);
        command.args(["-qec", &line, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = Ended(command.spawn().unwrap());
        let stdout = child.0.stdout.take().unwrap();
        let (sender, output) = mpsc::channel();
        thread::spawn(move || {
            BufReader::new(stdout).bytes().map_while(Result::ok).try_for_each(|byte| sender.send(byte))
        });
        Self { child, output, seen: String::new() }
    }

    fn wait_for(&mut self, wanted: &str) {
        while !self.seen.contains(wanted) {
            let byte = self.output.recv_timeout(PATIENCE);
            self.seen.push(byte.unwrap_or_else(|_| panic!("no {wanted:?} in {:?}", self.seen)).into());
        }
    }

    fn say(&mut self, text: &str) {
        self.child.0.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn end(mut self) -> i32 {
        self.child.0.wait().unwrap().code().unwrap()
    }
}

fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    let stream = BufReader::new(stream);
    thread::spawn(move || stream.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    lines
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn random(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut bytes).unwrap();
    bytes
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
