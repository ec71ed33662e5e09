//! `tidegate down`: ends a node and leaves nothing behind but its data directory.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cgroup::Hierarchies;
use crate::layout::Layout;
use crate::namespace;
use crate::process;
use crate::supervisor::State;

/// Time for the supervisor to end its parts and for killed processes to go.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Name of the node to end.
    #[arg(long, default_value = "tidegate")]
    node_name: String,
    /// Also delete the cluster's state.
    #[arg(long)]
    purge: bool,
    /// Where the cluster keeps its state [default: what `up` was given].
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut layout = Layout::new(&args.node_name, args.data_dir.as_deref().unwrap_or("/var/lib/tidegate".as_ref()))?;
    let state = State::read(&layout)?;
    if let Some(state) = &state {
        if args.data_dir.is_none() {
            layout.data_dir.clone_from(&state.data_dir);
        }
        end_process(state.supervisor, None, Signal::SIGTERM, PATIENCE);
    }
    remove(&layout)?;
    if args.purge {
        match fs::remove_dir_all(&layout.data_dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", layout.data_dir.display()));
            }
            _ => {}
        }
    }
    let was = if state.is_some() { "is down" } else { "was not up" };
    println!("node {} {was}", layout.node);
    Ok(())
}

/// Removes everything of a node whose supervisor has ended: processes, cgroups, namespaces (with their mounts and BPF
/// pins) and the run directory.
pub(crate) fn remove(layout: &Layout) -> anyhow::Result<()> {
    Hierarchies::find()?.destroy(&layout.cgroup(), PATIENCE)?;
    namespace::destroy(layout)?;
    match fs::remove_dir_all(&layout.run_dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", layout.run_dir.display()));
        }
        _ => {}
    }
    if let Some(parent) = layout.run_dir.parent() {
        // Other nodes may still be up.
        let _ = fs::remove_dir(parent);
    }
    Ok(())
}

/// Ends parts that a killed supervisor left; pods and their shims stay.
pub(crate) fn end_former_parts(layout: &Layout) -> anyhow::Result<()> {
    let Some(state) = State::read(layout)? else { return Ok(()) };
    for (name, part) in &state.parts {
        if let Some(pid) = part.pid {
            tracing::info!(part = name.as_str(), pid, "ending a part of a former supervisor");
            end_process(pid, Some(name), Signal::SIGTERM, Duration::from_secs(5));
        }
    }
    Ok(())
}

/// Signals a process of ours and waits for its end, with SIGKILL as the last word. A recycled pid is left alone.
fn end_process(pid: i32, command: Option<&str>, signal: Signal, patience: Duration) {
    let ours = || process::is_ours(pid, command);
    if !ours() {
        return;
    }
    let _ = kill(Pid::from_raw(pid), signal);
    let deadline = Instant::now() + patience;
    while ours() {
        if Instant::now() > deadline {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
