//! From a question's bytes to a response's: the zone first, the upstream servers for what is not its.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, Record, RecordType};
use parking_lot::RwLock;
use rand::seq::SliceRandom;

use crate::forward::{Forwarder, Lookup, Question};
use crate::message::{Refusal, Request, Response, Transport};
use crate::metrics::Metrics;
use crate::zone::{Answer, Zone};

/// Names that lead to other names, one after the other, in one answer.
const ALIASES_MAX: usize = 8;

pub(crate) struct Responder {
    zone: RwLock<Zone>,
    /// Whether the zone holds all names; before, that a name is missing says nothing.
    complete: AtomicBool,
    forwarder: Arc<Forwarder>,
    metrics: Arc<Metrics>,
}

/// What a question has come to without waiting.
pub(crate) enum Step {
    /// Done: the bytes to send, if any.
    Done(Option<Vec<u8>>),
    /// Upstream servers have to be asked.
    Wait(Box<Pending>),
}

/// A question that waits for upstream servers.
pub(crate) struct Pending {
    request: Request,
    /// Aliases that led out of the zone.
    aliases: Vec<Record>,
    question: Question,
    since: Instant,
}

impl Responder {
    pub(crate) fn new(zone: Zone, forwarder: Arc<Forwarder>, metrics: Arc<Metrics>) -> Self {
        Self { zone: RwLock::new(zone), complete: AtomicBool::new(false), forwarder, metrics }
    }

    pub(crate) fn change_zone(&self, change: impl FnOnce(&mut Zone)) {
        change(&mut self.zone.write());
    }

    pub(crate) fn set_complete(&self) {
        self.complete.store(true, Ordering::Release);
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    /// Answers from what is known, or says what has to be waited for.
    pub(crate) fn begin(&self, bytes: &[u8], transport: Transport) -> Step {
        let since = Instant::now();
        let request = match Request::parse(bytes, transport) {
            Ok(request) => request,
            Err(Refusal(code, bytes)) => {
                self.metrics.request(transport, RecordType::ZERO);
                if bytes.is_some() {
                    self.metrics.response(code, since.elapsed());
                }
                return Step::Done(bytes);
            }
        };
        self.metrics.request(transport, request.query.query_type());
        let (aliases, outside) = match self.ask_zone(&request) {
            Ok(response) => return Step::Done(Some(self.end(&request, response, since))),
            Err(outside) => outside,
        };
        let question = Question {
            name: outside,
            kind: request.query.query_type(),
            dnssec_ok: request.edns.is_some_and(|edns| edns.dnssec_ok),
            checking_disabled: request.metadata.checking_disabled,
        };
        if let Some(lookup) = self.forwarder.cached(&question) {
            let response = self.forwarded(&request, aliases, lookup);
            return Step::Done(Some(self.end(&request, response, since)));
        }
        if !self.forwarder.is_available() {
            let code = if aliases.is_empty() { ResponseCode::Refused } else { ResponseCode::ServFail };
            let response = Response { code, answers: aliases, ..Response::default() };
            return Step::Done(Some(self.end(&request, response, since)));
        }
        Step::Wait(Box::new(Pending { request, aliases, question, since }))
    }

    /// Asks the upstream servers.
    pub(crate) async fn finish(&self, pending: Pending) -> Vec<u8> {
        let Pending { request, aliases, question, since } = pending;
        let lookup = self.forwarder.ask(question).await;
        let response = self.forwarded(&request, aliases, Lookup::clone(&lookup));
        self.end(&request, response, since)
    }

    fn end(&self, request: &Request, mut response: Response, since: Instant) -> Vec<u8> {
        spread(&mut response.answers);
        let bytes = request.encode(&response);
        self.metrics.response(response.code, since.elapsed());
        bytes
    }

    /// The zone's response, or the aliases that it has and the name outside that they lead to.
    fn ask_zone(&self, request: &Request) -> Result<Response, (Vec<Record>, Name)> {
        let kind = request.query.query_type();
        let zone = self.zone.read();
        let mut response =
            Response { authoritative: true, recursion_available: self.forwarder.is_available(), ..Response::default() };
        let mut name = request.query.name().clone();
        for _ in 0..ALIASES_MAX {
            match zone.answer(&name, kind) {
                Answer::Outside => return Err((response.answers, name)),
                // Not known yet is not the same as not there.
                Answer::NxDomain | Answer::NoData if !self.is_complete() => {
                    return Ok(Response { code: ResponseCode::ServFail, ..Response::default() });
                }
                Answer::NxDomain => {
                    response.code = ResponseCode::NXDomain;
                    response.authorities.push(zone.soa());
                    return Ok(response);
                }
                Answer::NoData => {
                    response.authorities.push(zone.soa());
                    return Ok(response);
                }
                Answer::Records { mut answers, additionals } => {
                    response.answers.append(&mut answers);
                    response.additionals = additionals;
                    return Ok(response);
                }
                Answer::Alias { record, target } => {
                    response.answers.push(*record);
                    if matches!(kind, RecordType::CNAME | RecordType::ANY) {
                        return Ok(response);
                    }
                    name = target;
                }
            }
        }
        Ok(Response { code: ResponseCode::ServFail, ..response })
    }

    fn forwarded(&self, request: &Request, mut answers: Vec<Record>, lookup: Lookup) -> Response {
        let wants_authentic = request.metadata.authentic_data || request.edns.is_some_and(|edns| edns.dnssec_ok);
        let authentic_data = lookup.authentic_data && wants_authentic && answers.is_empty();
        answers.extend(lookup.answers);
        Response {
            code: lookup.code,
            authoritative: false,
            recursion_available: true,
            authentic_data,
            answers,
            authorities: lookup.authorities,
            additionals: lookup.additionals,
        }
    }
}

/// Spreads clients over the addresses of a name: most take the first. Aliases keep their order, before the rest.
fn spread(answers: &mut [Record]) {
    let is_spread =
        |record: &Record| matches!(record.record_type(), RecordType::A | RecordType::AAAA | RecordType::SRV);
    if let Some(first) = answers.iter().position(is_spread)
        && answers[first..].iter().all(is_spread)
    {
        answers[first..].shuffle(&mut rand::rng());
    }
}

#[cfg(test)]
mod tests;
