//! Conversations with a process: a client that holds its streams over a connection of its own.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::pod::Caller;

/// What a command may take to end after its client has left.
const HANGUP_GRACE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Session {
    pub(super) caller: Caller,
    pub(super) with: With,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum With {
    /// A command of its own.
    Command { pid: i32, kill_at: Option<Instant> },
    /// A container's first process.
    Container(String),
}

impl Session {
    /// The client has left: its command is told, and killed if it does not care. False if nothing is left to wait for.
    pub(super) fn hang_up(&mut self, now: Instant) -> bool {
        match &mut self.with {
            With::Command { pid, kill_at } => {
                signal(*pid, Signal::SIGHUP);
                *kill_at = Some(now + HANGUP_GRACE);
                true
            }
            With::Container(_) => false,
        }
    }

    pub(super) fn kill_overdue(&mut self, now: Instant) {
        if let With::Command { pid, kill_at } = &mut self.with
            && kill_at.is_some_and(|at| at <= now)
        {
            *kill_at = None;
            signal(*pid, Signal::SIGKILL);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        match self.with {
            With::Command { kill_at, .. } => kill_at,
            With::Container(_) => None,
        }
    }
}

/// To the command and what it started in its session. It has not been reaped, so the number is its own.
fn signal(pid: i32, signal: Signal) {
    let pid = Pid::from_raw(pid);
    // Gone is what it should be.
    let _ = killpg(pid, signal);
    let _ = kill(pid, signal);
}
