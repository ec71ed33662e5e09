//! Programs that benchmarks need beside our own: load generators, and the peers that we are compared with.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::exec::{self, command};
use crate::setup;

const SYSTEM_NGINX: &str = "/usr/sbin/nginx";

/// Installs what is missing.
pub(crate) fn run() -> anyhow::Result<()> {
    if !Path::new("/usr/bin/h2load").exists() {
        setup::install(&["nghttp2-client".into()])?;
    }
    if nginx().exists() { Ok(()) } else { unpack_nginx() }
}

/// The machine's nginx, or ours.
pub(crate) fn nginx() -> PathBuf {
    let system = PathBuf::from(SYSTEM_NGINX);
    if system.exists() { system } else { exec::tools().join("nginx/usr/sbin/nginx") }
}

/// Debian's package is unpacked and not installed: installing it would start a server on port 80.
fn unpack_nginx() -> anyhow::Result<()> {
    setup::require_debian("nginx")?;
    println!("setup: unpacking nginx (Debian)");
    let work = exec::tools().join("nginx.download");
    let _ = fs::remove_dir_all(&work);
    fs::create_dir_all(&work)?;
    setup::update_packages()?;
    exec::read(command("apt-get").args(["-qq", "download", "nginx"]).current_dir(&work))?;
    let package = setup::find(&work, |name| name.ends_with(".deb"))?;
    exec::run(command("dpkg-deb").arg("--extract").arg(&package).arg(work.join("root")))?;
    // Moved last and in one step, so that a broken download is never taken for the program.
    fs::rename(work.join("root"), exec::tools().join("nginx")).context("cannot put nginx into its place")?;
    exec::read(command(nginx()).arg("-v")).context("nginx does not run; install Debian's package nginx-common")?;
    fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))
}
