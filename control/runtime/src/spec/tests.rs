use super::*;
use crate::container::Mount;

fn container() -> ContainerSpec {
    ContainerSpec { name: "c".to_owned(), image: "i".to_owned(), log_path: "/log".into(), ..ContainerSpec::default() }
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

fn image() -> ImageRoot {
    ImageRoot { entrypoint: strings(&["/entry"]), cmd: strings(&["image-arg"]), ..ImageRoot::default() }
}

fn build_on(container: &ContainerSpec, image: &ImageRoot, legacy: &[(PathBuf, PathBuf)]) -> Result<Built, String> {
    build(&Input {
        container,
        image,
        hostname: "pod-0",
        credentials: &Credentials { uid: 0, gid: 0, groups: vec![0] },
        available: Capabilities((1 << 41) - 1),
        rootfs: Path::new("/rootfs"),
        cgroup: "/kubepods/c",
        legacy_cgroups: legacy,
        swap_accounting: false,
        shm: Path::new("/run/shm"),
        pid_namespace: PidNamespace::Own,
        devices: &[],
    })
}

fn built(container: &ContainerSpec, image: &ImageRoot) -> Value {
    build_on(container, image, &[]).unwrap().config
}

fn mount_options<'a>(config: &'a Value, target: &str) -> Option<&'a Value> {
    let mounts = config["mounts"].as_array().unwrap();
    mounts.iter().find(|mount| mount["destination"] == target).map(|mount| &mount["options"])
}

#[test]
fn the_result_is_a_valid_oci_spec() {
    let config = built(&container(), &image());
    let spec: oci_spec::runtime::Spec = serde_json::from_value(config.clone()).unwrap();
    assert_eq!(spec.process().as_ref().unwrap().cwd(), Path::new("/"));
    let exec: oci_spec::runtime::Process =
        serde_json::from_value(exec_process(&config, &strings(&["ls", "/"]), false)).unwrap();
    assert_eq!(exec.args().as_ref().unwrap(), &["ls", "/"]);
}

#[test]
fn commands_and_arguments_follow_kubernetes() {
    for (command, args, want) in [
        (&[][..], &[][..], &["/entry", "image-arg"][..]),
        (&[], &["a"], &["/entry", "a"]),
        (&["/c"], &[], &["/c"]),
        (&["/c"], &["a"], &["/c", "a"]),
    ] {
        let container = ContainerSpec { command: strings(command), args: strings(args), ..container() };
        assert_eq!(built(&container, &image())["process"]["args"], json!(want), "{command:?} {args:?}");
    }
    assert!(build_on(&container(), &ImageRoot::default(), &[]).is_err());
}

#[test]
fn later_variables_win() {
    let image = ImageRoot { env: strings(&["PATH=/image", "A=1", "AB=2"]), ..image() };
    let container = ContainerSpec { env: vec![("A".to_owned(), "x=y".to_owned())], ..container() };
    let env = &built(&container, &image)["process"]["env"];
    assert_eq!(*env, json!(["HOSTNAME=pod-0", "PATH=/image", "AB=2", "A=x=y"]));
}

#[test]
fn a_pods_mount_replaces_a_default_and_outer_ones_come_first() {
    let mount = |target: &str| Mount { source: "/s".into(), target: target.to_owned(), read_only: true };
    let container = ContainerSpec { mounts: vec![mount("/a/b/"), mount("/dev/shm"), mount("/a")], ..container() };
    let config = built(&container, &image());
    let targets: Vec<_> = config["mounts"].as_array().unwrap().iter().map(|it| it["destination"].clone()).collect();
    assert_eq!(targets.iter().filter(|target| *target == "/dev/shm").count(), 1);
    assert_eq!(targets[targets.len() - 3..], ["/a", "/a/b", "/dev/shm"]);
    assert_eq!(mount_options(&config, "/a"), Some(&json!(["rbind", "rprivate", "ro"])));
}

#[test]
fn seccomp_needs_a_right_only_without_no_new_privileges() {
    let plain = built(&container(), &image());
    let has_admin = |config: &Value, set: &str| {
        config["process"]["capabilities"][set].as_array().unwrap().contains(&json!("CAP_SYS_ADMIN"))
    };
    assert!(has_admin(&plain, "permitted") && !has_admin(&plain, "bounding"));
    let strict = built(&ContainerSpec { no_new_privileges: true, ..container() }, &image());
    assert!(!has_admin(&strict, "permitted"));
    assert_eq!(strict["process"]["noNewPrivileges"], true);
}

#[test]
fn privileged_containers_see_the_kernel() {
    let config = built(&ContainerSpec { privileged: true, ..container() }, &image());
    assert_eq!(config["linux"]["maskedPaths"], Value::Null);
    assert_eq!(config["linux"]["resources"]["devices"][0]["allow"], true);
    assert!(mount_options(&config, "/sys").unwrap().as_array().unwrap().contains(&json!("rw")));
    let plain = built(&container(), &image());
    assert!(plain["linux"]["maskedPaths"].as_array().unwrap().contains(&json!("/proc/kcore")));
    assert_eq!(plain["linux"]["resources"]["devices"][0]["allow"], false);
}

#[test]
fn cgroups_are_shown_read_only_on_both_versions() {
    let legacy = [(PathBuf::from("/sys/fs/cgroup/memory"), PathBuf::from("/sys/fs/cgroup/memory/kubepods/c"))];
    let v1 = build_on(&container(), &image(), &legacy).unwrap().config;
    assert!(mount_options(&v1, "/sys/fs/cgroup/memory").unwrap().as_array().unwrap().contains(&json!("ro")));
    assert!(!v1["linux"]["namespaces"].as_array().unwrap().contains(&json!({ "type": "cgroup" })));
    let v2 = built(&container(), &image());
    assert!(mount_options(&v2, "/sys/fs/cgroup").unwrap().as_array().unwrap().contains(&json!("ro")));
    assert!(v2["linux"]["namespaces"].as_array().unwrap().contains(&json!({ "type": "cgroup" })));
}

#[test]
fn limits_of_zero_are_no_limits() {
    let none =
        Resources { cpu_shares: Some(0), memory_limit_bytes: Some(0), pids_limit: Some(-1), ..Resources::default() };
    assert_eq!(resources(&none, false, true), json!({ "devices": [{ "allow": false, "access": "rwm" }] }));
    let some = Resources {
        cpu_shares: Some(512),
        cpu_quota_us: Some(50_000),
        cpu_period_us: Some(100_000),
        memory_limit_bytes: Some(1 << 20),
        pids_limit: Some(10),
        oom_score_adj: None,
    };
    let value = resources(&some, false, true);
    assert_eq!(value["cpu"], json!({ "shares": 512, "quota": 50_000, "period": 100_000 }));
    assert_eq!(value["memory"], json!({ "limit": 1 << 20, "swap": 1 << 20 }));
    assert_eq!(value["pids"], json!({ "limit": 10 }));
}
