//! Shows people what the kernel really holds: everything is read from the pinned maps, only names come from the agent.

mod doctor;
mod endpoints;
mod netfilter;
mod services;
mod table;

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use serde::Serialize;

use crate::agent::{default_pin_dir, default_run_dir, host_name};

/// Commands that look into a node; flatten them into a program's own.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Show the Services that the kernel serves.
    Service {
        #[command(subcommand)]
        action: ServiceAction,
    },
    /// Show the pods that the kernel knows.
    Endpoint {
        #[command(subcommand)]
        action: EndpointAction,
    },
    /// Check everything that the data plane needs, and say how to mend what is missing.
    Doctor(Node),
}

/// What to show of Services.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum ServiceAction {
    /// All addresses, one a line.
    List(Node),
    /// One Service with its endpoints.
    Show {
        /// NAMESPACE/NAME; the namespace is "default" without one.
        name: String,
        #[command(flatten)]
        node: Node,
    },
}

/// What to show of pods.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum EndpointAction {
    /// All pods of this node, one address a line.
    List(Node),
}

/// Which node to look into, and how to print it.
#[derive(Clone, Debug, clap::Args)]
pub struct Node {
    /// The node's name; by default the only one on this machine, or the host name.
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,
    /// Where programs, links and maps are pinned; /sys/fs/bpf/tidegate/<node> by default.
    #[arg(long, value_name = "DIR")]
    pub pin_dir: Option<PathBuf>,
    /// Run time state; /run/tidegate/<node> by default.
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// Aligned columns.
    Table,
    /// One JSON document.
    Json,
}

/// Runs a command and prints its answer.
///
/// # Errors
/// If the maps cannot be read (is the agent running?), or something that was asked for does not exist. `doctor` fails
/// if a check fails.
pub fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Service { action: ServiceAction::List(node) } => services::list(&node.resolve()?),
        Command::Service { action: ServiceAction::Show { name, node } } => services::show(&node.resolve()?, &name),
        Command::Endpoint { action: EndpointAction::List(node) } => endpoints::list(&node.resolve()?),
        Command::Doctor(node) => doctor::run(&node.resolve()?),
    }
}

impl Command {
    /// The name of the node that the command looks into.
    ///
    /// # Errors
    /// If none is given and the machine has no host name.
    pub fn node_name(&self) -> anyhow::Result<String> {
        match self {
            Self::Service { action: ServiceAction::List(node) | ServiceAction::Show { node, .. } }
            | Self::Endpoint { action: EndpointAction::List(node) }
            | Self::Doctor(node) => node.name(),
        }
    }
}

/// A node with its folders.
struct Place {
    node: String,
    pin_dir: PathBuf,
    run_dir: PathBuf,
    output: Output,
}

impl Node {
    fn name(&self) -> anyhow::Result<String> {
        match &self.node_name {
            Some(name) => Ok(name.clone()),
            None => only_node().map_or_else(host_name, Ok),
        }
    }

    fn resolve(&self) -> anyhow::Result<Place> {
        let node = self.name()?;
        Ok(Place {
            pin_dir: self.pin_dir.clone().unwrap_or_else(|| default_pin_dir(&node)),
            run_dir: self.run_dir.clone().unwrap_or_else(|| default_run_dir(&node)),
            output: self.output,
            node,
        })
    }
}

/// The node with a run directory, if there is exactly one.
#[must_use]
pub fn only_node() -> Option<String> {
    let mut names = fs::read_dir(default_run_dir("")).ok()?.flatten().map(|entry| entry.file_name());
    let name = names.next()?;
    names.next().is_none().then(|| name.to_string_lossy().into_owned())
}

fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value).context("cannot print")?;
    println!("{text}");
    Ok(())
}
