//! Streams a container's log: from its tail, since a time, or as it grows, across rotation, until the container ends.

use std::io::SeekFrom;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;

use super::cri_log::{Printer, Selection, parse};

const CHUNK: usize = 32 * 1024;
/// How soon new lines are seen while following.
const POLL: Duration = Duration::from_millis(100);
/// The log may still be written a moment after its container has ended.
const END_POLLS: u32 = 2;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub selection: Selection,
    pub tail_lines: Option<u64>,
    pub follow: bool,
}

/// Sends the log until its end; while following, until `is_running` says no or nobody listens.
pub(crate) async fn stream(
    path: PathBuf,
    options: Options,
    is_running: impl Fn() -> bool + Send,
    out: mpsc::Sender<std::io::Result<Bytes>>,
) {
    if let Err(error) = read(&path, options, is_running, &out).await {
        // Nobody may be listening any more.
        let _ = out.send(Err(error)).await;
    }
}

async fn read(
    path: &Path,
    options: Options,
    is_running: impl Fn() -> bool + Send,
    out: &mpsc::Sender<std::io::Result<Bytes>>,
) -> std::io::Result<()> {
    let mut file = File::open(path).await?;
    if let Some(lines) = options.tail_lines {
        let start = tail_start(&mut file, lines).await?;
        file.seek(SeekFrom::Start(start)).await?;
    }
    let mut reader = Reader { file, printer: Printer::new(options.selection), rest: Vec::new() };
    let mut polls_after_end = 0;
    loop {
        let ended = !is_running();
        if !reader.drain(out).await? || !options.follow {
            return Ok(());
        }
        if let Some(next) = rotated(path, &reader.file).await? {
            // What was written between the last read and the rotation.
            if !reader.drain(out).await? {
                return Ok(());
            }
            reader.file = next;
            continue;
        }
        polls_after_end += u32::from(ended);
        if polls_after_end >= END_POLLS {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            () = out.closed() => return Ok(()),
        }
    }
}

struct Reader {
    file: File,
    printer: Printer,
    /// A line that has no end yet.
    rest: Vec<u8>,
}

impl Reader {
    /// Sends everything up to the end of the file; false if no more is wanted.
    async fn drain(&mut self, out: &mpsc::Sender<std::io::Result<Bytes>>) -> std::io::Result<bool> {
        let mut chunk = vec![0; CHUNK];
        loop {
            let length = self.file.read(&mut chunk).await?;
            if length == 0 {
                return Ok(!out.is_closed());
            }
            self.rest.extend_from_slice(&chunk[..length]);
            let mut printed = Vec::new();
            let mut more = true;
            let mut start = 0;
            while let Some(end) = self.rest[start..].iter().position(|byte| *byte == b'\n') {
                more = self.printer.print(&self.rest[start..start + end], &mut printed);
                start += end + 1;
                if !more {
                    break;
                }
            }
            self.rest.drain(..start);
            if !printed.is_empty() && out.send(Ok(Bytes::from(printed))).await.is_err() || !more {
                return Ok(false);
            }
        }
    }
}

/// The file that now has this name, if it is another.
async fn rotated(path: &Path, open: &File) -> std::io::Result<Option<File>> {
    let Ok(next) = File::open(path).await else { return Ok(None) };
    let (now, then) = (next.metadata().await?, open.metadata().await?);
    Ok(((now.dev(), now.ino()) != (then.dev(), then.ino())).then_some(next))
}

/// Where the last `lines` whole lines begin: an output line may be several partial ones.
async fn tail_start(file: &mut File, lines: u64) -> std::io::Result<u64> {
    let length = file.metadata().await?.len();
    if lines == 0 {
        return Ok(length);
    }
    let mut end = length;
    let mut tail: Vec<u8> = Vec::new();
    while end > 0 {
        let step = end.min(CHUNK as u64);
        end -= step;
        file.seek(SeekFrom::Start(end)).await?;
        let mut block = vec![0; usize::try_from(step).unwrap_or(CHUNK)];
        file.read_exact(&mut block).await?;
        block.append(&mut tail);
        tail = block;
        if let Some(offset) = nth_line_from_end(&tail, lines, end == 0) {
            return Ok(end + u64::try_from(offset).unwrap_or(0));
        }
    }
    Ok(0)
}

/// Offset of the n-th output line from the end; `None` if it may begin before this text.
fn nth_line_from_end(text: &[u8], lines: u64, from_start: bool) -> Option<usize> {
    let mut starts: Vec<usize> = vec![0];
    starts.extend(text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1));
    starts.pop_if(|last| *last == text.len());
    let line = |index: usize| {
        let end = starts.get(index + 1).map_or(text.len(), |next| next - 1);
        parse(&text[starts[index]..end])
    };
    let mut found = 0;
    for index in (0..starts.len()).rev() {
        // An output line begins where the line before it was whole.
        let begins = match index.checked_sub(1) {
            None if from_start => true,
            None => return None,
            // The first line of the text may be cut, so that it cannot be read.
            Some(0) if !from_start => return None,
            Some(previous) => line(previous).is_none_or(|entry| !entry.partial),
        };
        found += u64::from(begins);
        if found == lines {
            return Some(starts[index]);
        }
    }
    from_start.then_some(0)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn line(index: usize) -> String {
        format!("2026-01-01T00:00:00.{index:09}Z stdout F line {index}\n")
    }

    async fn collect(path: &Path, options: Options) -> String {
        let (sender, mut receiver) = mpsc::channel(8);
        tokio::spawn(stream(path.to_owned(), options, || false, sender));
        let mut text = Vec::new();
        while let Some(chunk) = receiver.recv().await {
            text.extend_from_slice(&chunk.unwrap());
        }
        String::from_utf8(text).unwrap()
    }

    #[tokio::test]
    async fn the_tail_is_found_whatever_the_size() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        // More than two chunks, so that the search crosses their borders.
        let count = 2_000;
        std::fs::write(&path, (0..count).map(line).collect::<String>()).unwrap();
        for lines in [0, 1, 7, 700, 1_999, 2_000, 9_999] {
            let tail_lines = Some(lines);
            let text = collect(&path, Options { tail_lines, ..Options::default() }).await;
            let expected = usize::try_from(lines).unwrap().min(count);
            assert_eq!(text.lines().count(), expected, "{lines}");
            if expected > 0 {
                assert!(text.starts_with(&format!("line {}\n", count - expected)), "{lines}: {}", &text[..20]);
            }
        }
    }

    #[tokio::test]
    async fn partial_lines_count_as_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let time = "2026-01-01T00:00:00Z stdout";
        std::fs::write(&path, format!("{time} F a\n{time} P b\n{time} P b\n{time} F b\n{time} F c\n")).unwrap();
        let text = collect(&path, Options { tail_lines: Some(2), ..Options::default() }).await;
        assert_eq!(text, "bbb\nc\n");
    }

    #[tokio::test]
    async fn following_crosses_rotation_and_ends_with_the_container() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        std::fs::write(&path, line(0)).unwrap();
        let running = Arc::new(AtomicBool::new(true));
        let (sender, mut receiver) = mpsc::channel(8);
        let options = Options { follow: true, ..Options::default() };
        let flag = Arc::clone(&running);
        tokio::spawn(stream(path.clone(), options, move || flag.load(Ordering::Relaxed), sender));
        let mut next = async || String::from_utf8(receiver.recv().await.unwrap().unwrap().to_vec()).unwrap();
        assert_eq!(next().await, "line 0\n");

        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        let (head, tail) = (line(1)[..30].to_owned(), line(1)[30..].to_owned());
        file.write_all(head.as_bytes()).unwrap();
        tokio::time::sleep(POLL * 2).await;
        file.write_all(tail.as_bytes()).unwrap();
        assert_eq!(next().await, "line 1\n", "a line is sent when it is whole");

        file.write_all(line(2).as_bytes()).unwrap();
        std::fs::rename(&path, directory.path().join("0.log.1")).unwrap();
        std::fs::write(&path, line(3)).unwrap();
        let mut text = next().await;
        while !text.ends_with("line 3\n") {
            text.push_str(&next().await);
        }
        assert_eq!(text, "line 2\nline 3\n");

        running.store(false, Ordering::Relaxed);
        assert!(tokio::time::timeout(Duration::from_secs(5), receiver.recv()).await.unwrap().is_none());
    }
}
