//! The datagram client that runs inside a pod: a new socket for each question, connected or not.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::client::{TIMEOUT, parse};

/// Sends `count` datagrams of each kind; prints a line per kind and per address that answered.
pub(crate) fn ask(address: &str, count: &str) -> io::Result<()> {
    let server: SocketAddr = parse(address)?;
    let count: u32 = parse(count)?;
    let mut peers: BTreeMap<SocketAddr, u32> = BTreeMap::new();
    let mut failed = 0;
    for (kind, connected) in [("connected", true), ("unconnected", false)] {
        let mut echoed = 0;
        for number in 0..count {
            match ask_once(server, connected, format!("{kind} {number}").as_bytes()) {
                Ok(peer) => {
                    echoed += 1;
                    *peers.entry(peer).or_default() += 1;
                }
                Err(error) => {
                    failed += 1;
                    println!("failure {kind} {server}: {error}");
                }
            }
        }
        println!("{kind} {server} {echoed}");
    }
    for (peer, times) in &peers {
        println!("peer {peer} {times}");
    }
    println!("failed {failed}");
    if failed > 0 { Err(io::Error::other(format!("{failed} datagrams failed"))) } else { Ok(()) }
}

/// One datagram and its echo; returns the address that the echo came from.
fn ask_once(server: SocketAddr, connected: bool, text: &[u8]) -> io::Result<SocketAddr> {
    let own = if server.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((own, 0))?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    if connected {
        socket.connect(server)?;
        socket.send(text)?;
    } else {
        socket.send_to(text, server)?;
    }
    let mut answer = [0; 64];
    let (length, peer) = socket.recv_from(&mut answer)?;
    if answer[..length] == *text { Ok(peer) } else { Err(io::Error::other("the echo is not what was sent")) }
}
