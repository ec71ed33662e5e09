//! Load from h2load: as fast as it goes, for CPU per request; at a fixed rate, for latency.

use std::fs;

use anyhow::{Context, bail, ensure};

use crate::bench::ingress::HOST;
use crate::bench::ingress::proxies::{LOAD_CPU, Proxy, pinned};
use crate::exec;

/// Requests a second of the run that measures latency: far below what any of the proxies can do, so that queues are short.
const RATE: u32 = 1_000;
const WARM_UP: &str = "500ms";

/// How much load one turn is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) requests: u32,
    pub(crate) seconds: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

impl Protocol {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http1 => "h1",
            Self::Http2 => "h2",
        }
    }

    /// Connections and concurrent requests on each: 32 at a time either way.
    fn concurrency(self) -> (u32, u32) {
        match self {
            Self::Http1 => (32, 1),
            Self::Http2 => (4, 8),
        }
    }
}

/// Sends requests as fast as they are answered.
pub(crate) fn saturate(proxy: &Proxy, protocol: Protocol, requests: u32) -> anyhow::Result<()> {
    let succeeded = h2load(proxy, protocol, &["-n", &requests.to_string()])?;
    ensure!(succeeded == requests, "{} answered {succeeded} of {requests} requests", proxy.name);
    Ok(())
}

/// Sends requests at a fixed rate; returns the time of each in microseconds.
pub(crate) fn pace(proxy: &Proxy, protocol: Protocol, seconds: u32) -> anyhow::Result<Vec<u64>> {
    let log = proxy.dir.join("h2load.log");
    // It appends.
    let _ = fs::remove_file(&log);
    let (clients, _) = protocol.concurrency();
    let (rate, seconds) = ((RATE / clients).to_string(), seconds.to_string());
    let log_flag = format!("--log-file={}", log.display());
    h2load(proxy, protocol, &["-D", &seconds, "--warm-up-time", WARM_UP, "--rps", &rate, &log_flag])?;
    let text = fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
    text.lines().filter_map(|line| latency(line).transpose()).collect()
}

/// Runs h2load; returns the number of requests that were answered well, if no other was.
fn h2load(proxy: &Proxy, protocol: Protocol, args: &[&str]) -> anyhow::Result<u32> {
    let mut command = pinned(LOAD_CPU, "h2load");
    if protocol == Protocol::Http1 {
        command.arg("--h1");
    }
    let (clients, streams) = protocol.concurrency();
    command.args(["-t", "1", "-c", &clients.to_string(), "-m", &streams.to_string()]);
    command.arg(format!("--connect-to={}", proxy.address)).args(args);
    let output = exec::read(command.arg(format!("https://{HOST}:{}/bench", proxy.address.port())))?;
    let expected = format!("Application protocol: {}", if protocol == Protocol::Http1 { "http/1.1" } else { "h2" });
    ensure!(output.contains(&expected), "{} speaks another protocol: {output}", proxy.name);
    succeeded(&output).with_context(|| format!("{}: {output}", proxy.name))
}

/// Reads h2load's summary: the number of finished requests, all of which must have got a 2xx.
fn succeeded(output: &str) -> anyhow::Result<u32> {
    let line = |start: &str| output.lines().find_map(|line| line.strip_prefix(start)).context("no summary");
    let number = |line: &str, word: &str| -> anyhow::Result<u32> {
        let mut fields = line.split(", ").filter_map(|field| field.trim().split_once(' '));
        let (count, _) = fields.find(|(_, name)| *name == word).with_context(|| format!("no {word:?} in {line:?}"))?;
        Ok(count.parse()?)
    };
    let (requests, statuses) = (line("requests: ")?, line("status codes: ")?);
    let bad = [(requests, "failed"), (requests, "errored"), (requests, "timeout")];
    let worse = [(statuses, "3xx"), (statuses, "4xx"), (statuses, "5xx")];
    for (line, word) in bad.into_iter().chain(worse) {
        ensure!(number(line, word)? == 0, "not every request succeeded");
    }
    // A timed run ends within some answers: their status has come, and they do not count.
    number(requests, "succeeded")
}

/// One line of the log: start, status, microseconds. A request that the end of the run cut off has status 0 and counts
/// for nothing.
fn latency(line: &str) -> anyhow::Result<Option<u64>> {
    let fields: Vec<&str> = line.split('\t').collect();
    match fields[..] {
        [_, "200", microseconds] => Ok(Some(microseconds.parse()?)),
        [_, "0", _] => Ok(None),
        _ => bail!("a request failed: {line:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{latency, succeeded};

    #[test]
    fn a_summary_counts_only_if_all_is_well() {
        let summary = |failed: u32, ok: u32| {
            format!(
                "finished in 1s\nrequests: 20 total, 20 started, 20 done, {ok} succeeded, {failed} failed, 0 errored, \
                 0 timeout\nstatus codes: {ok} 2xx, 0 3xx, 0 4xx, {failed} 5xx\n"
            )
        };
        assert_eq!(succeeded(&summary(0, 20)).unwrap(), 20);
        assert!(succeeded(&summary(1, 19)).is_err());
        let timed = summary(0, 20).replace("20 2xx", "21 2xx");
        assert_eq!(succeeded(&timed).unwrap(), 20);
        assert!(succeeded("nothing").is_err());
    }

    #[test]
    fn a_failed_request_is_no_latency() {
        assert_eq!(latency("1795517294728515\t200\t5512").unwrap(), Some(5512));
        assert_eq!(latency("1795517294728515\t0\t5512").unwrap(), None);
        assert!(latency("1795517294728515\t503\t5512").is_err());
        assert!(latency("1795517294728515\t-1\t5512").is_err());
    }
}
