//! The clients that run inside a pod: many connections, or one that is held.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);
const LOAD_INTERVAL: Duration = Duration::from_millis(10);
const HOLD_INTERVAL: Duration = Duration::from_millis(100);

/// Asks `count` times, each on a new connection; prints a line per answering host and per peer address.
pub(crate) fn get(address: &str, count: &str) -> io::Result<()> {
    let mut tally = Tally::default();
    for _ in 0..parse::<u32>(count)? {
        tally.ask(address);
    }
    tally.print()
}

/// Asks a hundred times a second, each on a new connection, until the time is over; prints what `get` prints.
pub(crate) fn load(address: &str, seconds: &str) -> io::Result<()> {
    let until = Instant::now() + Duration::from_secs(parse(seconds)?);
    let mut tally = Tally::default();
    while Instant::now() < until {
        tally.ask(address);
        thread::sleep(LOAD_INTERVAL);
    }
    tally.print()
}

/// Who answered how often.
#[derive(Default)]
struct Tally {
    hosts: BTreeMap<String, u32>,
    peers: BTreeMap<String, u32>,
    failed: u32,
}

impl Tally {
    fn ask(&mut self, address: &str) {
        match Connection::open(address).and_then(|mut connection| Ok((connection.ask()?, connection.peer()?))) {
            Ok((host, peer)) => {
                *self.hosts.entry(host).or_default() += 1;
                *self.peers.entry(peer).or_default() += 1;
            }
            Err(error) => {
                self.failed += 1;
                println!("failure {address}: {error}");
            }
        }
    }

    fn print(self) -> io::Result<()> {
        for (host, times) in &self.hosts {
            println!("host {host} {times}");
        }
        for (peer, times) in &self.peers {
            println!("peer {peer} {times}");
        }
        println!("failed {}", self.failed);
        if self.failed > 0 { Err(io::Error::other(format!("{} requests failed", self.failed))) } else { Ok(()) }
    }
}

/// Asks ten times a second on one connection until the time is over or the connection breaks.
pub(crate) fn hold(address: &str, seconds: &str) -> io::Result<()> {
    let until = Instant::now() + Duration::from_secs(parse(seconds)?);
    let mut connection = Connection::open(address)?;
    let mut asked = 0;
    println!("holding a connection to {}", connection.peer()?);
    while Instant::now() < until {
        asked += 1;
        if let Err(error) = connection.ask() {
            println!("lost after {asked} requests: {error}");
            return Err(error);
        }
        thread::sleep(HOLD_INTERVAL);
    }
    println!("held {asked} requests, 0 lost");
    Ok(())
}

pub(crate) fn parse<T: std::str::FromStr>(text: &str) -> io::Result<T> {
    text.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("{text:?} is not a number")))
}

struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    fn open(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    fn peer(&self) -> io::Result<String> {
        Ok(self.reader.get_ref().peer_addr()?.to_string())
    }

    /// One request; returns the name of the host that answered.
    fn ask(&mut self) -> io::Result<String> {
        self.reader.get_mut().write_all(b"GET / HTTP/1.1\r\nhost: echo\r\n\r\n")?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = parse(value)?;
            }
        }
        let mut body = vec![0; length];
        self.reader.read_exact(&mut body)?;
        let body = String::from_utf8_lossy(&body);
        let host = body.lines().find_map(|line| line.strip_prefix("host="));
        host.map(str::to_owned).ok_or_else(|| io::Error::other(format!("no host in the answer {body:?}")))
    }
}
