//! The attach manager: the one place that decides which programs run where, and keeps it so across restarts.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::utsname::uname;

use super::KernelError;
use super::link::{self, Attached, SocketHook, Target};
use super::pins::{self, Pins};
use super::programs::Programs;

/// What an interface is to us: decides the programs it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeviceClass {
    /// The host side of a pod's interface.
    Pod,
}

/// A side of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// Packets that the interface receives: for a pod's host side, packets from the pod.
    Ingress,
    /// Packets that the interface sends: for a pod's host side, packets to the pod.
    Egress,
}

/// A program attached to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attachment {
    /// The interface's index.
    pub ifindex: u32,
    /// What the interface is to us.
    pub class: DeviceClass,
    /// Where the program sits.
    pub side: Side,
}

impl DeviceClass {
    const ALL: [Self; 1] = [Self::Pod];

    /// The name in pins.
    const fn name(self) -> &'static str {
        match self {
            Self::Pod => "pod",
        }
    }

    /// The program that a device of this class gets on a side. This is the whole table.
    fn program(self, side: Side, programs: &Programs) -> BorrowedFd<'_> {
        match (self, side) {
            (Self::Pod, Side::Ingress) => programs.pod_from(),
            (Self::Pod, Side::Egress) => programs.pod_to(),
        }
    }
}

impl Side {
    const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

impl Attachment {
    /// The pin's file name: `pod_7_ingress`.
    fn pin_name(self) -> String {
        format!("{}_{}_{}", self.class.name(), self.ifindex, self.side.name())
    }

    /// The inverse of [`Self::pin_name`].
    fn from_pin_name(name: &str) -> Option<Self> {
        let mut parts = name.split('_');
        let (class, ifindex, side) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?);
        let class = DeviceClass::ALL.into_iter().find(|known| known.name() == class)?;
        let side = Side::ALL.into_iter().find(|known| known.name() == side)?;
        parts.next().is_none().then_some(Self { ifindex, class, side })
    }

    const fn target(self) -> Target<'static> {
        match self.side {
            Side::Ingress => Target::TcxIngress(self.ifindex),
            Side::Egress => Target::TcxEgress(self.ifindex),
        }
    }
}

/// Runs the socket programs in a cgroup. Links to that cgroup are updated; links to another, or to one that is gone,
/// are replaced.
pub(super) fn attach_sockets(pins: &Pins, programs: &Programs, cgroup: &Path) -> Result<(), KernelError> {
    let folder = File::open(cgroup).map_err(|error| pins::file("open", cgroup, error))?;
    let id = folder.metadata().map_err(|error| pins::file("read", cgroup, error))?.ino();
    for (hook, program) in programs.sockets() {
        let name = socket_pin_name(hook);
        settle(pins, &name, Attached::Cgroup(id), Target::Cgroup(folder.as_fd(), hook), program)?;
    }
    Ok(())
}

/// Gives every interface that has our links this generation's programs; pins of gone interfaces, and of links that this
/// build does not know, are removed. Returns the number of interfaces.
pub(super) fn adopt_devices(pins: &Pins, programs: &Programs) -> Result<usize, KernelError> {
    let known: Vec<String> = SocketHook::ALL.into_iter().map(socket_pin_name).collect();
    for name in pins::names(&pins.links())? {
        if !known.contains(&name) && Attachment::from_pin_name(&name).is_none() {
            tracing::warn!(link = name, "removed a link of another build");
            drop_link(pins, &name)?;
        }
    }
    let attachments = attachments(pins)?;
    for attachment in &attachments {
        settle_device(pins, programs, *attachment)?;
    }
    Ok(attachments.iter().filter(|attachment| attachment.side == Side::Ingress).count())
}

/// Runs a class's programs on an interface.
pub(super) fn attach_device(
    pins: &Pins,
    programs: &Programs,
    interface: &str,
    class: DeviceClass,
) -> Result<(), KernelError> {
    let ifindex = index_of(interface)?;
    Side::ALL.into_iter().try_for_each(|side| settle_device(pins, programs, Attachment { ifindex, class, side }))
}

/// Takes every class's programs off an interface.
pub(super) fn detach_device(pins: &Pins, interface: &str) -> Result<(), KernelError> {
    let ifindex = index_of(interface)?;
    for class in DeviceClass::ALL {
        for side in Side::ALL {
            drop_link(pins, &Attachment { ifindex, class, side }.pin_name())?;
        }
    }
    Ok(())
}

/// Takes every program of this node off.
pub(super) fn detach_all(pins: &Pins) -> Result<(), KernelError> {
    pins::names(&pins.links())?.iter().try_for_each(|name| drop_link(pins, name))
}

/// What is attached to interfaces that exist; the pins of others are removed.
pub(super) fn attachments(pins: &Pins) -> Result<Vec<Attachment>, KernelError> {
    let mut attachments = Vec::new();
    for name in pins::names(&pins.links())? {
        let Some(attachment) = Attachment::from_pin_name(&name) else { continue };
        let path = pins.link(&name);
        let held = link::open(&path).and_then(|link| link::attached(link.as_fd()));
        match held.map_err(|error| failed("read", &name, error))? {
            Attached::Tcx(ifindex) if ifindex == attachment.ifindex => attachments.push(attachment),
            _ => pins::remove(&path)?,
        }
    }
    attachments.sort_unstable();
    Ok(attachments)
}

fn settle_device(pins: &Pins, programs: &Programs, attachment: Attachment) -> Result<(), KernelError> {
    let program = attachment.class.program(attachment.side, programs);
    let wanted = Attached::Tcx(attachment.ifindex);
    settle(pins, &attachment.pin_name(), wanted, attachment.target(), program)
}

/// Makes one link run a program: through the pinned link if it is attached where it should be, else with a new one.
fn settle(
    pins: &Pins,
    name: &str,
    wanted: Attached,
    target: Target<'_>,
    program: BorrowedFd<'_>,
) -> Result<(), KernelError> {
    let path = pins.link(name);
    if path.exists() {
        let held = link::open(&path).map_err(|error| failed("open", name, error))?;
        if link::attached(held.as_fd()).map_err(|error| failed("read", name, error))? == wanted {
            return link::update(held.as_fd(), program).map_err(|error| failed("update", name, error));
        }
        drop_link(pins, name)?;
    }
    let made = link::create(program, target).map_err(|error| unattached(name, wanted, error))?;
    link::pin(made.as_fd(), &path).map_err(|error| failed("pin", name, error))
}

/// Detaches a link and removes its pin; also succeeds when it is gone, or its cgroup or interface is.
fn drop_link(pins: &Pins, name: &str) -> Result<(), KernelError> {
    let path = pins.link(name);
    if !path.exists() {
        return Ok(());
    }
    let held = link::open(&path).map_err(|error| failed("open", name, error))?;
    link::detach(held.as_fd()).map_err(|error| failed("detach", name, error))?;
    pins::remove(&path)
}

fn socket_pin_name(hook: SocketHook) -> String {
    format!("socket_{}", hook.program())
}

fn index_of(interface: &str) -> Result<u32, KernelError> {
    if_nametoindex(interface)
        .map_err(|error| KernelError::NoInterface { interface: interface.to_owned(), source: error.into() })
}

/// An old kernel does not know the kind of link, and only says "invalid argument".
fn unattached(name: &str, wanted: Attached, error: io::Error) -> KernelError {
    let release = uname().map(|system| system.release().to_string_lossy().into_owned()).unwrap_or_default();
    let unknown = matches!(wanted, Attached::Tcx(_)) && error.raw_os_error() == Some(Errno::EINVAL as i32);
    if unknown && is_before_tcx(&release) { KernelError::NoTcx { release } } else { failed("attach", name, error) }
}

/// Whether a kernel's release is older than 6.6.
fn is_before_tcx(release: &str) -> bool {
    let mut parts = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < (6, 6)
}

fn failed(action: &'static str, link: &str, source: io::Error) -> KernelError {
    KernelError::Link { action, link: link.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::{Attachment, DeviceClass, Side, is_before_tcx};

    #[test]
    fn releases_are_compared_by_number() {
        assert!(is_before_tcx("6.1.0-44-amd64") && is_before_tcx("5.15.0") && is_before_tcx("6.5"));
        assert!(!is_before_tcx("6.6.0") && !is_before_tcx("6.18.5") && !is_before_tcx("7.0-rc1"));
    }

    #[test]
    fn pin_names_round_trip_and_others_are_not_ours() {
        let attachment = Attachment { ifindex: 12, class: DeviceClass::Pod, side: Side::Egress };
        assert_eq!(attachment.pin_name(), "pod_12_egress");
        assert_eq!(Attachment::from_pin_name("pod_12_egress"), Some(attachment));
        for other in ["pod_x_egress", "pod_12_sideways", "pod_12_egress_2", "uplink_1_ingress", "socket_connect4", ""] {
            assert_eq!(Attachment::from_pin_name(other), None, "{other}");
        }
    }
}
