//! Sandboxes and containers as the kubelet uses them: real processes, namespaces and cgroups. Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot look has failed")]

mod harness;

use std::fs;
use std::time::{Duration, Instant};

use control_runtime::{ContainerSpec, ContainerState, Mount, Resources, RuntimeError, RuntimeEvent, SandboxState};
use harness::{Node, log_text, volume};

const MULTI: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_container_runs_and_its_end_is_recorded() {
    let node = Node::new().await;
    let sandbox = node.sandbox("web-0").await;
    assert_eq!(sandbox.state, SandboxState::Ready);
    let mut events = node.runtime.events();
    let mut spec = node.shell("main", "echo out; echo err >&2; hostname; echo $FROM_IMAGE $OWN; exit 3");
    spec.env = vec![("OWN".to_owned(), "a=b".to_owned())];
    let (container, log) = node.run(&sandbox, spec).await;
    assert_eq!((container.exit_code, container.reason.as_deref()), (Some(3), Some("Error")));
    assert!(container.started_at.unwrap() <= container.finished_at.unwrap());
    for line in ["out\n", "err\n", "web-0\n", "yes a=b\n"] {
        assert!(log.contains(line), "{line:?} is not in {log:?}");
    }
    let raw = fs::read_to_string(&container.log_path).unwrap();
    let fields: Vec<_> = raw.lines().find(|line| line.ends_with(" err")).unwrap().split(' ').collect();
    assert_eq!(fields[1..], ["stderr", "F", "err"]);
    fields[0].parse::<jiff::Timestamp>().unwrap();
    let event = tokio::time::timeout(MULTI, events.recv()).await.unwrap().unwrap();
    assert_eq!(event, RuntimeEvent::ContainerExited { sandbox_id: sandbox.id, container_id: container.id });
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_end_in_128_plus_their_number() {
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let (container, _) = node.run(&sandbox, node.shell("done", "true")).await;
    assert_eq!((container.exit_code, container.reason.as_deref()), (Some(0), Some("Completed")));
    // PID 1 ignores signals that it does not handle, so this is a stop that needs the grace period.
    let id = node.start(&sandbox, node.shell("deaf", "sleep 1000")).await;
    let before = Instant::now();
    node.runtime.stop_container(&id, Duration::from_millis(300)).await.unwrap();
    assert!(before.elapsed() >= Duration::from_millis(300));
    assert_eq!(node.exited(&id).await.exit_code, Some(137));
    let id = node.start(&sandbox, node.shell("polite", "trap 'exit 7' TERM; while :; do sleep 0.01; done")).await;
    node.exec(&id, "true").await;
    let before = Instant::now();
    node.runtime.stop_container(&id, Duration::from_secs(60)).await.unwrap();
    assert!(before.elapsed() < Duration::from_secs(30));
    assert_eq!(node.exited(&id).await.exit_code, Some(7));
    // Stopping what has stopped is no error.
    node.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_a_pod_share_its_network_and_memory_but_no_processes() {
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let a = node.start(&sandbox, node.shell("a", "echo shared > /dev/shm/x; sleep 1000")).await;
    let b = node.start(&sandbox, node.shell("b", "sleep 1000")).await;
    let (_, net) = node.exec(&a, "stat -L -c %i /proc/self/ns/net /proc/self/ns/ipc /proc/self/ns/uts").await;
    assert_eq!(node.exec(&b, "stat -L -c %i /proc/self/ns/net /proc/self/ns/ipc /proc/self/ns/uts").await.1, net);
    let inode = |path: &str| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    assert_eq!(net.lines().next().unwrap(), inode(sandbox.netns.to_str().unwrap()).to_string());
    assert_ne!(net.lines().next().unwrap(), inode("/proc/self/ns/net").to_string());
    let wait = "while ! grep -q shared /dev/shm/x; do sleep 0.01; done; cat /dev/shm/x";
    assert_eq!(node.exec(&b, wait).await, (0, "shared\n".to_owned()));
    assert_eq!(node.exec(&b, "ip -o link | grep -c 'lo.*UP'").await, (0, "1\n".to_owned()));
    assert_eq!(node.exec(&b, "cat /proc/1/comm").await, (0, "sleep\n".to_owned()));
    assert!(!node.exec(&b, "ps").await.1.contains("echo shared"));
    // Shared memory stays when the container that filled it goes.
    node.runtime.remove_container(&a).await.unwrap();
    assert_eq!(node.exec(&b, "cat /dev/shm/x").await.1, "shared\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_pid_namespace_shows_all_processes_and_ends_with_each_container() {
    let node = Node::new().await;
    let mut spec = node.sandbox_spec("p");
    spec.share_pid = true;
    let sandbox = node.runtime.run_sandbox(spec).await.unwrap();
    let a = node.start(&sandbox, node.shell("a", "sleep 4711 & sleep 1234")).await;
    let b = node.start(&sandbox, node.shell("b", "sleep 1000")).await;
    let ps = "while ! ps | grep -q '[s]leep 4711'; do sleep 0.01; done; ps | head -2 | tail -1";
    assert!(node.exec(&b, ps).await.1.contains("pod-init"));
    node.runtime.stop_container(&a, Duration::ZERO).await.unwrap();
    let gone = "while ps | grep -q '[s]leep 4711'; do sleep 0.01; done; echo gone";
    assert_eq!(node.exec(&b, gone).await, (0, "gone\n".to_owned()));
    assert_eq!(node.runtime.container(&b).await.unwrap().state, ContainerState::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_beyond_the_limit_is_an_oom_kill() {
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let mut spec = node.shell("hog", "x=a; while :; do x=$x$x; done");
    spec.resources = Resources { memory_limit_bytes: Some(16 << 20), ..Resources::default() };
    let (container, _) = node.run(&sandbox, spec).await;
    assert_eq!((container.exit_code, container.reason.as_deref()), (Some(137), Some("OOMKilled")));
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_reach_the_kernel() {
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let mut spec = node.shell("limited", "sleep 1000");
    spec.resources = Resources {
        cpu_shares: Some(512),
        cpu_quota_us: Some(50_000),
        cpu_period_us: Some(100_000),
        memory_limit_bytes: Some(64 << 20),
        pids_limit: Some(5),
        oom_score_adj: Some(500),
    };
    let id = node.start(&sandbox, spec).await;
    let read = |name: &str| {
        let suffix = format!("kubepods/burstable/pod-p/{id}/{name}");
        let file = node.cgroups().into_iter().map(|group| group.join(&suffix)).find(|path| path.exists());
        file.map(|path| fs::read_to_string(path).unwrap().trim().to_owned())
    };
    if read("cpu.shares").is_some() {
        assert_eq!(read("cpu.shares").as_deref(), Some("512"));
        assert_eq!(read("cpu.cfs_quota_us").as_deref(), Some("50000"));
        assert_eq!(read("memory.limit_in_bytes"), Some((64 << 20).to_string()));
    } else {
        assert_eq!(read("cpu.max").as_deref(), Some("50000 100000"));
        assert_eq!(read("memory.max"), Some((64 << 20).to_string()));
    }
    assert_eq!(read("pids.max").as_deref(), Some("5"));
    let pid = node.runtime.container(&id).await.unwrap().pid.unwrap();
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim(), "500");
    assert_ne!(node.exec(&id, "for i in 1 2 3 4 5 6; do sleep 5 & done").await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_confined_by_default() {
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let id = node.start(&sandbox, node.shell("plain", "sleep 1000")).await;
    let status = node.exec(&id, "cat /proc/1/status").await.1;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!(field("CapBnd:"), "00000000a80425fb");
    assert_eq!(field("CapEff:"), "00000000a80425fb");
    assert_eq!(field("CapInh:"), "0000000000000000");
    assert_eq!((field("Seccomp:"), field("NoNewPrivs:"), field("SigBlk:")), ("2".into(), "0".into(), "0".repeat(16)));
    // What exec starts is confined in the same way.
    assert_eq!(node.exec(&id, "grep -c 'CapEff:.*a80425fb' /proc/self/status").await, (0, "1\n".to_owned()));
    assert_eq!(node.exec(&id, "grep -c 'Seccomp:.*2' /proc/self/status").await.1, "1\n");
    for forbidden in [
        "mount -t tmpfs x /tmp",
        "unshare -U true",
        "echo 1 > /proc/sys/kernel/panic",
        "touch /sys/x",
        "echo 1 > /proc/sysrq-trigger",
        "hostname other",
        "mknod /tmp/disk b 254 0 && head -c 1 /tmp/disk",
        "mkdir /sys/fs/cgroup/memory/x",
        "mkdir /sys/fs/cgroup/x",
    ] {
        assert_ne!(node.exec(&id, forbidden).await.0, 0, "{forbidden}");
    }
    assert_eq!(node.exec(&id, "cat /proc/kcore /proc/keys | wc -c").await.1, "0\n");
    assert_eq!(node.exec(&id, "touch /new && echo x > /dev/null && head -c 4 /dev/urandom | wc -c").await.1, "4\n");
    // No file of the shim is left open.
    assert_eq!(node.exec(&id, "ls /proc/1/fd").await.1, "0\n1\n2\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_can_ask_for_more_or_less() {
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let base = |name: &str| node.shell(name, "grep -E 'CapEff|CapBnd|NoNewPrivs|Seccomp:' /proc/self/status; id; pwd");
    let strict = ContainerSpec {
        user: Some(1000),
        group: Some(3000),
        supplemental_groups: vec![4000],
        no_new_privileges: true,
        drop_capabilities: vec!["ALL".to_owned()],
        working_dir: Some("/made/for/me".to_owned()),
        ..base("strict")
    };
    let (container, log) = node.run(&sandbox, strict).await;
    assert_eq!(container.exit_code, Some(0), "{log}");
    for line in
        ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2", "/made/for/me"]
    {
        assert!(log.contains(line), "{line} is not in {log}");
    }
    assert!(log.contains("uid=1000(app) gid=3000 groups=50(staff),3000,4000"), "{log}");

    let privileged = ContainerSpec { privileged: true, ..base("privileged") };
    let (container, log) = node.run(&sandbox, privileged).await;
    assert_eq!(container.exit_code, Some(0), "{log}");
    assert!(log.contains("Seccomp:\t0"), "{log}");
    let own = fs::read_to_string("/proc/self/status").unwrap();
    assert!(log.contains(own.lines().find(|line| line.starts_with("CapEff:")).unwrap()), "{log}");

    let one =
        ContainerSpec { add_capabilities: vec!["NET_ADMIN".to_owned()], ..node.shell("net", "ip link set lo down") };
    assert_eq!(node.run(&sandbox, one).await.0.exit_code, Some(0));
    assert_ne!(node.run(&sandbox, node.shell("nonet", "ip link set lo up")).await.0.exit_code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn roots_and_mounts_are_read_only_where_asked() {
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let data = volume(&node, "data");
    let config = volume(&node, "config");
    fs::write(config.join("file"), "from the pod\n").unwrap();
    let mount = |source: &std::path::Path, target: &str, read_only| Mount {
        source: source.to_owned(),
        target: target.to_owned(),
        read_only,
    };
    let mut spec = node.shell("c", "sleep 1000");
    spec.read_only_root = true;
    spec.mounts = vec![
        mount(&config.join("file"), "/etc/hosts", true),
        mount(&data, "/data", false),
        mount(&config, "/data/config", true),
    ];
    let id = node.start(&sandbox, spec).await;
    assert_eq!(node.exec(&id, "cat /etc/hosts /data/config/file").await.1, "from the pod\n".repeat(2));
    assert_ne!(node.exec(&id, "touch /x").await.0, 0);
    assert_ne!(node.exec(&id, "touch /data/config/x").await.0, 0);
    assert_ne!(node.exec(&id, "echo x > /etc/hosts").await.0, 0);
    assert_eq!(node.exec(&id, "echo kept > /data/x").await.0, 0);
    assert_eq!(fs::read_to_string(data.join("x")).unwrap(), "kept\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_reports_output_codes_limits_and_time() {
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let id = node.start(&sandbox, node.shell("c", "sleep 1000")).await;
    let exec = |script: &str, timeout, limit| {
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        node.runtime.exec_sync(&id, command, timeout, limit)
    };
    let output = exec("echo out; echo err >&2; exit 4", MULTI, 100).await.unwrap();
    assert_eq!((output.exit_code, output.stdout, output.stderr), (4, b"out\n".to_vec(), b"err\n".to_vec()));
    let output = exec("head -c 1000000 /dev/zero; echo x >&2", MULTI, 100).await.unwrap();
    assert_eq!((output.exit_code, output.stdout.len(), output.stderr.len()), (0, 100, 2));
    let before = Instant::now();
    let late = exec("sleep 1000", Duration::from_millis(200), 100).await;
    assert!(matches!(late, Err(RuntimeError::Timeout(_))), "{late:?}");
    assert!(before.elapsed() < MULTI);
    let missing = node.runtime.exec_sync(&id, vec!["nonsense".to_owned()], MULTI, 100).await;
    assert!(
        matches!(&missing, Err(RuntimeError::CannotRun { message, .. }) if message.contains("not found")),
        "{missing:?}"
    );
    // A command that leaves a child behind does not keep the caller waiting for it.
    let output = exec("sleep 1000 & echo started", MULTI, 100).await.unwrap();
    assert_eq!(output.stdout, b"started\n");
    // Many at once.
    let all = futures_all((0..20).map(|number| exec_owned(&node, &id, format!("echo {number}")))).await;
    assert_eq!(all, (0..20).map(|number| format!("{number}\n")).collect::<Vec<_>>());
}

async fn exec_owned(node: &Node, id: &str, script: String) -> String {
    node.exec(id, &script).await.1
}

async fn futures_all<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    futures::future::join_all(futures).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_cannot_run_says_why() {
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let cases = [
        (ContainerSpec { command: vec!["nonsense".to_owned()], ..node.shell("a", "") }, "not found in $PATH"),
        (ContainerSpec { command: vec!["/etc/passwd".to_owned()], ..node.shell("b", "") }, "Permission denied"),
        (ContainerSpec { add_capabilities: vec!["FLY".to_owned()], ..node.shell("d", "true") }, "FLY is not known"),
    ];
    for (spec, text) in cases {
        let id = node.runtime.create_container(&sandbox.id, spec).await.unwrap();
        let error = node.runtime.start_container(&id).await.unwrap_err();
        assert!(matches!(&error, RuntimeError::CannotRun { message, .. } if message.contains(text)), "{error}");
        let container = node.runtime.container(&id).await.unwrap();
        assert_eq!((container.exit_code, container.reason.as_deref()), (Some(128), Some("StartError")));
        assert!(container.message.unwrap().contains(text));
        node.runtime.remove_container(&id).await.unwrap();
    }
    let none =
        node.runtime.create_container(&sandbox.id, ContainerSpec { image: "none".to_owned(), ..node.shell("e", "") });
    assert!(matches!(none.await, Err(RuntimeError::NoImage(_))));
    let root = ContainerSpec { run_as_non_root: true, ..node.shell("c", "true") };
    let refused = node.runtime.create_container(&sandbox.id, root).await;
    assert!(matches!(refused, Err(RuntimeError::MayBeRoot(_))));
    let mut mount = node.shell("f", "true");
    mount.mounts = vec![Mount { source: "/does/not/exist".into(), target: "/x".to_owned(), read_only: true }];
    let id = node.runtime.create_container(&sandbox.id, mount).await.unwrap();
    let error = node.runtime.start_container(&id).await.unwrap_err().to_string();
    assert!(error.contains("/does/not/exist"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_survives_a_new_runtime() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let running = node.start(&sandbox, node.shell("running", "while :; do echo tick; sleep 0.02; done")).await;
    let (done, _) = node.run(&sandbox, node.shell("done", "exit 5")).await;
    let ends_meanwhile = node.start(&sandbox, node.shell("meanwhile", "sleep 0.3; exit 6")).await;
    let pid = node.runtime.container(&running).await.unwrap().pid;
    node.restart().await;
    assert_eq!(node.runtime.list_sandboxes().await.len(), 1);
    assert_eq!(node.runtime.list_containers(Some(&sandbox.id)).await.len(), 3);
    assert_eq!(node.runtime.container(&running).await.unwrap().pid, pid);
    assert_eq!(node.runtime.container(&done.id).await.unwrap().exit_code, Some(5));
    assert_eq!(node.exited(&ends_meanwhile).await.exit_code, Some(6));
    let log = node.runtime.container(&running).await.unwrap().log_path;
    let before = log_text(&log).len();
    assert_eq!(node.exec(&running, "echo again").await.1, "again\n");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(log_text(&log).len() > before);
    node.runtime.stop_container(&running, Duration::ZERO).await.unwrap();
    assert_eq!(node.exited(&running).await.exit_code, Some(137));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_shim_takes_its_pod_along_and_is_noticed() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let id = node.start(&sandbox, node.shell("c", "sleep 1000 & sleep 1000")).await;
    let container = node.runtime.container(&id).await.unwrap();
    let mut events = node.runtime.events();
    harness::kill(shim_of(&sandbox));
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.push(tokio::time::timeout(MULTI, events.recv()).await.unwrap().unwrap());
    }
    assert_eq!(seen[1], RuntimeEvent::SandboxExited { sandbox_id: sandbox.id.clone() });
    let ended = node.runtime.container(&id).await.unwrap();
    assert_eq!((ended.state, ended.exit_code), (ContainerState::Exited, Some(137)));
    assert_eq!(ended.reason.as_deref(), Some("ContainerStatusUnknown"));
    assert!(!std::path::Path::new(&format!("/proc/{}/root/bin", container.pid.unwrap())).exists());
    assert_eq!(node.runtime.list_sandboxes().await[0].state, SandboxState::NotReady);
    // A runtime that was not there sees the same, and can clear up.
    node.restart().await;
    assert_eq!(node.runtime.container(&id).await.unwrap().exit_code, Some(137));
    let late = node.runtime.exec_sync(&id, vec!["true".to_owned()], MULTI, 1).await;
    assert!(matches!(late, Err(RuntimeError::SandboxEnded(_))), "{late:?}");
    node.runtime.remove_container(&id).await.unwrap();
    node.runtime.remove_sandbox(&sandbox.id).await.unwrap();
    assert!(node.runtime.list_sandboxes().await.is_empty());
}

/// On one thread: while this test does not wait, no runtime is there to notice and to help.
#[tokio::test]
async fn containers_die_with_their_shim_unaided() {
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let root = node.start(&sandbox, node.shell("root", "sleep 1000")).await;
    let user = node.start(&sandbox, ContainerSpec { user: Some(1000), ..node.shell("user", "sleep 1000") }).await;
    for id in [root, user] {
        let pid = node.runtime.container(&id).await.unwrap().pid.unwrap();
        assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
    }
    let pids: Vec<_> = node.runtime.list_containers(None).await.into_iter().filter_map(|it| it.pid).collect();
    harness::kill(shim_of(&sandbox));
    let deadline = Instant::now() + MULTI;
    while pids.iter().any(|pid| std::path::Path::new(&format!("/proc/{pid}")).exists()) {
        assert!(Instant::now() < deadline, "containers live on");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn shim_of(sandbox: &control_runtime::Sandbox) -> i32 {
    sandbox.netns.components().nth(2).unwrap().as_os_str().to_str().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_can_write_to_the_program_of_a_shim() {
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let program = format!("/proc/{}/exe", shim_of(&sandbox));
    let file_system = nix::sys::statvfs::statvfs(program.as_str()).unwrap();
    assert!(file_system.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY));
    // While it runs it is busy, but a container may wait for that to end.
    assert!(fs::OpenOptions::new().write(true).open(program).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn removal_leaves_nothing() {
    let node = Node::new().await;
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let sandbox = node.sandbox("p").await;
    let id = node.start(&sandbox, node.shell("c", "trap '' TERM; sleep 1000")).await;
    let pid = node.runtime.container(&id).await.unwrap().pid.unwrap();
    node.run(&sandbox, node.shell("d", "true")).await;
    // Nothing of a running container is mounted where others see it.
    let marks = |text: &str| text.lines().filter(|line| line.contains(node.dir.path().to_str().unwrap())).count();
    assert_eq!(marks(&fs::read_to_string("/proc/self/mountinfo").unwrap()), marks(&mounts));
    node.runtime.remove_container(&id).await.unwrap();
    assert!(node.runtime.container(&id).await.is_none());
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    node.runtime.stop_sandbox(&sandbox.id).await.unwrap();
    assert_eq!(node.runtime.list_sandboxes().await[0].state, SandboxState::NotReady);
    node.runtime.remove_sandbox(&sandbox.id).await.unwrap();
    assert!(node.runtime.list_sandboxes().await.is_empty());
    assert!(node.runtime.list_containers(None).await.is_empty());
    for dir in ["run", "containers", "images/leases"] {
        let left: Vec<_> = fs::read_dir(node.dir.path().join(dir)).unwrap().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }
    let left = node.cgroups().into_iter().map(|group| group.join("kubepods/burstable/pod-p"));
    assert_eq!(left.filter(|group| group.exists()).count(), 0);
    assert!(!sandbox.netns.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_a_terminal() {
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let spec = ContainerSpec { tty: true, stdin: true, ..node.shell("c", "tty; echo $TERM; echo err >&2") };
    let (container, log) = node.run(&sandbox, spec).await;
    assert_eq!(container.exit_code, Some(0), "{log}");
    assert!(log.starts_with("/dev/pts/0\nxterm\nerr"), "{log:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn host_pods_live_in_the_nodes_namespaces() {
    let node = Node::new().await;
    let mut spec = node.sandbox_spec("p");
    (spec.host_network, spec.host_pid, spec.host_ipc) = (true, true, true);
    let sandbox = node.runtime.run_sandbox(spec).await.unwrap();
    let script = "stat -L -c %i /proc/self/ns/net /proc/self/ns/pid /proc/self/ns/ipc; sleep 1000 &";
    let (container, log) = node.run(&sandbox, node.shell("c", script)).await;
    let inode =
        |name: &str| std::os::unix::fs::MetadataExt::ino(&fs::metadata(format!("/proc/self/ns/{name}")).unwrap());
    assert_eq!(log, format!("{}\n{}\n{}\n", inode("net"), inode("pid"), inode("ipc")));
    // The background process does not outlive its container, though no PID namespace ends it.
    node.runtime.remove_container(&container.id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sysctls_are_the_pods_own() {
    let node = Node::new().await;
    let mut spec = node.sandbox_spec("p");
    spec.sysctls = [("net.core.somaxconn".to_owned(), "77".to_owned())].into();
    let sandbox = node.runtime.run_sandbox(spec.clone()).await.unwrap();
    let (_, log) = node.run(&sandbox, node.shell("c", "cat /proc/sys/net/core/somaxconn")).await;
    assert_eq!(log, "77\n");
    assert_ne!(fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap(), "77\n");
    spec.sysctls = [("kernel.panic".to_owned(), "1".to_owned())].into();
    let error = node.runtime.run_sandbox(spec).await.unwrap_err().to_string();
    assert!(error.contains("kernel.panic"), "{error}");
    assert_eq!(node.runtime.list_sandboxes().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn long_output_is_neither_lost_nor_mixed() {
    let node = Node::new().await;
    let sandbox = node.sandbox("p").await;
    let script =
        "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; head -c 40000 /dev/zero; echo; echo -n end";
    let (container, log) = node.run(&sandbox, node.shell("c", script)).await;
    assert_eq!(container.exit_code, Some(0));
    let lines: Vec<_> = log.lines().collect();
    assert!((0..20_000).all(|number| lines[number] == format!("line {number}")));
    assert_eq!(lines[20_000..20_003].iter().map(|line| line.len()).sum::<usize>(), 40_000);
    assert_eq!(lines.last(), Some(&"end"));
}
