//! The sample application and its client, in one static program for the image `tidegate/echo:dev`.
//!
//! `echo` serves HTTP (with WebSockets) on 8080, UDP on 8081 and measurements on 8082; `echo get`, `load`,
//! `hold` and `udp` are the clients that the demo runs in a pod, `echo measure` is the one of the benchmarks.

mod client;
mod datagrams;
mod measure;
mod server;
mod websocket;

use std::process::ExitCode;

const USAGE: &str = "usage:
  echo                       serve HTTP (WebSockets at /ws) on port 8080 and UDP on port 8081
  echo get ADDRESS COUNT     ask COUNT times, each on a new connection; print who answered and what getpeername said
  echo load ADDRESS SECONDS  ask a hundred times a second, each on a new connection; print the same
  echo hold ADDRESS SECONDS  ask ten times a second on one connection; print requests and failures
  echo udp ADDRESS COUNT     send COUNT datagrams from connected sockets and as many from unconnected ones, each
                             from its own; print which address the echoes came from
  echo measure throughput|round-trips|connections ADDRESS SECONDS
                             print Gbit/s, thousands of round trips a second, or thousands of connections a second";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        [] | ["serve"] => server::run(),
        ["get", address, count] => client::get(address, count),
        ["load", address, seconds] => client::load(address, seconds),
        ["hold", address, seconds] => client::hold(address, seconds),
        ["udp", address, count] => datagrams::ask(address, count),
        ["measure", what, address, seconds] => measure::run(what, address, seconds),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo: {error}");
            ExitCode::FAILURE
        }
    }
}
