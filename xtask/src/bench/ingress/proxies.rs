//! The three proxies and the origin behind them: configured alike, pinned to processors, ended with the run.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::bench::ingress::objects::Objects;
use crate::bench::ingress::{HOST, cpu};
use crate::exec::{self, command};
use crate::setup::rivals;

/// Load and origin share a processor; the proxy under load has the last one for itself, if there are several.
pub(crate) const LOAD_CPU: usize = 0;
const BODY_BYTES: usize = 1024;
/// As many idle connections to the origin as our gateway keeps.
const UPSTREAM_KEEPALIVE: u32 = 320;
const START_PATIENCE: Duration = Duration::from_secs(20);
const END_PATIENCE: Duration = Duration::from_secs(5);

/// Everything that runs while the load comes and goes.
pub(crate) struct Bed {
    /// Ours first.
    pub(crate) proxies: Vec<Proxy>,
    _origin: Proxy,
}

/// One running proxy (or the origin).
pub(crate) struct Proxy {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    /// Where it may write.
    pub(crate) dir: PathBuf,
    child: Child,
}

impl Bed {
    pub(crate) fn set_up() -> anyhow::Result<Self> {
        let dir = exec::root().join("target/bench/ingress");
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir)?;
        let identity = Identity::create(&dir)?;
        let origin = nginx("origin", &dir, LOAD_CPU, &origin_server())?;
        let cpu = std::thread::available_parallelism().map_or(LOAD_CPU, |count| count.get() - 1);
        let proxies = vec![
            tidegate(&dir, cpu, &identity, origin.address)?,
            nginx("nginx", &dir, cpu, &proxy_server(&identity, origin.address))?,
            bare_pingora(&dir, cpu, &identity, origin.address)?,
        ];
        let bed = Self { proxies, _origin: origin };
        for proxy in &bed.proxies {
            proxy.until_listening()?;
        }
        bed._origin.until_listening()?;
        Ok(bed)
    }
}

impl Proxy {
    fn start(name: &'static str, address: SocketAddr, dir: PathBuf, mut program: Command) -> anyhow::Result<Self> {
        let log = fs::File::create(dir.join("output.log"))?;
        program.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = program.spawn().with_context(|| format!("cannot run `{}`", exec::line(&program)))?;
        Ok(Self { name, address, dir, child })
    }

    /// CPU time used so far.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        cpu::of_tree(self.child.id())
    }

    fn until_listening(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_PATIENCE;
        while TcpStream::connect(self.address).is_err() {
            if Instant::now() > deadline {
                let log = fs::read_to_string(self.dir.join("output.log")).unwrap_or_default();
                bail!("{} does not listen on {}: {log}", self.name, self.address);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // First politely: nginx would leave its worker behind. SIGINT ends nginx and pingora at once.
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT);
        let deadline = Instant::now() + END_PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A program that runs on one processor.
pub(crate) fn pinned(cpu: usize, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut taskset = command("taskset");
    taskset.args(["--cpu-list", &cpu.to_string()]).arg(program);
    taskset
}

struct Identity {
    certificate: PathBuf,
    key: PathBuf,
}

impl Identity {
    fn create(dir: &Path) -> anyhow::Result<Self> {
        let identity = Self { certificate: dir.join("certificate.pem"), key: dir.join("key.pem") };
        let mut openssl = command("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
        openssl.args(["-subj", &format!("/CN={HOST}"), "-addext", &format!("subjectAltName=DNS:{HOST}")]);
        openssl.arg("-keyout").arg(&identity.key).arg("-out").arg(&identity.certificate);
        exec::read(&mut openssl)?;
        Ok(identity)
    }
}

fn tidegate(dir: &Path, cpu: usize, identity: &Identity, origin: SocketAddr) -> anyhow::Result<Proxy> {
    let dir = subdir(dir, "tidegate")?;
    let kubeconfig = dir.join("kubeconfig.json");
    fs::write(&kubeconfig, Objects::new(origin, &identity.certificate, &identity.key)?.serve()?)?;
    let (http, https, admin) = (ports::free(), ports::free(), ports::free());
    let mut program = pinned(cpu, exec::root().join("target/release/tidegate"));
    program.arg("ingress").arg("--kubeconfig").arg(kubeconfig);
    program.args(["--http-bind", &http.to_string(), "--https-bind", &https.to_string()]);
    program.args(["--admin-bind", &admin.to_string(), "--threads", "1", "--shutdown-grace-period", "1s"]);
    // Neither peer writes an access log.
    program.env("RUST_LOG", "warn");
    Proxy::start("tidegate", https, dir, program)
}

fn bare_pingora(dir: &Path, cpu: usize, identity: &Identity, origin: SocketAddr) -> anyhow::Result<Proxy> {
    let (dir, https) = (subdir(dir, "bare-pingora")?, ports::free());
    let mut program = pinned(cpu, exec::root().join("target/release/bare-proxy"));
    program.args(["--https-bind", &https.to_string(), "--origin", &origin.to_string()]);
    program.arg("--certificate").arg(&identity.certificate).arg("--key").arg(&identity.key);
    Proxy::start("bare pingora", https, dir, program)
}

/// An nginx with one worker; `server` gets the address to listen on.
fn nginx(name: &'static str, dir: &Path, cpu: usize, server: &dyn Fn(SocketAddr) -> String) -> anyhow::Result<Proxy> {
    let (dir, address) = (subdir(dir, name)?, ports::free());
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("  {kind}_temp_path {}/{kind};\n", dir.display()))
        .concat();
    let configuration = format!(
        "daemon off;\nworker_processes 1;\nworker_rlimit_nofile 4096;\npid {}/pid;\nerror_log stderr warn;\n\
         events {{ worker_connections 2048; }}\nhttp {{\n  access_log off;\n  keepalive_requests 1000000000;\n{temporary}{}\n}}\n",
        dir.display(),
        server(address)
    );
    let file = dir.join("nginx.conf");
    fs::write(&file, configuration)?;
    let mut program = pinned(cpu, rivals::nginx());
    program.arg("-e").arg("stderr").arg("-p").arg(&dir).arg("-c").arg(&file);
    Proxy::start(name, address, dir, program)
}

fn origin_server() -> impl Fn(SocketAddr) -> String {
    |address| format!("  server {{ listen {address}; location / {{ return 200 \"{}\"; }} }}", "x".repeat(BODY_BYTES))
}

/// What an ingress controller would write for one host: kept connections to the origin, forwarding headers, a request id.
fn proxy_server(identity: &Identity, origin: SocketAddr) -> impl Fn(SocketAddr) -> String {
    let (certificate, key) = (identity.certificate.display().to_string(), identity.key.display().to_string());
    move |address| {
        let headers: String = [
            ("Connection", "\"\""),
            ("Host", "$http_host"),
            ("X-Request-ID", "$request_id"),
            ("X-Real-IP", "$remote_addr"),
            ("X-Forwarded-For", "$remote_addr"),
            ("X-Forwarded-Host", "$http_host"),
            ("X-Forwarded-Port", "$server_port"),
            ("X-Forwarded-Proto", "$scheme"),
        ]
        .map(|(name, value)| format!("      proxy_set_header {name} {value};\n"))
        .concat();
        format!(
            "  upstream origin {{ server {origin}; keepalive {UPSTREAM_KEEPALIVE}; keepalive_requests 1000000000; }}\n  \
             server {{\n    listen {address} ssl http2;\n    server_name {HOST};\n    ssl_certificate {certificate};\n    \
             ssl_certificate_key {key};\n    ssl_protocols TLSv1.2 TLSv1.3;\n    location / {{\n      \
             proxy_pass http://origin;\n      proxy_http_version 1.1;\n{headers}    }}\n  }}"
        )
    }
}

fn subdir(dir: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let dir = dir.join(name);
    fs::create_dir_all(&dir)?;
    Ok(dir)
}
