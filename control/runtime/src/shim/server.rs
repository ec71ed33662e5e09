//! The shim's event loop: clients on a Unix socket, children that end, output to be read, deadlines.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::launch::Site;
use super::mount_scope::{Home, Shm};
use super::namespace::PodInit;
use super::pod::{Caller, Pod, Told};
use super::reactor::{Reactor, Source, Token};
use crate::cgroup::Hierarchies;
use crate::layout::{SHIM_SOCKET, SandboxDir, read_record, socket_path, write_record};
use crate::protocol::{Boot, Call, FromShim, Reply, Request, encode_line};
use crate::sandbox::{SandboxRecord, SandboxState};
use crate::spec::PidNamespace;
use crate::spec::capability::Capabilities;

/// A request longer than this ends the connection.
const REQUEST_BYTES_MAX: usize = 8 << 20;
/// A client that leaves this much unread is cut off; it may come back and ask for the state.
const UNREAD_BYTES_MAX: usize = 8 << 20;

pub(super) struct Server {
    dir: SandboxDir,
    reactor: Reactor,
    listener: UnixListener,
    signals: SignalFd,
    clients: BTreeMap<u64, Client>,
    next_client: u64,
    pod: Pod,
}

struct Client {
    stream: UnixStream,
    token: Token,
    input: Vec<u8>,
    output: Vec<u8>,
    watching: bool,
}

impl Server {
    /// Prepares everything that a container could need, and listens.
    pub(super) fn bind(boot: &Boot, dir: &SandboxDir) -> anyhow::Result<Self> {
        let home = Home::here().context("cannot open the mount namespace")?;
        let shm = Shm::new(boot.spec.host_ipc, &home, &dir.shm())?;
        for path in [dir.libcontainer(), dir.containers()] {
            fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        }
        let mut reactor = Reactor::new().context("cannot make an epoll instance")?;
        let signals = block_signals().context("cannot take signals")?;
        reactor.watch(&signals, Source::Signals)?;
        let pid_namespace = match (boot.spec.host_pid, boot.spec.share_pid) {
            (true, _) => PidNamespace::Host,
            (false, true) => PidNamespace::Shared(PodInit::start().context("cannot start the pod's init")?.namespace()),
            (false, false) => PidNamespace::Own,
        };
        let site = Site {
            dir: dir.clone(),
            state_dir: boot.state_dir.clone(),
            layer_dir: boot.layer_dir.clone(),
            cgroups: Hierarchies::find().context("cannot find the cgroup hierarchies")?,
            home,
            shm,
            hostname: hostname()?,
            pid_namespace,
            available: Capabilities::of_this_process(),
        };
        let listener = listen(dir.path()).context("cannot listen")?;
        reactor.watch(&listener, Source::Listener)?;
        let pod = Pod::new(boot.id.clone(), boot.cgroup.clone(), site);
        Ok(Self { dir: dir.clone(), reactor, listener, signals, clients: BTreeMap::new(), next_client: 0, pod })
    }

    pub(super) fn run(mut self) -> anyhow::Result<()> {
        loop {
            let ready = self.reactor.wait(self.pod.next_deadline()).context("cannot wait for events")?;
            for source in ready {
                self.handle(source)?;
            }
            let now = Instant::now();
            self.pod.kill_overdue(now);
            self.pod.drop_stalled(now, &mut self.reactor);
            let ended = self.pod.has_ended();
            if ended {
                self.record_end();
            }
            self.tell();
            if ended {
                return Ok(());
            }
        }
    }

    fn handle(&mut self, source: Source) -> anyhow::Result<()> {
        match source {
            Source::Listener => self.accept()?,
            Source::Signals => self.take_signals()?,
            Source::Client(id) => self.serve(id),
            Source::Output { container, stream } => self.pod.read_container(&container, stream, &mut self.reactor),
            Source::Exec { pid, stream } => self.pod.read_exec(pid, stream, &mut self.reactor),
            Source::Copy { container, stream } => self.pod.copy_container(&container, stream, &mut self.reactor),
        }
        Ok(())
    }

    fn accept(&mut self) -> anyhow::Result<()> {
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                return Ok(());
            }
        };
        stream.set_nonblocking(true).context("cannot set up a connection")?;
        let id = self.next_client;
        self.next_client += 1;
        let token = self.reactor.watch(&stream, Source::Client(id)).context("cannot watch a connection")?;
        self.clients.insert(id, Client { stream, token, input: Vec::new(), output: Vec::new(), watching: false });
        Ok(())
    }

    fn take_signals(&mut self) -> anyhow::Result<()> {
        while let Some(info) = self.signals.read_signal().context("cannot read signals")? {
            if info.ssi_signo == Signal::SIGTERM as u32 {
                self.pod.shutdown(None);
            }
        }
        self.pod.reap(&mut self.reactor);
        Ok(())
    }

    fn serve(&mut self, id: u64) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let open = client.read();
        let requests = client.take_requests();
        for line in requests {
            match serde_json::from_slice::<Request>(&line) {
                Ok(request) => {
                    if let (Call::Watch, Some(client)) = (&request.call, self.clients.get_mut(&id)) {
                        client.watching = true;
                    }
                    let caller = Caller { client: id, request: request.id };
                    self.pod.handle(caller, request.call, &mut self.reactor);
                }
                Err(error) => {
                    tracing::warn!(%error, "request cannot be understood");
                    self.drop_client(id);
                    return;
                }
            }
        }
        if !open {
            self.drop_client(id);
        }
    }

    /// Hands out answers and news in the order in which they came up.
    fn tell(&mut self) {
        for told in self.pod.take_told() {
            match told {
                Told::Answer(caller, result) => {
                    let line = encode_line(&FromShim::Answer { id: caller.request, result });
                    if let Some(client) = self.clients.get_mut(&caller.client) {
                        client.output.extend_from_slice(&line);
                    }
                }
                Told::Streams(caller, streams) => {
                    let (names, files): (Vec<_>, Vec<_>) = streams.into_iter().unzip();
                    let line = encode_line(&FromShim::Answer { id: caller.request, result: Ok(Reply::Streams(names)) });
                    let client = self.clients.get(&caller.client);
                    if client.is_some_and(|client| !client.hand_over(&line, &files)) {
                        self.drop_client(caller.client);
                    }
                }
                Told::News(news) => {
                    let line = encode_line(&news);
                    for client in self.clients.values_mut().filter(|client| client.watching) {
                        client.output.extend_from_slice(&line);
                    }
                }
            }
        }
        let mut gone = Vec::new();
        for (id, client) in &mut self.clients {
            if !client.output.is_empty() && !client.flush(&self.reactor) {
                gone.push(*id);
            }
        }
        for id in gone {
            self.drop_client(id);
        }
    }

    fn drop_client(&mut self, id: u64) {
        if let Some(client) = self.clients.remove(&id) {
            self.reactor.forget(&client.stream, client.token);
            self.pod.client_left(id, &mut self.reactor);
        }
    }

    /// A sandbox that has ended is seen as such also by a runtime that was not there.
    fn record_end(&self) {
        let path = self.dir.record();
        let result = read_record::<SandboxRecord>(&path).and_then(|mut record| {
            record.sandbox.state = SandboxState::NotReady;
            write_record(&path, &record)
        });
        if let Err(error) = result {
            tracing::warn!(error = %crate::RuntimeError::from(error), "cannot record the end of the sandbox");
        }
    }
}

impl Client {
    /// Reads what there is; false at the end of the connection.
    fn read(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(count) => self.input.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
            if self.input.len() > REQUEST_BYTES_MAX {
                return false;
            }
        }
    }

    fn take_requests(&mut self) -> Vec<Vec<u8>> {
        let Some(end) = self.input.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
        let complete: Vec<u8> = self.input.drain(..=end).collect();
        complete.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
    }

    /// Sends a message with files; false if that does not work at once.
    fn hand_over(&self, line: &[u8], files: &[OwnedFd]) -> bool {
        let files: Vec<_> = files.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&files)];
        let flags = MsgFlags::MSG_NOSIGNAL;
        let sent = sendmsg::<()>(self.stream.as_raw_fd(), &[IoSlice::new(line)], &rights, flags, None);
        // Nothing but this conversation goes over its connection, so there is room.
        self.output.is_empty() && sent == Ok(line.len())
    }

    /// Writes what can be written; false if the client is gone or does not listen.
    fn flush(&mut self, reactor: &Reactor) -> bool {
        loop {
            match self.stream.write(&self.output) {
                Ok(count) => {
                    self.output.drain(..count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
            if self.output.is_empty() {
                break;
            }
        }
        let unread = !self.output.is_empty();
        self.output.len() <= UNREAD_BYTES_MAX && reactor.watch_writing(&self.stream, self.token, unread).is_ok()
    }
}

/// Signals are read from a file, in turn with everything else.
fn block_signals() -> nix::Result<SignalFd> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

fn listen(dir: &Path) -> io::Result<UnixListener> {
    let handle = File::open(dir)?;
    let path: PathBuf = socket_path(&handle, SHIM_SOCKET);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(dir.join(SHIM_SOCKET), fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn hostname() -> anyhow::Result<String> {
    let name = nix::unistd::gethostname().context("cannot read the host name")?;
    Ok(name.to_string_lossy().into_owned())
}
