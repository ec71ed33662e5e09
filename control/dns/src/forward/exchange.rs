//! One question to one server: over UDP from a port of its own, over TCP if the answer does not fit.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::ProtoError;
use hickory_proto::op::{Edns, Message, MessageType, Query};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::Question;
use crate::message::UDP_PAYLOAD;

/// Clients give up after five seconds; another server wants its turn before.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub(super) enum ExchangeError {
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Silence,
    #[error("cannot talk to the server")]
    Io(#[from] io::Error),
    #[error("cannot encode the question")]
    Encode(#[from] ProtoError),
    #[error("the answer belongs to another question")]
    Mismatch,
}

pub(super) async fn ask(server: SocketAddr, question: &Question) -> Result<Message, ExchangeError> {
    let message = message(question);
    let bytes = message.to_vec()?;
    let answer = timeout(PATIENCE, over_udp(server, &message, &bytes)).await.map_err(|_| ExchangeError::Silence)??;
    if !answer.metadata.truncation {
        return Ok(answer);
    }
    timeout(PATIENCE, over_tcp(server, &message, &bytes)).await.map_err(|_| ExchangeError::Silence)?
}

fn message(question: &Question) -> Message {
    let mut message = Message::query();
    message.metadata.id = rand::random();
    message.metadata.recursion_desired = true;
    message.metadata.checking_disabled = question.checking_disabled;
    message.metadata.authentic_data = true;
    message.add_query(Query::query(question.name.clone(), question.kind));
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_PAYLOAD).set_dnssec_ok(question.dnssec_ok);
    message.set_edns(edns);
    message
}

/// Waits for an answer to this very question; others (late, forged or broken) do not count.
async fn over_udp(server: SocketAddr, asked: &Message, bytes: &[u8]) -> Result<Message, ExchangeError> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut buffer = [0; 4096];
    loop {
        let len = socket.recv(&mut buffer).await?;
        match Message::from_vec(&buffer[..len]) {
            Ok(answer) if answers(asked, &answer) => return Ok(answer),
            _ => {}
        }
    }
}

async fn over_tcp(server: SocketAddr, asked: &Message, bytes: &[u8]) -> Result<Message, ExchangeError> {
    let mut stream = TcpStream::connect(server).await?;
    let len = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&len.to_be_bytes(), bytes].concat()).await?;
    let len = stream.read_u16().await?;
    let mut buffer = vec![0; len.into()];
    stream.read_exact(&mut buffer).await?;
    let answer = Message::from_vec(&buffer).map_err(io::Error::other)?;
    if answers(asked, &answer) { Ok(answer) } else { Err(ExchangeError::Mismatch) }
}

fn answers(asked: &Message, answer: &Message) -> bool {
    answer.metadata.id == asked.metadata.id
        && answer.metadata.message_type == MessageType::Response
        && answer.queries == asked.queries
}
