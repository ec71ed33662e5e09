//! One container: its record, its process' streams, and who waits for its end.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use nix::libc;

use super::Caller;
use super::signals::parse_signal;
use crate::container::{Container, ContainerState};
use crate::protocol::{CreateContainer, StreamName};
use crate::shim::launch::Launched;
use crate::shim::log::Log;
use crate::shim::output::Stream;
use crate::shim::reactor::Reactor;
use crate::shim::stdio;
use crate::spec::Built;

/// Streams that a client wants to hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) tty: bool,
}

pub(super) struct Managed {
    pub(super) record: Container,
    pub(super) request: CreateContainer,
    /// From start on.
    pub(super) built: Option<Built>,
    pub(super) log: Option<Log>,
    pub(super) outputs: Vec<Stream>,
    /// Kept open for whoever attaches.
    pub(super) input: Option<OwnedFd>,
    pub(super) kill_at: Option<Instant>,
    /// Answered when the container has ended.
    pub(super) stopping: Vec<Caller>,
    pub(super) removing: Vec<Caller>,
}

impl Managed {
    pub(super) fn new(record: Container, request: CreateContainer) -> Self {
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

    pub(super) fn run(&mut self, launched: Launched, log: Log, reactor: &mut Reactor) -> nix::Result<()> {
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
    pub(super) fn hand_over(&mut self, wanted: Wanted, client: u64) -> io::Result<Vec<(StreamName, OwnedFd)>> {
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
    pub(super) fn read(&mut self, stream: usize, reactor: &mut Reactor) -> bool {
        self.outputs.get_mut(stream).is_some_and(|stream| stream.read(self.log.as_mut(), reactor))
    }

    /// Reads what the ended container has left in its pipes, so that its log is complete when its end is told.
    pub(super) fn drain(&mut self, reactor: &mut Reactor) {
        for stream in 0..self.outputs.len() {
            while self.read(stream, reactor) {}
        }
    }

    pub(super) fn close_outputs(&mut self, reactor: &mut Reactor) {
        for stream in &mut self.outputs {
            stream.discard(reactor);
        }
    }

    pub(super) fn stop_signal(&self) -> i32 {
        let wanted = self.request.spec.stop_signal.as_deref().or(self.request.image.stop_signal.as_deref());
        wanted.and_then(parse_signal).unwrap_or(libc::SIGTERM)
    }
}
