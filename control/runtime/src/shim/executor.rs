//! The last steps of a process before it becomes the container's program.
//!
//! libcontainer has done everything else by then: namespaces, mounts, identity, bounding set. What is left are the things
//! that it cannot do without C libraries (seccomp) or does not do (a clean signal state, dying with the shim), and a way
//! to say exactly why a program could not be executed.

use std::ffi::CString;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use nix::errno::Errno;
use nix::libc::{self, sock_filter};
use nix::sys::prctl;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::unistd::execv;
use oci_spec::runtime::Spec;

use super::seccomp;
use crate::spec::Confinement;
use crate::spec::capability::Capabilities;

/// Exit codes of shells and container runtimes for a program that cannot be executed.
const EXIT_NOT_EXECUTABLE: i32 = 126;
const EXIT_NOT_FOUND: i32 = 127;
/// What everything else before the program is called.
pub(super) const EXIT_CANNOT_START: i32 = 128;

#[derive(Clone)]
pub(super) struct PodExecutor {
    /// Closed by a successful execve; gets the reason for any other end (see [`Failure`]).
    status: RawFd,
    filter: Option<Arc<[sock_filter]>>,
    capabilities: Capabilities,
}

/// Why a program was not executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) exit_code: i32,
    pub(super) message: String,
}

impl PodExecutor {
    pub(super) fn new(status: RawFd, confinement: Confinement) -> Self {
        let filter = confinement.seccomp.then(|| seccomp::default_profile(confinement.capabilities).into());
        Self { status, filter, capabilities: confinement.capabilities }
    }

    fn confine_and_execute(&self, args: &[String]) -> Failure {
        match self.confine() {
            Ok(()) => execute(args),
            Err((what, error)) => Failure { exit_code: EXIT_CANNOT_START, message: format!("{what}: {error}") },
        }
    }

    fn confine(&self) -> Result<(), (&'static str, Errno)> {
        restore_signals().map_err(|error| ("cannot restore signals", error))?;
        if let Some(filter) = &self.filter {
            seccomp::install(filter).map_err(|error| ("cannot install the seccomp filter", error))?;
        }
        set_capabilities(self.capabilities).map_err(|error| ("cannot set capabilities", error))?;
        // A pod does not outlive its shim.
        prctl::set_pdeathsig(Signal::SIGKILL).map_err(|error| ("cannot tie the process to its shim", error))
    }
}

impl Executor for PodExecutor {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let args = spec.process().as_ref().and_then(|process| process.args().clone()).unwrap_or_default();
        let failure = self.confine_and_execute(&args);
        let line = format!("{} {}", failure.exit_code, failure.message);
        // SAFETY: the descriptor was inherited from the shim, which keeps its own copy open; the buffer is valid.
        unsafe { libc::write(self.status, line.as_ptr().cast(), line.len()) };
        Err(ExecutorError::Other(failure.message))
    }

    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        // Whether the program can be executed is seen when it is, as the user it runs as.
        Ok(())
    }
}

impl Failure {
    /// Reads what an executor reported; nothing means that the program runs.
    pub(super) fn parse(report: &str) -> Option<Self> {
        let (code, message) = report.split_once(' ')?;
        Some(Self { exit_code: code.parse().ok()?, message: message.to_owned() })
    }
}

/// Tries the places where the program may be; returns only if none of them works.
fn execute(args: &[String]) -> Failure {
    let program = args.first().map_or("", String::as_str);
    let not_found = |message: &str| Failure { exit_code: EXIT_NOT_FOUND, message: format!("{program}: {message}") };
    let Ok(argv) = args.iter().map(|arg| CString::new(arg.as_bytes())).collect::<Result<Vec<_>, _>>() else {
        return not_found("an argument holds a NUL byte");
    };
    let mut denied = None;
    for candidate in candidates(program, &std::env::var("PATH").unwrap_or_default()) {
        let Ok(path) = CString::new(candidate.as_os_str().as_bytes()) else { continue };
        match execv(&path, &argv) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(error) => denied = denied.or(Some((candidate, error))),
        }
    }
    match denied {
        Some((path, error)) => Failure {
            exit_code: EXIT_NOT_EXECUTABLE,
            message: format!("{}: cannot be executed: {}", path.display(), error.desc()),
        },
        None if program.contains('/') => not_found("no such file or directory"),
        None => not_found("executable file not found in $PATH"),
    }
}

fn candidates(program: &str, path: &str) -> Vec<PathBuf> {
    if program.contains('/') {
        return vec![program.into()];
    }
    path.split(':').filter(|dir| !dir.is_empty()).map(|dir| Path::new(dir).join(program)).collect()
}

/// The shim blocks signals to read them from a file, and Rust ignores SIGPIPE; programs expect neither.
fn restore_signals() -> nix::Result<()> {
    // SAFETY: the default disposition runs no code of ours.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl)? };
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
}

/// Gives up the rights that only the set-up needed.
fn set_capabilities(capabilities: Capabilities) -> nix::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let half = |mask: u64| Data { effective: mask as u32, permitted: mask as u32, inheritable: 0 };
    let header = Header { version: VERSION_3, pid: 0 };
    let data = [half(capabilities.0 & 0xffff_ffff), half(capabilities.0 >> 32)];
    // SAFETY: both structures have the layout that this version of the call expects, and live through it.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &header, &data) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_for_like_a_shell_does() {
        assert_eq!(candidates("sh", "/bin::/usr/bin"), ["/bin/sh", "/usr/bin/sh"].map(PathBuf::from));
        assert_eq!(candidates("./sh", "/bin"), [PathBuf::from("./sh")]);
        assert!(candidates("sh", "").is_empty());
    }

    #[test]
    fn failures_name_their_exit_code() {
        let missing = execute(&["/does/not/exist".to_owned()]);
        assert_eq!(missing.exit_code, 127);
        let directory = execute(&["/tmp".to_owned()]);
        assert_eq!(directory.exit_code, 126);
        assert_eq!(Failure::parse("127 sh: not found").unwrap().message, "sh: not found");
        assert_eq!(Failure::parse(""), None);
    }
}
