//! Short commands inside a container (probes, hooks): their output is captured up to a limit, their time is bounded.

use std::os::fd::OwnedFd;
use std::time::Instant;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::reactor::{Reactor, Source, Token};
use super::stdio::{Output, ShimFiles, read_output};
use crate::protocol::{ExecReply, Refusal, Reply};

/// A command that has been started.
#[derive(Debug)]
pub(super) struct Exec {
    pid: i32,
    captures: Vec<Capture>,
    limit: usize,
    pub(super) deadline: Instant,
    timed_out: bool,
}

#[derive(Debug)]
struct Capture {
    file: Option<(OwnedFd, Token)>,
    bytes: Vec<u8>,
}

impl Exec {
    pub(super) fn new(
        pid: i32,
        files: ShimFiles,
        limit: usize,
        deadline: Instant,
        reactor: &mut Reactor,
    ) -> nix::Result<Self> {
        let mut captures = Vec::new();
        for (stream, (_, file)) in files.outputs.into_iter().enumerate() {
            let token = reactor.watch(&file, Source::Exec { pid, stream })?;
            captures.push(Capture { file: Some((file, token)), bytes: Vec::new() });
        }
        Ok(Self { pid, captures, limit, deadline, timed_out: false })
    }

    pub(super) fn read(&mut self, stream: usize, reactor: &mut Reactor) {
        if let Some(capture) = self.captures.get_mut(stream) {
            capture.read(self.limit, reactor);
        }
    }

    /// Kills the command and what it started in its session.
    pub(super) fn kill(&mut self) {
        self.timed_out = true;
        let pid = Pid::from_raw(self.pid);
        // Gone is what it should be.
        let _ = killpg(pid, Signal::SIGKILL);
        let _ = kill(pid, Signal::SIGKILL);
    }

    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        !self.timed_out && now >= self.deadline
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        (!self.timed_out).then_some(self.deadline)
    }

    /// The answer, once the process has ended. What its descendants may still write is not waited for.
    pub(super) fn finish(mut self, exit_code: i32, reactor: &mut Reactor) -> Result<Reply, Refusal> {
        for capture in &mut self.captures {
            while capture.read(self.limit, reactor) {}
            capture.close(reactor);
        }
        if self.timed_out {
            return Err(Refusal::TimedOut);
        }
        let bytes = |stream: usize| self.captures.get(stream).map_or(&[][..], |capture| &capture.bytes);
        Ok(Reply::Exec(ExecReply::encode(exit_code, bytes(0), bytes(1))))
    }
}

impl Capture {
    /// Whether there may be more at once.
    fn read(&mut self, limit: usize, reactor: &mut Reactor) -> bool {
        let Some((file, _)) = &self.file else { return false };
        match read_output(file) {
            Output::Bytes(bytes) => {
                let room = limit.saturating_sub(self.bytes.len());
                self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
                // A flood beyond the limit must not keep the shim here.
                self.bytes.len() < limit
            }
            Output::NothingNow => false,
            Output::End => {
                self.close(reactor);
                false
            }
        }
    }

    fn close(&mut self, reactor: &mut Reactor) {
        if let Some((file, token)) = self.file.take() {
            reactor.forget(&file, token);
        }
    }
}
