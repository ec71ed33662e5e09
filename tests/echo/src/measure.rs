//! Measures a path through the network: how many bytes, round trips or connections it carries in a second.
//!
//! The first byte of a connection says what the server does with the rest: it throws it away, sends it back, or sends
//! one byte back and closes.

use std::io::{self, Read, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) const PORT: u16 = 8082;
const DISCARD: u8 = b'D';
const RETURN: u8 = b'R';
const CLOSE: u8 = b'C';
const CHUNK_BYTES: usize = 128 << 10;
/// Long enough to find the measurement's end in time, short enough to be no part of the figure.
const CLOCK_INTERVAL: u64 = 16;

/// Serves measurements for ever.
pub(crate) fn serve() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT))?;
    for stream in listener.incoming() {
        thread::spawn(move || stream.and_then(answer));
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    if kind[0] == CLOSE {
        return stream.read_exact(&mut kind).and_then(|()| stream.write_all(&kind));
    }
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        if kind[0] == RETURN {
            stream.write_all(&buffer[..length])?;
        }
    }
}

/// Measures for some seconds and prints one number.
pub(crate) fn run(what: &str, address: &str, seconds: &str) -> io::Result<()> {
    let seconds = seconds.parse().map_err(|_| io::Error::other(format!("{seconds:?} is not a number of seconds")))?;
    let measure = match what {
        "throughput" => throughput,
        "round-trips" => round_trips,
        "connections" => connections,
        _ => return Err(io::Error::other(format!("{what:?} is not one of throughput, round-trips, connections"))),
    };
    println!("{:.3}", measure(address, Duration::from_secs(seconds))?);
    Ok(())
}

/// Gigabits a second on one connection.
fn throughput(address: &str, time: Duration) -> io::Result<f64> {
    let mut stream = open(address, DISCARD)?;
    let chunk = vec![0; CHUNK_BYTES];
    let (mut bytes, started) = (0, Instant::now());
    while started.elapsed() < time {
        for _ in 0..CLOCK_INTERVAL {
            stream.write_all(&chunk)?;
        }
        bytes += CLOCK_INTERVAL * CHUNK_BYTES as u64;
    }
    Ok(bytes as f64 * 8.0 / 1e9 / started.elapsed().as_secs_f64())
}

/// One byte there and back, again and again on one connection: thousands a second.
fn round_trips(address: &str, time: Duration) -> io::Result<f64> {
    let mut stream = open(address, RETURN)?;
    let (mut count, started) = (0, Instant::now());
    while started.elapsed() < time {
        for _ in 0..CLOCK_INTERVAL {
            round_trip(&mut stream)?;
        }
        count += CLOCK_INTERVAL;
    }
    Ok(count as f64 / 1e3 / started.elapsed().as_secs_f64())
}

/// Connect, one byte there and back, close: thousands a second. The server closes first, and keeps what TIME_WAIT keeps:
/// a client that did would soon measure its own search for a free port.
fn connections(address: &str, time: Duration) -> io::Result<f64> {
    let (mut count, started) = (0_u64, Instant::now());
    while started.elapsed() < time {
        let mut stream = open(address, CLOSE)?;
        round_trip(&mut stream)?;
        stream.read_to_end(&mut Vec::new())?;
        count += 1;
    }
    Ok(count as f64 / 1e3 / started.elapsed().as_secs_f64())
}

fn open(address: &str, kind: u8) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.write_all(&[kind])?;
    Ok(stream)
}

fn round_trip(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"x")?;
    stream.read_exact(&mut [0])
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::{DISCARD, RETURN, answer, connections, round_trips, throughput};

    fn server() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                std::thread::spawn(move || answer(stream.unwrap()));
            }
        });
        address
    }

    #[test]
    fn the_first_byte_says_what_becomes_of_the_rest() {
        let address = server();
        for (kind, expected) in [(RETURN, "abc"), (DISCARD, "")] {
            let mut stream = TcpStream::connect(&address).unwrap();
            stream.write_all(&[kind]).unwrap();
            stream.write_all(b"abc").unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, expected);
        }
    }

    #[test]
    fn each_measurement_yields_something() {
        let address = server();
        for measure in [throughput, round_trips, connections] {
            assert!(measure(&address, Duration::from_millis(20)).unwrap() > 0.0);
        }
    }
}
