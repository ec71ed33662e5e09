//! A small scripted registry on loopback: what it has, whom it lets in, and how it misbehaves, is up to the test.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::image::{Blob, Image};

const TOKEN: &str = "let-me-in";

/// Serves until the process ends.
#[derive(Debug, Clone)]
pub struct Registry {
    port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Path below `/v2/` → content and its type.
    content: HashMap<String, (Vec<u8>, &'static str)>,
    access: Access,
    /// Where blobs are, instead of here.
    redirect: bool,
    /// By digest.
    faults: HashMap<String, Fault>,
    requests: Vec<Request>,
}

/// Who is let in.
#[derive(Debug, Default, Clone)]
pub enum Access {
    #[default]
    All,
    /// `user:password` with every request.
    Basic(&'static str),
    /// A token, which `user:password` gets.
    Token(&'static str),
}

/// What is wrong with a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Other bytes of the same length.
    BadDigest,
    /// The connection breaks off in the middle, this many times.
    Truncated { times: u32 },
    /// It is not there, though manifests name it.
    Missing,
    /// The registry is overloaded, this many times.
    Busy { times: u32 },
}

/// One request that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub path: String,
    pub authorized: bool,
    pub range: Option<String>,
}

impl Registry {
    /// # Panics
    /// If there is no free port.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("no free port");
        let port = listener.local_addr().expect("a listener has an address").port();
        let registry = Self { port, state: Arc::default() };
        let server = registry.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let server = server.clone();
                // A client that leaves is no concern of ours.
                std::thread::spawn(move || drop(server.converse(&connection)));
            }
        });
        registry
    }

    /// How an image is called that is served here.
    #[must_use]
    pub fn reference(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}", self.port)
    }

    /// Serves an image under this tag, through an index; returns the digest that the tag leads to.
    ///
    /// # Panics
    /// Never.
    pub fn publish(&self, repository: &str, tag: &str, image: &Image) -> String {
        let index = image.index();
        let mut state = self.lock();
        let mut put = |path: String, blob: &Blob| state.content.insert(path, (blob.bytes.clone(), blob.media_type));
        for name in [tag, &index.digest] {
            put(format!("{repository}/manifests/{name}"), &index);
        }
        put(format!("{repository}/manifests/{}", image.manifest.digest), &image.manifest);
        for blob in image.layers.iter().chain([&image.config]) {
            put(format!("{repository}/blobs/{}", blob.digest), blob);
        }
        index.digest
    }

    pub fn restrict(&self, access: Access) {
        self.lock().access = access;
    }

    /// Sends clients to another origin for blobs, as registries with a content delivery network do.
    pub fn redirect_blobs(&self) {
        self.lock().redirect = true;
    }

    pub fn fault(&self, digest: &str, fault: Fault) {
        self.lock().faults.insert(digest.to_owned(), fault);
    }

    pub fn repair(&self) {
        self.lock().faults.clear();
    }

    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.lock().requests.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn converse(&self, connection: &TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(connection);
        loop {
            let mut head = Vec::new();
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line)? == 0 {
                    return Ok(());
                }
                if line.trim().is_empty() {
                    break;
                }
                head.push(line.trim().to_owned());
            }
            let answer = self.answer(&head);
            (&*connection).write_all(&answer.bytes)?;
            if answer.breaks_off {
                return connection.shutdown(Shutdown::Both);
            }
        }
    }

    fn answer(&self, head: &[String]) -> Answer {
        let header = |name: &str| {
            let find = |line: &&String| line.to_ascii_lowercase().starts_with(&format!("{name}:"));
            head.iter().find(find).and_then(|line| Some(line.split_once(':')?.1.trim().to_owned()))
        };
        let path = head.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
        let (authorization, range) = (header("authorization"), header("range"));
        let mut state = self.lock();
        let authorized = authorization.is_some();
        state.requests.push(Request { path: path.clone(), authorized, range: range.clone() });
        if path.starts_with("/token") {
            return token(&state.access, authorization.as_deref());
        }
        let (elsewhere, path) = match path.strip_prefix("/elsewhere/") {
            Some(path) => (true, path),
            None => (false, path.strip_prefix("/v2/").unwrap_or_default()),
        };
        if elsewhere && authorized {
            return Answer::new("400 Bad Request", &[], b"credentials have leaked");
        }
        if !elsewhere && !lets_in(&state.access, authorization.as_deref()) {
            return self.challenge(&state.access);
        }
        if state.redirect && !elsewhere && path.contains("/blobs/") {
            let location = format!("Location: http://localhost:{}/elsewhere/{path}", self.port);
            return Answer::new("307 Temporary Redirect", &[&location], b"");
        }
        let digest = path.rsplit('/').next().unwrap_or_default();
        let fault = state.faults.get(digest).copied();
        let Some((bytes, media_type)) = state.content.get(path).filter(|_| fault != Some(Fault::Missing)).cloned()
        else {
            let text = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
            return Answer::new("404 Not Found", &[], if path.is_empty() { b"{}" } else { text });
        };
        let once_less = |fault: Fault| match fault {
            Fault::Truncated { times } => Fault::Truncated { times: times.saturating_sub(1) },
            Fault::Busy { times } => Fault::Busy { times: times.saturating_sub(1) },
            other => other,
        };
        if let Some(fault) = fault {
            state.faults.insert(digest.to_owned(), once_less(fault));
        }
        serve(bytes, media_type, fault, range.as_deref())
    }

    fn challenge(&self, access: &Access) -> Answer {
        let realm = format!("http://127.0.0.1:{}/token", self.port);
        let challenge = match access {
            Access::Token(_) => format!("WWW-Authenticate: Bearer realm=\"{realm}\",service=\"test\""),
            _ => "WWW-Authenticate: Basic realm=\"test\"".to_owned(),
        };
        let text = br#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
        Answer::new("401 Unauthorized", &[&challenge], text)
    }
}

fn serve(mut bytes: Vec<u8>, media_type: &str, fault: Option<Fault>, range: Option<&str>) -> Answer {
    if matches!(fault, Some(Fault::Busy { times }) if times > 0) {
        return Answer::new("503 Service Unavailable", &["Retry-After: 0"], b"busy");
    }
    if fault == Some(Fault::BadDigest) {
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
    }
    let from = range.and_then(|range| range.strip_prefix("bytes=")?.trim_end_matches('-').parse::<usize>().ok());
    let total = bytes.len();
    let bytes = bytes.split_off(from.unwrap_or(0).min(total));
    let content_type = format!("Content-Type: {media_type}");
    let content_range = format!("Content-Range: bytes {}-{}/{total}", from.unwrap_or(0), total - 1);
    let mut answer = match from {
        Some(_) => Answer::new("206 Partial Content", &[&content_type, &content_range], &bytes),
        None => Answer::new("200 OK", &[&content_type], &bytes),
    };
    if matches!(fault, Some(Fault::Truncated { times }) if times > 0) {
        answer.bytes.truncate(answer.bytes.len() - bytes.len().div_ceil(2));
        answer.breaks_off = true;
    }
    answer
}

struct Answer {
    bytes: Vec<u8>,
    breaks_off: bool,
}

impl Answer {
    fn new(status: &str, headers: &[&str], body: &[u8]) -> Self {
        let mut text = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
        for header in headers {
            text.push_str(header);
            text.push_str("\r\n");
        }
        text.push_str("\r\n");
        Self { bytes: [text.as_bytes(), body].concat(), breaks_off: false }
    }
}

fn lets_in(access: &Access, authorization: Option<&str>) -> bool {
    match access {
        Access::All => true,
        Access::Basic(login) => authorization == Some(&basic(login)),
        Access::Token(_) => authorization == Some(&format!("Bearer {TOKEN}")),
    }
}

fn token(access: &Access, authorization: Option<&str>) -> Answer {
    match access {
        Access::Token(login) if authorization == Some(&basic(login)) => {
            Answer::new("200 OK", &[], format!("{{\"token\":\"{TOKEN}\"}}").as_bytes())
        }
        _ => Answer::new("401 Unauthorized", &[], br#"{"errors":[{"code":"UNAUTHORIZED","message":"bad login"}]}"#),
    }
}

fn basic(login: &str) -> String {
    format!("Basic {}", STANDARD.encode(login))
}
