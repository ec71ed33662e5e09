//! Device access on cgroup v2, where the kernel has no controller but runs a BPF program for each group.
//!
//! The program is a dozen instructions per rule, so it is assembled here; it stays with the group until that is removed.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::libc;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_TYPE_CGROUP_DEVICE: u32 = 6;
/// Programs of outer groups stay in force beside ours.
const ATTACH_ALLOW_MULTI: u32 = 2;

const ACCESS_MKNOD: u32 = 1;
const ACCESS_ALL: u32 = 7;
const CHARACTER: u32 = 2;

/// One thing that is allowed.
#[derive(Debug, Clone, Copy)]
struct Rule {
    /// `None` is any kind of device.
    kind: Option<u32>,
    /// `None` is any number.
    major: Option<u32>,
    minor: Option<u32>,
    access: u32,
}

const fn character(major: u32, minor: Option<u32>) -> Rule {
    Rule { kind: Some(CHARACTER), major: Some(major), minor, access: ACCESS_ALL }
}

/// The devices of every container; making any device node is harmless, as opening it is not allowed.
const ALLOWED: [Rule; 11] = [
    Rule { kind: None, major: None, minor: None, access: ACCESS_MKNOD },
    character(1, Some(3)),    // null
    character(1, Some(5)),    // zero
    character(1, Some(7)),    // full
    character(1, Some(8)),    // random
    character(1, Some(9)),    // urandom
    character(5, Some(0)),    // tty
    character(5, Some(1)),    // console
    character(5, Some(2)),    // ptmx
    character(136, None),     // pseudo terminals
    character(10, Some(200)), // tun
];

/// Attaches the program to a group.
pub(super) fn attach(group: &Path) -> io::Result<()> {
    let group = File::open(group)?;
    let program = load(&assemble(&ALLOWED))?;
    #[repr(C)]
    struct Attach {
        target: u32,
        program: u32,
        kind: u32,
        flags: u32,
    }
    let attributes = Attach {
        target: group.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: ATTACH_TYPE_CGROUP_DEVICE,
        flags: ATTACH_ALLOW_MULTI,
    };
    // SAFETY: the attributes are a prefix of `union bpf_attr` as this command reads it, and live through the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &attributes, std::mem::size_of::<Attach>()) };
    Errno::result(result)?;
    Ok(())
}

fn load(program: &[u64]) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
    }
    let attributes = Load {
        kind: PROG_TYPE_CGROUP_DEVICE,
        count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: the attributes are a prefix of `union bpf_attr` as this command reads it; what they point at lives through
    // the call and is only read.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &attributes, std::mem::size_of::<Load>()) };
    let fd = Errno::result(result)?;
    // SAFETY: the kernel has just handed out this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

// Operation codes of the instructions used, and the registers.
const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_NOT_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

/// `struct bpf_cgroup_dev_ctx` is kind (low half) and access (high half), major, minor; the result is 1 for yes.
fn assemble(rules: &[Rule]) -> Vec<u64> {
    let mut program = vec![
        instruction(LOAD_WORD, KIND, CONTEXT, 0, 0),
        instruction(MOVE_REGISTER, ACCESS, KIND, 0, 0),
        instruction(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        instruction(AND, KIND, 0, 0, 0xffff),
        instruction(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        instruction(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for rule in rules {
        // What is asked for and not granted must be nothing.
        program.push(instruction(MOVE_REGISTER, SCRATCH, ACCESS, 0, 0));
        program.push(instruction(AND, SCRATCH, 0, 0, (ACCESS_ALL & !rule.access) as i32));
        let mut tests = vec![(SCRATCH, 0)];
        let wanted = [(KIND, rule.kind), (MAJOR, rule.major), (MINOR, rule.minor)];
        tests.extend(wanted.into_iter().filter_map(|(register, value)| Some((register, value?))));
        let count = tests.len();
        for (index, (register, value)) in tests.into_iter().enumerate() {
            // Past the remaining tests and the two instructions that say yes.
            let skip = (count - index - 1 + 2) as i16;
            program.push(instruction(JUMP_NOT_EQUAL, register, 0, skip, value as i32));
        }
        program.extend([instruction(MOVE, RESULT, 0, 0, 1), instruction(EXIT, 0, 0, 0, 0)]);
    }
    program.extend([instruction(MOVE, RESULT, 0, 0, 0), instruction(EXIT, 0, 0, 0, 0)]);
    program
}

fn instruction(code: u8, target: u8, source: u8, offset: i16, value: i32) -> u64 {
    u64::from_le_bytes({
        let (offset, value) = (offset.to_le_bytes(), value.to_le_bytes());
        [code, source << 4 | target, offset[0], offset[1], value[0], value[1], value[2], value[3]]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would.
    fn allows(kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let context = [access << 16 | kind, major, minor];
        let program = assemble(&ALLOWED);
        let (mut at, mut registers) = (0_usize, [0_u64; 8]);
        loop {
            let [code, places, o0, o1, v0, v1, v2, v3] = program[at].to_le_bytes();
            let (target, source) = (usize::from(places & 15), usize::from(places >> 4));
            let (offset, value) =
                (i16::from_le_bytes([o0, o1]), i64::from(i32::from_le_bytes([v0, v1, v2, v3])) as u64);
            at += 1;
            match code {
                LOAD_WORD => registers[target] = u64::from(context[offset as usize / 4]),
                MOVE => registers[target] = value,
                MOVE_REGISTER => registers[target] = registers[source],
                AND => registers[target] &= value,
                SHIFT_RIGHT => registers[target] >>= value,
                JUMP_NOT_EQUAL if registers[target] != value => at += offset as usize,
                JUMP_NOT_EQUAL => {}
                EXIT => return registers[0] == 1,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn the_usual_devices_work_and_no_others() {
        let (block, read_write) = (1, 6);
        assert!(allows(CHARACTER, read_write, 1, 3));
        assert!(allows(CHARACTER, read_write, 136, 77));
        assert!(!allows(CHARACTER, read_write, 1, 1), "physical memory");
        assert!(!allows(block, read_write, 1, 3));
        assert!(!allows(block, 2, 8, 0), "a disk");
        assert!(allows(block, ACCESS_MKNOD, 8, 0));
        assert!(!allows(block, ACCESS_MKNOD | 2, 8, 0));
    }

    /// Needs root and a cgroup2 mount, which hybrid machines have too.
    #[test]
    fn the_kernel_denies_what_the_program_denies() {
        let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let unified = super::super::mounts(&mountinfo).find(|mount| mount.kind == "cgroup2").unwrap().point;
        let group = Path::new(unified).join(format!("tidegate-test-device-{}", std::process::id()));
        let dir = tempfile::tempdir().unwrap();
        let kmsg = dir.path().join("kmsg");
        let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
        nix::sys::stat::mknod(&kmsg, nix::sys::stat::SFlag::S_IFCHR, mode, nix::sys::stat::makedev(1, 11)).unwrap();
        std::fs::create_dir(&group).unwrap();
        let attached = attach(&group);
        let run = |script: &str| {
            let script = format!("echo $$ > {}/cgroup.procs; {script}", group.display());
            std::process::Command::new("sh").arg("-c").arg(script).status().map(|status| status.success())
        };
        let null = run("exec 3< /dev/null");
        let denied = run(&format!("exec 3< {}", kmsg.display()));
        std::fs::remove_dir(&group).unwrap();
        attached.unwrap();
        File::open(&kmsg).unwrap();
        assert_eq!((null.unwrap(), denied.unwrap()), (true, false));
    }
}
