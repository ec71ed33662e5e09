//! `tidegate status`: the parts of a node, whether they run, and whether the node is Ready.

use std::path::Path;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::ListParams;
use tracing::subscriber::NoSubscriber;

use crate::layout::Layout;
use crate::process;
use crate::supervisor::State;
use crate::up;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Name of the node to look at.
    #[arg(long, default_value = "tidegate")]
    node_name: String,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// # Errors
/// If the node is not up.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut layout = Layout::new(&args.node_name, Path::new("/var/lib/tidegate"))?;
    let state = up::state(&layout)?;
    layout.data_dir.clone_from(&state.data_dir);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&state)?);
        return Ok(());
    }
    println!("{:<12} {:>8} {:>9} {:>9}  STATE", "PART", "PID", "UPTIME", "RESTARTS");
    let is_supervised = process::is_ours(state.supervisor, None);
    let (pid, word) = if is_supervised {
        (state.supervisor.to_string(), "running")
    } else {
        ("-".into(), "ended: `tidegate up` takes over, `tidegate down` removes what is left")
    };
    println!("{:<12} {pid:>8} {:>9} {:>9}  {word}", "supervisor", "-", "-");
    for (name, part) in &state.parts {
        let uptime = Timestamp::now().as_second() - part.started_at.as_second();
        let (pid, uptime, word) = match part.pid {
            Some(pid) if process::is_ours(pid, Some(name)) => (pid.to_string(), format!("{uptime}s"), "running"),
            _ if is_supervised => ("-".into(), "-".into(), "restarting"),
            _ => ("-".into(), "-".into(), "ended"),
        };
        println!("{name:<12} {pid:>8} {uptime:>9} {:>9}  {word}", part.restarts);
    }
    println!();
    print_cluster(&layout, &state);
    Ok(())
}

/// What the API server says; a part that does not answer is a line, not a failure.
fn print_cluster(layout: &Layout, state: &State) {
    // The client logs what is told below.
    let _quiet = tracing::subscriber::set_default(NoSubscriber::default());
    let ask = async {
        let client = crate::client(&layout.kubeconfig("admin"), "tidegate").await?;
        let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await?;
        let pods = Api::<Pod>::all(client).list(&ListParams::default()).await?;
        anyhow::Ok((nodes, pods))
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return println!("cluster      no runtime: {error}"),
    };
    match runtime.block_on(ask) {
        Ok((nodes, pods)) => {
            for node in nodes {
                let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
                let ready = conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True");
                let name = node.metadata.name.unwrap_or_default();
                println!("node         {name}: {}", if ready { "Ready" } else { "NotReady" });
            }
            println!("pods         {}", pods.items.len());
        }
        Err(error) => println!("API server   does not answer: {error:#}"),
    }
    println!("data         {}", state.data_dir.display());
    println!("kubeconfig   {}", layout.kubeconfig("admin").display());
    println!("logs         {}", layout.data_dir.join("logs").display());
}
