//! Questions: by `dig`, which is not ours, and by bare sockets where speed counts.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

/// What `dig` got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) code: String,
    pub(crate) flags: String,
    /// Name, TTL, type and data of the answer section, in its order.
    pub(crate) answers: Vec<String>,
    pub(crate) authorities: Vec<String>,
    pub(crate) additionals: Vec<String>,
}

impl Reply {
    /// The data of the answers, sorted.
    pub(crate) fn data(&self) -> Vec<&str> {
        let mut data: Vec<_> = self.answers.iter().map(|line| line.splitn(4, ' ').nth(3).unwrap()).collect();
        data.sort_unstable();
        data
    }
}

pub(crate) async fn dig(server: SocketAddr, arguments: &[&str]) -> Reply {
    let mut command = Command::new("dig");
    command.args([&format!("@{}", server.ip()), "-p", &server.port().to_string(), "+timeout=5", "+tries=1"]);
    command.args(["+nostats"]).args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output().expect("dig (dnsutils) is installed")).await;
    let output = output.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    parse(&text)
}

fn parse(text: &str) -> Reply {
    let mut reply = Reply::default();
    let mut section = "";
    for line in text.lines() {
        if let Some((_, rest)) = line.split_once("status: ") {
            reply.code = rest.split(',').next().unwrap().to_owned();
        } else if let Some(rest) = line.strip_prefix(";; flags: ") {
            reply.flags = rest.split(';').next().unwrap().to_owned();
        } else if let Some(rest) = line.strip_prefix(";; ") {
            section = rest;
        } else if !line.is_empty() && !line.starts_with(';') {
            let words: Vec<_> = line.split_whitespace().collect();
            let record = [&words[..2], &words[3..]].concat().join(" ");
            match section {
                "ANSWER SECTION:" => reply.answers.push(record),
                "AUTHORITY SECTION:" => reply.authorities.push(record),
                "ADDITIONAL SECTION:" => reply.additionals.push(record),
                _ => panic!("unexpected line {line:?}"),
            }
        }
    }
    reply
}

/// Asks until a condition holds, or panics.
pub(crate) async fn until(server: SocketAddr, arguments: &[&str], holds: impl Fn(&Reply) -> bool) -> Reply {
    let mut last = Reply::default();
    for _ in 0..200 {
        last = dig(server, arguments).await;
        if holds(&last) {
            return last;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{arguments:?}: not within 4 s, last {last:?}");
}
