//! The container runtime: images, pod sandboxes and containers on libcontainer, one shim per pod.
//!
//! The public face is shaped like the Kubernetes CRI (sandbox, container, image), so that the kubelet reads like any
//! kubelet. A sandbox is one shim process: it holds the pod's network, IPC and UTS namespaces (there is no pause
//! container), is the subreaper of the pod's containers, and keeps their stdio, logs and exit codes. Containers survive
//! every other process; a new [`Runtime`] finds them again in the run directory.
//!
//! Where to look: `runtime` is the face, `pod` what it knows of one sandbox, `client` talks to a shim,
//! `streams` holds those of a process, `protocol` is what they say; `shim` is the other end;
//! `spec` turns a container's description into an OCI spec; `image` stores images, `registry` fetches them; `cgroup`, `rootfs`, `tree` and
//! `user` are the kernel-side helpers that both ends share.

mod cgroup;
pub mod cli;
mod client;
mod container;
mod error;
mod image;
mod layout;
mod pod;
mod protocol;
mod registry;
mod rootfs;
mod runtime;
mod sandbox;
pub mod shim;
mod spec;
mod streams;
mod tree;
mod user;

pub use container::{Container, ContainerSpec, ContainerState, ExecOutput, Mount, Resources};
pub use error::{ImageError, RuntimeError};
pub use image::{ImageRecord, ImageStore, Reference};
pub use pod::RuntimeEvent;
pub use registry::{Credentials, Dialer, PullError, Registries, dial};
pub use runtime::{Runtime, RuntimeConfig};
pub use sandbox::{Sandbox, SandboxSpec, SandboxState};
pub use streams::{AttachSpec, ExecSpec, ProcessHandle, ProcessStreams, StreamFile, Terminal};
