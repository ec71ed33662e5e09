//! What a person gets wrong, and what a disk does: clear messages through the real program, nothing half-applied, nothing
//! else disturbed.

#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tidegate_tests::control::{Control, program};

const VERSIONS: [&str; 2] = ["1.32", "1.37"];
const PATIENCE: Duration = Duration::from_secs(20);

const GOOD: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: good}
spec: {selector: {app: good}, ports: [{port: 80}]}
"#;

#[track_caller]
fn ok(control: &Control, version: &str, arguments: &str, input: &str) -> String {
    let output = control.kubectl(version, arguments, input);
    assert!(output.status.success(), "kubectl {version} {arguments}: {}", complaint(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a command that fails says, with kubectl's exit code for errors.
#[track_caller]
fn refused(control: &Control, version: &str, arguments: &str, input: &str) -> String {
    let output = control.kubectl(version, arguments, input);
    assert_eq!(output.status.code(), Some(1), "kubectl {version} {arguments}: {}", complaint(&output));
    complaint(&output)
}

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Bad input leaves no object behind, and the next good input is taken.
#[track_caller]
fn check_unharmed(control: &Control, version: &str) {
    assert_eq!(ok(control, version, "get services -l bad=yes -o name", ""), "");
    ok(control, version, "apply -f -", GOOD);
    ok(control, version, "delete -f -", GOOD);
}

/// Runs a test with the oldest and the newest kubectl.
fn with_each(test: impl Fn(&Control, &str)) {
    let dir = tempfile::tempdir().unwrap();
    let mut control = Control::new(dir.path());
    control.start();
    for version in VERSIONS {
        test(&control, version);
        check_unharmed(&control, version);
    }
    control.assert_running();
}

#[test]
fn a_malformed_manifest() {
    with_each(|control, version| {
        let yaml = refused(control, version, "apply -f -", "kind: Service\n  name: [");
        assert!(yaml.starts_with("error: error parsing STDIN: error converting YAML to JSON: yaml: line 2"), "{yaml}");
        let kind = refused(
            control,
            version,
            "apply --validate=false -f -",
            "apiVersion: v1\nkind: Servise\nmetadata: {name: x}\n",
        );
        assert!(kind.contains("no matches for kind \"Servise\" in version \"v1\""), "{kind}");
        // What kubectl would not send, sent as it is.
        let path = "create --raw /api/v1/namespaces/default/services -f -";
        let torn = refused(control, version, path, r#"{"kind": "Service", "metadata": {"name": "x""#);
        assert!(torn.starts_with("Error from server (BadRequest): "), "{torn}");
        let wrong = "apiVersion: v1\nkind: Service\nmetadata: {name: x, labels: {bad: 'yes'}}\nspec: {ports: 80}\n";
        let wrong = refused(control, version, "apply --validate=false -f -", wrong);
        assert!(wrong.starts_with("Error from server (BadRequest): "), "{wrong}");
        assert!(wrong.contains("spec.ports"), "{wrong}");
    });
}

#[test]
fn an_unknown_field() {
    with_each(|control, version| {
        let bad = GOOD.replace("selector:", "selectors:").replace("{name: good}", "{name: good, labels: {bad: 'yes'}}");
        let strict = refused(control, version, "apply -f -", &bad);
        assert!(strict.contains("strict decoding error: unknown field \"spec.selectors\""), "{strict}");
        assert!(strict.starts_with("Error from server (BadRequest): "), "{strict}");
        check_unharmed(control, version);
        // Asked only to warn, the server takes the rest.
        let warned = control.kubectl(version, "apply --validate=warn -f -", &bad);
        assert!(warned.status.success(), "{}", complaint(&warned));
        assert!(complaint(&warned).contains("Warning: unknown field \"spec.selectors\""), "{}", complaint(&warned));
        ok(control, version, "delete service good", "");
    });
}

#[test]
fn an_invalid_port() {
    with_each(|control, version| {
        for (port, message) in
            [("70000", "must be between 1 and 65535, inclusive"), ("-1", "must be between 1 and 65535, inclusive")]
        {
            let bad = GOOD.replace("80", port).replace("{name: good}", "{name: good, labels: {bad: 'yes'}}");
            let said = refused(control, version, "apply -f -", &bad);
            let wanted =
                format!("The Service \"good\" is invalid: \n* spec.ports[0].port: Invalid value: {port}: {message}");
            let single = wanted.replace("\n* ", "");
            assert!(said.starts_with(&wanted) || said.starts_with(&single), "{said}");
        }
        let bad = GOOD
            .replace("{port: 80}", "{port: 80, targetPort: No_Such}")
            .replace("{name: good}", "{name: good, labels: {bad: 'yes'}}");
        let said = refused(control, version, "apply -f -", &bad);
        assert!(said.contains("spec.ports[0].targetPort: Invalid value: \"No_Such\""), "{said}");
        // Text where a number belongs does not even decode.
        let said = refused(control, version, "apply --validate=false -f -", &bad.replace("port: 80", "port: eighty"));
        assert!(said.starts_with("Error from server (BadRequest): ") && said.contains("port"), "{said}");
    });
}

/// Every file of a directory, with its contents.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

#[test]
fn a_data_directory_of_another_version() {
    let dir = tempfile::tempdir().unwrap();
    let mut control = Control::new(dir.path());
    control.start();
    ok(&control, "1.37", "create configmap kept --from-literal=a=b", "");
    control.kill();
    let format = dir.path().join("store/format");
    let ours = fs::read(&format).unwrap();
    fs::write(&format, "tidegate-store 99\n").unwrap();
    fs::remove_file(dir.path().join("control.log")).unwrap();
    let before = files(dir.path());

    let args = ["--node-name", "bad-input", "--data-dir"];
    let up = Command::new(program()).args(["up", "--sandbox"]).args(args).arg(dir.path()).output().unwrap();
    let mut command = control.command();
    let serving = command.status().unwrap();
    let log = control.log();
    fs::remove_file(dir.path().join("control.log")).unwrap();
    for (code, said) in [(up.status.code(), complaint(&up)), (serving.code(), log)] {
        assert_eq!(code, Some(1), "{said}");
        for part in ["\"tidegate-store 99\"", "\"tidegate-store 1\"", "use the version of the program that wrote it"] {
            assert!(said.contains(part), "{part} is missing in: {said}");
        }
        assert!(!said.contains("panicked"), "{said}");
    }
    assert_eq!(files(dir.path()), before, "the data directory was changed");
    assert!(!Path::new("/run/tidegate/bad-input").exists(), "a node was begun");

    fs::write(&format, ours).unwrap();
    control.start();
    assert_eq!(ok(&control, "1.37", "get configmap kept -o jsonpath={.data.a}", ""), "b");
}

#[test]
fn what_up_refuses_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = listener.local_addr().unwrap().port().to_string();
    let free: Vec<String> = (0..3).map(|_| ports::free().port().to_string()).collect();
    let missing = dir.path().join("missing").display().to_string();
    let up = |change: &[&str]| {
        let mut command = Command::new(program());
        command.args(["up", "--sandbox", "--node-name", "refused", "--data-dir"]).arg(&data);
        let mut flags =
            BTreeMap::from([("--api-port", &*free[0]), ("--http-port", &*free[1]), ("--https-port", &*free[2])]);
        flags.extend(change.chunks(2).map(|pair| (pair[0], pair[1])));
        flags.iter().for_each(|(flag, value)| {
            command.args([flag, value]);
        });
        command
    };
    let busy_text = format!("port {busy} of 127.0.0.1 is in use by another process; give another one with --http-port");
    let cases: [(&[&str], i32, &str); 4] = [
        (&["--preload", &missing], 1, "missing: No such file or directory"),
        (&["--api-port", "0"], 2, "invalid value '0' for '--api-port <API_PORT>': 0 is not in 1..=65535"),
        (&["--http-port", &busy], 1, &busy_text),
        (&["--https-port", &free[0]], 1, "--api-port and --https-port are both"),
    ];
    for (change, code, expected) in cases {
        for detach in [false, true] {
            let mut command = up(change);
            let output = command.args(detach.then_some("--detach")).output().unwrap();
            let said = complaint(&output);
            assert_eq!(output.status.code(), Some(code), "{change:?}: {said}");
            assert!(said.contains(expected), "{expected:?} is missing in: {said}");
            assert!(!data.exists() && !Path::new("/run/tidegate/refused").exists(), "{change:?} left something");
        }
    }
}

/// Takes all the space that a file system has left.
fn fill(ballast: &Path) {
    let mut file = File::options().create(true).append(true).open(ballast).unwrap();
    for size in [1 << 16, 1 << 12] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}

/// Creates ConfigMaps until one is refused. Returns what was said then.
fn create_until_refused(control: &Control, kept: &mut Vec<String>) -> String {
    let filler = "x".repeat(20_000);
    for number in 0..1000 {
        let name = format!("m{}-{number}", kept.len());
        let map = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{filler: {filler}}}\n");
        let output = control.kubectl("1.37", "create -f -", &map);
        if !output.status.success() {
            assert_eq!(output.status.code(), Some(1));
            return complaint(&output);
        }
        kept.push(name);
    }
    panic!("the disk does not fill up");
}

#[test]
fn a_full_disk() {
    // On a thread of its own, whose mounts nobody else sees.
    std::thread::spawn(full_disk).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn full_disk() {
    let dir = tempfile::tempdir().unwrap();
    unshare(CloneFlags::CLONE_NEWNS).expect("this test needs root: it mounts a small file system");
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some("size=16m")).unwrap();
    let ballast = dir.path().join("ballast");
    let mut control = Control::new(dir.path());
    control.start();
    let mut kept = Vec::new();
    fill(&ballast);

    let said = create_until_refused(&control, &mut kept);
    assert!(said.starts_with("Error from server (InsufficientStorage): "), "{said}");
    assert!(said.contains("no space left on the disk of the data directory: nothing was written"), "{said}");
    fill(&ballast);
    check_kept(&mut control, &kept);
    // Again and again, and after a restart.
    for _ in 0..3 {
        create_until_refused(&control, &mut kept);
    }
    fill(&ballast);
    if let Some(name) = kept.pop() {
        ok(&control, "1.37", &format!("delete configmap {name}"), "");
    }
    fill(&ballast);
    control.kill();
    control.start();
    check_kept(&mut control, &kept);
    create_until_refused(&control, &mut kept);

    fs::remove_file(&ballast).unwrap();
    let started = Instant::now();
    while !control.kubectl("1.37", "create configmap again --from-literal=a=b", "").status.success() {
        assert!(started.elapsed() < PATIENCE, "writes are still refused:\n{}", control.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    kept.push("again".into());
    check_kept(&mut control, &kept);
    control.kill();
    control.start();
    check_kept(&mut control, &kept);
    assert!(!control.log().contains("panicked"), "{}", control.log());
}

/// The process runs, and has exactly what it acknowledged.
fn check_kept(control: &mut Control, kept: &[String]) {
    control.assert_running();
    let mut kept: Vec<String> = kept.iter().map(|name| format!("configmap/{name}")).collect();
    kept.sort();
    let found = ok(control, "1.37", "get configmaps -n default -o name", "");
    let mut found: Vec<&str> = found.lines().filter(|name| !name.ends_with("/kube-root-ca.crt")).collect();
    found.sort_unstable();
    assert_eq!(found, kept);
}
