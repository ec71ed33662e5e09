//! Commands in running containers, and who holds the streams of a command or of a container.

use std::time::{Duration, Instant};

use super::managed::Wanted;
use super::{Caller, Pod, Told, failed, not_running};
use crate::protocol::{Refusal, Reply, StreamName};
use crate::shim::exec::Exec;
use crate::shim::launch::{Command, ExecFiles, Executing};
use crate::shim::reactor::Reactor;
use crate::shim::session::{Session, With};
use crate::shim::stdio;
use crate::spec::exec_process;

impl Pod {
    pub(super) fn exec(
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

    pub(super) fn exec_streams(
        &mut self,
        id: &str,
        command: &[String],
        wanted: Wanted,
        caller: Caller,
    ) -> Result<(), Refusal> {
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

    pub(super) fn attach(&mut self, id: &str, wanted: Wanted, caller: Caller) -> Result<(), Refusal> {
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
    pub(super) fn end_input(&mut self, client: u64) {
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
    pub(in crate::shim) fn client_left(&mut self, client: u64, reactor: &mut Reactor) {
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
    pub(super) fn end_sessions(&mut self, exit_code: i32, ended: impl Fn(&With) -> bool) -> bool {
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

    pub(in crate::shim) fn read_exec(&mut self, pid: i32, stream: usize, reactor: &mut Reactor) {
        if let Some((exec, _)) = self.execs.get_mut(&pid) {
            exec.read(stream, reactor);
        }
    }
}
