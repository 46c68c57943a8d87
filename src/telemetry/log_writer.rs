//! Writes the log in a thread of its own, so that no request waits for the program that reads the log.
//!
//! A line is written at once if nothing was written in the last 100 ms. Otherwise it is written together with the
//! lines that follow, at the end of this interval, or earlier if one of them is a warning or an error, or if they are
//! long. A write of many lines costs about as much as a write of one line, so this saves processor time
//! (`docs/benchmarks.md`). The crate `tracing-appender` has such a thread too, but wakes it for each line.
//!
//! If the program that reads the log stops reading, the lines are kept in memory. When the memory is full, further
//! lines are lost, and a warning has their number.

use std::io::{self, Write};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// The maximum time between a line and its write, if nothing else delays the write.
const INTERVAL: Duration = Duration::from_millis(100);

/// Lines of this total length are written before the end of the interval.
const MAX_BATCH_BYTES: usize = 64 * 1024;

/// The maximum total length of the lines that are not written yet.
const MAX_UNWRITTEN_BYTES: usize = 4 * 1024 * 1024;

/// Passes lines to the thread that writes them. Clones share the thread.
#[derive(Clone)]
pub struct LogWriter(Arc<Queue>);

struct Queue {
    lines: Mutex<Lines>,
    /// Notified when `is_due` becomes true.
    due: Condvar,
    /// Notified after each write.
    written: Condvar,
    interval: Duration,
}

#[derive(Default)]
struct Lines {
    /// The lines for the next write.
    next: Vec<u8>,
    /// The total length of `next` and of the lines that are being written.
    unwritten_bytes: usize,
    /// True if the thread must write `next` now.
    is_due: bool,
    /// True during a write and the interval after it. New lines then wait for the end of the interval.
    is_collecting: bool,
    /// The number of lines that were lost since the last write.
    lost: usize,
}

impl LogWriter {
    /// Starts the thread, which writes to `output`. A failed write loses its lines. The thread runs until the program
    /// ends.
    pub fn start(output: impl Write + Send + 'static) -> io::Result<Self> {
        Self::start_with(output, INTERVAL)
    }

    fn start_with(output: impl Write + Send + 'static, interval: Duration) -> io::Result<Self> {
        let queue = Arc::new(Queue { lines: Mutex::default(), due: Condvar::new(), written: Condvar::new(), interval });
        let thread_queue = queue.clone();
        std::thread::Builder::new().name("log".to_owned()).spawn(move || thread_queue.write_to(output))?;
        Ok(Self(queue))
    }

    /// Waits until all lines are written, or for the given time.
    pub fn flush(&self, timeout: Duration) {
        let mut lines = self.0.lines.lock();
        lines.is_due = true;
        self.0.due.notify_one();
        self.0.written.wait_while_for(&mut lines, |lines| lines.unwritten_bytes > 0, timeout);
    }
}

impl Queue {
    fn add(&self, line: &[u8], is_urgent: bool) {
        let mut lines = self.lines.lock();
        if lines.unwritten_bytes + line.len() > MAX_UNWRITTEN_BYTES {
            lines.lost += 1;
            return;
        }
        lines.next.extend_from_slice(line);
        lines.unwritten_bytes += line.len();
        if is_urgent || !lines.is_collecting || lines.next.len() >= MAX_BATCH_BYTES {
            lines.is_due = true;
            self.due.notify_one();
        }
    }

    fn write_to(&self, mut output: impl Write) {
        let mut batch = Vec::new();
        let mut lines = self.lines.lock();
        loop {
            self.due.wait_while(&mut lines, |lines| !lines.is_due);
            mem::swap(&mut batch, &mut lines.next);
            lines.is_due = false;
            lines.is_collecting = true;
            MutexGuard::unlocked(&mut lines, || {
                let _ = output.write_all(&batch);
            });
            lines.unwritten_bytes -= batch.len();
            self.written.notify_all();
            if lines.lost > 0 {
                let lost = mem::take(&mut lines.lost);
                MutexGuard::unlocked(&mut lines, || {
                    tracing::warn!(
                        lines = lost,
                        "lines of the log are lost: the program that reads the log is too slow"
                    );
                });
            }
            batch.clear();
            batch.shrink_to(MAX_BATCH_BYTES);
            self.due.wait_while_for(&mut lines, |lines| !lines.is_due, self.interval);
            lines.is_collecting = false;
            lines.is_due = !lines.next.is_empty();
        }
    }
}

impl<'w> MakeWriter<'w> for LogWriter {
    type Writer = LineWriter<'w>;

    fn make_writer(&'w self) -> LineWriter<'w> {
        LineWriter { queue: &self.0, is_urgent: false }
    }

    fn make_writer_for(&'w self, metadata: &Metadata<'_>) -> LineWriter<'w> {
        LineWriter { queue: &self.0, is_urgent: *metadata.level() <= Level::WARN }
    }
}

/// Receives a line in one piece from `tracing-subscriber`.
pub struct LineWriter<'w> {
    queue: &'w Queue,
    is_urgent: bool,
}

impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.queue.add(line, self.is_urgent);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// Sends each write to a channel that holds no write: a write waits until the test receives it.
    struct Output(SyncSender<Vec<u8>>);

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn start() -> (LogWriter, Receiver<Vec<u8>>) {
        let (sender, writes) = sync_channel(0);
        (LogWriter::start_with(Output(sender), LONG * 60).unwrap(), writes)
    }

    fn next(writes: &Receiver<Vec<u8>>) -> String {
        String::from_utf8(writes.recv_timeout(LONG).unwrap()).unwrap()
    }

    #[test]
    fn lines_wait_for_the_end_of_the_interval_or_for_an_urgent_line() {
        let (writer, writes) = start();
        let add = |line: &str, is_urgent| writer.0.add(line.as_bytes(), is_urgent);
        add("1\n", false);
        assert_eq!(next(&writes), "1\n");
        add("2\n", false);
        add("3\n", false);
        add("4\n", true);
        assert_eq!(next(&writes), "2\n3\n4\n");
        add("5\n", false);
        let long_line = "6".repeat(MAX_BATCH_BYTES);
        add(&long_line, false);
        assert_eq!(next(&writes), format!("5\n{long_line}"));
        add("7\n", false);
        std::thread::scope(|scope| {
            let flush = scope.spawn(|| writer.flush(LONG));
            assert_eq!(next(&writes), "7\n");
            flush.join().unwrap();
        });
        assert_eq!(writer.0.lines.lock().unwritten_bytes, 0);
    }

    #[test]
    fn lines_are_lost_only_while_too_many_are_unwritten() {
        let (writer, writes) = start();
        let line = "x".repeat(MAX_UNWRITTEN_BYTES / 8);
        for _ in 0..10 {
            writer.0.add(line.as_bytes(), false);
        }
        assert_eq!(writer.0.lines.lock().lost, 2);
        writer.flush(Duration::ZERO);
        let mut received = 0;
        while received < MAX_UNWRITTEN_BYTES {
            received += next(&writes).len();
        }
        writer.flush(LONG);
        assert_eq!((received, writer.0.lines.lock().lost), (MAX_UNWRITTEN_BYTES, 0));
        writer.0.add(b"later\n", true);
        assert_eq!(next(&writes), "later\n");
    }
}
