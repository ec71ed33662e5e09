//! The pod: all its containers, what is asked of them and what becomes of them.
//!
//! A container is created (a record and directories), started (a process), and ends; every change is written to its
//! record before anyone hears of it. Questions that cannot be answered at once (`Stop`, `Remove`, `Exec`, `Shutdown`)
//! wait in the container or exec that they are about.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::libc;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use super::exec::Exec;
use super::launch::{Launched, Site};
use super::log::{Lines, Log};
use super::reactor::{Reactor, Source, Token};
use super::stdio::{self, Output, read_output};
use crate::container::{Container, ContainerState};
use crate::error::{FileError, chain};
use crate::layout::{RootDir, is_plain_name, remove_tree, write_record};
use crate::protocol::{Call, CreateContainer, FromShim, Refusal, Reply};
use crate::spec::{Built, exec_process};
use crate::{RuntimeError, rootfs};

/// How long killed processes may take to leave a cgroup.
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
    shutdown: Option<Caller>,
    told: Vec<Told>,
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

struct Stream {
    lines: Lines,
    file: Option<(OwnedFd, Token)>,
}

impl Pod {
    pub(super) fn new(sandbox: String, cgroup: String, site: Site) -> Self {
        Self {
            sandbox,
            site,
            cgroup,
            containers: BTreeMap::new(),
            execs: BTreeMap::new(),
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
        let managed = self.containers.get_mut(id).ok_or(Refusal::NoContainer)?;
        if managed.record.state != ContainerState::Created {
            return Err(Refusal::Invalid(format!("container {id} has been started before")));
        }
        let log = Log::open(&managed.request.spec.log_path)
            .map_err(|error| Refusal::Failed(format!("cannot open {}: {error}", managed.record.log_path.display())))?;
        let now = Timestamp::now();
        let result = self.site.launch(&managed.request, &cgroup, runtime);
        let result = match result {
            Ok(launched) => {
                managed.record.started_at = Some(now);
                managed.run(launched, log, reactor).map_err(|error| Refusal::Failed(error.to_string()))
            }
            Err(failure) => {
                managed.record.started_at = Some(now);
                managed.record.finish(failure.exit_code, "ContainerCannotRun", Some(failure.message.clone()));
                self.site.clean_libcontainer(id, &cgroup);
                Err(Refusal::CannotRun(failure.message))
            }
        };
        self.publish(id);
        result.map(|()| Reply::Done)
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
        let managed = self.containers.get(id).ok_or(Refusal::NoContainer)?;
        let (true, Some(built)) = (managed.record.is_running(), &managed.built) else {
            return Err(Refusal::Invalid(format!("container {id} is not running")));
        };
        let deadline = Instant::now() + timeout;
        let failed = |error: &dyn std::fmt::Display| Refusal::Failed(error.to_string());
        let (child, files) = stdio::pipes(false).map_err(|error| failed(&error))?;
        let process = exec_process(&built.config, command);
        let score = managed.request.spec.resources.oom_score_adj.unwrap_or(0);
        let pid = self
            .site
            .launch_exec(id, &process, built.confinement, score, child)
            .map_err(|failure| Refusal::CannotRun(failure.message))?;
        let exec = Exec::new(pid, files, limit, deadline, reactor).map_err(|error| failed(&error))?;
        Ok((pid, exec))
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
        match self.shutdown {
            Some(caller) if !running && self.execs.is_empty() => {
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
        self.told.extend(stopping.into_iter().map(|caller| Told::Answer(caller, Ok(Reply::Done))));
        if !removing.is_empty() {
            let result = self.remove_ended(id, reactor);
            self.told.extend(removing.into_iter().map(|caller| Told::Answer(caller, result.clone())));
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let kills = self.containers.values().filter_map(|managed| managed.kill_at);
        let execs = self.execs.values().filter_map(|(exec, _)| exec.next_deadline());
        kills.chain(execs).min()
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
        for (stream, (name, file)) in launched.files.outputs.into_iter().enumerate() {
            let token = reactor.watch(&file, Source::Output { container: self.record.id.clone(), stream })?;
            self.outputs.push(Stream { lines: Lines::new(name), file: Some((file, token)) });
        }
        Ok(())
    }

    /// Whether there may be more at once.
    fn read(&mut self, stream: usize, reactor: &mut Reactor) -> bool {
        let Some(Stream { lines, file: slot }) = self.outputs.get_mut(stream) else { return false };
        let Some((file, _)) = slot else { return false };
        let (records, more) = match read_output(file) {
            Output::Bytes(bytes) => (lines.push(&bytes, Timestamp::now()), true),
            Output::NothingNow => (Vec::new(), false),
            Output::End => {
                if let Some((file, token)) = slot.take() {
                    reactor.forget(&file, token);
                }
                (lines.finish(Timestamp::now()), false)
            }
        };
        if let Some(log) = &mut self.log {
            log.write(&records);
        }
        more
    }

    /// Reads what the ended container has left in its pipes, so that its log is complete when its end is told.
    fn drain(&mut self, reactor: &mut Reactor) {
        for stream in 0..self.outputs.len() {
            while self.read(stream, reactor) {}
        }
    }

    fn close_outputs(&mut self, reactor: &mut Reactor) {
        for stream in &mut self.outputs {
            if let Some((file, token)) = stream.file.take() {
                reactor.forget(&file, token);
            }
        }
    }

    fn stop_signal(&self) -> i32 {
        self.request.image.stop_signal.as_deref().and_then(parse_signal).unwrap_or(libc::SIGTERM)
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
