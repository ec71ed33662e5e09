//! The PROXY protocol: what a proxy in front says of a connection before its first byte, in text (1) or binary (2).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

const TIMEOUT: Duration = Duration::from_secs(5);
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest text header, its line end included.
const TEXT_LEN_MAX: usize = 107;
/// The most that may follow a binary header: addresses and a few extensions.
const BINARY_LEN_MAX: usize = 1024;

/// From where to where a connection went before it came here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
}

#[derive(Debug, Error)]
pub(super) enum ProxyError {
    #[error("peer is not a trusted proxy")]
    Untrusted,
    #[error("no header within {} s", TIMEOUT.as_secs())]
    Timeout,
    #[error("header cannot be read")]
    Read(#[source] io::Error),
    #[error("header is malformed")]
    Malformed,
}

/// Takes the header off a connection, and nothing behind it. `None` means that the proxy speaks for itself.
pub(super) async fn accept(tcp: &mut TcpStream, trusted: bool) -> Result<Option<Path>, ProxyError> {
    if !trusted {
        return Err(ProxyError::Untrusted);
    }
    timeout(TIMEOUT, read(tcp)).await.map_err(|_| ProxyError::Timeout)?
}

async fn read(tcp: &mut TcpStream) -> Result<Option<Path>, ProxyError> {
    let mut start = [0; SIGNATURE.len()];
    tcp.read_exact(&mut start).await.map_err(ProxyError::Read)?;
    if start != *SIGNATURE {
        return text(&read_line(tcp, &start).await?);
    }
    let mut rest = [0; 4];
    tcp.read_exact(&mut rest).await.map_err(ProxyError::Read)?;
    let len = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
    if len > BINARY_LEN_MAX {
        return Err(ProxyError::Malformed);
    }
    let mut body = vec![0; len];
    tcp.read_exact(&mut body).await.map_err(ProxyError::Read)?;
    binary(rest[0], rest[1], &body)
}

/// Reads up to the end of a line. What comes in is looked at before it is taken.
async fn read_line(tcp: &mut TcpStream, start: &[u8]) -> Result<Vec<u8>, ProxyError> {
    let mut line = start.to_vec();
    if !line.starts_with(b"PROXY ") {
        return Err(ProxyError::Malformed);
    }
    while line.len() < TEXT_LEN_MAX && !line.ends_with(b"\n") {
        let mut seen = [0; TEXT_LEN_MAX];
        let room = TEXT_LEN_MAX - line.len();
        let count = tcp.peek(&mut seen[..room]).await.map_err(ProxyError::Read)?;
        let take = seen[..count].iter().position(|byte| *byte == b'\n').map_or(count, |end| end + 1);
        if take == 0 {
            return Err(ProxyError::Malformed);
        }
        tcp.read_exact(&mut seen[..take]).await.map_err(ProxyError::Read)?;
        line.extend_from_slice(&seen[..take]);
    }
    Ok(line)
}

fn text(line: &[u8]) -> Result<Option<Path>, ProxyError> {
    let line =
        line.strip_suffix(b"\r\n").and_then(|line| std::str::from_utf8(line).ok()).ok_or(ProxyError::Malformed)?;
    let words: Vec<_> = line.split(' ').collect();
    match *words {
        ["PROXY", "UNKNOWN", ..] => Ok(None),
        ["PROXY", family, source, destination, source_port, destination_port] => {
            let address = |ip: &str, port: &str| {
                let ip: IpAddr = ip.parse().ok()?;
                let right_family = family == if ip.is_ipv4() { "TCP4" } else { "TCP6" };
                right_family.then_some(SocketAddr::new(ip, port.parse().ok()?))
            };
            let (source, destination) = (address(source, source_port), address(destination, destination_port));
            let both = source.zip(destination).ok_or(ProxyError::Malformed)?;
            Ok(Some(Path { source: both.0, destination: both.1 }))
        }
        _ => Err(ProxyError::Malformed),
    }
}

fn binary(version_and_command: u8, family: u8, body: &[u8]) -> Result<Option<Path>, ProxyError> {
    match version_and_command {
        0x20 => return Ok(None),
        0x21 => {}
        _ => return Err(ProxyError::Malformed),
    }
    let port = |at: usize| Some(u16::from_be_bytes([*body.get(at)?, *body.get(at + 1)?]));
    let addresses = match family {
        0x11 => {
            let ip = |at: usize| Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(body.get(at..at + 4)?).ok()?)));
            ip(0).zip(ip(4)).zip(port(8).zip(port(10)))
        }
        0x21 => {
            let ip = |at: usize| Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(body.get(at..at + 16)?).ok()?)));
            ip(0).zip(ip(16)).zip(port(32).zip(port(34)))
        }
        // Unix sockets, datagrams, unspecified: there is no address to take over.
        _ => return Ok(None),
    };
    let ((from, to), (from_port, to_port)) = addresses.ok_or(ProxyError::Malformed)?;
    Ok(Some(Path { source: SocketAddr::new(from, from_port), destination: SocketAddr::new(to, to_port) }))
}

#[cfg(test)]
mod tests {
    use super::{Path, binary, text};

    fn path(source: &str, destination: &str) -> Option<Path> {
        Some(Path { source: source.parse().unwrap(), destination: destination.parse().unwrap() })
    }

    #[test]
    fn text_headers_are_read() {
        let four = text(b"PROXY TCP4 192.0.2.1 198.51.100.2 5000 443\r\n").unwrap();
        assert_eq!(four, path("192.0.2.1:5000", "198.51.100.2:443"));
        let six = text(b"PROXY TCP6 2001:db8::1 ::1 5000 80\r\n").unwrap();
        assert_eq!(six, path("[2001:db8::1]:5000", "[::1]:80"));
        assert_eq!(text(b"PROXY UNKNOWN\r\n").unwrap(), None);
        for bad in [
            &b"PROXY TCP4 192.0.2.1 198.51.100.2 5000 443\n"[..],
            b"PROXY TCP4 2001:db8::1 ::1 1 2\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.2 5000\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.2 5000 70000\r\n",
            b"PROXY TCP4  192.0.2.1 198.51.100.2 1 2\r\n",
            b"GET / HTTP/1.1\r\n",
        ] {
            assert!(text(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn binary_headers_are_read() {
        let four = [192, 0, 2, 1, 198, 51, 100, 2, 0x13, 0x88, 0x01, 0xbb, 0xee, 0, 0];
        assert_eq!(binary(0x21, 0x11, &four).unwrap(), path("192.0.2.1:5000", "198.51.100.2:443"));
        let mut six = [0; 36];
        (six[15], six[31], six[33], six[35]) = (1, 2, 80, 81);
        assert_eq!(binary(0x21, 0x21, &six).unwrap(), path("[::1]:80", "[::2]:81"));
        assert_eq!(binary(0x20, 0x11, &four).unwrap(), None, "a health check of the proxy itself");
        assert_eq!(binary(0x21, 0x00, &[]).unwrap(), None);
        assert!(binary(0x11, 0x11, &four).is_err() && binary(0x21, 0x11, &four[..11]).is_err());
    }
}
