//! One output stream of a container: written to its log, and copied to whoever is attached.
//!
//! A reader of a copy that is slower than the container slows the container down, as it would without a shim between
//! them; one that does not read at all is cut off after a while.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::errno::Errno;
use nix::unistd::write;

use super::log::{Lines, Log};
use super::reactor::{Reactor, Source, Token};
use super::stdio::{Output, read_output};

/// How long a reader of a copy may leave everything unread.
const STALL_MAX: Duration = Duration::from_secs(10);

pub(super) struct Stream {
    container: String,
    index: usize,
    lines: Lines,
    /// Until its end.
    file: Option<Watched>,
    copies: Vec<Copy>,
}

struct Watched {
    file: OwnedFd,
    /// None while a copy is behind.
    token: Option<Token>,
}

struct Copy {
    client: u64,
    file: OwnedFd,
    pending: Vec<u8>,
    /// While something is pending.
    waiting: Option<(Token, Instant)>,
}

impl Stream {
    pub(super) fn new(
        container: &str,
        index: usize,
        (name, file): (&'static str, OwnedFd),
        reactor: &mut Reactor,
    ) -> nix::Result<Self> {
        let mut stream = Self {
            container: container.to_owned(),
            index,
            lines: Lines::new(name),
            file: Some(Watched { file, token: None }),
            copies: Vec::new(),
        };
        stream.resume(reactor)?;
        Ok(stream)
    }

    /// Takes what there is; tells whether there may be more at once.
    pub(super) fn read(&mut self, log: Option<&mut Log>, reactor: &mut Reactor) -> bool {
        let Some(watched) = &self.file else { return false };
        let (records, more) = match read_output(&watched.file) {
            Output::Bytes(bytes) => {
                self.copy(&bytes, reactor);
                (self.lines.push(&bytes, Timestamp::now()), true)
            }
            Output::NothingNow => (Vec::new(), false),
            Output::End => {
                self.close(reactor);
                (self.lines.finish(Timestamp::now()), false)
            }
        };
        if let Some(log) = log {
            log.write(&records);
        }
        more
    }

    /// Copies everything from now on into a pipe.
    pub(super) fn add_copy(&mut self, client: u64, file: OwnedFd) {
        if self.file.is_some() {
            self.copies.push(Copy { client, file, pending: Vec::new(), waiting: None });
        }
    }

    pub(super) fn remove_copies(&mut self, client: u64, reactor: &mut Reactor) {
        self.retain_copies(reactor, |copy, _| copy.client != client);
    }

    /// Writes on where there is room again.
    pub(super) fn flush(&mut self, reactor: &mut Reactor) {
        self.retain_copies(reactor, Copy::flush);
    }

    /// Cuts off readers that do not read.
    pub(super) fn drop_stalled(&mut self, now: Instant, reactor: &mut Reactor) {
        if self.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.retain_copies(reactor, |copy, _| copy.deadline().is_none_or(|deadline| deadline > now));
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.copies.iter().filter_map(Copy::deadline).min()
    }

    /// Reads no more; copies end when they have everything.
    pub(super) fn close(&mut self, reactor: &mut Reactor) {
        self.pause(reactor);
        self.file = None;
        self.flush(reactor);
    }

    /// Ends it with all its copies, whatever they still miss.
    pub(super) fn discard(&mut self, reactor: &mut Reactor) {
        self.pause(reactor);
        self.file = None;
        self.retain_copies(reactor, |_, _| false);
    }

    fn copy(&mut self, bytes: &[u8], reactor: &mut Reactor) {
        if self.copies.is_empty() {
            return;
        }
        for copy in &mut self.copies {
            copy.pending.extend_from_slice(bytes);
        }
        self.flush(reactor);
        let source = Source::Copy { container: self.container.clone(), stream: self.index };
        for copy in self.copies.iter_mut().filter(|copy| !copy.pending.is_empty() && copy.waiting.is_none()) {
            match reactor.watch_room(&copy.file, source.clone()) {
                Ok(token) => copy.waiting = Some((token, Instant::now())),
                Err(error) => {
                    tracing::warn!(%error, "cannot watch a copy of a container's output");
                    copy.pending.clear();
                }
            }
        }
        if self.is_behind() {
            self.pause(reactor);
        }
    }

    fn is_behind(&self) -> bool {
        self.copies.iter().any(|copy| copy.waiting.is_some())
    }

    /// Keeps the copies for which `keep` holds, and reads on if none of them is behind.
    fn retain_copies(&mut self, reactor: &mut Reactor, mut keep: impl FnMut(&mut Copy, &mut Reactor) -> bool) {
        let ended = self.file.is_none();
        self.copies.retain_mut(|copy| {
            let kept = keep(copy, reactor) && !(ended && copy.pending.is_empty());
            if !kept {
                copy.stop_waiting(reactor);
            }
            kept
        });
        if !self.is_behind()
            && let Err(error) = self.resume(reactor)
        {
            tracing::error!(%error, container = self.container, "cannot watch a container's output");
        }
    }

    /// A file that has been hung up is reported whatever is asked for, so it must not be watched at all.
    fn pause(&mut self, reactor: &mut Reactor) {
        if let Some(Watched { file, token }) = &mut self.file
            && let Some(token) = token.take()
        {
            reactor.forget(file, token);
        }
    }

    fn resume(&mut self, reactor: &mut Reactor) -> nix::Result<()> {
        if let Some(Watched { file, token: token @ None }) = &mut self.file {
            let source = Source::Output { container: self.container.clone(), stream: self.index };
            *token = Some(reactor.watch(file, source)?);
        }
        Ok(())
    }
}

impl Copy {
    /// Writes what there is room for; false if nobody reads.
    fn flush(&mut self, reactor: &mut Reactor) -> bool {
        while !self.pending.is_empty() {
            match write(&self.file, &self.pending) {
                Ok(count) => {
                    self.pending.drain(..count);
                    if let Some((_, since)) = &mut self.waiting {
                        *since = Instant::now();
                    }
                }
                Err(Errno::EAGAIN) => return true,
                Err(Errno::EINTR) => {}
                Err(_) => return false,
            }
        }
        self.stop_waiting(reactor);
        true
    }

    fn stop_waiting(&mut self, reactor: &mut Reactor) {
        if let Some((token, _)) = self.waiting.take() {
            reactor.forget(&self.file, token);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.waiting.as_ref().map(|(_, since)| *since + STALL_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::super::stdio::copy_pipe;
    use super::*;

    fn stream(reactor: &mut Reactor) -> (Stream, OwnedFd) {
        let (reader, writer) = copy_pipe().unwrap();
        (Stream::new("c", 0, ("stdout", reader), reactor).unwrap(), writer)
    }

    fn soon() -> Option<Instant> {
        Some(Instant::now() + Duration::from_millis(5))
    }

    /// Reads until nothing is left.
    fn read_all(file: &OwnedFd) -> Vec<u8> {
        let mut all = Vec::new();
        while let Output::Bytes(bytes) = read_output(file) {
            all.extend(bytes);
        }
        all
    }

    #[test]
    fn a_slow_reader_gets_everything_and_only_slows_the_stream() {
        let mut reactor = Reactor::new().unwrap();
        let (mut stream, writer) = stream(&mut reactor);
        let (reader, copy) = copy_pipe().unwrap();
        stream.add_copy(7, copy);
        let (mut sent, mut got) = (0_usize, Vec::new());
        let mut paused = false;
        while sent < 1 << 20 {
            let chunk: Vec<u8> = (0..4096).map(|index| ((sent + index) % 251) as u8).collect();
            if let Ok(count) = write(&writer, &chunk) {
                sent += count;
            }
            for source in reactor.wait(soon()).unwrap() {
                match source {
                    Source::Output { .. } => drop(stream.read(None, &mut reactor)),
                    _ => stream.flush(&mut reactor),
                }
            }
            if stream.is_behind() {
                paused = true;
                assert!(stream.file.as_ref().unwrap().token.is_none());
                got.extend(read_all(&reader));
            }
        }
        drop(writer);
        while stream.file.is_some() || !stream.copies.is_empty() {
            got.extend(read_all(&reader));
            for source in reactor.wait(soon()).unwrap() {
                match source {
                    Source::Output { .. } => drop(stream.read(None, &mut reactor)),
                    _ => stream.flush(&mut reactor),
                }
            }
        }
        got.extend(read_all(&reader));
        assert!(paused);
        assert_eq!(got.len(), sent);
        assert!(got.iter().enumerate().all(|(index, byte)| *byte == (index % 251) as u8));
        assert_eq!(read_output(&reader), Output::End);
    }

    #[test]
    fn who_does_not_read_is_cut_off_and_the_stream_goes_on() {
        let mut reactor = Reactor::new().unwrap();
        let (mut stream, writer) = stream(&mut reactor);
        let (_reader, copy) = copy_pipe().unwrap();
        stream.add_copy(7, copy);
        while !stream.is_behind() {
            let _ = write(&writer, &[b'x'; 4096]);
            stream.read(None, &mut reactor);
        }
        let deadline = stream.next_deadline().unwrap();
        stream.drop_stalled(deadline - Duration::from_millis(1), &mut reactor);
        assert_eq!(stream.copies.len(), 1);
        stream.drop_stalled(deadline, &mut reactor);
        assert!(stream.copies.is_empty() && stream.next_deadline().is_none());
        assert!(stream.file.as_ref().unwrap().token.is_some(), "it is read again");
    }

    #[test]
    fn a_reader_that_left_is_forgotten() {
        let mut reactor = Reactor::new().unwrap();
        let (mut stream, writer) = stream(&mut reactor);
        let (reader, copy) = copy_pipe().unwrap();
        stream.add_copy(7, copy);
        drop(reader);
        write(&writer, b"x").unwrap();
        assert!(stream.read(None, &mut reactor));
        assert!(stream.copies.is_empty());
    }
}
