//! `tidegate explain URL`: asks the gateway of a node, also where it runs in a sandbox.

use std::path::Path;

use dataplane_user::inspect;

use crate::layout::Layout;
use crate::namespace::Namespaces;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    explain: ingress::ExplainArgs,
    /// The node whose gateway to ask; by default the only one on this machine.
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    node_name: Option<String>,
}

/// # Errors
/// If the gateway cannot be asked, or does not understand the URL.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    // Whoever says where the gateway is means an address of this place, not of a sandbox.
    let is_elsewhere = args.explain.admin.is_some() && args.node_name.is_none();
    let node = args.node_name.or_else(inspect::only_node).filter(|_| !is_elsewhere);
    if let Some(name) = node {
        Namespaces::open(&Layout::new(&name, Path::new("/var/lib/tidegate"))?)?.enter()?;
    }
    ingress::explain_command(args.explain)
}
