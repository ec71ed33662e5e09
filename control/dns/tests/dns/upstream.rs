//! An upstream server that counts what it is asked. Names below `big.` have answers for TCP only, `dead.` none at all.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let socket = Arc::new(UdpSocket::bind(address).await.unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (len, client) = socket.recv_from(&mut buffer).await.unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
                let question = Message::from_vec(&buffer[..len]).unwrap();
                let socket = Arc::clone(&socket);
                tokio::spawn(async move {
                    if let Some(answer) = answer(question, false).await {
                        // A forged answer first: it must be passed over.
                        let mut forged = answer.clone();
                        forged.metadata.id = forged.metadata.id.wrapping_add(1);
                        forged.metadata.response_code = ResponseCode::NXDomain;
                        socket.send_to(&forged.to_vec().unwrap(), client).await.unwrap();
                        socket.send_to(&answer.to_vec().unwrap(), client).await.unwrap();
                    }
                });
            }
        });
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let len = stream.read_u16().await.unwrap();
                let mut buffer = vec![0; len.into()];
                stream.read_exact(&mut buffer).await.unwrap();
                let answer = answer(Message::from_vec(&buffer).unwrap(), true).await.unwrap().to_vec().unwrap();
                stream.write_u16(answer.len().try_into().unwrap()).await.unwrap();
                stream.write_all(&answer).await.unwrap();
            }
        });
        Self { address, asked }
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

async fn answer(question: Message, over_tcp: bool) -> Option<Message> {
    let name = question.queries[0].name().clone();
    let text = name.to_string().to_ascii_lowercase();
    let mut answer = question.into_response();
    answer.metadata.recursion_available = true;
    // Long enough for questions to meet.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let record = |n: u8| Record::from_rdata(name.clone(), 20, RData::A(A::new(192, 0, 2, n)));
    match text.as_str() {
        text if text.ends_with("dead.") => return None,
        text if text.ends_with("big.") && !over_tcp => answer.metadata.truncation = true,
        text if text.ends_with("big.") => answer.answers = (0..200).map(record).collect(),
        text if text.ends_with("broken.") => answer.metadata.response_code = ResponseCode::ServFail,
        text if text.ends_with("none.") => {
            answer.metadata.response_code = ResponseCode::NXDomain;
            let soa = SOA::new(Name::root(), Name::root(), 1, 2, 3, 4, 15);
            answer.authorities.push(Record::from_rdata(Name::root(), 900, RData::SOA(soa)));
        }
        _ if answer.queries[0].query_type() == RecordType::A => answer.answers.push(record(1)),
        _ => {}
    }
    Some(answer)
}
