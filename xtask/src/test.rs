//! `cargo xtask test`: set-up, then every test, each layer counted.

use std::time::Instant;

use anyhow::bail;

use crate::exec::{self, command};
use crate::{build, demo, setup, tidy};

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Leave out the demo cluster.
    #[arg(long)]
    no_demo: bool,
    /// Run only the tests of durability, in their long form: 1,000 power losses, 100 kills, full and failing disks.
    #[arg(long)]
    faults: bool,
    /// Run only the families of kubectl commands and the Helm releases that take minutes, each against a whole cluster.
    #[arg(long, conflicts_with = "faults")]
    clusters: bool,
}

/// A layer of tests: its name and what runs it.
type Layer<'a> = (&'static str, Box<dyn Fn() -> anyhow::Result<()> + 'a>);

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    setup::run()?;
    if args.faults {
        return report(vec![("build", Box::new(build::run)), ("faults", Box::new(|| suite(Kind::Faults)))]);
    }
    if args.clusters {
        let clusters: Layer<'_> = ("whole clusters", Box::new(|| suite(Kind::Clusters)));
        return report(vec![("build", Box::new(build::run)), clusters]);
    }
    let mut layers: Vec<Layer<'_>> = vec![
        ("format", Box::new(|| exec::run(command("cargo").args(["fmt", "--all", "--check"])))),
        ("tidy", Box::new(tidy::run)),
        ("build", Box::new(build::run)),
        ("unit, property and component tests", Box::new(|| suite(Kind::Inner))),
        ("packet, namespace and kubectl tests", Box::new(|| suite(Kind::Crossing))),
    ];
    if !args.no_demo {
        layers.push(("demo", Box::new(|| demo::run(&demo::Args::check()))));
    }
    println!("\nleft out of this run, for minutes of load: `cargo xtask test --clusters`, `cargo xtask test --faults`");
    report(layers)
}

fn report(layers: Vec<Layer<'_>>) -> anyhow::Result<()> {
    let total = layers.len();
    let mut failed = Vec::new();
    for (name, layer) in layers {
        println!("\n=== {name}");
        let started = Instant::now();
        let result = layer();
        let word = if result.is_ok() { "passed" } else { "FAILED" };
        println!("=== {name}: {word} after {} s", started.elapsed().as_secs());
        if let Err(error) = result {
            println!("{error:#}");
            failed.push(name);
        }
    }
    println!("\nlayers: {} passed, {} failed", total - failed.len(), failed.len());
    if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
}

/// Tests beside the code, or those that cross crates and need a set-up machine, or the long forms of some of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Inner,
    Crossing,
    Clusters,
    Faults,
}

/// Test binaries that take minutes against a cluster of their own.
const CLUSTERS: [&str; 10] = [
    "daemon_sets",
    "deployments",
    "disruptions",
    "helm",
    "jobs",
    "notebook",
    "older_kinds",
    "pods",
    "quotas",
    "stateful_sets",
];
/// Test binaries with a long form, which prints what it counted.
const FAULTS: [&str; 2] = ["power_loss", "durability"];

/// Runs test binaries with nextest where it is installed, with cargo's own runner elsewhere. The release profile is used
/// because the program is built with it anyway, and always the whole workspace is selected: another selection means other
/// features, and every dependency compiled once more.
fn suite(kind: Kind) -> anyhow::Result<()> {
    const CROSSING: &str = "tidegate-tests";
    let any_of = |names: &[&str]| names.iter().map(|name| format!("binary({name})")).collect::<Vec<_>>().join(" or ");
    let nextest =
        exec::output(command("cargo").args(["nextest", "--version"])).is_ok_and(|found| found.status.success());
    let mut cargo = command("cargo");
    if nextest {
        let filter = match kind {
            Kind::Inner => format!("not package({CROSSING})"),
            Kind::Crossing => format!("package({CROSSING}) and not ({})", any_of(&CLUSTERS)),
            Kind::Clusters => any_of(&CLUSTERS),
            Kind::Faults => any_of(&FAULTS),
        };
        cargo.args(["nextest", "run", "--no-fail-fast", "--cargo-profile", "release"]);
        cargo.args(["--workspace", "--exclude", "dataplane-ebpf", "--filterset", &filter]);
    } else {
        cargo.args(["test", "--no-fail-fast", "--release"]);
        match kind {
            Kind::Inner => cargo.args(["--workspace", "--exclude", "dataplane-ebpf", "--exclude", CROSSING]),
            Kind::Crossing => cargo.args(["--package", CROSSING]).args(crossing_but_clusters()?),
            Kind::Clusters => cargo.args(["--package", CROSSING]).args(CLUSTERS.map(|name| format!("--test={name}"))),
            Kind::Faults => cargo
                .args(["--workspace", "--exclude", "dataplane-ebpf"])
                .args(FAULTS.map(|name| format!("--test={name}"))),
        };
    }
    if kind == Kind::Faults {
        cargo.env("TIDEGATE_FAULTS", "long").args(if nextest {
            ["--no-capture"].as_slice()
        } else {
            &["--", "--nocapture"]
        });
    }
    exec::run(&mut cargo)
}

/// What selects every test binary of the crossing kind that is not a whole cluster's, for cargo's own runner.
fn crossing_but_clusters() -> anyhow::Result<Vec<String>> {
    let mut selection = vec!["--lib".to_owned()];
    for entry in std::fs::read_dir(exec::root().join("tests/tests"))? {
        let path = entry?.path();
        let Some(name) = path.file_stem().and_then(|name| name.to_str()) else { continue };
        if path.extension().is_some_and(|extension| extension == "rs") && !CLUSTERS.contains(&name) {
            selection.push(format!("--test={name}"));
        }
    }
    Ok(selection)
}
