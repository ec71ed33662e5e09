//! Signals: those that images name, and how they are sent.

use nix::libc;
use nix::sys::signal::Signal;

/// Sends any signal, real-time ones too.
pub(super) fn send_signal(pid: i32, signal: i32) {
    // SAFETY: kill(2) touches no memory of ours. The process is an unreaped child, so its number is still its own.
    unsafe { libc::kill(pid, signal) };
}

/// `SIGTERM`, `TERM`, `15` or `SIGRTMIN+3`.
pub(super) fn parse_signal(text: &str) -> Option<i32> {
    let upper = text.trim().to_ascii_uppercase();
    if let Ok(number) = upper.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = name.strip_prefix("RTMIN") {
        let offset: i32 = if offset.is_empty() { 0 } else { offset.strip_prefix('+')?.parse().ok()? };
        let number = libc::SIGRTMIN() + offset;
        return (number <= libc::SIGRTMAX()).then_some(number);
    }
    format!("SIG{name}").parse::<Signal>().ok().map(|signal| signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_name_signals_in_every_way() {
        for (text, want) in [
            ("SIGTERM", Some(15)),
            ("quit", Some(3)),
            ("2", Some(2)),
            ("SIGRTMIN+3", Some(libc::SIGRTMIN() + 3)),
            ("RTMIN", Some(libc::SIGRTMIN())),
            ("RTMIN+99", None),
            ("0", None),
            ("SIGNONSENSE", None),
        ] {
            assert_eq!(parse_signal(text), want, "{text}");
        }
    }
}
