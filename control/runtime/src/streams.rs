//! Streams of a process in a container: what an interactive exec or an attach gives its caller.
//!
//! The shim makes the pipes or the terminal and hands its ends over, so bytes go straight between the caller and the
//! process (an attached container's output is copied by the shim, which also logs it). The connection over which they
//! came tells the exit code; when it ends, so does an exec'd process.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::UnixStream;

use crate::error::RuntimeError;
use crate::protocol::{Call, FromShim, Refusal, Reply, Request, StreamName, encode_line};

/// Files in one message: no process has more standard streams.
const FILES_MAX: usize = 3;
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// A command to be run in a container with the wanted streams. With a terminal, there is no separate `stderr`.
#[derive(Debug, Clone)]
pub struct ExecSpec {
    pub command: Vec<String>,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// Which streams of a container's first process are wanted.
#[derive(Debug, Clone, Copy)]
pub struct AttachSpec {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// A process's streams, as far as they were wanted and exist.
#[derive(Debug)]
pub struct ProcessStreams {
    /// Dropping it ends the process's input; after an attach, see [`ProcessHandle::end_input`].
    pub stdin: Option<StreamFile>,
    pub stdout: Option<StreamFile>,
    pub stderr: Option<StreamFile>,
    pub terminal: Option<Terminal>,
    pub process: ProcessHandle,
}

/// One end of a pipe, or a terminal.
#[derive(Debug)]
pub struct StreamFile(Arc<AsyncFd<OwnedFd>>);

/// The terminal of a process.
#[derive(Debug, Clone)]
pub struct Terminal(Arc<AsyncFd<OwnedFd>>);

/// The hold on a process. Dropped, it lets an attached container go on and ends an exec'd process.
#[derive(Debug)]
pub struct ProcessHandle {
    connection: Connection,
}

impl ProcessHandle {
    /// The exit code; may be asked for again if the future was dropped.
    pub async fn wait(&mut self) -> Result<i32, RuntimeError> {
        loop {
            match self.connection.answer().await? {
                Ok(Reply::Exited { exit_code }) => return Ok(exit_code),
                // To the end of input.
                Ok(Reply::Done) => {}
                other => return Err(RuntimeError::Shim(format!("it reported the end of a process with {other:?}"))),
            }
        }
    }

    /// After an attach: nothing more will be written to the container.
    pub async fn end_input(&mut self) -> Result<(), RuntimeError> {
        self.connection.ask(Call::EndInput).await
    }
}

impl Terminal {
    pub fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the call reads one such structure, which lives through it.
        Errno::result(unsafe { libc::ioctl(self.0.as_raw_fd(), libc::TIOCSWINSZ, &size) })?;
        Ok(())
    }
}

/// Opens a conversation with a process over a fresh connection to its shim.
pub(crate) async fn open(
    stream: std::os::unix::net::UnixStream,
    call: Call,
) -> Result<Result<ProcessStreams, Refusal>, RuntimeError> {
    stream.set_nonblocking(true).map_err(lost)?;
    let mut connection =
        Connection { stream: UnixStream::from_std(stream).map_err(lost)?, received: Vec::new(), files: Vec::new() };
    connection.ask(call).await?;
    let names = match connection.answer().await? {
        Ok(Reply::Streams(names)) => names,
        Ok(other) => return Err(RuntimeError::Shim(format!("it offered no streams but {other:?}"))),
        Err(refusal) => return Ok(Err(refusal)),
    };
    let files = std::mem::take(&mut connection.files);
    if names.len() != files.len() {
        return Err(RuntimeError::Shim(format!("it sent {} files for {} streams", files.len(), names.len())));
    }
    let mut streams = ProcessStreams {
        stdin: None,
        stdout: None,
        stderr: None,
        terminal: None,
        process: ProcessHandle { connection },
    };
    for (name, file) in names.into_iter().zip(files) {
        // SAFETY: the descriptor is owned, never replaced, and stays open for as long as this value.
        let file = unsafe { AsyncFd::register(file) }.map_err(|error| lost(error.into()))?;
        streams.take(name, Arc::new(file));
    }
    Ok(Ok(streams))
}

impl ProcessStreams {
    fn take(&mut self, name: StreamName, file: Arc<AsyncFd<OwnedFd>>) {
        match name {
            StreamName::Stdin => self.stdin = Some(StreamFile(file)),
            StreamName::Stdout => self.stdout = Some(StreamFile(file)),
            StreamName::Stderr => self.stderr = Some(StreamFile(file)),
            StreamName::Terminal => {
                self.stdin = Some(StreamFile(Arc::clone(&file)));
                self.stdout = Some(StreamFile(Arc::clone(&file)));
                self.terminal = Some(Terminal(file));
            }
        }
    }
}

/// A connection to a shim that carries one conversation.
#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    received: Vec<u8>,
    files: Vec<OwnedFd>,
}

impl Connection {
    async fn ask(&mut self, call: Call) -> Result<(), RuntimeError> {
        self.stream.write_all(&encode_line(&Request { id: 0, call })).await.map_err(lost)
    }

    async fn answer(&mut self) -> Result<Result<Reply, Refusal>, RuntimeError> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                return match serde_json::from_slice(&line) {
                    Ok(FromShim::Answer { result, .. }) => Ok(result),
                    other => Err(RuntimeError::Shim(format!("it answered {other:?}"))),
                };
            }
            if self.received.len() > ANSWER_BYTES_MAX {
                return Err(RuntimeError::Shim("its answer has no end".to_owned()));
            }
            self.receive().await?;
        }
    }

    async fn receive(&mut self) -> Result<(), RuntimeError> {
        self.stream.readable().await.map_err(lost)?;
        let fd = self.stream.as_raw_fd();
        match self.stream.try_io(Interest::READABLE, || receive(fd)) {
            Ok((bytes, _)) if bytes.is_empty() => Err(RuntimeError::Shim("it has ended the conversation".to_owned())),
            Ok((bytes, files)) => {
                self.received.extend(bytes);
                self.files.extend(files);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(lost(error)),
        }
    }
}

fn receive(fd: RawFd) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut buffer = [0_u8; 4096];
    let mut control = cmsg_space!([RawFd; FILES_MAX]);
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let message = recvmsg::<()>(fd, &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let count = message.bytes;
    let mut files = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = part {
            // SAFETY: the kernel has just made these descriptors for us, and nobody else knows them.
            files.extend(received.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Ok((buffer[..count].to_vec(), files))
}

fn lost(error: io::Error) -> RuntimeError {
    RuntimeError::Shim(format!("conversation failed: {error}"))
}

impl AsyncRead for StreamFile {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(context))?;
            match guard.try_io(|file| read_into(file.as_raw_fd(), buffer)) {
                // A terminal whose last user is gone says EIO.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }
}

fn read_into(fd: RawFd, buffer: &mut ReadBuf<'_>) -> io::Result<()> {
    // SAFETY: nothing is ever made uninitialised here, the kernel only writes.
    let room: &mut [MaybeUninit<u8>] = unsafe { buffer.unfilled_mut() };
    // SAFETY: the pointer and the length describe memory that is ours to write.
    let count = Errno::result(unsafe { libc::read(fd, room.as_mut_ptr().cast(), room.len()) })?;
    let count = usize::try_from(count).unwrap_or(0);
    // SAFETY: the kernel has just written this many bytes.
    unsafe { buffer.assume_init(count) };
    buffer.advance(count);
    Ok(())
}

impl AsyncWrite for StreamFile {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(context))?;
            match guard.try_io(|file| Ok(nix::unistd::write(file.get_ref(), bytes)?)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
