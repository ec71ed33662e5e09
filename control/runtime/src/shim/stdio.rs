//! Standard input, output and error of a container: pipes, or a terminal.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::{pipe2, read};

use crate::layout::socket_path;
use crate::protocol::StreamName;

/// How much is read from one file before the others get their turn.
const READ_BYTES_MAX: usize = 64 << 10;

/// The container's ends.
#[derive(Debug)]
pub(super) struct ChildFiles {
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// The shim's ends.
#[derive(Debug, Default)]
pub(super) struct ShimFiles {
    /// Kept open for whoever attaches; without it, a container with `stdin: true` would see the end at once.
    pub(super) input: Option<OwnedFd>,
    /// Stream name and where to read it; not blocking.
    pub(super) outputs: Vec<(&'static str, OwnedFd)>,
}

/// Pipes for a container without a terminal.
pub(super) fn pipes(stdin: bool) -> io::Result<(ChildFiles, ShimFiles)> {
    let (child_in, input) = if stdin {
        let (child, ours) = pipe2(OFlag::O_CLOEXEC)?;
        set_nonblocking(&ours)?;
        (child, Some(ours))
    } else {
        (File::open("/dev/null")?.into(), None)
    };
    let (stdout, child_out) = output_pipe()?;
    let (stderr, child_err) = output_pipe()?;
    let child = ChildFiles { stdin: child_in, stdout: child_out, stderr: child_err };
    Ok((child, ShimFiles { input, outputs: vec![("stdout", stdout), ("stderr", stderr)] }))
}

/// The child's files and what is handed to whoever wants to talk to it; the null device for streams nobody wants.
pub(super) fn exec_pipes(
    stdin: bool,
    stdout: bool,
    stderr: bool,
) -> io::Result<(ChildFiles, Vec<(StreamName, OwnedFd)>)> {
    let mut handed = Vec::new();
    let child_in = if stdin {
        let (child, theirs) = pipe2(OFlag::O_CLOEXEC)?;
        set_nonblocking(&theirs)?;
        handed.push((StreamName::Stdin, theirs));
        child
    } else {
        File::open("/dev/null")?.into()
    };
    let mut output = |wanted: bool, name| -> io::Result<OwnedFd> {
        if !wanted {
            return Ok(File::options().write(true).open("/dev/null")?.into());
        }
        let (theirs, child) = output_pipe()?;
        handed.push((name, theirs));
        Ok(child)
    };
    let (child_out, child_err) = (output(stdout, StreamName::Stdout)?, output(stderr, StreamName::Stderr)?);
    Ok((ChildFiles { stdin: child_in, stdout: child_out, stderr: child_err }, handed))
}

/// A pipe neither end of which waits: (read end, write end).
pub(super) fn copy_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = output_pipe()?;
    set_nonblocking(&writer)?;
    Ok((reader, writer))
}

/// (read end, write end)
fn output_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, child) = pipe2(OFlag::O_CLOEXEC)?;
    set_nonblocking(&ours)?;
    Ok((ours, child))
}

/// The socket over which libcontainer hands out the terminal that it made inside the container.
#[derive(Debug)]
pub(super) struct Console {
    listener: UnixListener,
    path: PathBuf,
}

impl Console {
    pub(super) fn bind(path: PathBuf) -> io::Result<Self> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let dir = File::open(parent)?;
        let listener = UnixListener::bind(socket_path(&dir, name))?;
        // The terminal is sent before the container is reported to be ready, so nobody ever waits.
        listener.set_nonblocking(true)?;
        Ok(Self { listener, path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn receive(self) -> io::Result<OwnedFd> {
        let (stream, _) = self.listener.accept()?;
        let mut buffer = [0_u8; 64];
        let mut control = cmsg_space!([RawFd; 1]);
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
        let master = message.cmsgs()?.find_map(|part| match part {
            ControlMessageOwned::ScmRights(files) => files.first().copied(),
            _ => None,
        });
        let master = master.ok_or(io::ErrorKind::UnexpectedEof)?;
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
        let master = unsafe { OwnedFd::from_raw_fd(master) };
        set_nonblocking(&master)?;
        Ok(master)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        // The directory is the container's own; nobody needs the name any more.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl ShimFiles {
    /// A terminal is one file for everything.
    pub(super) fn of_terminal(master: OwnedFd) -> io::Result<Self> {
        Ok(Self { input: Some(master.try_clone()?), outputs: vec![("stdout", master)] })
    }
}

/// What a read of a non-blocking file gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Output {
    Bytes(Vec<u8>),
    NothingNow,
    End,
}

pub(super) fn read_output(file: &OwnedFd) -> Output {
    let mut buffer = vec![0; READ_BYTES_MAX];
    match read(file, &mut buffer) {
        Ok(0) => Output::End,
        Ok(count) => {
            buffer.truncate(count);
            Output::Bytes(buffer)
        }
        Err(Errno::EAGAIN | Errno::EINTR) => Output::NothingNow,
        // A terminal whose last user is gone says EIO.
        Err(_) => Output::End,
    }
}

fn set_nonblocking(file: &OwnedFd) -> io::Result<()> {
    fcntl(file, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_ends_when_the_last_writer_is_gone() {
        let (child, ours) = pipes(false).unwrap();
        let (name, stdout) = &ours.outputs[0];
        assert_eq!(*name, "stdout");
        assert_eq!(read_output(stdout), Output::NothingNow);
        nix::unistd::write(&child.stdout, b"hello").unwrap();
        assert_eq!(read_output(stdout), Output::Bytes(b"hello".to_vec()));
        drop(child);
        assert_eq!(read_output(stdout), Output::End);
    }

    #[test]
    fn input_is_empty_or_waits() {
        let (child, ours) = pipes(false).unwrap();
        assert!(ours.input.is_none());
        assert_eq!(read_output(&child.stdin), Output::End);
        let (child, ours) = pipes(true).unwrap();
        nix::unistd::write(ours.input.as_ref().unwrap(), b"x").unwrap();
        assert_eq!(read_output(&child.stdin), Output::Bytes(b"x".to_vec()));
    }
}
