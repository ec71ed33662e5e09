//! The pod: all its containers, what is asked of them and what becomes of them.
//!
//! A container is created (a record and directories), started (a process), and ends; every change is written to its
//! record before anyone hears of it. Questions that cannot be answered at once (`Stop`, `Remove`, `Exec`, `Shutdown`)
//! wait in the container or exec that they are about; whoever holds
//! streams has a session.
//!
//! [`lifecycle`] makes, starts, stops and removes containers, [`commands`] runs commands in them and holds streams,
//! [`managed`] is one container, [`signals`] reads and sends signals.

mod commands;
mod lifecycle;
mod managed;
mod signals;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use self::managed::{Managed, Wanted};
use self::signals::send_signal;
use super::exec::Exec;
use super::launch::Site;
use super::output::Stream;
use super::reactor::Reactor;
use super::session::{Session, With};
use crate::RuntimeError;
use crate::error::chain;
use crate::layout::write_record;
use crate::protocol::{Call, FromShim, Refusal, Reply, StreamName};

/// An exec without a time limit of its own ends after this.
const EXEC_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

/// Who asked, and which of his questions it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) client: u64,
    pub(super) request: u64,
}

/// Something to be told.
#[derive(Debug)]
pub(super) enum Told {
    Answer(Caller, Result<Reply, Refusal>),
    /// An answer that hands over files.
    Streams(Caller, Vec<(StreamName, OwnedFd)>),
    /// To everyone who watches.
    News(FromShim),
}

pub(super) struct Pod {
    sandbox: String,
    site: Site,
    /// Parent of the containers' cgroups.
    cgroup: String,
    containers: BTreeMap<String, Managed>,
    /// By process.
    execs: BTreeMap<i32, (Exec, Caller)>,
    sessions: Vec<Session>,
    shutdown: Option<Caller>,
    told: Vec<Told>,
}

impl Pod {
    pub(super) fn new(sandbox: String, cgroup: String, site: Site) -> Self {
        Self {
            sandbox,
            site,
            cgroup,
            containers: BTreeMap::new(),
            execs: BTreeMap::new(),
            sessions: Vec::new(),
            shutdown: None,
            told: Vec::new(),
        }
    }

    /// What there is to tell since the last time.
    pub(super) fn take_told(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told)
    }

    pub(super) fn handle(&mut self, caller: Caller, call: Call, reactor: &mut Reactor) {
        let answer = match call {
            Call::Watch => Some(Ok(self.all_containers())),
            Call::Create(request) => Some(self.create(*request)),
            Call::Start { id, runtime } => Some(self.start(&id, runtime, reactor)),
            Call::Stop { id, grace_ms } => self.stop(&id, Duration::from_millis(grace_ms), caller),
            Call::Remove { id } => self.remove(&id, caller, reactor),
            Call::Exec { id, command, timeout_ms, limit } => {
                let timeout = Duration::from_millis(timeout_ms).min(EXEC_TIMEOUT_MAX);
                self.exec(&id, &command, timeout, limit, caller, reactor)
            }
            Call::ExecStreams { id, command, stdin, stdout, stderr, tty } => {
                let wanted = Wanted { stdin, stdout, stderr, tty };
                self.exec_streams(&id, &command, wanted, caller).err().map(Err)
            }
            Call::Attach { id, stdin, stdout, stderr } => {
                self.attach(&id, Wanted { stdin, stdout, stderr, tty: false }, caller).err().map(Err)
            }
            Call::EndInput => {
                self.end_input(caller.client);
                Some(Ok(Reply::Done))
            }
            Call::Shutdown => {
                self.shutdown(Some(caller));
                None
            }
        };
        if let Some(result) = answer {
            self.told.push(Told::Answer(caller, result));
        }
    }

    fn all_containers(&self) -> Reply {
        Reply::Containers(self.containers.values().map(|managed| managed.record.clone()).collect())
    }

    /// Kills everything and lets nothing new begin.
    pub(super) fn shutdown(&mut self, caller: Option<Caller>) {
        self.shutdown = self.shutdown.or(caller).or(Some(Caller { client: u64::MAX, request: 0 }));
        let now = Instant::now();
        for managed in self.containers.values_mut().filter(|managed| managed.record.is_running()) {
            managed.kill_at = Some(now);
        }
        self.kill_overdue(now);
    }

    /// Whether the pod has ended as asked; tells so once.
    pub(super) fn has_ended(&mut self) -> bool {
        let running = self.containers.values().any(|managed| managed.record.is_running());
        let has_commands = self.sessions.iter().any(|session| matches!(session.with, With::Command { .. }));
        match self.shutdown {
            Some(caller) if !running && self.execs.is_empty() && !has_commands => {
                self.told.push(Told::Answer(caller, Ok(Reply::Done)));
                true
            }
            _ => false,
        }
    }

    pub(super) fn read_container(&mut self, id: &str, stream: usize, reactor: &mut Reactor) {
        if let Some(managed) = self.containers.get_mut(id) {
            managed.read(stream, reactor);
        }
    }

    /// There is room again for copies of a container's output.
    pub(super) fn copy_container(&mut self, id: &str, stream: usize, reactor: &mut Reactor) {
        if let Some(stream) = self.containers.get_mut(id).and_then(|managed| managed.outputs.get_mut(stream)) {
            stream.flush(reactor);
        }
    }

    /// Takes note of every child that has ended; as subreaper also of strangers.
    pub(super) fn reap(&mut self, reactor: &mut Reactor) {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => self.ended(pid.as_raw(), code, reactor),
                Ok(WaitStatus::Signaled(pid, signal, _)) => self.ended(pid.as_raw(), 128 + signal as i32, reactor),
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    fn ended(&mut self, pid: i32, exit_code: i32, reactor: &mut Reactor) {
        if let Some((exec, caller)) = self.execs.remove(&pid) {
            let result = exec.finish(exit_code, reactor);
            self.told.push(Told::Answer(caller, result));
            return;
        }
        if self.end_sessions(exit_code, |with| matches!(with, With::Command { pid: its, .. } if *its == pid)) {
            return;
        }
        let Some(id) = self.containers.values().find(|it| it.record.pid == Some(pid)).map(|it| it.record.id.clone())
        else {
            return;
        };
        self.container_ended(&id, exit_code, reactor);
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let kills = self.containers.values().filter_map(|managed| managed.kill_at);
        let execs = self.execs.values().filter_map(|(exec, _)| exec.next_deadline());
        let sessions = self.sessions.iter().filter_map(Session::next_deadline);
        let copies = self.streams().filter_map(Stream::next_deadline);
        kills.chain(execs).chain(sessions).chain(copies).min()
    }

    fn streams(&self) -> impl Iterator<Item = &Stream> {
        self.containers.values().flat_map(|managed| &managed.outputs)
    }

    /// Cuts off who does not read what he asked for.
    pub(super) fn drop_stalled(&mut self, now: Instant, reactor: &mut Reactor) {
        for stream in self.containers.values_mut().flat_map(|managed| &mut managed.outputs) {
            stream.drop_stalled(now, reactor);
        }
    }

    pub(super) fn kill_overdue(&mut self, now: Instant) {
        for managed in self.containers.values_mut() {
            if managed.kill_at.is_some_and(|at| at <= now) {
                managed.kill_at = None;
                if let Some(pid) = managed.record.pid {
                    self.site.cgroups.kill_all(&format!("{}/{}", self.cgroup, managed.record.id));
                    send_signal(pid, libc::SIGKILL);
                }
            }
        }
        for (exec, _) in self.execs.values_mut().filter(|(exec, _)| exec.is_overdue(now)) {
            exec.kill();
        }
        for session in &mut self.sessions {
            session.kill_overdue(now);
        }
    }

    /// Writes a container's record and tells of its change.
    fn publish(&mut self, id: &str) {
        let Some(managed) = self.containers.get(id) else { return };
        if let Err(error) = write_record(&self.site.dir.container(id).record(), &managed.record) {
            tracing::error!(error = %chain(&RuntimeError::from(error)), container = id, "cannot write record");
        }
        self.told.push(Told::News(FromShim::Changed(Box::new(managed.record.clone()))));
    }

    fn cgroup_of(&self, id: &str) -> String {
        format!("{}/{id}", self.cgroup)
    }
}

fn not_running(id: &str) -> Refusal {
    Refusal::Invalid(format!("container {id} is not running"))
}

fn failed(error: impl std::fmt::Display) -> Refusal {
    Refusal::Failed(error.to_string())
}
