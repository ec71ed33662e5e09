//! `cargo xtask tidy`: the rules of the repository, as checks.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::exec::{self, command};

/// What each crate of ours may depend on, of ours. A crate that is not named here is a finding.
const ARROWS: &[(&str, &[&str])] = &[
    ("dataplane-abi", &[]),
    ("dataplane-logic", &["dataplane-abi"]),
    ("dataplane-ebpf", &["dataplane-abi", "dataplane-logic"]),
    ("dataplane-plan", &["dataplane-abi"]),
    ("daemon", &[]),
    ("dataplane-user", &["daemon", "dataplane-abi", "dataplane-logic", "dataplane-plan"]),
    ("ingress-route", &[]),
    ("ingress", &["daemon", "ingress-route"]),
    ("control-store", &[]),
    ("control-api", &[]),
    ("control-apiserver", &["control-api", "control-store", "daemon"]),
    ("control-controllers", &["control-api"]),
    ("control-dns", &["daemon"]),
    ("control-scheduler", &[]),
    ("control-runtime", &[]),
    ("control-kubelet", &["control-runtime", "daemon", "dataplane-user"]),
    (
        "tidegate",
        &[
            "control-apiserver",
            "control-controllers",
            "control-dns",
            "control-kubelet",
            "control-runtime",
            "control-scheduler",
            "control-store",
            "daemon",
            "dataplane-user",
            "ingress",
        ],
    ),
    ("bare-proxy", &[]),
    ("echo", &[]),
    ("ports", &[]),
    ("xtask", &["control-api", "ports"]),
];
/// Integration tests may use everything.
const UNBOUND: &[&str] = &["tidegate-tests"];

/// A file longer than this is looked at; one longer than the limit is a finding.
const LINES_LOOK: usize = 600;
const LINES_MAX: usize = 1000;

/// Words that betray one machine: absolute paths of a work place.
const MACHINE_WORDS: &[&str] = &["/home/", "\"/root/", " /root/", "/Users/"];

pub(crate) fn run() -> anyhow::Result<()> {
    let mut findings = arrows()?;
    let files = exec::read(command("git").args(["ls-files", "--cached", "--others", "--exclude-standard"]))?;
    for file in files.lines() {
        let path = exec::root().join(file);
        // Deleted in the work tree but not yet in the index.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        if file.ends_with(".rs") {
            findings.extend(source(file, &text));
        }
        if !file.ends_with("tidy.rs") {
            findings.extend(machine_words(file, &text));
        }
    }
    for finding in &findings {
        println!("tidy: {finding}");
    }
    if findings.is_empty() {
        println!("tidy: ok ({} files)", files.lines().count());
        return Ok(());
    }
    bail!("{} findings", findings.len())
}

/// Dependencies between our crates that ARCHITECTURE.md does not allow, and manifests that opt out of the lints.
fn arrows() -> anyhow::Result<Vec<String>> {
    let text = exec::read(command("cargo").args(["metadata", "--format-version=1", "--no-deps", "--offline"]))?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata is not JSON")?;
    let packages = metadata["packages"].as_array().context("cargo metadata has no packages")?;
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let ours: Vec<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let mut findings = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let manifest = Path::new(package["manifest_path"].as_str().unwrap_or_default());
        if !fs::read_to_string(manifest)?.contains("[lints]\nworkspace = true") {
            findings.push(format!("{name}: its manifest lacks `[lints] workspace = true`"));
        }
        if UNBOUND.contains(&name) {
            continue;
        }
        let Some(allowed) = allowed.get(name) else {
            findings.push(format!("{name}: not in the table of allowed arrows (xtask/src/tidy.rs)"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let target = dependency["name"].as_str().unwrap_or_default();
            let is_test_only = dependency["kind"].as_str() == Some("dev");
            if ours.contains(&target) && !is_test_only && !allowed.contains(&target) {
                findings.push(format!("{name} → {target}: this arrow is not allowed"));
            }
        }
    }
    Ok(findings)
}

fn source(file: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    // A `tests.rs` is its parent's second half; its parent says the purpose.
    let needs_purpose = !file.ends_with("/tests.rs") && !text.starts_with("// @generated");
    if needs_purpose && !text.starts_with("//!") {
        findings.push(format!("{file}: starts with no `//!` sentence that says its purpose"));
    }
    let lines = text.lines().take_while(|line| !line.starts_with("mod tests {")).count();
    if lines > LINES_MAX && !text.starts_with("// @generated") {
        findings.push(format!("{file}: {lines} lines before its tests (limit {LINES_MAX})"));
    } else if lines > LINES_LOOK {
        println!("tidy: look: {file} has {lines} lines; is it still one idea?");
    }
    for (number, line) in text.lines().enumerate() {
        if line.contains(concat!("#[", "ignore"))
            || line.contains(concat!("TO", "DO"))
            || line.contains(concat!("FIX", "ME"))
        {
            findings.push(format!("{file}:{}: unfinished or ignored: {}", number + 1, line.trim()));
        }
    }
    findings
}

fn machine_words(file: &str, text: &str) -> Vec<String> {
    let found = |line: &str| MACHINE_WORDS.iter().any(|word| line.contains(word));
    text.lines()
        .enumerate()
        .filter(|(_, line)| found(line))
        .map(|(number, line)| format!("{file}:{}: a path of one machine: {}", number + 1, line.trim()))
        .collect()
}
