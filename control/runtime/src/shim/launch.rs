//! Starting of processes in the pod, through libcontainer: a container's first process, and further ones inside it.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use serde_json::Value;

use super::executor::{EXIT_CANNOT_START, Failure, PodExecutor};
use super::mount_scope::{Home, Shm, attach};
use super::stdio::{self, ChildFiles, Console, ShimFiles};
use crate::cgroup::{self, Hierarchies};
use crate::error::chain;
use crate::layout::{ContainerDir, RootDir, SandboxDir, write_atomically};
use crate::protocol::CreateContainer;
use crate::rootfs;
use crate::spec::capability::Capabilities;
use crate::spec::{self, Built, Confinement, PidNamespace};
use crate::tree::Tree;
use crate::user::{Accounts, Wanted};

/// Everything about the pod that a new process depends on.
pub(super) struct Site {
    pub(super) dir: SandboxDir,
    pub(super) state_dir: PathBuf,
    pub(super) layer_dir: PathBuf,
    pub(super) cgroups: Hierarchies,
    pub(super) home: Home,
    pub(super) shm: Shm,
    pub(super) hostname: String,
    pub(super) pid_namespace: PidNamespace,
    pub(super) available: Capabilities,
}

/// A container's first process, running.
pub(super) struct Launched {
    pub(super) pid: i32,
    pub(super) files: ShimFiles,
    pub(super) built: Built,
}

/// A further process of a container.
pub(super) struct Command<'a> {
    pub(super) container: &'a str,
    pub(super) process: Value,
    pub(super) confinement: Confinement,
    pub(super) oom_score_adj: i32,
}

/// What a further process reads and writes.
pub(super) enum ExecFiles {
    Pipes(ChildFiles),
    /// A terminal of its own, made inside the container.
    Terminal,
}

/// A further process; it may already have ended.
pub(super) struct Executing {
    pub(super) pid: i32,
    /// Our side of its terminal.
    pub(super) terminal: Option<OwnedFd>,
}

impl Site {
    /// Starts a container. It is born in a mount namespace copied from the runtime's, with every volume in it.
    pub(super) fn launch(
        &self,
        request: &CreateContainer,
        cgroup: &str,
        runtime: i32,
        pid_namespace: PidNamespace,
    ) -> Result<Launched, Failure> {
        let log = LogTail::now(&self.dir);
        self.try_launch(request, cgroup, runtime, pid_namespace).map_err(|error| log.explain(error))
    }

    fn try_launch(
        &self,
        request: &CreateContainer,
        cgroup: &str,
        runtime: i32,
        pid_namespace: PidNamespace,
    ) -> Result<Launched, LaunchError> {
        let dir = self.dir.container(&request.id);
        let root = RootDir::new(&self.state_dir, &request.id);
        let shm = self.shm.detached(&self.home)?;
        let scope = self.home.scope(runtime)?;
        rootfs::mount_overlay(&root, &self.layer_dir, &request.image.layers).map_err(crate::RuntimeError::from)?;
        let shm_path = self.mount_shm(shm)?;
        let built = self.build_spec(request, &root, cgroup, &shm_path, pid_namespace)?;
        make_working_dir(&root.rootfs(), &built.config)?;
        let config = serde_json::to_vec(&built.config).context("cannot encode the OCI spec")?;
        write_atomically(&dir.oci_config(), &config, 0o600).map_err(crate::RuntimeError::from)?;
        let launched = self.create_and_start(request, cgroup, &dir, built)?;
        drop(scope);
        Ok(launched)
    }

    fn mount_shm(&self, shm: Option<OwnedFd>) -> anyhow::Result<PathBuf> {
        match shm {
            Some(tree) => {
                attach(&tree, &self.dir.shm())?;
                Ok(self.dir.shm())
            }
            None => Ok("/dev/shm".into()),
        }
    }

    fn build_spec(
        &self,
        request: &CreateContainer,
        root: &RootDir,
        cgroup: &str,
        shm: &Path,
        pid_namespace: PidNamespace,
    ) -> anyhow::Result<Built> {
        let (container, image) = (&request.spec, &request.image);
        let accounts = Accounts::read(&root.rootfs()).context("cannot read the image's account files")?;
        let credentials = accounts
            .resolve(Wanted {
                user: container.user,
                group: container.group,
                supplemental: &container.supplemental_groups,
                image: image.user.as_deref(),
                must_not_be_root: container.run_as_non_root,
            })
            .map_err(|error| anyhow!(error))?;
        let devices = if container.privileged { spec::host_devices() } else { Vec::new() };
        spec::build(&spec::Input {
            container,
            image,
            hostname: &self.hostname,
            credentials: &credentials,
            available: self.available,
            rootfs: &root.rootfs(),
            cgroup,
            legacy_cgroups: &self.cgroups.legacy_views(cgroup),
            swap_accounting: self.cgroups.limits_swap(),
            shm,
            pid_namespace,
            devices: &devices,
        })
        .map_err(|error| anyhow!(error))
    }

    fn create_and_start(
        &self,
        request: &CreateContainer,
        cgroup: &str,
        dir: &ContainerDir,
        built: Built,
    ) -> Result<Launched, LaunchError> {
        let (status, child_status) = pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe")?;
        let builder =
            self.builder(&request.id)?.with_executor(PodExecutor::new(child_status.as_raw_fd(), built.confinement));
        let console = if request.spec.tty {
            Some(Console::bind(dir.console_socket()).context("cannot make the console socket")?)
        } else {
            None
        };
        let (builder, files) = match &console {
            Some(console) => (builder.with_console_socket(Some(console.path())), None),
            None => {
                let (child, ours) = stdio::pipes(request.spec.stdin).context("cannot make pipes")?;
                (with_files(builder, child), Some(ours))
            }
        };
        let mut container = builder.as_init(dir.path()).with_systemd(false).with_detach(true).build()?;
        let pid = container.pid().context("libcontainer made no process")?.as_raw();
        let files = match (console, files) {
            (Some(console), _) => {
                console.receive().and_then(ShimFiles::of_terminal).context("cannot receive the terminal")?
            }
            (None, files) => files.unwrap_or_default(),
        };
        let score = request.spec.resources.oom_score_adj.unwrap_or(0);
        adjust_oom_score(pid, score);
        if !request.spec.privileged {
            self.cgroups.deny_devices(cgroup).context("cannot limit devices")?;
        }
        container.start()?;
        drop(child_status);
        executed(status)?;
        Ok(Launched { pid, files, built })
    }

    /// Runs a command inside a container.
    pub(super) fn launch_exec(&self, command: &Command<'_>, files: ExecFiles) -> Result<Executing, Failure> {
        let log = LogTail::now(&self.dir);
        self.try_launch_exec(command, files).map_err(|error| log.explain(error))
    }

    fn try_launch_exec(&self, command: &Command<'_>, files: ExecFiles) -> Result<Executing, LaunchError> {
        let dir = self.dir.container(command.container);
        let (status, child_status) = pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe")?;
        // libcontainer reads it before it returns, and this process does one thing at a time.
        let path = dir.path().join("process.json");
        let text = serde_json::to_vec(&command.process).context("cannot encode the process")?;
        write_atomically(&path, &text, 0o600).map_err(crate::RuntimeError::from)?;
        let executor = PodExecutor::new(child_status.as_raw_fd(), command.confinement);
        let builder = self.builder(command.container)?.with_executor(executor);
        let (builder, console) = match files {
            ExecFiles::Pipes(files) => (with_files(builder, files), None),
            ExecFiles::Terminal => {
                let console = Console::bind(dir.exec_console_socket()).context("cannot make the console socket")?;
                (builder.with_console_socket(Some(console.path())), Some(console))
            }
        };
        let built = builder.as_tenant().with_process(Some(&path)).with_detach(true).build();
        drop(child_status);
        let executed = executed(status);
        self.remove_tenant_sockets(command.container);
        // The executor's report says more than libcontainer's error.
        executed?;
        let pid = built?.as_raw();
        adjust_oom_score(pid, command.oom_score_adj);
        let terminal = console.map(Console::receive).transpose().context("cannot receive the terminal")?;
        Ok(Executing { pid, terminal })
    }

    /// libcontainer leaves two names behind with every exec; a probe would fill the file system.
    fn remove_tenant_sockets(&self, id: &str) {
        for entry in fs::read_dir(self.dir.libcontainer().join(id)).into_iter().flatten().flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(b"tenant-") {
                // What cannot be removed now is removed with the container.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn builder(&self, id: &str) -> Result<ContainerBuilder, LaunchError> {
        Ok(ContainerBuilder::new(id.to_owned(), SyscallType::default()).with_root_path(self.dir.libcontainer())?)
    }
}

fn with_files(builder: ContainerBuilder, files: ChildFiles) -> ContainerBuilder {
    builder.with_stdin(files.stdin).with_stdout(files.stdout).with_stderr(files.stderr)
}

/// The kernel refuses to lower it without CAP_SYS_RESOURCE; a container is then killed a little sooner than it should be.
fn adjust_oom_score(pid: i32, score: i32) {
    if let Err(error) = cgroup::set_oom_score_adj(pid, score) {
        tracing::debug!(%error, pid, score, "cannot set oom_score_adj");
    }
}

/// Images may name a working directory that they do not hold.
fn make_working_dir(rootfs: &Path, config: &Value) -> anyhow::Result<()> {
    let dir = Path::new(config["process"]["cwd"].as_str().unwrap_or("/"));
    if dir.file_name().is_some() {
        let tree = Tree::open(rootfs).context("cannot open the container's root")?;
        tree.place(dir)
            .and_then(|place| place.make_dir())
            .with_context(|| format!("cannot create the working directory {}", dir.display()))?;
    }
    Ok(())
}

/// Waits until the process has executed its program, or said why it could not.
fn executed(status: OwnedFd) -> Result<(), LaunchError> {
    let mut report = String::new();
    fs::File::from(status).read_to_string(&mut report).context("cannot read the executor's report")?;
    Failure::parse(&report).map_or(Ok(()), |failure| Err(LaunchError::Program(failure)))
}

#[derive(Debug)]
enum LaunchError {
    /// The program itself cannot be executed.
    Program(Failure),
    /// libcontainer failed; the log may say more.
    Libcontainer(String),
    Other(anyhow::Error),
}

impl From<libcontainer::error::LibcontainerError> for LaunchError {
    fn from(error: libcontainer::error::LibcontainerError) -> Self {
        Self::Libcontainer(chain(&error))
    }
}

impl From<anyhow::Error> for LaunchError {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

impl From<crate::RuntimeError> for LaunchError {
    fn from(error: crate::RuntimeError) -> Self {
        Self::Other(error.into())
    }
}

/// The end of the shim's log, where libcontainer's forked processes write the causes that their errors leave out.
struct LogTail {
    path: PathBuf,
    start: u64,
}

impl LogTail {
    fn now(dir: &SandboxDir) -> Self {
        let path = dir.shim_log();
        let start = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        Self { path, start }
    }

    fn explain(&self, error: LaunchError) -> Failure {
        let message = match error {
            LaunchError::Program(failure) => return failure,
            LaunchError::Other(error) => format!("{error:#}"),
            LaunchError::Libcontainer(message) => match self.first_error() {
                Some(cause) => format!("{message}: {cause}"),
                None => message,
            },
        };
        Failure { exit_code: EXIT_CANNOT_START, message }
    }

    fn first_error(&self) -> Option<String> {
        let mut file = fs::File::open(&self.path).ok()?;
        file.seek(SeekFrom::Start(self.start)).ok()?;
        let mut text = String::new();
        file.take(64 << 10).read_to_string(&mut text).ok()?;
        first_error(&text)
    }
}

fn first_error(log: &str) -> Option<String> {
    log.lines().find_map(|line| line.split_once(" ERROR ")).map(|(_, message)| message.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_cause_is_the_first_in_the_log() {
        let log = "2026-01-01T00:00:00Z  WARN x\n2026-01-01T00:00:00Z ERROR failed to mount err=EPERM\nT ERROR outer\n";
        assert_eq!(first_error(log).as_deref(), Some("failed to mount err=EPERM"));
        assert_eq!(first_error(""), None);
    }

    #[test]
    fn a_missing_working_directory_is_made_inside() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("up")).unwrap();
        make_working_dir(dir.path(), &serde_json::json!({ "process": { "cwd": "/up/made/here" } })).unwrap();
        assert!(dir.path().join("made/here").is_dir());
        make_working_dir(dir.path(), &serde_json::json!({ "process": { "cwd": "/" } })).unwrap();
    }
}
