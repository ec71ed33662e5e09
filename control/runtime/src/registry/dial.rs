//! Connections to registries: made here, or by a process that stands in another network.
//!
//! A sandboxed node has no way out. Its supervisor has one, and is asked over a unix socket, one connection a request:
//!
//! ```text
//! → host:port\n      ← +   and the connected socket, as a descriptor      or   ← -why not
//! ```
//!
//! A socket belongs to the network in which it was made, whoever holds it; names are resolved there, too. TLS and every
//! secret stay with the asker.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::Duration;

use nix::cmsg_space;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::time::timeout;

/// For one connection, with all addresses of its name.
const CONNECT_MAX: Duration = Duration::from_secs(30);
/// A host name, a port, and some.
const REQUEST_BYTES_MAX: u64 = 300;
const ANSWER_BYTES_MAX: usize = 1024;
const CONNECTED: u8 = b'+';
const REFUSED: u8 = b'-';

/// Makes TCP connections.
#[derive(Debug, Clone)]
pub enum Dialer {
    /// From the network of this process.
    Direct,
    /// From that of the process that listens on this socket, see [`serve`].
    Through(PathBuf),
}

impl Dialer {
    pub(super) async fn dial(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        match self {
            Self::Direct => connect(&format!("{host}:{port}")).await,
            Self::Through(socket) => {
                let asked = async {
                    let stream = UnixStream::connect(socket).await.map_err(|error| {
                        io::Error::new(
                            error.kind(),
                            format!("cannot ask the supervisor at {}: {error}", socket.display()),
                        )
                    })?;
                    ask(stream, &format!("{host}:{port}\n")).await
                };
                // The other side has its own limit, and says so in time unless something is wrong with it.
                timeout(CONNECT_MAX * 2, asked).await.map_err(|_| io::ErrorKind::TimedOut)?
            }
        }
    }
}

/// Makes connections for others until the future is dropped.
pub async fn serve(listener: UnixListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(async move {
                    if let Err(error) = answer(stream).await {
                        tracing::debug!(%error, "a request for a connection was not answered");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot take requests for connections");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn connect(address: &str) -> io::Result<TcpStream> {
    let stream = timeout(CONNECT_MAX, TcpStream::connect(address)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn answer(stream: UnixStream) -> io::Result<()> {
    // The socket's directory is root's; this holds where it is not.
    if stream.peer_cred()?.uid() != nix::unistd::geteuid().as_raw() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let mut stream = BufReader::new(stream);
    let mut address = String::new();
    let mut request = (&mut stream).take(REQUEST_BYTES_MAX);
    timeout(CONNECT_MAX, request.read_line(&mut address)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let mut stream = stream.into_inner();
    match connect(address.trim_end()).await {
        Ok(connection) => {
            let files = [connection.as_raw_fd()];
            let send = || {
                let rights = [ControlMessage::ScmRights(&files)];
                Ok(sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(&[CONNECTED])], &rights, MsgFlags::empty(), None)?)
            };
            stream.async_io(Interest::WRITABLE, send).await.map(drop)
        }
        Err(error) => {
            tracing::debug!(address = address.trim_end(), %error, "cannot connect");
            stream.write_all(&[&[REFUSED][..], error.to_string().as_bytes()].concat()).await
        }
    }
}

async fn ask(mut stream: UnixStream, request: &str) -> io::Result<TcpStream> {
    stream.write_all(request.as_bytes()).await?;
    let fd = stream.as_raw_fd();
    let (bytes, file) = stream.async_io(Interest::READABLE, || receive(fd)).await?;
    match (bytes.split_first(), file) {
        (Some((&CONNECTED, _)), Some(file)) => {
            let connection = std::net::TcpStream::from(file);
            connection.set_nonblocking(true)?;
            TcpStream::from_std(connection)
        }
        (Some((&REFUSED, why)), _) => {
            let mut why = why.to_vec();
            stream.take(ANSWER_BYTES_MAX as u64).read_to_end(&mut why).await?;
            Err(io::Error::other(String::from_utf8_lossy(&why).into_owned()))
        }
        _ => Err(io::Error::other("the supervisor has not answered")),
    }
}

fn receive(fd: RawFd) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut buffer = [0; ANSWER_BYTES_MAX];
    let mut control = cmsg_space!([RawFd; 1]);
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let message = recvmsg::<()>(fd, &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let count = message.bytes;
    let mut file = None;
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(files) = part {
            // SAFETY: the kernel has just made these descriptors for us, and nobody else knows them.
            file = files.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).next_back();
        }
    }
    Ok((buffer[..count].to_vec(), file))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_connection_made_by_another_carries_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("dial.sock");
        let server = tokio::spawn(serve(UnixListener::bind(&socket).unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let dialer = Dialer::Through(socket);
        for host in ["127.0.0.1", "localhost"] {
            let mut ours = dialer.dial(host, port).await.unwrap();
            let (mut theirs, _) = listener.accept().await.unwrap();
            ours.write_all(b"ping").await.unwrap();
            let mut read = [0; 4];
            theirs.read_exact(&mut read).await.unwrap();
            assert_eq!(&read, b"ping");
        }
        drop(listener);
        let refused = dialer.dial("127.0.0.1", port).await.unwrap_err();
        assert!(refused.to_string().contains("refused"), "{refused}");
        server.abort();
    }

    #[tokio::test]
    async fn without_a_supervisor_there_is_a_reason() {
        let dialer = Dialer::Through("/nowhere/dial.sock".into());
        assert!(dialer.dial("localhost", 1).await.unwrap_err().to_string().contains("/nowhere/dial.sock"));
    }
}
