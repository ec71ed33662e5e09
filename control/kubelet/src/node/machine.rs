//! What the machine has and how much of it is left, read from the kernel.

use std::fs;
use std::path::Path;

use nix::sys::statvfs::statvfs;

/// What does not change while this process lives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    pub cpus: u64,
    pub memory_bytes: u64,
    pub disk_bytes: u64,
    pub kernel_version: String,
    pub os_image: String,
    pub architecture: String,
    pub machine_id: String,
    pub system_uuid: String,
    pub boot_id: String,
}

/// What is left right now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub memory_available_bytes: u64,
    pub disk_available_bytes: u64,
    pub disk_bytes: u64,
    pub inodes_free: u64,
    pub inodes: u64,
    pub processes: u64,
    pub processes_max: u64,
}

impl Machine {
    pub(crate) fn read(data_dir: &Path) -> Self {
        let uname = nix::sys::utsname::uname();
        let kernel_version = uname.map(|uname| uname.release().to_string_lossy().into_owned()).unwrap_or_default();
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let machine_id = text("/etc/machine-id");
        let system_uuid = Some(text("/sys/class/dmi/id/product_uuid")).filter(|uuid| !uuid.is_empty());
        Self {
            cpus: std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64),
            memory_bytes: meminfo(&text("/proc/meminfo"), "MemTotal"),
            disk_bytes: statvfs(data_dir).map(|fs| fs.blocks() * fs.fragment_size()).unwrap_or(0),
            kernel_version,
            os_image: os_image(&text("/etc/os-release")),
            architecture: architecture(std::env::consts::ARCH).into(),
            system_uuid: system_uuid.unwrap_or_else(|| machine_id.clone()),
            machine_id,
            boot_id: text("/proc/sys/kernel/random/boot_id"),
        }
    }
}

impl Usage {
    pub(crate) fn read(data_dir: &Path) -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let disk = statvfs(data_dir);
        let disk = disk.as_ref();
        Self {
            memory_available_bytes: meminfo(&text("/proc/meminfo"), "MemAvailable"),
            disk_available_bytes: disk.map(|fs| fs.blocks_available() * fs.fragment_size()).unwrap_or(0),
            disk_bytes: disk.map(|fs| fs.blocks() * fs.fragment_size()).unwrap_or(0),
            inodes_free: disk.map(|fs| fs.files_available()).unwrap_or(0),
            inodes: disk.map(|fs| fs.files()).unwrap_or(0),
            processes: processes(&text("/proc/loadavg")),
            processes_max: text("/proc/sys/kernel/pid_max").trim().parse().unwrap_or(0),
        }
    }
}

/// A field of `/proc/meminfo` in bytes.
fn meminfo(text: &str, field: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1_024
}

/// The number of tasks: the part after the slash in the fourth field of `/proc/loadavg`.
fn processes(text: &str) -> u64 {
    let field = text.split_whitespace().nth(3);
    field.and_then(|field| field.split_once('/')?.1.parse().ok()).unwrap_or(0)
}

fn os_image(os_release: &str) -> String {
    let name = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".into(), |name| name.trim_matches('"').to_owned())
}

/// Go's name of an architecture, which labels and images use.
fn architecture(rust: &str) -> &str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_files_are_read() {
        assert_eq!(meminfo("MemTotal:       16384 kB\nMemAvailable:    1024 kB\n", "MemAvailable"), 1 << 20);
        assert_eq!(meminfo("", "MemTotal"), 0);
        assert_eq!(processes("0.00 0.01 0.05 1/237 4242"), 237);
        assert_eq!(
            os_image("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"),
            "Debian GNU/Linux 12 (bookworm)"
        );
        assert_eq!(architecture("x86_64"), "amd64");
    }

    #[test]
    fn this_machine_has_something() {
        let machine = Machine::read(Path::new("/"));
        assert!(machine.cpus > 0 && machine.memory_bytes > 0 && machine.disk_bytes > 0);
        assert!(Usage::read(Path::new("/")).memory_available_bytes > 0);
    }
}
