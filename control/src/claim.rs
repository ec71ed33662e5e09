//! What `up` makes sure of before it makes anything: that node, data directory and ports are free, so that a refusal leaves
//! nothing behind.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::fcntl::{Flock, FlockArg};

use crate::layout::Layout;
use crate::supervisor::State;

const LOCK: &str = "lock";

/// One supervisor a node, and one a data directory; held as long as it lives.
pub(crate) struct Claim {
    layout: Layout,
    node: Option<Flock<File>>,
    data: Option<Flock<File>>,
    /// The data directory is ours: nobody had made it before.
    made_data: bool,
    made_run: bool,
}

impl Claim {
    /// Takes the locks of a node and of its data directory, if that exists.
    ///
    /// # Errors
    /// If another process has one of them, or something listens on a port.
    pub(crate) fn take(layout: &Layout, ports: &[(&str, u16)]) -> anyhow::Result<Self> {
        let made_run = !layout.run_dir.exists();
        let mut claim = Self { layout: layout.clone(), node: None, data: None, made_data: false, made_run };
        claim.try_take(ports).inspect_err(|_| claim.undo())?;
        Ok(claim)
    }

    fn try_take(&mut self, ports: &[(&str, u16)]) -> anyhow::Result<()> {
        let layout = &self.layout;
        fs::create_dir_all(&layout.run_dir).with_context(|| format!("cannot create {}", layout.run_dir.display()))?;
        let Some(node) = lock(&layout.run_dir)? else {
            bail!(
                "node {0} is already up; `tidegate status --node-name {0}` shows it, `tidegate down --node-name {0}` ends it",
                layout.node
            );
        };
        self.node = Some(node);
        if layout.data_dir.exists() {
            self.data = Some(lock_data(layout)?);
        }
        // What this node's own parts, left by a killed supervisor, listen on is taken over.
        let is_ours = State::read(layout)?.is_some_and(|state| state.has_living_parts());
        if is_ours { Ok(()) } else { ports.iter().try_for_each(|(flag, port)| check_port(flag, *port)) }
    }

    /// Makes the data directory where there is none, and says in it whose it is.
    pub(crate) fn settle(&mut self) -> anyhow::Result<()> {
        let layout = &self.layout;
        self.made_data = !layout.data_dir.exists();
        fs::create_dir_all(&layout.data_dir).with_context(|| format!("cannot create {}", layout.data_dir.display()))?;
        let mut data = match self.data.take() {
            Some(data) => data,
            None => lock_data(layout)?,
        };
        data.set_len(0)?;
        data.rewind()?;
        write!(data, "{} {}", layout.node, std::process::id())?;
        self.data = Some(data);
        Ok(())
    }

    /// Gives the locks back; what was made can still be taken back.
    pub(crate) fn release(mut self) -> Self {
        (self.node, self.data) = (None, None);
        self
    }

    /// Takes back what was made for a cluster that has not come to hold anything.
    pub(crate) fn undo(&mut self) {
        if self.made_data && !self.layout.store().exists() {
            let _ = fs::remove_dir_all(&self.layout.data_dir);
        }
        if self.made_run {
            let _ = fs::remove_dir_all(&self.layout.run_dir);
            // Other nodes may still be up.
            let _ = self.layout.run_dir.parent().map(fs::remove_dir);
        }
    }
}

/// The lock of a directory, if nobody has it.
fn lock(dir: &Path) -> anyhow::Result<Option<Flock<File>>> {
    let path = dir.join(LOCK);
    let file = OpenOptions::new().create(true).read(true).write(true).truncate(false).open(&path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    Ok(Flock::lock(file, FlockArg::LockExclusiveNonblock).ok())
}

fn lock_data(layout: &Layout) -> anyhow::Result<Flock<File>> {
    let dir = layout.data_dir.display();
    let (node, pid) = holder(&layout.data_dir)?;
    let advice = format!("`tidegate down --node-name {node}` ends it, or give this node a --data-dir of its own");
    let Some(file) = lock(&layout.data_dir)? else {
        bail!("the data directory {dir} is in use by node {node} (process {pid}); {advice}");
    };
    // The parts of a killed supervisor live on, and one of them has the store.
    if !node.is_empty() && node != layout.node {
        let other = Layout::new(&node, &layout.data_dir)?;
        if State::read(&other)?.is_some_and(|state| state.data_dir == layout.data_dir && state.has_living_parts()) {
            bail!("the data directory {dir} is in use by parts of node {node}, whose supervisor has ended; {advice}");
        }
    }
    Ok(file)
}

/// The node that has or had a data directory, and the process that ran it.
fn holder(data_dir: &Path) -> anyhow::Result<(String, String)> {
    let path: PathBuf = data_dir.join(LOCK);
    let mut text = String::new();
    match File::open(&path) {
        Ok(mut file) => drop(file.read_to_string(&mut text)?),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
    let (node, pid) = text.trim().split_once(' ').unwrap_or_default();
    Ok((node.to_owned(), pid.to_owned()))
}

fn check_port(flag: &str, port: u16) -> anyhow::Result<()> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            bail!("port {port} of 127.0.0.1 is in use by another process; give another one with {flag}")
        }
        Err(error) => Err(error).with_context(|| format!("cannot listen on port {port} of 127.0.0.1 ({flag})")),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::path::Path;

    use super::Claim;
    use crate::layout::Layout;

    fn layout(dir: &Path, node: &str) -> Layout {
        let mut layout = Layout::new(node, &dir.join("data")).unwrap();
        layout.run_dir = dir.join("run").join(node);
        layout
    }

    #[test]
    fn a_data_directory_has_one_node() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = Claim::take(&layout(dir.path(), "a"), &[]).unwrap();
        first.settle().unwrap();
        let again = Claim::take(&layout(dir.path(), "a"), &[]).err().unwrap().to_string();
        assert!(again.starts_with("node a is already up;"), "{again}");
        let other = Claim::take(&layout(dir.path(), "b"), &[]).err().unwrap().to_string();
        assert!(other.contains(&format!("is in use by node a (process {})", std::process::id())), "{other}");
        assert!(other.contains("`tidegate down --node-name a`"), "{other}");
        assert!(!dir.path().join("run/b").exists());
        drop(first);
        Claim::take(&layout(dir.path(), "b"), &[]).unwrap().settle().unwrap();
    }

    #[test]
    fn a_busy_port_is_found_before_anything_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = Claim::take(&layout(dir.path(), "a"), &[("--api-port", port)]).err().unwrap().to_string();
        assert_eq!(
            error,
            format!("port {port} of 127.0.0.1 is in use by another process; give another one with --api-port")
        );
        assert!(!dir.path().join("run").exists() && !dir.path().join("data").exists());
    }

    #[test]
    fn only_what_holds_nothing_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut claim = Claim::take(&layout(dir.path(), "a"), &[]).unwrap();
        claim.settle().unwrap();
        claim.undo();
        assert!(!dir.path().join("data").exists() && !dir.path().join("run").exists());
        std::fs::create_dir_all(dir.path().join("data")).unwrap();
        let mut claim = Claim::take(&layout(dir.path(), "a"), &[]).unwrap();
        claim.settle().unwrap();
        claim.undo();
        assert!(dir.path().join("data").exists());
    }
}
