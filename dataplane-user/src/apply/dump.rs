//! Map contents as text without identifiers: two dumps are equal if no client could tell the maps apart.

use std::collections::BTreeMap;
use std::fmt::Write;

use dataplane_abi::backend::state;
use dataplane_abi::frontend::{Interval, flag};
use dataplane_abi::slot::SlotKey;
use dataplane_plan::{Backend, Contents};

/// One block per frontend, then the backends, then how many entries there are.
#[must_use]
pub fn normalise(contents: &Contents) -> String {
    let mut text = String::new();
    for (key, frontend) in &contents.frontends {
        let mut flags = Vec::new();
        for (bit, name) in [(flag::CLUSTER_IP, "cluster-ip"), (flag::INTERNAL_LOCAL, "internal-local")] {
            if frontend.flags & bit != 0 {
                flags.push(name);
            }
        }
        line(&mut text, format_args!("frontend {key} {}", flags.join(" ")));
        for (name, set) in [("local", frontend.local), ("cluster", frontend.cluster)] {
            let members = members(contents, frontend.id, frontend.epoch, set);
            line(&mut text, format_args!("  {name}: {}", members.join(" ")));
        }
    }
    let backends: BTreeMap<_, _> = contents.backends.values().map(|backend| (backend.key, backend)).collect();
    for (key, backend) in backends {
        line(&mut text, format_args!("backend {key} {}", states(backend)));
    }
    let (slots, counters) = (contents.slots.len(), contents.counters.len());
    line(&mut text, format_args!("slots {slots} counters {counters} backends {}", contents.backends.len()));
    text
}

fn members(contents: &Contents, frontend: u32, epoch: u32, set: Interval) -> Vec<String> {
    (set.start..set.start.saturating_add(set.count))
        .map(|index| {
            let backend = contents.slots.get(&SlotKey { frontend, epoch, index });
            match backend.and_then(|id| contents.backends.get(id)) {
                Some(backend) => backend.key.to_string(),
                None => "missing".to_owned(),
            }
        })
        .collect()
}

fn states(backend: &Backend) -> String {
    let names = [(state::ACTIVE, "active"), (state::TERMINATING, "terminating"), (state::LOCAL, "local")];
    names.iter().filter(|(bit, _)| backend.state & bit != 0).map(|(_, name)| *name).collect::<Vec<_>>().join(" ")
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    let start = text.len();
    // Writing to a string cannot fail.
    let _ = text.write_fmt(line);
    text.truncate(start + text[start..].trim_end().len());
    text.push('\n');
}
