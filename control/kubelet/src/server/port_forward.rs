//! `/portForward`: connections to ports inside a pod, each over two streams of a SPDY session (data and errors).

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::routes::{Body, Refusal, Routes};
use super::spdy::{Session, Stream, StreamWriter};
use super::upgrade::{Agreed, Spoken, Transport, negotiate, switching};
use super::websocket;

const PROTOCOLS: Spoken = Spoken { websocket: &["SPDY/3.1+portforward.k8s.io"], spdy: &["portforward.k8s.io"] };
const CHUNK: usize = 32 << 10;
/// A connection that takes nothing for this long is given up, for the sake of the others.
const STALL_MAX: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Streams that wait for their other half.
const HALVES_MAX: usize = 256;

pub(super) fn answer(
    routes: &Routes,
    mut request: Request<Incoming>,
    place: [&str; 2],
) -> Result<Response<Body>, Refusal> {
    let [namespace, name] = place;
    let (_, observed) = routes.index.find(namespace, name).ok_or_else(|| not_found(name))?;
    let sandbox = observed.ready_sandbox().ok_or_else(|| not_found(name))?;
    let pod = Pod { id: sandbox.id.clone(), uid: sandbox.spec.pod_uid.clone(), netns: sandbox.netns.clone() };
    let agreed = negotiate(request.headers(), &PROTOCOLS)?;
    let upgrade = hyper::upgrade::on(&mut request);
    let response = switching(&agreed);
    tokio::spawn(async move {
        match open(upgrade, &agreed).await {
            Ok(session) => serve(session, pod).await,
            Err(error) => tracing::info!(%error, "port forwarding has not begun"),
        }
    });
    Ok(response)
}

fn not_found(name: &str) -> Refusal {
    (StatusCode::NOT_FOUND, format!("pod \"{name}\" is not running"))
}

#[derive(Clone)]
struct Pod {
    id: String,
    uid: String,
    netns: PathBuf,
}

async fn open(upgrade: OnUpgrade, agreed: &Agreed) -> Result<Session, hyper::Error> {
    let connection = TokioIo::new(upgrade.await?);
    Ok(match agreed.transport {
        Transport::WebSocket { .. } => Session::start(websocket::tunnel(connection).await, Some(STALL_MAX)),
        Transport::Spdy => Session::start(connection, Some(STALL_MAX)),
    })
}

/// Forwards until the client leaves.
async fn serve(mut session: Session, pod: Pod) {
    let mut halves: HashMap<String, Stream> = HashMap::new();
    let mut connections = JoinSet::new();
    while let Some(stream) = session.accept().await {
        while connections.try_join_next().is_some() {}
        let Some(request_id) = stream.headers.get("requestid").cloned() else {
            stream.writer.abort().await;
            continue;
        };
        let Some(other) = halves.remove(&request_id) else {
            if halves.len() < HALVES_MAX {
                halves.insert(request_id, stream);
            } else {
                stream.writer.abort().await;
            }
            continue;
        };
        let (data, errors) = if is_data(&stream) { (stream, other) } else { (other, stream) };
        connections.spawn(forward(data, errors, pod.clone()));
    }
}

fn is_data(stream: &Stream) -> bool {
    stream.headers.get("streamtype").is_some_and(|kind| kind == "data")
}

/// One connection. What goes wrong before bytes flow is said on the stream for errors.
async fn forward(data: Stream, errors: Stream, pod: Pod) {
    let port = data.headers.get("port").map_or("", String::as_str).to_owned();
    let connected = match port.parse() {
        Ok(port) if port > 0 => connect(&pod.netns, port).await,
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a port")),
    };
    match connected {
        Ok(connection) => {
            let reset = data.writer.reset.clone();
            tokio::select! {
                () = carry(connection, data) => {}
                () = reset.cancelled() => {}
            }
        }
        Err(error) => {
            let Pod { id, uid, .. } = &pod;
            let text = format!("error forwarding port {port} to pod {id}, uid {uid}: {error}");
            errors.writer.send(text.into()).await;
            data.writer.finish().await;
        }
    }
    errors.writer.finish().await;
}

async fn carry(connection: TcpStream, data: Stream) {
    let (from_pod, to_pod) = connection.into_split();
    let Stream { reader, writer, .. } = data;
    tokio::join!(carry_in(reader, to_pod), carry_out(from_pod, &writer));
}

async fn carry_in(mut from: mpsc::Receiver<Bytes>, mut to: OwnedWriteHalf) {
    while let Some(bytes) = from.recv().await {
        if to.write_all(&bytes).await.is_err() {
            // The other direction tells the client; until then nothing may wait behind what nobody wants.
            while from.recv().await.is_some() {}
            return;
        }
    }
    let _ = to.shutdown().await;
}

async fn carry_out(mut from: OwnedReadHalf, to: &StreamWriter) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        match from.read_buf(&mut buffer).await {
            Ok(0) => return to.finish().await,
            Ok(_) if to.send(buffer.split().freeze()).await => {}
            Ok(_) => return,
            Err(error) => {
                tracing::debug!(%error, "forwarded connection failed");
                return to.abort().await;
            }
        }
    }
}

/// Connects to the pod's loopback, where most things listen.
async fn connect(netns: &Path, port: u16) -> io::Result<TcpStream> {
    match connect_to(netns, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)).await {
        // Perhaps there is a listener for IPv6 alone; if not, the first answer is the clearer one.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            connect_to(netns, SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port)).await.map_err(|_| error)
        }
        other => other,
    }
}

async fn connect_to(netns: &Path, address: SocketAddr) -> io::Result<TcpStream> {
    let netns = netns.to_owned();
    let socket = tokio::task::spawn_blocking(move || socket_in(netns, address.ip())).await;
    let socket = socket.map_err(io::Error::other)??;
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, socket.connect(address)).await;
    let connection = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    connection.set_nodelay(true)?;
    Ok(connection)
}

/// A socket belongs to the network namespace of the thread that made it, wherever it is used.
fn socket_in(netns: PathBuf, address: IpAddr) -> io::Result<TcpSocket> {
    // A thread of its own, which never does anything else in that namespace.
    let maker = std::thread::Builder::new().name("port-forward".to_owned()).spawn(move || {
        setns(File::open(&netns)?, CloneFlags::CLONE_NEWNET)?;
        let domain = if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    })?;
    let socket: io::Result<Socket> = maker.join().map_err(|_| io::Error::other("thread panicked"))?;
    Ok(TcpSocket::from_std_stream(socket?.into()))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_port_is_reached_in_the_named_namespace_on_either_family() {
        let netns = Path::new("/proc/self/ns/net");
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let (connection, accepted) = tokio::join!(connect(netns, port), listener.accept());
            assert_eq!(connection.unwrap().local_addr().unwrap(), accepted.unwrap().1);
            drop(listener);
            let error = connect(netns, port).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        }
        assert!(connect(Path::new("/proc/self/ns/nonsense"), 1).await.is_err());
    }
}
