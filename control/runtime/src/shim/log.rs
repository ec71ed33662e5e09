//! A container's log file in the CRI format, `<time> stdout|stderr F|P <line>`, rotated by size.
//!
//! Rotated files are `<log>.1` (the newest) to `<log>.4`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// A file does not grow beyond this.
const FILE_BYTES_MAX: u64 = 10 << 20;
/// Files kept, the one being written included.
const FILES_MAX: u32 = 5;
/// A longer line is written in parts, marked `P` but for the last.
const LINE_BYTES_MAX: usize = 16 << 10;

#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    size: u64,
    limit: u64,
}

/// One stream of a container, as far as it has not come to the end of a line.
#[derive(Debug)]
pub(super) struct Lines {
    name: &'static str,
    pending: Vec<u8>,
}

impl Log {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = open_file(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, size, limit: FILE_BYTES_MAX })
    }

    /// Writes complete records. What does not fit on the disk is lost: a container must not stall for its log.
    pub(super) fn write(&mut self, records: &[u8]) {
        if records.is_empty() {
            return;
        }
        if let Err(error) = self.try_write(records) {
            tracing::warn!(%error, path = %self.path.display(), "cannot write container log");
        }
    }

    fn try_write(&mut self, records: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.size + records.len() as u64 > self.limit {
            self.rotate()?;
        }
        self.file.write_all(records)?;
        self.size += records.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..FILES_MAX).rev() {
            let newer = if number == 1 { self.path.clone() } else { numbered(&self.path, number - 1) };
            match fs::rename(newer, numbered(&self.path, number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.file = open_file(&self.path)?;
        self.size = 0;
        Ok(())
    }
}

impl Lines {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, pending: Vec::new() }
    }

    /// Takes output and returns the records that it completes.
    pub(super) fn push(&mut self, mut output: &[u8], now: Timestamp) -> Vec<u8> {
        let mut records = Vec::with_capacity(output.len() + 64);
        while !output.is_empty() {
            let room = LINE_BYTES_MAX - self.pending.len();
            let window = &output[..output.len().min(room)];
            match window.iter().position(|byte| *byte == b'\n') {
                Some(end) => {
                    self.pending.extend_from_slice(&window[..end]);
                    self.record('F', now, &mut records);
                    output = &output[end + 1..];
                }
                None => {
                    self.pending.extend_from_slice(window);
                    output = &output[window.len()..];
                    // The line may end right here; then the rest is an empty last part, as long lines need one.
                    if self.pending.len() == LINE_BYTES_MAX {
                        self.record('P', now, &mut records);
                    }
                }
            }
        }
        records
    }

    /// The record of a last line without an end.
    pub(super) fn finish(&mut self, now: Timestamp) -> Vec<u8> {
        let mut records = Vec::new();
        if !self.pending.is_empty() {
            self.record('F', now, &mut records);
        }
        records
    }

    fn record(&mut self, tag: char, now: Timestamp, records: &mut Vec<u8>) {
        // Writing to a vector does not fail.
        let _ = write!(records, "{now} {} {tag} ", self.name);
        records.append(&mut self.pending);
        records.push(b'\n');
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).open(path)
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(lines: &mut Lines, output: &str) -> String {
        String::from_utf8(lines.push(output.as_bytes(), Timestamp::UNIX_EPOCH)).unwrap()
    }

    #[test]
    fn lines_wait_for_their_end() {
        let mut lines = Lines::new("stdout");
        assert_eq!(push(&mut lines, "a\nb"), "1970-01-01T00:00:00Z stdout F a\n");
        assert_eq!(push(&mut lines, "c\n\n"), "1970-01-01T00:00:00Z stdout F bc\n1970-01-01T00:00:00Z stdout F \n");
        assert_eq!(push(&mut lines, "end"), "");
        let end = lines.finish(Timestamp::UNIX_EPOCH);
        assert_eq!(end, b"1970-01-01T00:00:00Z stdout F end\n");
        assert_eq!(lines.finish(Timestamp::UNIX_EPOCH), b"");
    }

    #[test]
    fn long_lines_come_in_parts_and_lose_nothing() {
        let long = "x".repeat(LINE_BYTES_MAX * 2 + 10);
        let mut lines = Lines::new("stderr");
        let records = push(&mut lines, &format!("{long}\n"));
        let parts: Vec<_> = records.lines().map(|line| line.splitn(4, ' ').collect::<Vec<_>>()).collect();
        assert_eq!(parts.iter().map(|part| part[2]).collect::<Vec<_>>(), ["P", "P", "F"]);
        assert_eq!(parts.iter().map(|part| part[3]).collect::<String>(), long);
    }

    #[test]
    fn cutting_the_output_anywhere_gives_the_same_lines() {
        let text = "one\n\ntwo three\nfour";
        for cut in 0..text.len() {
            let mut lines = Lines::new("stdout");
            let mut records = push(&mut lines, &text[..cut]);
            records += &push(&mut lines, &text[cut..]);
            assert_eq!(records.lines().count(), 3, "{cut}");
        }
    }

    #[test]
    fn full_files_are_rotated_and_old_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pod/0.log");
        let mut log = Log { limit: 100, ..Log::open(&path).unwrap() };
        for number in 0..12 {
            log.write(format!("{number:059}\n").as_bytes());
        }
        assert_eq!(fs::read_dir(dir.path().join("pod")).unwrap().count(), FILES_MAX as usize);
        assert!(fs::read_to_string(&path).unwrap().ends_with("11\n"));
        assert!(fs::read_to_string(numbered(&path, 4)).unwrap().ends_with("07\n"));
    }

    #[test]
    fn time_has_nanoseconds() {
        let now: Timestamp = "2026-01-02T03:04:05.000000006Z".parse().unwrap();
        let mut lines = Lines::new("stdout");
        assert!(lines.push(b"x\n", now).starts_with(b"2026-01-02T03:04:05.000000006Z stdout F x"));
    }
}
