//! `/ws`: sends every message back; the header `x-served-by` of the answer names the host.

use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;

use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::{Role, WebSocket};

use crate::server::Request;

pub(crate) const PATH: &str = "/ws";

/// Switches the connection to WebSocket and serves it until the client closes; anything else gets 426.
pub(crate) fn serve(request: &Request, reader: BufReader<&TcpStream>, host: &str) -> io::Result<()> {
    let mut stream = *reader.get_ref();
    let Some(head) = answer(request, host) else {
        let refusal = "HTTP/1.1 426 Upgrade Required\r\nupgrade: websocket\r\nconnection: upgrade, close\r\n\
                       sec-websocket-version: 13\r\ncontent-length: 0\r\n\r\n";
        return stream.write_all(refusal.as_bytes());
    };
    stream.write_all(head.as_bytes())?;
    // What came right after the request is in the reader already.
    echo(WebSocket::from_partially_read(stream, reader.buffer().to_vec(), Role::Server, None))
}

/// The head of the answer to a request that asks for a WebSocket (RFC 6455, version 13).
fn answer(request: &Request, host: &str) -> Option<String> {
    let asks = request.header("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket"));
    let key = request.header("sec-websocket-key").filter(|_| asks)?;
    let accept = derive_accept_key(key.as_bytes());
    Some(format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-accept: {accept}\r\nx-served-by: {host}\r\n\r\n"
    ))
}

fn echo<S: Read + Write>(mut socket: WebSocket<S>) -> io::Result<()> {
    loop {
        match socket.read() {
            Ok(message) if message.is_text() || message.is_binary() => {
                socket.send(message).map_err(io::Error::other)?
            }
            // Pings are answered by the library.
            Ok(_) => {}
            Err(tungstenite::Error::ConnectionClosed) => return Ok(()),
            Err(error) => return Err(io::Error::other(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};

    use tungstenite::Message;

    use super::{Request, serve};

    /// Serves one connection as the server does.
    fn server() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(&stream);
            let request = Request::read(&mut reader).unwrap().unwrap();
            serve(&request, reader, "pod-1")
        });
        address
    }

    #[test]
    fn messages_come_back_and_the_answer_names_the_host() {
        let address = server();
        let stream = TcpStream::connect(&address).unwrap();
        let (mut socket, answer) = tungstenite::client(format!("ws://{address}/ws"), stream).unwrap();
        assert_eq!(answer.headers()["x-served-by"], "pod-1");
        for message in [Message::text("one"), Message::binary(vec![0_u8; 100_000])] {
            socket.send(message.clone()).unwrap();
            assert_eq!(socket.read().unwrap(), message);
        }
        socket.close(None).unwrap();
        assert!(socket.read().unwrap().is_close());
    }

    #[test]
    fn a_plain_request_is_told_to_upgrade() {
        let mut stream = TcpStream::connect(server()).unwrap();
        stream.write_all(b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 426 "), "{answer}");
    }
}
