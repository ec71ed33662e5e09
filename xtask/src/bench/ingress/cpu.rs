//! The CPU time of a process with its children, to the nanosecond, as the scheduler counts it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

/// What a process and its children have used so far.
pub(crate) fn of_tree(pid: u32) -> anyhow::Result<Duration> {
    let tasks = Path::new("/proc").join(pid.to_string()).join("task");
    let mut total = Duration::ZERO;
    for task in fs::read_dir(&tasks).with_context(|| format!("process {pid} is gone"))? {
        let task = task?.path();
        total += of_task(&fs::read_to_string(task.join("schedstat")).context("this kernel has no schedstat")?)?;
        for child in fs::read_to_string(task.join("children"))?.split_whitespace() {
            total += of_tree(child.parse()?)?;
        }
    }
    Ok(total)
}

/// The first field of `/proc/<pid>/task/<tid>/schedstat`: time spent on a CPU.
fn of_task(schedstat: &str) -> anyhow::Result<Duration> {
    let field = schedstat.split(' ').next().unwrap_or_default();
    let nanoseconds = field.parse().with_context(|| format!("schedstat says {schedstat:?}"))?;
    Ok(Duration::from_nanos(nanoseconds))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::of_tree;

    #[test]
    fn work_shows_and_sleep_does_not() {
        let used = |work: &dyn Fn()| {
            let before = of_tree(std::process::id()).unwrap();
            work();
            of_tree(std::process::id()).unwrap() - before
        };
        let busy = used(&|| {
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(60) {}
        });
        assert!(busy > Duration::from_millis(5), "{busy:?}");
        let idle = used(&|| std::thread::sleep(Duration::from_millis(200)));
        assert!(idle < Duration::from_millis(150), "{idle:?}");
    }
}
