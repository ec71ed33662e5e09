//! The sandbox of a node: a network and a mount namespace, pinned to files so that they outlive every process.
//!
//! The network namespace has no route out: loopback and one `uplink` whose other end stays inside. The mount namespace is a
//! slave of the host's, with a bpffs of its own, so that all mounts and BPF pins of the node vanish with it.

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use anyhow::{Context, anyhow};
use futures::TryStreamExt;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::FsType;
use rtnetlink::{LinkUnspec, LinkVeth};

use crate::layout::{Layout, NODE_IPS, NODE_PREFIXES};

/// The magic number of the file system that namespace handles live in (`linux/magic.h`).
const NSFS: FsType = FsType(0x6e73_6673);
const UPLINK: &str = "uplink";
/// The far end of the uplink: where other nodes would be.
const FABRIC: &str = "fabric";

/// Open handles on a node's namespaces; none where the node is the host itself.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    network: Option<File>,
    mounts: Option<File>,
}

impl Namespaces {
    /// Opens a node's pinned namespaces, if it has them.
    pub(crate) fn open(layout: &Layout) -> anyhow::Result<Self> {
        let open = |path: PathBuf| {
            if !path.exists() {
                return Ok(None);
            }
            File::open(&path).map(Some).with_context(|| format!("cannot open {}", path.display()))
        };
        Ok(Self { network: open(layout.network_namespace())?, mounts: open(layout.mount_namespace())? })
    }

    /// Descriptors for the moment between fork and exec: network first, then mounts.
    pub(crate) fn descriptors(&self) -> Vec<(RawFd, CloneFlags)> {
        let network = self.network.iter().map(|file| (file.as_raw_fd(), CloneFlags::CLONE_NEWNET));
        network.chain(self.mounts.iter().map(|file| (file.as_raw_fd(), CloneFlags::CLONE_NEWNS))).collect()
    }

    /// Moves the calling thread into the namespaces. The process must be single-threaded for the mount namespace.
    pub(crate) fn enter(&self) -> anyhow::Result<()> {
        for (file, kind) in [(&self.network, CloneFlags::CLONE_NEWNET), (&self.mounts, CloneFlags::CLONE_NEWNS)] {
            if let Some(file) = file {
                setns(file, kind).context("cannot enter the node's namespaces (are you root?)")?;
            }
        }
        Ok(())
    }
}

/// Runs `work` on a thread of its own inside the network namespace at `path` (or here, if there is none).
pub(crate) fn in_network<T: Send + 'static>(
    path: Option<PathBuf>,
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let Some(path) = path else { return work() };
    let thread = std::thread::spawn(move || {
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        setns(&file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {}", path.display()))?;
        work()
    });
    thread.join().map_err(|_| anyhow!("a thread in the node's network namespace panicked"))?
}

/// Makes the namespaces of a sandboxed node, or finds them made.
pub(crate) fn create(layout: &Layout) -> anyhow::Result<()> {
    let network = layout.network_namespace();
    share_netns_dir()?;
    if !is_namespace(&network) {
        pin_network(&network).with_context(|| format!("cannot make network namespace {}", network.display()))?;
        in_network(Some(network), configure_network).context("cannot set up the node's network")?;
    }
    if !is_namespace(&layout.mount_namespace()) {
        pin_mounts(layout).context("cannot make the node's mount namespace")?;
    }
    Ok(())
}

/// Removes the pins; the namespaces end with their last process.
pub(crate) fn destroy(layout: &Layout) -> anyhow::Result<()> {
    let unmount =
        |path: &Path| umount2(path, MntFlags::MNT_DETACH).with_context(|| format!("cannot unmount {}", path.display()));
    for path in [layout.mount_namespace(), layout.network_namespace()] {
        while is_namespace(&path) {
            unmount(&path)?;
        }
    }
    if is_mount_point(&layout.namespace_dir())? {
        unmount(&layout.namespace_dir())?;
    }
    match fs::remove_file(layout.network_namespace()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Makes /run/netns a shared mount, exactly as `ip netns add` does: the first one to do so covers what was mounted there
/// before, and would hide our pin.
fn share_netns_dir() -> anyhow::Result<()> {
    let dir = Path::new("/run/netns");
    fs::create_dir_all(dir)?;
    if !is_mount_point(dir)? {
        mount(Some(dir), dir, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
    }
    mount(None::<&str>, dir, None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>)
        .context("cannot share /run/netns")
}

/// Whether a namespace is what one finds at this path (a mount below another mount does not count).
fn is_namespace(path: &Path) -> bool {
    nix::sys::statfs::statfs(path).is_ok_and(|found| found.filesystem_type() == NSFS)
}

fn is_mount_point(path: &Path) -> anyhow::Result<bool> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    Ok(table.lines().filter_map(|line| line.split(' ').nth(4)).any(|mounted| Path::new(mounted) == path))
}

/// Makes a namespace on a helper thread and bind-mounts its handle on `file` while the thread still lives.
fn pin(file: &Path, kind: &str, make: impl FnOnce() -> anyhow::Result<()> + Send + 'static) -> anyhow::Result<()> {
    if let Some(parent) = file.parent() {
        fs::create_dir_all(parent)?;
    }
    File::create(file)?;
    let (made, is_made) = mpsc::channel::<anyhow::Result<i32>>();
    let (pinned, is_pinned) = mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        let result = make().map(|()| nix::unistd::gettid().as_raw());
        if made.send(result).is_ok() {
            let _ = is_pinned.recv();
        }
    });
    let tid = is_made.recv().context("the helper thread ended early")??;
    let source = format!("/proc/self/task/{tid}/ns/{kind}");
    let result = mount(Some(source.as_str()), file, None::<&str>, MsFlags::MS_BIND, None::<&str>);
    let _ = pinned.send(());
    let _ = thread.join();
    result.with_context(|| format!("cannot bind {source} on {}", file.display()))
}

fn pin_network(path: &Path) -> anyhow::Result<()> {
    pin(path, "net", || Ok(unshare(CloneFlags::CLONE_NEWNET)?))
}

fn pin_mounts(layout: &Layout) -> anyhow::Result<()> {
    let dir = layout.namespace_dir();
    fs::create_dir_all(&dir)?;
    if !is_mount_point(&dir)? {
        // A mount namespace can only be pinned on a mount that does not propagate into it.
        mount(Some(&dir), &dir, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        mount(None::<&str>, &dir, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>)?;
    }
    pin(&layout.mount_namespace(), "mnt", || {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_SLAVE | MsFlags::MS_REC, None::<&str>)?;
        mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), Some("mode=0700"))
            .context("cannot mount bpffs on /sys/fs/bpf")
    })
}

/// Inside the namespace: forwarding, loopback and the uplink with the node's addresses.
fn configure_network() -> anyhow::Result<()> {
    for (name, value) in [
        ("ipv4/ip_forward", "1"),
        ("ipv6/conf/all/forwarding", "1"),
        ("ipv6/conf/default/accept_dad", "0"),
        ("ipv6/conf/all/accept_dad", "0"),
        ("ipv6/conf/default/accept_ra", "0"),
        // Bridged pod traffic is no business of iptables here; where the module is absent, neither is the setting.
        ("bridge/bridge-nf-call-iptables", "0"),
        ("bridge/bridge-nf-call-ip6tables", "0"),
    ] {
        let path = Path::new("/proc/sys/net").join(name);
        if path.exists() || !name.starts_with("bridge/") {
            fs::write(&path, value).with_context(|| format!("cannot set {}", path.display()))?;
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        handle.link().add(LinkVeth::new(UPLINK, FABRIC).build()).execute().await?;
        for name in ["lo", UPLINK, FABRIC] {
            let index = link_index(&handle, name).await?;
            handle.link().change(LinkUnspec::new_with_index(index).up().build()).execute().await?;
        }
        let uplink = link_index(&handle, UPLINK).await?;
        for (address, prefix) in NODE_IPS.into_iter().zip(NODE_PREFIXES) {
            handle.address().add(uplink, address, prefix).execute().await?;
        }
        anyhow::Ok(())
    })
}

async fn link_index(handle: &rtnetlink::Handle, name: &str) -> anyhow::Result<u32> {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    let link = links.try_next().await?.ok_or_else(|| anyhow!("interface {name} is gone"))?;
    Ok(link.header.index)
}

/// What a socket is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Stream,
    Datagram,
}

/// Sockets made inside a network namespace belong to it for ever, whoever holds them.
pub(crate) fn listen(network: Option<PathBuf>, kind: Kind, addresses: Vec<SocketAddr>) -> anyhow::Result<Vec<OwnedFd>> {
    let open = move |address: SocketAddr| match kind {
        Kind::Stream => TcpListener::bind(address).map(OwnedFd::from),
        Kind::Datagram => UdpSocket::bind(address).map(OwnedFd::from),
    };
    let explained = move |address: SocketAddr| {
        open(address).with_context(|| {
            format!("cannot listen on {address} ({kind:?}); is something else using it? choose another port")
        })
    };
    in_network(network, move || addresses.into_iter().map(explained).collect())
}
