//! Requests out of bytes and responses into bytes, within the size that the client can take.

use hickory_proto::ProtoError;
use hickory_proto::op::{Edns, Header, HeaderCounts, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Record, RecordType};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};

/// What fits into one IPv6 packet everywhere: the size of DNS flag day 2020.
pub(crate) const UDP_PAYLOAD: u16 = 1232;
/// Without EDNS (RFC 1035).
const UDP_PAYLOAD_PLAIN: u16 = 512;
/// An OPT record without options.
const OPT_LEN: u16 = 11;
const ID_LEN: usize = 2;
const HEADER_LEN: usize = 12;

/// How a message came, which limits the length of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// A well-formed question.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) query: Query,
    pub(crate) metadata: Metadata,
    /// Whether the client understands EDNS, and wants DNSSEC records.
    pub(crate) edns: Option<EdnsRequest>,
    len_max: u16,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct EdnsRequest {
    pub(crate) dnssec_ok: bool,
}

/// Why there is no question, with the bytes to send, if any.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) ResponseCode, pub(crate) Option<Vec<u8>>);

/// The parts of a response that differ from question to question.
#[derive(Clone, Debug, Default)]
pub(crate) struct Response {
    pub(crate) code: ResponseCode,
    pub(crate) authoritative: bool,
    pub(crate) recursion_available: bool,
    pub(crate) authentic_data: bool,
    pub(crate) answers: Vec<Record>,
    pub(crate) authorities: Vec<Record>,
    pub(crate) additionals: Vec<Record>,
}

impl Request {
    pub(crate) fn parse(bytes: &[u8], transport: Transport) -> Result<Self, Refusal> {
        let mut message = match Message::from_vec(bytes) {
            Ok(message) => message,
            Err(_) => return Err(garbage(bytes)),
        };
        if message.metadata.message_type != MessageType::Query {
            return Err(Refusal(ResponseCode::FormErr, None));
        }
        let code = match (message.metadata.op_code, message.queries.as_slice(), &message.edns) {
            (OpCode::Query, .., Some(edns)) if edns.version() != 0 => Some(ResponseCode::BADVERS),
            (OpCode::Query, [query], _) => refused_kind(query),
            (OpCode::Query, ..) => Some(ResponseCode::FormErr),
            _ => Some(ResponseCode::NotImp),
        };
        let edns = message.edns.as_ref().map(|edns| EdnsRequest { dnssec_ok: edns.flags().dnssec_ok });
        let len_max = match (transport, &message.edns) {
            (Transport::Tcp, _) => u16::MAX,
            (Transport::Udp, Some(edns)) => edns.max_payload().clamp(UDP_PAYLOAD_PLAIN, UDP_PAYLOAD),
            (Transport::Udp, None) => UDP_PAYLOAD_PLAIN,
        };
        let query = message.queries.drain(..).next();
        let metadata = message.metadata;
        match (query, code) {
            (Some(query), None) => Ok(Self { query, metadata, edns, len_max }),
            (Some(query), Some(code)) => {
                let request = Self { query, metadata, edns, len_max };
                Err(Refusal(code, Some(request.encode(&Response { code, ..Response::default() }))))
            }
            (None, code) => Err(bare(metadata.id, metadata.op_code, code.unwrap_or(ResponseCode::FormErr))),
        }
    }

    /// The response's bytes. Where not all records fit, the answer is marked truncated and ends at a record.
    pub(crate) fn encode(&self, response: &Response) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(512);
        match self.emit(response, &mut bytes) {
            Ok(()) => bytes,
            Err(error) => {
                tracing::warn!(%error, query = %self.query, "cannot encode response");
                let Refusal(_, bytes) = bare(self.metadata.id, OpCode::Query, ResponseCode::ServFail);
                bytes.unwrap_or_default()
            }
        }
    }

    fn emit(&self, response: &Response, bytes: &mut Vec<u8>) -> Result<(), ProtoError> {
        let mut encoder = BinEncoder::new(bytes);
        let reserved = if self.edns.is_some() { OPT_LEN } else { 0 };
        encoder.set_max_size(self.len_max - reserved);
        let place = encoder.place::<Header>()?;
        self.query.emit(&mut encoder)?;
        let (answers, some_left) = emit_some(&mut encoder, &response.answers)?;
        let (authorities, more_left) = emit_some(&mut encoder, &response.authorities)?;
        // Additional records only spare a question: nobody has to ask again for want of them.
        let (mut additionals, _) = emit_some(&mut encoder, &response.additionals)?;
        if let Some(edns) = self.edns {
            encoder.set_max_size(self.len_max);
            let mut own = Edns::new();
            own.set_max_payload(UDP_PAYLOAD).set_dnssec_ok(edns.dnssec_ok).set_rcode_high(response.code.high());
            Record::from(&own).emit(&mut encoder)?;
            additionals += 1;
        }
        let mut metadata = Metadata::response_from_request(&self.metadata);
        metadata.response_code = response.code;
        metadata.authoritative = response.authoritative;
        metadata.recursion_available = response.recursion_available;
        metadata.authentic_data = response.authentic_data;
        metadata.truncation = some_left || more_left;
        let counts = HeaderCounts { queries: 1, answers, authorities, additionals };
        place.replace(&mut encoder, Header { metadata, counts })?;
        encoder.trim();
        Ok(())
    }
}

/// Writes records while they fit; returns how many did and whether some did not.
fn emit_some(encoder: &mut BinEncoder<'_>, records: &[Record]) -> Result<(u16, bool), ProtoError> {
    let (count, some_left) = match encoder.emit_all(records.iter()) {
        Ok(count) => (count, false),
        Err(ProtoError::NotAllRecordsWritten { count, .. }) => (count, true),
        Err(error) => return Err(error),
    };
    // A message of 64 KiB holds fewer records than a u16 can count.
    Ok((u16::try_from(count).unwrap_or(u16::MAX), some_left))
}

fn refused_kind(query: &Query) -> Option<ResponseCode> {
    let is_transfer = matches!(query.query_type(), RecordType::AXFR | RecordType::IXFR);
    (is_transfer || query.query_class() != DNSClass::IN).then_some(ResponseCode::Refused)
}

/// Bytes that are no message get an answer if they look like a query's.
fn garbage(bytes: &[u8]) -> Refusal {
    let is_query = bytes.len() >= HEADER_LEN && bytes[ID_LEN] & 0x80 == 0;
    if is_query {
        bare(u16::from_be_bytes([bytes[0], bytes[1]]), OpCode::Query, ResponseCode::FormErr)
    } else {
        Refusal(ResponseCode::FormErr, None)
    }
}

/// A response without a question.
fn bare(id: u16, op_code: OpCode, code: ResponseCode) -> Refusal {
    Refusal(code, Message::error_msg(id, op_code, code).to_vec().ok())
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Edns, Message, OpCode, Query, ResponseCode};
    use hickory_proto::rr::rdata::A;
    use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

    use super::{Request, Response, Transport};

    fn query(kind: RecordType) -> Message {
        let mut message = Message::query();
        message.metadata.id = 7;
        message.add_query(Query::query(Name::from_ascii("Web.example.").unwrap(), kind));
        message
    }

    fn with_payload(mut message: Message, payload: u16) -> Message {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        message.set_edns(edns);
        message
    }

    fn response(count: u8) -> Response {
        let name = Name::from_ascii("Web.example.").unwrap();
        let record = |n| Record::from_rdata(name.clone(), 5, RData::A(A::new(10, 0, 0, n)));
        Response { answers: (0..count).map(record).collect(), ..Response::default() }
    }

    #[test]
    fn answers_stay_within_what_the_client_can_take() {
        for (message, transport, len_max) in [
            (query(RecordType::A), Transport::Udp, 512),
            (with_payload(query(RecordType::A), 600), Transport::Udp, 600),
            (with_payload(query(RecordType::A), 4096), Transport::Udp, 1232),
            (with_payload(query(RecordType::A), 100), Transport::Udp, 512),
        ] {
            let request = Request::parse(&message.to_vec().unwrap(), transport).unwrap();
            let bytes = request.encode(&response(200));
            assert!(bytes.len() <= len_max && bytes.len() + 16 > len_max, "{} of {len_max}", bytes.len());
            let decoded = Message::from_vec(&bytes).unwrap();
            assert!(decoded.metadata.truncation);
            assert_eq!(decoded.edns.is_some(), message.edns.is_some(), "the OPT record is always there");
        }
        let request = Request::parse(&query(RecordType::A).to_vec().unwrap(), Transport::Tcp).unwrap();
        let decoded = Message::from_vec(&request.encode(&response(200))).unwrap();
        assert_eq!((decoded.answers.len(), decoded.metadata.truncation), (200, false));
    }

    #[test]
    fn additional_records_that_do_not_fit_are_left_out_in_silence() {
        let request = Request::parse(&query(RecordType::A).to_vec().unwrap(), Transport::Udp).unwrap();
        let response = Response { additionals: response(200).answers, ..response(1) };
        let decoded = Message::from_vec(&request.encode(&response)).unwrap();
        assert_eq!((decoded.answers.len(), decoded.metadata.truncation), (1, false));
        assert!(decoded.additionals.len() > 10);
    }

    #[test]
    fn the_question_comes_back_as_it_was_written() {
        let request = Request::parse(&query(RecordType::A).to_vec().unwrap(), Transport::Udp).unwrap();
        let decoded = Message::from_vec(&request.encode(&response(1))).unwrap();
        assert_eq!(decoded.queries[0].name().to_string(), "Web.example.");
        assert_eq!(decoded.metadata.id, 7);
    }

    #[test]
    fn what_is_no_question_is_refused() {
        let code = |message: &Message| {
            let refusal = Request::parse(&message.to_vec().unwrap(), Transport::Udp).unwrap_err();
            let sent = refusal.1.map(|bytes| Message::from_vec(&bytes).unwrap().metadata.response_code);
            // By number: two names share 16.
            assert!(sent.is_none_or(|sent| u16::from(sent) == u16::from(refusal.0)));
            (refusal.0, sent.is_some())
        };
        let mut update = query(RecordType::A);
        update.metadata.op_code = OpCode::Notify;
        assert_eq!(code(&update), (ResponseCode::NotImp, true));
        assert_eq!(code(&query(RecordType::AXFR)), (ResponseCode::Refused, true));
        let mut chaos = query(RecordType::TXT);
        chaos.queries[0].set_query_class(DNSClass::CH);
        assert_eq!(code(&chaos), (ResponseCode::Refused, true));
        let mut two = query(RecordType::A);
        two.add_query(Query::query(Name::root(), RecordType::A));
        assert_eq!(code(&two), (ResponseCode::FormErr, true));
        let mut none = query(RecordType::A);
        none.queries.clear();
        assert_eq!(code(&none), (ResponseCode::FormErr, true));
        let mut newer = with_payload(query(RecordType::A), 1232);
        newer.edns.as_mut().unwrap().set_version(1);
        assert_eq!(code(&newer), (ResponseCode::BADVERS, true));
        assert_eq!(code(&query(RecordType::A).into_response()), (ResponseCode::FormErr, false));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let good = with_payload(query(RecordType::A), 1232).to_vec().unwrap();
        for len in 0..good.len() {
            let refusal = Request::parse(&good[..len], Transport::Udp).unwrap_err();
            assert_eq!(refusal.1.is_some(), len >= 12, "{len}");
        }
        for index in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[index] ^= 1 << bit;
                let _ = Request::parse(&bad, Transport::Udp);
            }
        }
    }
}
