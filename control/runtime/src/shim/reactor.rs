//! Waiting for files: epoll, with what each file means.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// Events taken at a time.
const BATCH: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Token(pub(super) u64);

/// What a file that became ready means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    Listener,
    Signals,
    Client(u64),
    /// Output of a container.
    Output {
        container: String,
        stream: usize,
    },
    /// Output of an exec, by its process.
    Exec {
        pid: i32,
        stream: usize,
    },
    /// Room for a copy of a container's output.
    Copy {
        container: String,
        stream: usize,
    },
}

pub(super) struct Reactor {
    epoll: Epoll,
    sources: HashMap<u64, Source>,
    next: u64,
}

impl Reactor {
    pub(super) fn new() -> nix::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Self { epoll, sources: HashMap::new(), next: 0 })
    }

    /// Reports when the file can be read (or has ended).
    pub(super) fn watch(&mut self, file: &impl AsFd, source: Source) -> nix::Result<Token> {
        let token = self.next;
        self.epoll.add(file, EpollEvent::new(EpollFlags::EPOLLIN, token))?;
        self.next += 1;
        self.sources.insert(token, source);
        Ok(Token(token))
    }

    /// Reports when the file can be written (or nobody reads it any more).
    pub(super) fn watch_room(&mut self, file: &impl AsFd, source: Source) -> nix::Result<Token> {
        let token = self.next;
        self.epoll.add(file, EpollEvent::new(EpollFlags::EPOLLOUT, token))?;
        self.next += 1;
        self.sources.insert(token, source);
        Ok(Token(token))
    }

    /// Also reports when the file can be written, or no longer does.
    pub(super) fn watch_writing(&self, file: &impl AsFd, token: Token, writing: bool) -> nix::Result<()> {
        let flags = if writing { EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN };
        self.epoll.modify(file, &mut EpollEvent::new(flags, token.0))
    }

    pub(super) fn forget(&mut self, file: &impl AsFd, token: Token) {
        self.sources.remove(&token.0);
        if let Err(error) = self.epoll.delete(file) {
            tracing::error!(%error, fd = file.as_fd().as_raw_fd(), "cannot stop watching a file");
        }
    }

    /// Waits until something is ready or the deadline has come.
    pub(super) fn wait(&self, deadline: Option<Instant>) -> nix::Result<Vec<Source>> {
        let mut events = [EpollEvent::empty(); BATCH];
        let count = match self.epoll.wait(&mut events, timeout(deadline, Instant::now())) {
            Err(Errno::EINTR) => 0,
            other => other?,
        };
        Ok(events[..count].iter().filter_map(|event| self.sources.get(&event.data()).cloned()).collect())
    }
}

/// Rounded up: waking a fraction too early would spin.
fn timeout(deadline: Option<Instant>, now: Instant) -> EpollTimeout {
    let Some(deadline) = deadline else { return EpollTimeout::NONE };
    let left = deadline.saturating_duration_since(now) + Duration::from_micros(999);
    EpollTimeout::try_from(left).unwrap_or(EpollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ready_file_is_named_and_a_forgotten_one_is_not() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let mut reactor = Reactor::new().unwrap();
        let source = Source::Client(7);
        let token = reactor.watch(&reader, source.clone()).unwrap();
        let soon = || Some(Instant::now() + Duration::from_millis(5));
        assert!(reactor.wait(soon()).unwrap().is_empty());
        nix::unistd::write(&writer, b"x").unwrap();
        assert_eq!(reactor.wait(None).unwrap(), [source]);
        reactor.forget(&reader, token);
        assert!(reactor.wait(soon()).unwrap().is_empty());
    }

    #[test]
    fn a_deadline_is_never_cut_short() {
        let now = Instant::now();
        assert_eq!(timeout(None, now), EpollTimeout::NONE);
        assert_eq!(timeout(Some(now), now), EpollTimeout::ZERO);
        let soon = now + Duration::from_micros(1500);
        assert_eq!(timeout(Some(soon), now), EpollTimeout::try_from(2).unwrap());
    }
}
