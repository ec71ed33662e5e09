//! The pod: all its containers, what is asked of them and what becomes of them.
//!
//! A container is created (a record and directories), started (a process), and ends; every change is written to its
//! record before anyone hears of it. Questions that cannot be answered at once (`Stop`, `Remove`, `Exec`, `Shutdown`)
//! wait in the container or exec that they are about; whoever holds
//! streams has a session.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::libc;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use super::exec::Exec;
use super::launch::{Command, ExecFiles, Executing, Launched, Site};
use super::log::Log;
use super::output::Stream;
use super::reactor::Reactor;
use super::session::{Session, With};
use super::stdio;
use crate::container::{Container, ContainerState};
use crate::error::{FileError, chain};
use crate::layout::{RootDir, is_plain_name, remove_tree, write_record};
use crate::protocol::{Call, CreateContainer, FromShim, Refusal, Reply, StreamName};
use crate::spec::{Built, PidNamespace, exec_process};
use crate::{RuntimeError, rootfs};

/// How long killed processes may take to leave a cgroup.
/// The exit code of a container whose process could not be started.
const NOT_STARTED: i32 = 128;
const DRAIN_PATIENCE: Duration = Duration::from_secs(2);
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

/// Streams that a client wants to hold.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

struct Managed {
    record: Container,
    request: CreateContainer,
    /// From start on.
    built: Option<Built>,
    log: Option<Log>,
    outputs: Vec<Stream>,
    /// Kept open for whoever attaches.
    input: Option<OwnedFd>,
    kill_at: Option<Instant>,
    /// Answered when the container has ended.
    stopping: Vec<Caller>,
    removing: Vec<Caller>,
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

    fn create(&mut self, request: CreateContainer) -> Result<Reply, Refusal> {
        if self.shutdown.is_some() {
            return Err(Refusal::Invalid("the sandbox is ending".to_owned()));
        }
        if !is_plain_name(&request.id) || self.containers.contains_key(&request.id) {
            return Err(Refusal::Invalid(format!("container identifier {} is taken or not valid", request.id)));
        }
        let (id, spec) = (request.id.clone(), &request.spec);
        let record = Container {
            id: id.clone(),
            sandbox_id: self.sandbox.clone(),
            name: spec.name.clone(),
            attempt: spec.attempt,
            image: spec.image.clone(),
            image_id: request.image.id.clone(),
            state: ContainerState::Created,
            pid: None,
            created_at: Timestamp::now(),
            started_at: None,
            finished_at: None,
            exit_code: None,
            reason: None,
            message: None,
            log_path: spec.log_path.clone(),
            labels: spec.labels.clone(),
        };
        self.prepare(&record).map_err(|error| Refusal::Failed(chain(&RuntimeError::from(error))))?;
        self.told.push(Told::News(FromShim::Changed(Box::new(record.clone()))));
        self.containers.insert(id, Managed::new(record, request));
        Ok(Reply::Done)
    }

    fn prepare(&self, record: &Container) -> Result<(), FileError> {
        use crate::error::IoContext as _;
        let dir = self.site.dir.container(&record.id);
        fs::create_dir_all(dir.path()).at("cannot create", dir.path())?;
        rootfs::create(&RootDir::new(&self.site.state_dir, &record.id))?;
        write_record(&dir.record(), record)
    }

    fn start(&mut self, id: &str, runtime: i32, reactor: &mut Reactor) -> Result<Reply, Refusal> {
        let cgroup = self.cgroup_of(id);
        let pid_namespace = self.pid_namespace_for(id)?;
        let managed = self.containers.get_mut(id).ok_or(Refusal::NoContainer)?;
        if managed.record.state != ContainerState::Created {
            return Err(Refusal::Invalid(format!("container {id} has been started before")));
        }
        let log = Log::open(&managed.request.spec.log_path)
            .map_err(|error| Refusal::Failed(format!("cannot open {}: {error}", managed.record.log_path.display())))?;
        let now = Timestamp::now();
        let result = self.site.launch(&managed.request, &cgroup, runtime, pid_namespace);
        let result = match result {
            Ok(launched) => {
                managed.record.started_at = Some(now);
                managed.run(launched, log, reactor).map_err(|error| Refusal::Failed(error.to_string()))
            }
            Err(failure) => {
                managed.record.started_at = Some(now);
                managed.record.finish(NOT_STARTED, "StartError", Some(failure.message.clone()));
                self.site.clean_libcontainer(id, &cgroup);
                Err(Refusal::CannotRun(failure.message))
            }
        };
        self.publish(id);
        result.map(|()| Reply::Done)
    }

    /// The pod's own arrangement, or that of the container whose processes this one is to see.
    fn pid_namespace_for(&self, id: &str) -> Result<PidNamespace, Refusal> {
        let target = self.containers.get(id).and_then(|managed| managed.request.spec.processes_of.as_deref());
        match (target, &self.site.pid_namespace) {
            (Some(target), PidNamespace::Own) => {
                let pid = self.containers.get(target).and_then(|managed| managed.record.pid);
                let pid = pid.ok_or_else(|| not_running(target))?;
                Ok(PidNamespace::Shared(format!("/proc/{pid}/ns/pid").into()))
            }
            (_, namespace) => Ok(namespace.clone()),
        }
    }

    fn stop(&mut self, id: &str, grace: Duration, caller: Caller) -> Option<Result<Reply, Refusal>> {
        let Some(managed) = self.containers.get_mut(id) else { return Some(Err(Refusal::NoContainer)) };
        let Some(pid) = managed.record.pid else { return Some(Ok(Reply::Done)) };
        managed.stopping.push(caller);
        let deadline = Instant::now() + grace;
        // A second stop may only hurry the end.
        managed.kill_at = Some(managed.kill_at.map_or(deadline, |earlier| earlier.min(deadline)));
        if !grace.is_zero() {
            send_signal(pid, managed.stop_signal());
        }
        self.kill_overdue(Instant::now());
        None
    }

    fn remove(&mut self, id: &str, caller: Caller, reactor: &mut Reactor) -> Option<Result<Reply, Refusal>> {
        let Some(managed) = self.containers.get_mut(id) else { return Some(Err(Refusal::NoContainer)) };
        if managed.record.is_running() {
            managed.removing.push(caller);
            managed.kill_at = Some(Instant::now());
            self.kill_overdue(Instant::now());
            return None;
        }
        Some(self.remove_ended(id, reactor))
    }

    fn remove_ended(&mut self, id: &str, reactor: &mut Reactor) -> Result<Reply, Refusal> {
        let cgroup = self.cgroup_of(id);
        self.site.clean_libcontainer(id, &cgroup);
        if let Some(mut managed) = self.containers.remove(id) {
            managed.close_outputs(reactor);
        }
        let removed = remove_tree(self.site.dir.container(id).path());
        self.told.push(Told::News(FromShim::Removed { id: id.to_owned() }));
        removed.map(|()| Reply::Done).map_err(|error| Refusal::Failed(chain(&RuntimeError::from(error))))
    }

    fn exec(
        &mut self,
        id: &str,
        command: &[String],
        timeout: Duration,
        limit: usize,
        caller: Caller,
        reactor: &mut Reactor,
    ) -> Option<Result<Reply, Refusal>> {
        match self.start_exec(id, command, timeout, limit, reactor) {
            Ok(pid_and_exec) => {
                self.execs.insert(pid_and_exec.0, (pid_and_exec.1, caller));
                None
            }
            Err(refusal) => Some(Err(refusal)),
        }
    }

    fn start_exec(
        &mut self,
        id: &str,
        command: &[String],
        timeout: Duration,
        limit: usize,
        reactor: &mut Reactor,
    ) -> Result<(i32, Exec), Refusal> {
        let deadline = Instant::now() + timeout;
        let (child, files) = stdio::pipes(false).map_err(failed)?;
        let pid = self.execute(id, command, ExecFiles::Pipes(child))?.pid;
        let exec = Exec::new(pid, files, limit, deadline, reactor).map_err(failed)?;
        Ok((pid, exec))
    }

    fn execute(&self, id: &str, command: &[String], files: ExecFiles) -> Result<Executing, Refusal> {
        let managed = self.containers.get(id).ok_or(Refusal::NoContainer)?;
        let (true, Some(built)) = (managed.record.is_running(), &managed.built) else {
            return Err(not_running(id));
        };
        let command = Command {
            container: id,
            process: exec_process(&built.config, command, matches!(files, ExecFiles::Terminal)),
            confinement: built.confinement,
            oom_score_adj: managed.request.spec.resources.oom_score_adj.unwrap_or(0),
        };
        self.site.launch_exec(&command, files).map_err(|failure| Refusal::CannotRun(failure.message))
    }

    fn exec_streams(&mut self, id: &str, command: &[String], wanted: Wanted, caller: Caller) -> Result<(), Refusal> {
        let (pid, streams) = if wanted.tty {
            let executing = self.execute(id, command, ExecFiles::Terminal)?;
            (executing.pid, executing.terminal.into_iter().map(|file| (StreamName::Terminal, file)).collect())
        } else {
            let (child, streams) = stdio::exec_pipes(wanted.stdin, wanted.stdout, wanted.stderr).map_err(failed)?;
            (self.execute(id, command, ExecFiles::Pipes(child))?.pid, streams)
        };
        self.sessions.push(Session { caller, with: With::Command { pid, kill_at: None } });
        self.told.push(Told::Streams(caller, streams));
        Ok(())
    }

    fn attach(&mut self, id: &str, wanted: Wanted, caller: Caller) -> Result<(), Refusal> {
        let managed = self.containers.get_mut(id).ok_or(Refusal::NoContainer)?;
        if !managed.record.is_running() {
            return Err(not_running(id));
        }
        let streams = managed.hand_over(wanted, caller.client).map_err(failed)?;
        self.sessions.push(Session { caller, with: With::Container(id.to_owned()) });
        self.told.push(Told::Streams(caller, streams));
        Ok(())
    }

    /// A container with `stdinOnce` sees the end of its input when the first who attached has nothing more to say.
    fn end_input(&mut self, client: u64) {
        for session in self.sessions.iter().filter(|session| session.caller.client == client) {
            if let With::Container(id) = &session.with
                && let Some(managed) = self.containers.get_mut(id)
                && managed.request.spec.stdin_once
            {
                managed.input = None;
            }
        }
    }

    /// Ends what the client held.
    pub(super) fn client_left(&mut self, client: u64, reactor: &mut Reactor) {
        self.end_input(client);
        let now = Instant::now();
        for session in self.sessions.iter().filter(|session| session.caller.client == client) {
            if let With::Container(id) = &session.with
                && let Some(managed) = self.containers.get_mut(id)
            {
                managed.outputs.iter_mut().for_each(|stream| stream.remove_copies(client, reactor));
            }
        }
        self.sessions.retain_mut(|session| session.caller.client != client || session.hang_up(now));
    }

    /// Tells those who hold these streams that their process has ended.
    fn end_sessions(&mut self, exit_code: i32, ended: impl Fn(&With) -> bool) -> bool {
        let mut any = false;
        self.sessions.retain(|session| {
            let ended = ended(&session.with);
            if ended {
                self.told.push(Told::Answer(session.caller, Ok(Reply::Exited { exit_code })));
            }
            any |= ended;
            !ended
        });
        any
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

    pub(super) fn read_exec(&mut self, pid: i32, stream: usize, reactor: &mut Reactor) {
        if let Some((exec, _)) = self.execs.get_mut(&pid) {
            exec.read(stream, reactor);
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

    fn container_ended(&mut self, id: &str, exit_code: i32, reactor: &mut Reactor) {
        let cgroup = self.cgroup_of(id);
        let Some(managed) = self.containers.get_mut(id) else { return };
        let out_of_memory = exit_code != 0 && self.site.cgroups.oom_kills(&cgroup) > 0;
        let reason = match exit_code {
            0 => "Completed",
            _ if out_of_memory => "OOMKilled",
            _ => "Error",
        };
        managed.record.finish(exit_code, reason, None);
        managed.kill_at = None;
        // With a shared PID namespace the rest of the container lives on unless it is killed.
        self.site.cgroups.kill_all(&cgroup);
        managed.drain(reactor);
        let stopping = std::mem::take(&mut managed.stopping);
        let removing = std::mem::take(&mut managed.removing);
        self.publish(id);
        self.end_sessions(exit_code, |with| matches!(with, With::Container(its) if its == id));
        self.told.extend(stopping.into_iter().map(|caller| Told::Answer(caller, Ok(Reply::Done))));
        if !removing.is_empty() {
            let result = self.remove_ended(id, reactor);
            self.told.extend(removing.into_iter().map(|caller| Told::Answer(caller, result.clone())));
        }
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

impl Managed {
    fn new(record: Container, request: CreateContainer) -> Self {
        Self {
            record,
            request,
            built: None,
            log: None,
            outputs: Vec::new(),
            input: None,
            kill_at: None,
            stopping: Vec::new(),
            removing: Vec::new(),
        }
    }

    fn run(&mut self, launched: Launched, log: Log, reactor: &mut Reactor) -> nix::Result<()> {
        self.record.state = ContainerState::Running;
        self.record.pid = Some(launched.pid);
        self.built = Some(launched.built);
        self.log = Some(log);
        self.input = launched.files.input;
        for (index, output) in launched.files.outputs.into_iter().enumerate() {
            self.outputs.push(Stream::new(&self.record.id, index, output, reactor)?);
        }
        Ok(())
    }

    /// The wanted streams for a client that attaches.
    fn hand_over(&mut self, wanted: Wanted, client: u64) -> io::Result<Vec<(StreamName, OwnedFd)>> {
        let tty = self.request.spec.tty;
        let mut streams = Vec::new();
        if let Some(input) = self.input.as_ref().filter(|_| tty || wanted.stdin) {
            let name = if tty { StreamName::Terminal } else { StreamName::Stdin };
            streams.push((name, input.try_clone()?));
        }
        let outputs = [(wanted.stdout, StreamName::Stdout), (wanted.stderr, StreamName::Stderr)];
        for (output, (wanted, name)) in self.outputs.iter_mut().zip(outputs) {
            if wanted {
                let (reader, writer) = stdio::copy_pipe()?;
                output.add_copy(client, writer);
                streams.push((name, reader));
            }
        }
        Ok(streams)
    }

    /// Whether there may be more at once.
    fn read(&mut self, stream: usize, reactor: &mut Reactor) -> bool {
        self.outputs.get_mut(stream).is_some_and(|stream| stream.read(self.log.as_mut(), reactor))
    }

    /// Reads what the ended container has left in its pipes, so that its log is complete when its end is told.
    fn drain(&mut self, reactor: &mut Reactor) {
        for stream in 0..self.outputs.len() {
            while self.read(stream, reactor) {}
        }
    }

    fn close_outputs(&mut self, reactor: &mut Reactor) {
        for stream in &mut self.outputs {
            stream.discard(reactor);
        }
    }

    fn stop_signal(&self) -> i32 {
        let wanted = self.request.spec.stop_signal.as_deref().or(self.request.image.stop_signal.as_deref());
        wanted.and_then(parse_signal).unwrap_or(libc::SIGTERM)
    }
}

impl Site {
    /// Removes what libcontainer knows of a container that has ended, and its cgroups.
    fn clean_libcontainer(&self, id: &str, cgroup: &str) {
        self.cgroups.drain(cgroup, DRAIN_PATIENCE);
        for result in [self.cgroups.remove(cgroup), remove_tree(&self.dir.libcontainer().join(id))] {
            if let Err(error) = result {
                tracing::warn!(error = %chain(&RuntimeError::from(error)), container = id, "cannot clean up");
            }
        }
    }
}

fn not_running(id: &str) -> Refusal {
    Refusal::Invalid(format!("container {id} is not running"))
}

fn failed(error: impl std::fmt::Display) -> Refusal {
    Refusal::Failed(error.to_string())
}

/// Sends any signal, real-time ones too.
fn send_signal(pid: i32, signal: i32) {
    // SAFETY: kill(2) touches no memory of ours. The process is an unreaped child, so its number is still its own.
    unsafe { libc::kill(pid, signal) };
}

/// `SIGTERM`, `TERM`, `15` or `SIGRTMIN+3`.
fn parse_signal(text: &str) -> Option<i32> {
    let upper = text.trim().to_ascii_uppercase();
    if let Ok(number) = upper.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = name.strip_prefix("RTMIN") {
        let offset: i32 = if offset.is_empty() { 0 } else { offset.strip_prefix('+')?.parse().ok()? };
        let number = libc::SIGRTMIN() + offset;
        return (number <= libc::SIGRTMAX()).then_some(number);
    }
    format!("SIG{name}").parse::<Signal>().ok().map(|signal| signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_name_signals_in_every_way() {
        for (text, want) in [
            ("SIGTERM", Some(15)),
            ("quit", Some(3)),
            ("2", Some(2)),
            ("SIGRTMIN+3", Some(libc::SIGRTMIN() + 3)),
            ("RTMIN", Some(libc::SIGRTMIN())),
            ("RTMIN+99", None),
            ("0", None),
            ("SIGNONSENSE", None),
        ] {
            assert_eq!(parse_signal(text), want, "{text}");
        }
    }
}
