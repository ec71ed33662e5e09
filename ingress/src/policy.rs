//! What holds for a request on its way to an endpoint: timeouts, retries, the size of its body. Every rule has a policy;
//! the flags say the one that holds where nothing else is asked for.

use std::time::Duration;

use crate::units::{parse_duration, parse_size};

/// The most attempts that may be asked for.
pub(crate) const TRIES_MAX: u8 = 10;

#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Requests to endpoints")]
pub struct Policy {
    /// How long connecting to an endpoint may take.
    #[arg(long = "upstream-connect-timeout", value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    pub(crate) connect_timeout: Duration,

    /// How long an endpoint may be silent, before and within its answer; then the client gets 504.
    #[arg(long = "upstream-read-timeout", value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    pub(crate) read_timeout: Duration,

    /// How long an endpoint may take to accept a part of a request.
    #[arg(long = "upstream-send-timeout", value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    pub(crate) send_timeout: Duration,

    /// How long a request may take with all its attempts; then the client gets 504. Upgraded connections are exempt.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) request_timeout: Option<Duration>,

    /// How many endpoints a request is sent to at most, as long as that is safe.
    #[arg(long = "upstream-tries", value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=TRIES_MAX as i64))]
    pub(crate) tries: u8,

    /// Answers of an endpoint for which an idempotent request is sent to another one.
    #[arg(long = "retry-on-status", value_name = "STATUS", value_delimiter = ',', value_parser = parse_retry_status)]
    pub(crate) retry_statuses: Vec<u16>,

    /// The largest request body; larger ones get 413. Without it there is no limit.
    #[arg(long = "max-request-body-size", value_name = "SIZE", value_parser = parse_size)]
    pub(crate) body_size_max: Option<u64>,
}

/// Answers that mean that the endpoint could not do its work, rather than what it thinks of the request.
pub(crate) fn is_gateway_failure(status: u16) -> bool {
    matches!(status, 502..=504)
}

fn parse_retry_status(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(status) if is_gateway_failure(status) => Ok(status),
        _ => Err("only 502, 503 and 504 say that another endpoint may do better".to_owned()),
    }
}

#[cfg(test)]
impl Default for Policy {
    /// What the flags say when none is given.
    fn default() -> Self {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            policy: Policy,
        }
        <Cli as clap::Parser>::parse_from(["x"]).policy
    }
}
