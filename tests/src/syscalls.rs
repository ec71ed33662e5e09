//! Failing syncs of a real process: the kernel asks the test before each one (seccomp user notification).

use std::fs;
use std::io::{IoSlice, IoSliceMut};
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

nix::ioctl_readwrite!(receive_notification, b'!', 0, libc::seccomp_notif);
nix::ioctl_readwrite!(send_answer, b'!', 1, libc::seccomp_notif_resp);

/// Every sync of a file with this name in one process, counted, and failing from the moment that the test says.
#[derive(Debug)]
pub struct Syncs {
    state: Arc<State>,
    socket: UnixStream,
}

#[derive(Debug)]
struct State {
    file: String,
    fails: AtomicBool,
    good: AtomicU64,
    failed: AtomicU64,
}

impl Syncs {
    /// Adds the filter to a process that is to be started.
    ///
    /// # Panics
    /// If no socket pair can be made.
    #[must_use]
    pub fn watch(command: &mut Command, file: &str) -> Self {
        let (ours, theirs) = UnixStream::pair().expect("cannot make a socket pair");
        // SAFETY: between fork and exec this makes system calls only, on a descriptor that the closure keeps open.
        unsafe { command.pre_exec(move || install(&theirs)) };
        let state = State {
            file: file.into(),
            fails: AtomicBool::new(false),
            good: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        };
        Self { state: Arc::new(state), socket: ours }
    }

    /// Answers the kernel's questions on a thread of its own, from before the process is started until it has ended.
    ///
    /// # Panics
    /// If the process does not hand over the filter's descriptor.
    pub fn answer(&self) {
        let socket = self.socket.try_clone().expect("cannot clone a socket");
        let state = Arc::clone(&self.state);
        std::thread::spawn(move || {
            let listener = receive_descriptor(&socket).expect("the process handed over no descriptor");
            while state.answer_one(&listener).is_ok() {}
        });
    }

    /// From now on each sync fails.
    pub fn fail(&self) {
        self.state.fails.store(true, Ordering::SeqCst);
    }

    /// Syncs that went through, and those that failed.
    #[must_use]
    pub fn count(&self) -> (u64, u64) {
        (self.state.good.load(Ordering::SeqCst), self.state.failed.load(Ordering::SeqCst))
    }
}

impl State {
    fn answer_one(&self, listener: &OwnedFd) -> Result<(), Errno> {
        let mut waiting = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        poll(&mut waiting, PollTimeout::NONE)?;
        if waiting[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP)) {
            return Err(Errno::EPIPE);
        }
        // SAFETY: a structure of plain numbers; the kernel wants it zeroed.
        let mut question: libc::seccomp_notif = unsafe { zeroed() };
        // SAFETY: the descriptor is a seccomp listener and the structure is what it fills in.
        unsafe { receive_notification(listener.as_raw_fd(), &raw mut question) }?;
        let link = format!("/proc/{}/fd/{}", question.pid, question.data.args[0]);
        let is_ours = fs::read_link(link).is_ok_and(|path| path.ends_with(&self.file));
        let fails = is_ours && self.fails.load(Ordering::SeqCst);
        if is_ours {
            if fails { &self.failed } else { &self.good }.fetch_add(1, Ordering::SeqCst);
        }
        // SAFETY: a structure of plain numbers.
        let mut answer: libc::seccomp_notif_resp = unsafe { zeroed() };
        answer.id = question.id;
        if fails {
            answer.error = -libc::EIO;
        } else {
            answer.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
        }
        // SAFETY: as above. The process may have been killed meanwhile.
        match unsafe { send_answer(listener.as_raw_fd(), &raw mut answer) } {
            Ok(_) | Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn receive_descriptor(socket: &UnixStream) -> Result<OwnedFd, Errno> {
    let mut byte = [0];
    let mut space = nix::cmsg_space!(RawFd);
    let mut data = [IoSliceMut::new(&mut byte)];
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut data, Some(&mut space), MsgFlags::empty())?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control
            && let [descriptor] = descriptors[..]
        {
            // SAFETY: the kernel made this descriptor for this message; nobody else has it.
            return Ok(unsafe { OwnedFd::from_raw_fd(descriptor) });
        }
    }
    Err(Errno::EBADMSG)
}

/// In the child, before exec: asks the listener before fsync and fdatasync, lets everything else pass.
fn install(socket: &UnixStream) -> std::io::Result<()> {
    let statement = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    let equals = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let mut filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(equals, libc::SYS_fdatasync as u32, 1, 0),
        statement(equals, libc::SYS_fsync as u32, 0, 1),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_USER_NOTIF, 0, 0),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    debug_assert_eq!(size_of::<libc::sock_filter>(), 8);
    // SAFETY: sets a flag of this process.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    // SAFETY: the program outlives the call, which copies it.
    let listener = Errno::result(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    })?;
    let descriptors = [listener as RawFd];
    let rights = [ControlMessage::ScmRights(&descriptors)];
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(b"x")], &rights, MsgFlags::empty(), None)?;
    Ok(())
}
