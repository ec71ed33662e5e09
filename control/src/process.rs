//! Whether a process that was noted down is still the one that was meant.

use std::fs;

/// Whether this process runs and is `tidegate` (with this sub-command): its number may belong to another by now, and one
/// that has ended but whose parent does not look is none any more.
pub(crate) fn is_ours(pid: i32, command: Option<&str>) -> bool {
    if is_zombie(&fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default()) {
        return false;
    }
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = line.split(|byte| *byte == 0);
    words.next().is_some_and(|program| program.ends_with(b"tidegate"))
        && command.is_none_or(|wanted| words.next().is_some_and(|found| found == wanted.as_bytes()))
}

/// Of `/proc/PID/stat`: the state comes after the name, which may hold anything, in parentheses.
fn is_zombie(stat: &str) -> bool {
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']))
}

#[cfg(test)]
mod tests {
    use super::{is_ours, is_zombie};

    #[test]
    fn the_dead_are_none_of_ours() {
        assert!(is_zombie("12 (tidegate) Z 1 2 3"));
        assert!(is_zombie("12 (a) R (b) Z 1 2 3"));
        assert!(!is_zombie("12 (x) Z (y) S 1 2 3"));
        assert!(!is_ours(1, None) && !is_ours(i32::MAX, None));
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(!is_ours(child.id() as i32, None));
        child.wait().unwrap();
    }
}
