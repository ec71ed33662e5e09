//! The server as a process of its own.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::api_server::ApiServer;

pub(crate) struct Server {
    /// UDP and TCP.
    pub(crate) address: SocketAddr,
    admin: SocketAddr,
    child: Child,
    _directory: TempDir,
}

impl Server {
    /// Starts on sockets that are handed in, and waits until it is ready.
    pub(crate) async fn start(api: &ApiServer, arguments: &[&str]) -> Self {
        let server = Self::start_unready(api, arguments);
        server.until_ready().await;
        server
    }

    pub(crate) fn start_unready(api: &ApiServer, arguments: &[&str]) -> Self {
        let (udp, tcp) = pair();
        let address = udp.local_addr().unwrap();
        Self::run(api, address, &[udp.into(), tcp.into()], arguments)
    }

    /// Starts on an address that it listens on by itself; `any` stands for every address.
    pub(crate) async fn start_bound(api: &ApiServer, any: &str, arguments: &[&str]) -> Self {
        let address = ports::free();
        let bind = format!("{any}:{}", address.port());
        let server = Self::run(api, address, &[], &[arguments, &["--bind", &bind]].concat());
        server.until_ready().await;
        server
    }

    fn run(api: &ApiServer, address: SocketAddr, sockets: &[OwnedFd], arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let kubeconfig = directory.path().join("kubeconfig");
        std::fs::write(&kubeconfig, api.kubeconfig()).unwrap();
        let admin = ports::free();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-dns"));
        command
            .args(["--kubeconfig", kubeconfig.to_str().unwrap(), "--admin-bind", &admin.to_string()])
            .args(arguments)
            .env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".to_owned()))
            .env_remove("LISTEN_FDS")
            .stdin(Stdio::null());
        if !arguments.iter().any(|argument| matches!(*argument, "--forward" | "--resolv-conf")) {
            command.args(["--resolv-conf", ""]);
        }
        hand_in(&mut command, sockets);
        Self { address, admin, child: command.spawn().unwrap(), _directory: directory }
    }

    pub(crate) async fn until_ready(&self) {
        for _ in 0..1500 {
            if self.admin_page("/readyz").await.is_some_and(|page| page.starts_with("HTTP/1.1 200")) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not ready within 15 s");
    }

    /// A page of the admin endpoint with its header.
    pub(crate) async fn admin_page(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.admin).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).await.ok()?;
        Some(page)
    }

    /// CPU time used so far, in clock ticks of 10 ms.
    pub(crate) fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    /// Asks it to end and waits until it has.
    pub(crate) async fn stop(mut self) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGTERM).unwrap();
        for _ in 0..500 {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "{status}");
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("still running after 5 s");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sockets of both kinds on one port of loopback.
fn pair() -> (UdpSocket, TcpListener) {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()) {
            return (udp, tcp);
        }
    }
}

/// Passes sockets to a command under the name `dns`.
fn hand_in(command: &mut Command, sockets: &[OwnedFd]) {
    if sockets.is_empty() {
        return;
    }
    let names = vec!["dns"; sockets.len()].join(":");
    command.env("LISTEN_FDS", sockets.len().to_string()).env("LISTEN_FDNAMES", names);
    // High numbers, so that moving one to its place does not overwrite another.
    let high: Vec<OwnedFd> = sockets
        .iter()
        .map(|socket| {
            let fd = fcntl(socket, FcntlArg::F_DUPFD_CLOEXEC(100)).unwrap();
            // SAFETY: the descriptor was made a line above and nothing else owns it.
            unsafe { OwnedFd::from_raw_fd(fd) }
        })
        .collect();
    // SAFETY: between fork and exec only dup2 is called, which is safe there.
    unsafe {
        command.pre_exec(move || {
            for (fd, place) in high.iter().zip(3..) {
                if nix::libc::dup2(fd.as_raw_fd(), place) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
}
