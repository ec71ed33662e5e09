//! Limits of a group whose processes already run, as the files to write; libcontainer sets those of a new one.

use std::fs;
use std::path::Path;

use crate::container::Resources;
use crate::error::{FileError, IoContext};

const PERIOD_US: u64 = 100_000;
const SHARES_MIN: u64 = 2;
const SHARES_RANGE: u64 = 262_142;
const WEIGHT_RANGE: u64 = 9_999;

/// Files and their content, in the order in which they are written; a hierarchy lacks those of other controllers.
pub(super) type Writes = Vec<(&'static str, String)>;

pub(super) fn unified(resources: &Resources) -> Writes {
    let mut writes = Vec::new();
    if let Some(shares) = resources.cpu_shares {
        let weight = 1 + shares.saturating_sub(SHARES_MIN) * WEIGHT_RANGE / SHARES_RANGE;
        writes.push(("cpu.weight", weight.to_string()));
    }
    let quota = resources.cpu_quota_us.map_or_else(|| "max".to_owned(), |quota| quota.to_string());
    writes.push(("cpu.max", format!("{quota} {}", resources.cpu_period_us.unwrap_or(PERIOD_US))));
    let memory = resources.memory_limit_bytes.map_or_else(|| "max".to_owned(), |limit| limit.to_string());
    writes.push(("memory.max", memory));
    writes
}

pub(super) fn legacy(resources: &Resources) -> Writes {
    let mut writes = Vec::new();
    if let Some(shares) = resources.cpu_shares {
        writes.push(("cpu.shares", shares.to_string()));
    }
    writes.push(("cpu.cfs_period_us", resources.cpu_period_us.unwrap_or(PERIOD_US).to_string()));
    writes.push(("cpu.cfs_quota_us", resources.cpu_quota_us.unwrap_or(-1).to_string()));
    let memory = resources.memory_limit_bytes.unwrap_or(-1).to_string();
    // Memory with swap can never be less than memory alone: which of the two goes first depends on the direction.
    writes.push(("memory.limit_in_bytes", memory.clone()));
    writes.push(("memory.memsw.limit_in_bytes", memory.clone()));
    writes.push(("memory.limit_in_bytes", memory));
    writes
}

/// Only the last write of a file must succeed.
pub(super) fn apply(group: &Path, writes: &Writes) -> Result<(), FileError> {
    for (index, (name, value)) in writes.iter().enumerate() {
        let file = group.join(name);
        if !file.exists() {
            continue;
        }
        let is_last = writes[index + 1..].iter().all(|(later, _)| later != name);
        let written = fs::write(&file, value);
        if is_last {
            written.at("cannot write", &file)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_written_as_each_version_has_them() {
        let some = Resources {
            cpu_shares: Some(1_024),
            cpu_quota_us: Some(50_000),
            cpu_period_us: Some(100_000),
            memory_limit_bytes: Some(1 << 20),
            ..Resources::default()
        };
        let text = |writes: Writes| writes.iter().map(|(file, value)| format!("{file}={value}")).collect::<Vec<_>>();
        assert_eq!(text(unified(&some)), ["cpu.weight=39", "cpu.max=50000 100000", "memory.max=1048576"]);
        assert_eq!(text(unified(&Resources::default())), ["cpu.max=max 100000", "memory.max=max"]);
        assert_eq!(text(legacy(&some))[..3], ["cpu.shares=1024", "cpu.cfs_period_us=100000", "cpu.cfs_quota_us=50000"]);
        assert_eq!(text(legacy(&Resources::default()))[2], "memory.limit_in_bytes=-1");
    }

    #[test]
    fn files_that_a_hierarchy_lacks_are_left_out() {
        let group = tempfile::tempdir().unwrap();
        fs::write(group.path().join("memory.max"), "max").unwrap();
        apply(group.path(), &unified(&Resources { memory_limit_bytes: Some(7), ..Resources::default() })).unwrap();
        assert_eq!(fs::read_to_string(group.path().join("memory.max")).unwrap(), "7");
        assert!(!group.path().join("cpu.max").exists());
    }
}
