//! Serves: `/` says who answered and who asked, `/healthz` can be switched to failing, `/ws` is a WebSocket.
//!
//! On SIGTERM it goes on answering for a while, each answer with `Connection: close`, so that no request is lost while
//! the news of its end travels; then it ends.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::{measure, websocket};

const HTTP_PORT: u16 = 8080;
const UDP_PORT: u16 = 8081;
/// Longer than endpoint news takes, shorter than the default grace period.
const DRAIN: Duration = Duration::from_secs(3);
const DATAGRAM_MAX: usize = 65_535;

static HEALTHY: AtomicBool = AtomicBool::new(true);
static DRAINING: AtomicBool = AtomicBool::new(false);

/// # Errors
/// If a port cannot be bound.
pub(crate) fn run() -> io::Result<()> {
    let mut signals = nix::sys::signal::SigSet::empty();
    signals.add(nix::sys::signal::Signal::SIGTERM);
    signals.add(nix::sys::signal::Signal::SIGINT);
    // Blocked before any thread starts, so that all inherit it and only the waiting one sees the signal.
    signals.thread_block()?;
    thread::spawn(move || {
        if signals.wait().is_ok() {
            DRAINING.store(true, Ordering::SeqCst);
            thread::sleep(DRAIN);
        }
        std::process::exit(0);
    });

    let datagrams = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, UDP_PORT))?;
    thread::spawn(move || echo_datagrams(&datagrams));
    thread::spawn(measure::serve);
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, HTTP_PORT))?;
    let host = nix::unistd::gethostname()?.to_string_lossy().into_owned();
    println!("{host} serves HTTP on {HTTP_PORT} and UDP on {UDP_PORT}");
    for stream in listener.incoming() {
        let host = host.clone();
        thread::spawn(move || stream.and_then(|stream| serve(&stream, &host)));
    }
    Ok(())
}

fn echo_datagrams(socket: &UdpSocket) {
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        if let Ok((length, client)) = socket.recv_from(&mut buffer) {
            // A client that is gone is none of our business.
            let _ = socket.send_to(&buffer[..length], client);
        }
    }
}

/// One connection, request after request.
fn serve(stream: &TcpStream, host: &str) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (client, local) = (plain(stream.peer_addr()?), plain(stream.local_addr()?));
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    while let Some(request) = Request::read(&mut reader)? {
        if request.path.split('?').next() == Some(websocket::PATH) {
            return websocket::serve(&request, reader, host);
        }
        let (status, body) = answer(&request, host, client, local);
        let close = DRAINING.load(Ordering::SeqCst) || request.header("connection") == Some("close");
        let connection = if close { "close" } else { "keep-alive" };
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: {connection}\r\n\r\n",
            body.len()
        );
        writer.write_all((head + &body).as_bytes())?;
        if close {
            break;
        }
    }
    Ok(())
}

fn answer(request: &Request, host: &str, client: SocketAddr, local: SocketAddr) -> (&'static str, String) {
    match request.path.split('?').next().unwrap_or_default() {
        "/healthz" if HEALTHY.load(Ordering::SeqCst) => ("200 OK", "ok\n".into()),
        "/healthz" => ("503 Service Unavailable", "failing, as asked\n".into()),
        "/healthz/fail" => {
            HEALTHY.store(false, Ordering::SeqCst);
            ("200 OK", format!("{host} fails from now on\n"))
        }
        "/healthz/ok" => {
            HEALTHY.store(true, Ordering::SeqCst);
            ("200 OK", format!("{host} is well from now on\n"))
        }
        _ => {
            let mut body = format!("host={host}\nclient={client}\nlocal={local}\nrequest={}\n", request.line);
            for (name, value) in &request.headers {
                body.push_str(&format!("header.{name}={value}\n"));
            }
            ("200 OK", body)
        }
    }
}

/// An IPv4-mapped address as the IPv4 address that it is.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

pub(crate) struct Request {
    line: String,
    path: String,
    headers: Vec<(String, String)>,
}

impl Request {
    /// Reads one request and throws its body away; none at the end of the connection.
    pub(crate) fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        let Some(line) = read_line(reader)? else { return Ok(None) };
        let path = line.split(' ').nth(1).unwrap_or("/").to_owned();
        let mut request = Self { line, path, headers: Vec::new() };
        while let Some(line) = read_line(reader)?.filter(|line| !line.is_empty()) {
            if let Some((name, value)) = line.split_once(':') {
                request.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
        }
        let length = request.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        io::copy(&mut io::Read::take(reader, length), &mut io::sink())?;
        Ok(Some(request))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

fn read_line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(line.trim_end().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::Request;

    #[test]
    fn requests_follow_each_other_on_one_connection() {
        let mut bytes =
            b"POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nxyzGET /b HTTP/1.1\r\nHost: h\r\n\r\n".as_slice();
        assert_eq!(Request::read(&mut bytes).unwrap().unwrap().path, "/a");
        let second = Request::read(&mut bytes).unwrap().unwrap();
        assert_eq!((second.path.as_str(), second.header("host")), ("/b", Some("h")));
        assert!(Request::read(&mut bytes).unwrap().is_none());
    }
}
