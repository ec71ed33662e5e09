//! The gateway as a process of its own, with listening sockets handed in or bound by itself.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::api_server::{ApiServer, eventually};
use crate::client::{Connection, Wire};

pub(crate) struct Gateway {
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
    pub(crate) admin: SocketAddr,
    /// The sockets that are handed in, if any.
    sockets: Option<[TcpListener; 2]>,
    arguments: Vec<String>,
    directory: TempDir,
    child: Child,
}

impl Gateway {
    /// Starts and waits until it is ready.
    pub(crate) async fn start(api: &ApiServer, arguments: &[&str]) -> Self {
        let gateway = Self::start_unready(api, arguments);
        gateway.until_ready().await;
        gateway
    }

    pub(crate) fn start_unready(api: &ApiServer, arguments: &[&str]) -> Self {
        let sockets = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let addresses = [0, 1].map(|index: usize| sockets[index].local_addr().unwrap());
        Self::run(api, Some(sockets), addresses, arguments)
    }

    /// Starts on sockets that the gateway binds itself.
    pub(crate) async fn start_bound(api: &ApiServer, arguments: &[&str]) -> Self {
        let [http, https] = [ports::free(), ports::free()];
        let (http_text, https_text) = (http.to_string(), https.to_string());
        let mut all = vec!["--http-bind", &http_text, "--https-bind", &https_text];
        all.extend(arguments);
        let gateway = Self::run(api, None, [http, https], &all);
        gateway.until_ready().await;
        gateway
    }

    fn run(
        api: &ApiServer,
        sockets: Option<[TcpListener; 2]>,
        [http, https]: [SocketAddr; 2],
        arguments: &[&str],
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let kubeconfig = directory.path().join("kubeconfig");
        std::fs::write(&kubeconfig, api.kubeconfig()).unwrap();
        let admin = ports::free();
        let mut all = vec!["--kubeconfig".to_owned(), kubeconfig.to_str().unwrap().to_owned()];
        all.extend(["--admin-bind".to_owned(), admin.to_string(), "--threads".to_owned(), "2".to_owned()]);
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let child = spawn(sockets.as_ref(), &all);
        Self { http, https, admin, sockets, arguments: all, directory, child }
    }

    /// Starts a new process on the same sockets after the former has ended.
    pub(crate) fn respawn(&mut self) {
        assert!(self.directory.path().exists());
        self.child = spawn(self.sockets.as_ref(), &self.arguments);
    }

    pub(crate) async fn until_ready(&self) {
        for _ in 0..1500 {
            if self.admin_page("/readyz").await.is_some_and(|(status, _)| status == 200) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not ready within 15 s");
    }

    /// Waits until a route to a host shows on the dump page, or has gone from it.
    pub(crate) async fn until_route(&self, host: &str, present: bool) {
        for _ in 0..1000 {
            let (_, body) = self.admin_page("/routes").await.unwrap();
            if body.contains(&format!("\"host\": \"{host}\"")) == present {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("route of {host} is not {present} within 5 s");
    }

    pub(crate) async fn admin_page(&self, path: &str) -> Option<(u16, String)> {
        let mut connection = Connection::open(self.admin, Wire::Http).await.ok()?;
        let reply = connection.get("admin", path).await.ok()?;
        Some((reply.status, reply.body))
    }

    /// The value of a metric, by its name with labels.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let (_, page) = self.admin_page("/metrics").await.unwrap();
        let line = page.lines().find(|line| line.split(' ').next() == Some(name));
        line.and_then(|line| line.split(' ').nth(1)).map_or(f64::NAN, |value| value.parse().unwrap())
    }

    /// Waits until a metric has a value.
    pub(crate) async fn until_metric(&self, name: &str, expected: f64) {
        let mut value = f64::NAN;
        for _ in 0..300 {
            value = self.metric(name).await;
            if value == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{name} is {value} and not {expected} within 3 s");
    }

    /// The resident memory of the process.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub(crate) async fn explain(&self, url: &str) -> String {
        self.admin_page(&format!("/explain?url={url}")).await.unwrap().1
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    pub(crate) async fn until_exit(&mut self) -> ExitStatus {
        let child = std::sync::Mutex::new(&mut self.child);
        let status = std::sync::OnceLock::new();
        eventually("gateway exits", || {
            child.lock().unwrap().try_wait().unwrap().is_some_and(|exit| status.set(exit).is_ok())
        })
        .await;
        *status.get().unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(sockets: Option<&[TcpListener; 2]>, arguments: &[String]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-ingress"));
    command
        .args(arguments)
        .env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".to_owned()))
        .env_remove("LISTEN_FDS")
        .stdin(Stdio::null());
    // High numbers, so that moving one to its place does not overwrite the other.
    let high: Vec<OwnedFd> = (sockets.into_iter().flatten())
        .map(|socket| {
            let fd = fcntl(socket, FcntlArg::F_DUPFD_CLOEXEC(100)).unwrap();
            // SAFETY: the descriptor was made a line above and nothing else owns it.
            unsafe { OwnedFd::from_raw_fd(fd) }
        })
        .collect();
    if !high.is_empty() {
        command.env("LISTEN_FDS", "2").env("LISTEN_FDNAMES", "http:https");
        let numbers: Vec<_> = high.iter().map(AsRawFd::as_raw_fd).collect();
        // SAFETY: between fork and exec only dup2 is called, which is safe there.
        unsafe {
            command.pre_exec(move || {
                for (fd, place) in numbers.iter().zip(3..) {
                    if nix::libc::dup2(*fd, place) < 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                }
                Ok(())
            });
        }
    }
    command.spawn().unwrap()
}
