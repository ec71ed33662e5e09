//! Golden scripts: objects in, map contents out, on maps in memory.
//!
//! A script is a text of sections: `--- apply` holds the objects that the source now tells (YAML), `--- maps` the
//! contents that the maps must then have, without identifiers. After the last section everything is withdrawn and the
//! maps must be empty. Each script runs plainly, with one in ten map writes failing, and with a restart before every
//! step; all three must give the same contents. `UPDATE_EXPECT=1` writes what the plain run gives.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

use std::fmt::Write;
use std::fs;
use std::path::Path;

use dataplane_plan::invariants::{Violation, check};
use dataplane_user::apply::{FakeMaps, FaultyMaps, normalise};
use dataplane_user::names::Names;
use dataplane_user::reconcile::Reconciler;
use dataplane_user::source::file;

const EMPTY: &str = "slots 0 counters 0 backends 0\n";
const NODE: &str = "here";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Plain,
    Faulty(u64),
    Restarts,
}

struct Step {
    objects: String,
    expected: String,
}

struct Script {
    preamble: String,
    steps: Vec<Step>,
}

#[test]
fn every_script_gives_its_maps() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut paths: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 5, "the scripts are not where they should be");
    for path in paths {
        let script = parse(&fs::read_to_string(&path).unwrap());
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(&path, bless(&script)).unwrap();
            continue;
        }
        for mode in [Mode::Plain, Mode::Restarts].into_iter().chain((1..=20).map(Mode::Faulty)) {
            let found = run(&script, mode);
            for (number, (step, found)) in script.steps.iter().zip(&found).enumerate() {
                assert_eq!(step.expected, *found, "{} step {} ({mode:?})", path.display(), number + 1);
            }
            assert_eq!(found.last().unwrap(), EMPTY, "{} leaves something behind ({mode:?})", path.display());
        }
    }
}

/// The contents after each step, then after everything is withdrawn.
fn run(script: &Script, mode: Mode) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("frontends.jsonl");
    let (seed, percent) = match mode {
        Mode::Faulty(seed) => (seed, 10),
        _ => (1, 0),
    };
    let maps = FaultyMaps::new(FakeMaps::default(), seed, percent);
    let mut reconciler = Reconciler::restore(maps, Names::open(journal.clone()).unwrap()).unwrap();
    let mut found = Vec::new();
    for objects in script.steps.iter().map(|step| step.objects.as_str()).chain([""]) {
        if mode == Mode::Restarts {
            let maps = reconciler.into_maps();
            reconciler = Reconciler::restore(maps, Names::open(journal.clone()).unwrap()).unwrap();
        }
        for change in file::parse(objects, NODE).unwrap() {
            reconciler.change(change);
            assert_safe(&mut reconciler);
        }
        let mut passes = 0;
        while reconciler.has_work() {
            reconciler.reconcile().unwrap();
            assert_safe(&mut reconciler);
            passes += 1;
            assert!(passes < 100, "{mode:?} does not converge");
        }
        // Counters that failed alone are repaired by the comparison of everything.
        while !reconciler.resync().unwrap().is_complete() {}
        found.push(normalise(&reconciler.maps_mut().inner.contents));
    }
    found
}

fn assert_safe(reconciler: &mut Reconciler<FaultyMaps<FakeMaps>>) {
    let violations: Vec<_> = check(&reconciler.maps_mut().inner.contents)
        .into_iter()
        .filter(|found| !matches!(found, Violation::NoCounters { .. }))
        .collect();
    assert_eq!(violations, []);
}

fn parse(text: &str) -> Script {
    let mut script = Script { preamble: String::new(), steps: Vec::new() };
    let mut in_maps = false;
    for line in text.lines() {
        match (line, script.steps.last_mut()) {
            ("--- apply", _) => {
                script.steps.push(Step { objects: String::new(), expected: String::new() });
                in_maps = false;
            }
            ("--- maps", Some(_)) => in_maps = true,
            (line, None) => writeln!(script.preamble, "{line}").unwrap(),
            (line, Some(step)) => {
                let section = if in_maps { &mut step.expected } else { &mut step.objects };
                writeln!(section, "{line}").unwrap();
            }
        }
    }
    script
}

fn bless(script: &Script) -> String {
    let mut text = script.preamble.clone();
    for (step, found) in script.steps.iter().zip(run(script, Mode::Plain)) {
        write!(text, "--- apply\n{}--- maps\n{found}", step.objects).unwrap();
    }
    text
}
