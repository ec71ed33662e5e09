//! Links, by bpf(2) itself: aya can neither replace a cgroup link's program nor name an interface by its index.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::libc;

/// A socket hook of a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SocketHook {
    Connect4,
    Connect6,
    SendMsg4,
    SendMsg6,
    RecvMsg4,
    RecvMsg6,
    GetPeerName4,
    GetPeerName6,
}

/// Where a link attaches its program.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target<'a> {
    /// A cgroup's socket hook.
    Cgroup(BorrowedFd<'a>, SocketHook),
    /// Packets that come in from an interface, by its index.
    TcxIngress(u32),
    /// Packets that go out to an interface, by its index.
    TcxEgress(u32),
}

/// What the kernel says of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attached {
    /// To the cgroup with this id (its inode number); 0 when the cgroup is gone.
    Cgroup(u64),
    /// To the interface with this index; 0 when the interface is gone.
    Tcx(u32),
    /// To something that we never attach to.
    Other,
}

impl SocketHook {
    pub(super) const ALL: [Self; 8] = [
        Self::Connect4,
        Self::Connect6,
        Self::SendMsg4,
        Self::SendMsg6,
        Self::RecvMsg4,
        Self::RecvMsg6,
        Self::GetPeerName4,
        Self::GetPeerName6,
    ];

    /// The program for this hook, by its name in the object.
    pub(super) const fn program(self) -> &'static str {
        match self {
            Self::Connect4 => "connect4",
            Self::Connect6 => "connect6",
            Self::SendMsg4 => "sendmsg4",
            Self::SendMsg6 => "sendmsg6",
            Self::RecvMsg4 => "recvmsg4",
            Self::RecvMsg6 => "recvmsg6",
            Self::GetPeerName4 => "getpeername4",
            Self::GetPeerName6 => "getpeername6",
        }
    }

    /// The kernel's number (`enum bpf_attach_type`).
    const fn attach_type(self) -> u32 {
        match self {
            Self::Connect4 => 10,
            Self::Connect6 => 11,
            Self::SendMsg4 => 14,
            Self::SendMsg6 => 15,
            Self::RecvMsg4 => 19,
            Self::RecvMsg6 => 20,
            Self::GetPeerName4 => 29,
            Self::GetPeerName6 => 30,
        }
    }
}

const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_LINK_DETACH: libc::c_int = 34;

const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;

const BPF_LINK_TYPE_CGROUP: u32 = 3;
const BPF_LINK_TYPE_TCX: u32 = 11;

/// Attaches a program. Dropping the descriptor detaches it, unless it was pinned.
pub(super) fn create(program: BorrowedFd<'_>, target: Target<'_>) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        program: u32,
        target: u32,
        attach_type: u32,
        flags: u32,
        // Relative order and expected revision of TCX; unused for cgroups.
        order: [u64; 2],
    }
    let (target, attach_type) = match target {
        Target::Cgroup(cgroup, hook) => (cgroup.as_raw_fd() as u32, hook.attach_type()),
        Target::TcxIngress(ifindex) => (ifindex, BPF_TCX_INGRESS),
        Target::TcxEgress(ifindex) => (ifindex, BPF_TCX_EGRESS),
    };
    let mut attributes =
        Attributes { program: program.as_raw_fd() as u32, target, attach_type, flags: 0, order: [0; 2] };
    let fd = bpf(BPF_LINK_CREATE, &mut attributes)?;
    // SAFETY: the kernel returned a new descriptor, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Replaces a link's program atomically: every call or packet meets the old program or the new one.
pub(super) fn update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        link: u32,
        program: u32,
        flags: u32,
        old_program: u32,
    }
    let mut attributes =
        Attributes { link: link.as_raw_fd() as u32, program: program.as_raw_fd() as u32, flags: 0, old_program: 0 };
    bpf(BPF_LINK_UPDATE, &mut attributes).map(drop)
}

/// Takes a link's program off at once, whoever else holds the link. Removing the last pin does so only in its own time.
pub(super) fn detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = link.as_raw_fd() as u32;
    bpf(BPF_LINK_DETACH, &mut attributes).map(drop)
}

/// Pins a link, which keeps its program attached whoever lives.
pub(super) fn pin(link: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    object(BPF_OBJ_PIN, path, link.as_raw_fd() as u32).map(drop)
}

/// Opens a pinned link.
pub(super) fn open(path: &Path) -> io::Result<OwnedFd> {
    let fd = object(BPF_OBJ_GET, path, 0)?;
    // SAFETY: the kernel returned a new descriptor, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Where a link is attached.
pub(super) fn attached(link: BorrowedFd<'_>) -> io::Result<Attached> {
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
        program: u32,
        padding: u32,
        // A cgroup's id, or an interface's index and the attach type: a union in the kernel.
        target: [u32; 2],
        rest: [u64; 5],
    }
    #[repr(C)]
    struct Attributes {
        link: u32,
        length: u32,
        info: u64,
    }
    let mut info = Info::default();
    let mut attributes = Attributes {
        link: link.as_raw_fd() as u32,
        length: size_of::<Info>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
    let [low, high] = info.target.map(u32::to_ne_bytes);
    Ok(match info.kind {
        BPF_LINK_TYPE_CGROUP => {
            Attached::Cgroup(u64::from_ne_bytes([low[0], low[1], low[2], low[3], high[0], high[1], high[2], high[3]]))
        }
        BPF_LINK_TYPE_TCX => Attached::Tcx(info.target[0]),
        _ => Attached::Other,
    })
}

/// The cookie of the calling thread's network namespace: what the kernel knows it by for as long as it lives.
///
/// # Errors
/// If the kernel does not tell (before Linux 5.14).
pub fn netns_cookie() -> io::Result<u64> {
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))?;
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the buffer is as long as the length says, and both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            std::ptr::from_mut(&mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

fn object(command: libc::c_int, path: &Path, fd: u32) -> io::Result<libc::c_long> {
    #[repr(C)]
    struct Attributes {
        path: u64,
        fd: u32,
        flags: u32,
    }
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = Attributes { path: path.as_ptr() as u64, fd, flags: 0 };
    bpf(command, &mut attributes)
}

/// bpf(2). The attributes' tail that is not passed counts as zero.
fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the structure is as long as the size says and laid out as the command expects (see each caller); memory
    // that it points to outlives the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>() as libc::c_uint)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
