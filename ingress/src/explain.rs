//! `explain URL`: what would happen to a request for a URL, and why, as the running gateway sees it.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use http::Uri;
use ingress_route::{HostPattern, Rule, normalize_host};

use crate::request_path::normalize_str;
use crate::serve::Scheme;
use crate::shared::Shared;
use crate::snapshot::{Route, Snapshot, Target};
use crate::upstream::{Endpoints, Health};

const ADMIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Rules that match too but lose; more are counted only.
const LOSERS_SHOWN: usize = 10;

/// Where a gateway serves its admin pages unless told otherwise.
pub(crate) const ADMIN_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 10254);

const EXAMPLES: &str = "\
Examples:
  tidegate explain https://shop.example.com/cart    why does this URL get this certificate, this Service, this answer?
  tidegate explain shop.example.com                 plain HTTP, path /
  tidegate explain wss://shop.example.com/events    a WebSocket is routed like its URL with https

How to read the answer, from the top:
  listener     which addresses take such connections
  certificate  the Secret that is shown for the host; \"the default one\" means that clients will complain, and says why
  route        the rule that won; below it, those that match as well but lose: exact host before wildcard, exact path
               before prefix, longer prefix before shorter, older Ingress before younger
  service      where the rule leads, with its time limits and tries
  endpoints    the pods that get requests in turn, and why one may get none for now
  answer       404: no rule matches; 503: there is a rule, but nobody behind it; otherwise a pod answers

Nothing is sent to any pod: the gateway only says what it would do at this moment.";

/// Say what the running gateway would do with a request for a URL, and why.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ExplainArgs {
    /// Like https://shop.example.com/cart.
    pub url: String,

    /// The admin endpoint of the gateway; 127.0.0.1:10254 by default.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub admin: Option<SocketAddr>,
}

/// Asks the admin endpoint and prints what it says.
///
/// # Errors
/// If the gateway cannot be asked, or does not understand the URL.
pub fn explain_command(args: ExplainArgs) -> anyhow::Result<()> {
    let query: String = form_urlencoded::byte_serialize(args.url.as_bytes()).collect();
    let admin = args.admin.unwrap_or(ADMIN_ADDRESS);
    let answer = fetch(admin, &format!("/explain?url={query}"))
        .with_context(|| format!("cannot ask the gateway at {admin} (does one run here? --admin names another)"))?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the admin endpoint's answer is no HTTP")?;
    if head.split(' ').nth(1) != Some("200") {
        bail!("{}", body.trim_end());
    }
    std::io::stdout().write_all(body.as_bytes()).context("cannot print")
}

fn fetch(admin: SocketAddr, target: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&admin, ADMIN_TIMEOUT)?;
    stream.set_read_timeout(Some(ADMIN_TIMEOUT))?;
    write!(stream, "GET {target} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The answer to the query string of the `/explain` page; an error says what is wrong with the query.
pub(crate) fn page(shared: &Shared, query: Option<&str>) -> Result<String, String> {
    let url = form_urlencoded::parse(query.unwrap_or_default().as_bytes()).find(|(name, _)| name == "url");
    let (_, url) = url.ok_or("say which: /explain?url=https://host/path\n")?;
    let mut asked = Asked::parse(&url)?;
    match normalize_str(&asked.path, shared.limits.keep_slashes) {
        Ok(path) => asked.path = path.into_owned(),
        Err(why) => return Ok(format!("{url}\nanswer: 400, {}\n", why.as_str())),
    }
    Ok(Explanation { shared, snapshot: &shared.snapshot(), asked, text: String::new(), now: Instant::now() }.write())
}

/// What a URL asks for.
struct Asked {
    scheme: Scheme,
    host: String,
    port: u16,
    path: String,
}

impl Asked {
    fn parse(url: &str) -> Result<Self, String> {
        let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let uri: Uri = url.parse().map_err(|error| format!("{url:?} is no URL: {error}\n"))?;
        let scheme = match uri.scheme_str() {
            Some("https" | "wss") => Scheme::Https,
            Some("http" | "ws") => Scheme::Http,
            _ => return Err(format!("{url:?} is neither http nor https\n")),
        };
        let host = uri.host().unwrap_or_default().to_owned();
        let usual = if scheme == Scheme::Https { 443 } else { 80 };
        Ok(Self { scheme, host, port: uri.port_u16().unwrap_or(usual), path: uri.path().to_owned() })
    }
}

struct Explanation<'a> {
    shared: &'a Shared,
    snapshot: &'a Snapshot,
    asked: Asked,
    text: String,
    now: Instant,
}

impl Explanation<'_> {
    fn write(mut self) -> String {
        let Asked { scheme, host, port, path } = &self.asked;
        let first = format!("{}://{host}:{port}{path}, by snapshot {}", scheme.as_str(), self.snapshot.generation);
        self.line(0, &first);
        if !self.shared.is_ready() {
            self.line(0, "not ready: this gateway has not seen the whole cluster yet, or is shutting down");
        }
        self.listener();
        if self.asked.scheme == Scheme::Https {
            self.certificate();
        }
        match self.snapshot.route(&self.asked.host, &self.asked.path).cloned() {
            Some(route) => self.route(&route),
            None => self.no_route(),
        }
        self.text
    }

    fn line(&mut self, indent: usize, text: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{:indent$}{text}", "", indent = indent * 2);
    }

    fn listener(&mut self) {
        let of_scheme = self.shared.listeners().iter().filter(|(scheme, _)| *scheme == self.asked.scheme);
        let addresses: Vec<_> = of_scheme.map(|(_, address)| *address).collect();
        let shown = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let name = self.asked.scheme.as_str();
        let line = if addresses.is_empty() {
            format!("listener: none for {name}")
        } else if addresses.iter().any(|address| address.port() == self.asked.port) {
            format!("listener: {name} on {shown}")
        } else {
            format!("listener: {name} on {shown}; port {} has to be brought there", self.asked.port)
        };
        self.line(0, &line);
    }

    fn certificate(&mut self) {
        let host = normalize_host(&self.asked.host).into_owned();
        let rules = self.snapshot.certificates.rules().filter(|rule| rule.host.matches(&host));
        let line = match rules.max_by_key(|rule| rule.precedence()) {
            None => "certificate: the default one, no Ingress has TLS for this host".to_owned(),
            Some(rule) => {
                let by = format!("Ingress {}, host {}", rule.source, rule.host);
                match &rule.target {
                    None => format!("certificate: the default one, as {by} names no Secret"),
                    Some(key) if self.snapshot.identities.contains_key(&**key) => {
                        format!("certificate: Secret {key}, by {by}")
                    }
                    Some(key) => format!("certificate: the default one, as Secret {key} is missing or unusable ({by})"),
                }
            }
        };
        self.line(0, &line);
    }

    fn no_route(&mut self) {
        self.line(0, "route: none");
        let host = normalize_host(&self.asked.host).into_owned();
        let of_host: Vec<_> = self.snapshot.routes.rules().filter(|rule| rule.host.matches(&host)).cloned().collect();
        if of_host.is_empty() {
            self.line(1, "no rule has this host, and there is no default backend");
        } else {
            self.line(1, &format!("{} rules have this host, none of them this path:", of_host.len()));
            self.rules(1, &of_host, |_| String::new());
        }
        self.line(0, "answer: 404");
    }

    fn route(&mut self, route: &Route) {
        let host = normalize_host(&self.asked.host).into_owned();
        self.line(0, &format!("route: host {}, path {}, of Ingress {}", route.host, route.path, route.source));
        let matching = self.snapshot.routes.rules().filter(|rule| rule.matches(&host, &self.asked.path));
        let losers: Vec<_> = matching.filter(|rule| ***rule != *route).cloned().collect();
        if !losers.is_empty() {
            self.line(1, "preferred to:");
            self.rules(1, &losers, |loser| format!(" ({})", why_preferred(route, loser)));
        }
        let upstream = &route.target.upstream;
        self.line(0, &format!("service: {}", upstream.key));
        self.policy(&route.target);
        let endpoints = upstream.endpoints();
        match endpoints.availability() {
            Ok(()) => self.endpoints(&endpoints),
            Err(why) => self.line(0, &format!("answer: 503, {}", why.as_str())),
        }
    }

    fn policy(&mut self, target: &Target) {
        let policy = &target.policy;
        let mut text = format!(
            "policy: connect {:?}, silence {:?}, {} tries",
            policy.connect_timeout, policy.read_timeout, policy.tries
        );
        if !policy.retry_statuses.is_empty() {
            let _ = write!(text, " (also after {:?})", policy.retry_statuses);
        }
        if let Some(timeout) = policy.request_timeout {
            let _ = write!(text, ", request {timeout:?}");
        }
        if let Some(size) = policy.body_size_max {
            let _ = write!(text, ", body up to {size} bytes");
        }
        self.line(0, &text);
    }

    fn endpoints(&mut self, endpoints: &Endpoints) {
        self.line(0, "endpoints, in turn:");
        for endpoint in endpoints.members() {
            let health = match endpoint.health(endpoints.check.is_some(), self.now) {
                Health::Available => "available".to_owned(),
                Health::Ejected { remaining } => {
                    format!("ejected for {} s more, as requests to it failed", remaining.as_secs() + 1)
                }
                Health::FailingChecks => "fails its health checks".to_owned(),
            };
            self.line(1, &format!("{}: {health}", endpoint.address));
        }
        if endpoints.are_leaving {
            self.line(1, "none is ready; these are terminating but still serve, which is better than a 503");
        }
        if endpoints.is_panicking(self.now) {
            self.line(1, "fewer than half are available, so all get requests nevertheless");
        }
        self.line(0, "answer: that of an endpoint");
    }

    fn rules(&mut self, indent: usize, rules: &[std::sync::Arc<Route>], note: impl Fn(&Route) -> String) {
        let mut rules: Vec<_> = rules.iter().collect();
        rules.sort_by(|a, b| b.precedence().cmp(&a.precedence()));
        for rule in rules.iter().take(LOSERS_SHOWN) {
            let line = format!("host {}, path {}, of Ingress {}{}", rule.host, rule.path, rule.source, note(rule));
            self.line(indent + 1, &line);
        }
        if rules.len() > LOSERS_SHOWN {
            self.line(indent + 1, &format!("and {} more", rules.len() - LOSERS_SHOWN));
        }
    }
}

fn why_preferred<T>(winner: &Rule<T>, loser: &Rule<T>) -> &'static str {
    match (&winner.host, &loser.host) {
        (winner, loser) if winner == loser => "a less specific path",
        (HostPattern::Exact(_), _) => "not this host exactly",
        _ => "a less specific host",
    }
}

#[cfg(test)]
mod tests {
    use super::{Asked, Scheme};

    #[test]
    fn urls_are_read_as_people_write_them() {
        let read = |url: &str| Asked::parse(url).map(|asked| (asked.scheme, asked.host, asked.port, asked.path));
        let expected = |scheme, port, path: &str| Ok((scheme, "a.test".to_owned(), port, path.to_owned()));
        assert_eq!(read("https://a.test/x?y=z"), expected(Scheme::Https, 443, "/x"));
        assert_eq!(read("http://a.test:8080"), expected(Scheme::Http, 8080, "/"));
        assert_eq!(read("a.test/x"), expected(Scheme::Http, 80, "/x"));
        assert!(read("ftp://a.test/").is_err() && read("https://").is_err());
    }
}
