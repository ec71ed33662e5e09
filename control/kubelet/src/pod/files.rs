//! Files that every pod gets from the node: hosts, host name, resolver, termination messages, logs.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use control_runtime::{Container as Instance, Mount};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::context::Settings;
use crate::spec::pod_ref::PodRef;
use crate::spec::{dns, hosts};

const TERMINATION_PATH: &str = "/dev/termination-log";
const TERMINATION_MESSAGE_MAX: usize = 4_096;
const FALLBACK_MAX: u64 = 2_048;
const FALLBACK_LINES: usize = 80;

/// Writes the pod's own files; done whenever its addresses may have changed.
pub(crate) fn write_pod_files(pod: &Pod, pod_dir: &Path, pod_ips: &[IpAddr], settings: &Settings) -> io::Result<()> {
    fs::create_dir_all(pod_dir)?;
    let hosts = hosts::file(pod, pod_ips, &settings.dns.domain, &settings.node_hosts_file);
    fs::write(pod_dir.join("etc-hosts"), hosts)?;
    fs::write(pod_dir.join("etc-hostname"), format!("{}\n", pod.host_name()))?;
    fs::write(pod_dir.join("resolv.conf"), dns::file(pod, &settings.dns))
}

/// Mounts of these files, except where the container mounts something of its own.
pub(crate) fn mounts(pod: &Pod, container: &Container, pod_dir: &Path, attempt: u32) -> io::Result<Vec<Mount>> {
    let own = |target: &str| {
        container.volume_mounts.iter().flatten().any(|mount| mount.mount_path.trim_end_matches('/') == target)
    };
    let mut files = vec![("etc-hosts", "/etc/hosts"), ("resolv.conf", "/etc/resolv.conf")];
    if !pod.host_network() {
        files.push(("etc-hostname", "/etc/hostname"));
    }
    let mut mounts: Vec<Mount> = files
        .into_iter()
        .filter(|(_, target)| !own(target))
        .map(|(source, target)| Mount { source: pod_dir.join(source), target: target.into(), read_only: false })
        .collect();
    let target = container.termination_message_path.clone().filter(|path| !path.is_empty());
    let target = target.unwrap_or_else(|| TERMINATION_PATH.into());
    let source = termination_file(pod_dir, &container.name, attempt);
    if let Some(parent) = source.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(&source, "")?;
    // The container's user is not known here.
    fs::set_permissions(&source, fs::Permissions::from_mode(0o666))?;
    mounts.push(Mount { source, target, read_only: false });
    Ok(mounts)
}

pub(crate) fn log_path(pod_dir: &Path, container: &str, attempt: u32) -> PathBuf {
    pod_dir.join("logs").join(container).join(format!("{attempt}.log"))
}

/// Removes what an instance left that is not shown any more.
pub(crate) fn forget_instance(pod_dir: &Path, container: &str, attempt: u32) {
    let log = log_path(pod_dir, container, attempt);
    let _ = fs::remove_file(termination_file(pod_dir, container, attempt));
    let prefix = format!("{attempt}.log");
    let entries = log.parent().and_then(|directory| fs::read_dir(directory).ok());
    for entry in entries.into_iter().flatten().flatten() {
        let name = entry.file_name();
        let rotated = name
            .to_str()
            .and_then(|name| name.strip_prefix(&prefix))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        if rotated {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// What an ended instance says of its end: its message file, or the end of its log if it asks for that.
pub(crate) fn termination_message(pod: &Pod, pod_dir: &Path, instance: &Instance) -> Option<String> {
    let file = termination_file(pod_dir, &instance.name, instance.attempt);
    let mut bytes = Vec::new();
    if let Ok(file) = fs::File::open(file) {
        let limit = TERMINATION_MESSAGE_MAX as u64;
        let _ = file.take(limit).read_to_end(&mut bytes);
    }
    if !bytes.is_empty() {
        return Some(String::from_utf8_lossy(&bytes).into_owned());
    }
    let container = pod.container(&instance.name)?;
    let falls_back = container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
    if !falls_back || instance.exit_code == Some(0) {
        return None;
    }
    log_end(&log_path(pod_dir, &instance.name, instance.attempt)).filter(|text| !text.is_empty())
}

fn log_end(path: &Path) -> Option<String> {
    let mut file = fs::File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    // Time and stream before each line make the file longer than its text.
    let window = FALLBACK_MAX * 4;
    file.seek(SeekFrom::Start(length.saturating_sub(window))).ok()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).collect();
    let mut end = lines[lines.len().saturating_sub(FALLBACK_LINES)..].join("\n");
    let excess = end.len().saturating_sub(usize::try_from(FALLBACK_MAX).unwrap_or(usize::MAX));
    let start = (excess..=end.len()).find(|at| end.is_char_boundary(*at)).unwrap_or(end.len());
    end.drain(..start);
    Some(end)
}

fn termination_file(pod_dir: &Path, container: &str, attempt: u32) -> PathBuf {
    pod_dir.join("containers").join(container).join(attempt.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_may_bring_its_own_hosts_file() {
        let directory = tempfile::tempdir().unwrap();
        let pod: Pod = serde_json::from_value(serde_json::json!({"spec": {"containers": [
            {"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/etc/hosts"}]}]}}))
        .unwrap();
        let mounts = mounts(&pod, &pod.containers()[0], directory.path(), 0).unwrap();
        let targets: Vec<&str> = mounts.iter().map(|mount| mount.target.as_str()).collect();
        assert_eq!(targets, ["/etc/resolv.conf", "/etc/hostname", TERMINATION_PATH]);
    }

    #[test]
    fn the_end_of_the_log_can_be_the_message() {
        let directory = tempfile::tempdir().unwrap();
        let log = log_path(directory.path(), "c", 1);
        fs::create_dir_all(log.parent().unwrap()).unwrap();
        let lines: String = (0..100).map(|i| format!("2026-01-01T00:00:00.0Z stderr F line {i}\n")).collect();
        fs::write(&log, lines).unwrap();
        let end = log_end(&log).unwrap();
        assert!(end.starts_with("line 20\n") && end.ends_with("line 99"), "{end}");
    }

    #[test]
    fn forgetting_an_instance_takes_its_rotated_logs_only() {
        let directory = tempfile::tempdir().unwrap();
        let logs = directory.path().join("logs/c");
        fs::create_dir_all(&logs).unwrap();
        for name in ["1.log", "1.log.20260101", "11.log", "2.log"] {
            fs::write(logs.join(name), "").unwrap();
        }
        forget_instance(directory.path(), "c", 1);
        let mut left: Vec<_> = fs::read_dir(&logs).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["11.log", "2.log"]);
    }
}
