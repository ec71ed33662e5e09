//! What a runtime and a shim say to each other: JSON objects, one a line, over a Unix socket.
//!
//! A runtime sends [`Request`]s and gets one [`FromShim::Answer`] for each, in any order; after [`Call::Watch`] it also
//! gets every change of a container. The shim may be older than the runtime that talks to it (a new program adopts old
//! pods), so fields are only ever added, with defaults.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::container::{Container, ContainerSpec, ExecOutput};
use crate::sandbox::SandboxSpec;

/// What a shim needs to become a sandbox; written to `boot.json` beside its socket before it starts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Boot {
    pub(crate) id: String,
    pub(crate) spec: SandboxSpec,
    pub(crate) state_dir: PathBuf,
    /// Layers of images: lower directories are named relative to it.
    pub(crate) layer_dir: PathBuf,
    /// The sandbox's cgroup, relative to each hierarchy.
    pub(crate) cgroup: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) id: u64,
    pub(crate) call: Call,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Call {
    /// Answer with all containers and report changes from then on.
    Watch,
    Create(Box<CreateContainer>),
    /// `runtime` is the caller: the container sees the mounts of its mount namespace.
    Start {
        id: String,
        runtime: i32,
    },
    /// Answered when the container has ended.
    Stop {
        id: String,
        grace_ms: u64,
    },
    /// Kills the container if it still runs; answered when nothing of it is left.
    Remove {
        id: String,
    },
    Exec {
        id: String,
        command: Vec<String>,
        timeout_ms: u64,
        limit: usize,
    },
    /// Runs a command whose streams are handed over with the first answer ([`Reply::Streams`]); its end is a second one
    /// ([`Reply::Exited`]). The command ends with the connection.
    ExecStreams {
        id: String,
        command: Vec<String>,
        stdin: bool,
        stdout: bool,
        stderr: bool,
        tty: bool,
    },
    /// Joins the streams of a container's first process; answered as `ExecStreams` is. The container goes on.
    Attach {
        id: String,
        stdin: bool,
        stdout: bool,
        stderr: bool,
    },
    /// Nothing more comes from whoever attached over this connection.
    EndInput,
    /// Kill every container and end; answered just before.
    Shutdown,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct CreateContainer {
    pub(crate) id: String,
    pub(crate) spec: ContainerSpec,
    pub(crate) image: ImageRoot,
}

/// What a shim has to know of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageRoot {
    pub(crate) id: String,
    /// Directories below the layer directory, lowest first.
    pub(crate) layers: Vec<String>,
    pub(crate) entrypoint: Vec<String>,
    pub(crate) cmd: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) working_dir: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) stop_signal: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FromShim {
    Answer { id: u64, result: Result<Reply, Refusal> },
    Changed(Box<Container>),
    Removed { id: String },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    Done,
    Containers(Vec<Container>),
    Exec(ExecReply),
    /// The files come with this message, in the same order.
    Streams(Vec<StreamName>),
    Exited {
        exit_code: i32,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StreamName {
    Stdin,
    Stdout,
    Stderr,
    /// The other side of the process's terminal: everything is read, written and resized there, unless `Stdout` says
    /// where to read.
    Terminal,
}

/// Output of an exec; base64 because JSON holds no bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ExecReply {
    pub(crate) exit_code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Refusal {
    NoContainer,
    Invalid(String),
    CannotRun(String),
    TimedOut,
    Failed(String),
}

impl ExecReply {
    pub(crate) fn encode(exit_code: i32, stdout: &[u8], stderr: &[u8]) -> Self {
        use base64::Engine as _;
        let encode = |bytes| base64::engine::general_purpose::STANDARD.encode(bytes);
        Self { exit_code, stdout: encode(stdout), stderr: encode(stderr) }
    }

    pub(crate) fn decode(self) -> Result<ExecOutput, base64::DecodeError> {
        use base64::Engine as _;
        let decode = |text: &str| base64::engine::general_purpose::STANDARD.decode(text);
        Ok(ExecOutput { exit_code: self.exit_code, stdout: decode(&self.stdout)?, stderr: decode(&self.stderr)? })
    }
}

/// One message as a line.
pub(crate) fn encode_line(message: &impl Serialize) -> Vec<u8> {
    // Every message is a plain tree of strings and numbers, which always encodes.
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_wire() {
        let request = Request { id: 7, call: Call::Stop { id: "c".to_owned(), grace_ms: 30_000 } };
        let line = encode_line(&request);
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert_eq!(
            String::from_utf8_lossy(&line),
            "{\"id\":7,\"call\":{\"stop\":{\"id\":\"c\",\"grace_ms\":30000}}}\n"
        );
        let answer = FromShim::Answer { id: 7, result: Err(Refusal::TimedOut) };
        let FromShim::Answer { result, .. } = serde_json::from_slice(&encode_line(&answer)).unwrap() else {
            panic!("not an answer")
        };
        assert_eq!(result.unwrap_err(), Refusal::TimedOut);
    }

    #[test]
    fn exec_output_may_be_any_bytes() {
        let output = ExecReply::encode(3, &[0, 255, 10], b"").decode().unwrap();
        assert_eq!((output.exit_code, output.stdout, output.stderr), (3, vec![0, 255, 10], vec![]));
    }
}
