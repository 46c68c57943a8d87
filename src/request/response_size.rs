//! Limits the memory of responses, from the reading of their rows until the client has read the response.
//!
//! - A response has at most about [`MAX_BYTES`]. The approximate size is counted each time an item of a list is
//!   complete or a field fails, and a response that is too large fails then.
//! - The *large* responses that are in memory at the same time have a maximum total size, in the process and for each
//!   owner: for all keys of an operator together, and for the platform. A large response needs a *reservation* of
//!   memory for [`MAX_BYTES`]. When a response becomes large, it waits for a reservation. While it waits, the response
//!   holds little memory and no database connection. The reservation ends when the client has read the response, or
//!   when the server closes the connection of a client that reads too slowly. An owner can reserve at most half of the
//!   memory that the process has for large responses. Two operators whose clients do not read can therefore make the
//!   large responses of others fail.
//!
//! Small responses need no reservation, because the limit on HTTP connections also limits the memory of small
//! responses.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use metrics::Gauge;
use parking_lot::Mutex;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::error::{Error, ErrorCode, Violation};

/// The maximum size of a response. A page of 100 customers with all their fields has about 60 KB.
const MAX_BYTES: usize = 4 << 20;

/// The maximum size of the rows that a response is built from. The limit is higher than [`MAX_BYTES`], because a
/// response may leave out columns of its rows.
const MAX_ROW_BYTES: usize = 2 * MAX_BYTES;

/// The maximum size of a small response. A response is large if the response, or its rows, have more bytes.
const SMALL_BYTES: usize = 64 << 10;

/// The maximum total size of the large responses of a process. A response that is being built counts as [`MAX_BYTES`],
/// because its rows, its values and its text are in memory at the same time.
const MAX_PROCESS_BYTES: usize = 8 * MAX_BYTES;

/// The maximum total size of the large responses of one owner.
const MAX_OWNER_BYTES: usize = MAX_PROCESS_BYTES / 2;

/// The longest time that a large response waits for a reservation.
const MAX_MEMORY_WAIT: Duration = Duration::from_secs(4);

/// The memory for the large responses of a process.
#[derive(Clone)]
pub struct ProcessMemory {
    permits: Arc<Semaphore>,
    unread: Gauge,
}

impl Default for ProcessMemory {
    fn default() -> Self {
        Self { permits: semaphore(MAX_PROCESS_BYTES), unread: metrics::gauge!("vivamo_unread_response_bytes") }
    }
}

/// The memory for the large responses of one owner: of all keys of an operator, or of the platform.
#[derive(Clone)]
pub struct OwnerMemory(Arc<Semaphore>);

impl Default for OwnerMemory {
    fn default() -> Self {
        Self(semaphore(MAX_OWNER_BYTES))
    }
}

/// Creates a semaphore with one permit for each KiB of memory.
fn semaphore(bytes: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(permits(bytes) as usize))
}

fn permits(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

/// The reason why a response cannot be built, or must wait before it is built further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    #[error("the response is too large")]
    TooLarge,
    /// The response has become large and has no reservation. See [`ResponseSize::wait_for_memory`].
    #[error("the response waits for memory")]
    MustWait,
    #[error("too many large responses are in memory")]
    Busy,
}

impl From<SizeError> for Violation {
    fn from(error: SizeError) -> Self {
        let busy = "Too many large responses are being built, or have not been read by their clients. Read each \
                    response of all your keys to its end, or request smaller pages (`first`).";
        match error {
            SizeError::TooLarge => Self::new(ErrorCode::ResponseTooLarge),
            SizeError::MustWait | SizeError::Busy => Self {
                message: busy.to_owned(),
                retry_after: Some(Duration::from_secs(1)),
                ..Self::new(ErrorCode::Unavailable)
            },
        }
    }
}

impl From<SizeError> for Error {
    fn from(error: SizeError) -> Self {
        Violation::from(error).into()
    }
}

/// The size of the response to one request.
pub struct ResponseSize {
    process: ProcessMemory,
    owner: OwnerMemory,
    bytes: AtomicUsize,
    row_bytes: AtomicUsize,
    /// The reservation of this response, which may then grow up to [`MAX_BYTES`]. Not set for a small response, and for
    /// a large response that waits for memory.
    reservation: OnceCell<Mutex<Reservation>>,
    /// True after a wait for memory has failed. Other parts of the response do not wait again.
    has_waited: AtomicBool,
}

/// The reserved memory of a large response. Given back when this value is dropped.
struct Reservation {
    of_owner: OwnedSemaphorePermit,
    of_process: OwnedSemaphorePermit,
}

impl ResponseSize {
    pub fn new(process: ProcessMemory, owner: OwnerMemory) -> Self {
        Self {
            process,
            owner,
            bytes: AtomicUsize::new(0),
            row_bytes: AtomicUsize::new(0),
            reservation: OnceCell::new(),
            has_waited: AtomicBool::new(false),
        }
    }

    /// Returns the counted size.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Counts a finished part of the response.
    pub fn add(&self, bytes: usize) -> Result<(), SizeError> {
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if bytes > MAX_BYTES { Err(SizeError::TooLarge) } else { Ok(()) }
    }

    /// Returns the maximum number of bytes to build at a time. Without a reservation, this is the size of a small
    /// response.
    pub fn limit(&self) -> usize {
        if self.has_reservation() { MAX_BYTES } else { SMALL_BYTES }
    }

    /// Ensures that the response may grow: waits for a reservation if the response is large and has none. Fails if the
    /// response is too large already.
    pub async fn ensure_memory(&self) -> Result<(), SizeError> {
        self.add(0)?;
        if self.needs_reservation() { self.wait_for_memory().await } else { Ok(()) }
    }

    /// Starts to count the rows of a statement.
    pub fn rows(&self) -> RowBytes<'_> {
        RowBytes { response: self, bytes: 0 }
    }

    /// Returns true if the response has a reservation, because it is large. Building the rest of such a response may
    /// take much processor time. Other requests should not wait for this work.
    pub fn has_reservation(&self) -> bool {
        self.reservation.initialized()
    }

    /// Returns true if the response is large and has no reservation.
    fn needs_reservation(&self) -> bool {
        let (bytes, rows) = (self.bytes.load(Ordering::Relaxed), self.row_bytes.load(Ordering::Relaxed));
        bytes.max(rows) > SMALL_BYTES && !self.reservation.initialized()
    }

    /// Reserves memory for a response of [`MAX_BYTES`] if this memory is free. Returns true if there is a reservation.
    fn try_reserve(&self) -> bool {
        let permits = permits(MAX_BYTES);
        if let Ok(of_owner) = self.owner.0.clone().try_acquire_many_owned(permits)
            && let Ok(of_process) = self.process.permits.clone().try_acquire_many_owned(permits)
        {
            // Fails if another statement of the request reserves at the same time. One reservation is enough.
            let _ = self.reservation.set(Mutex::new(Reservation { of_owner, of_process }));
        }
        self.has_reservation()
    }

    /// Waits until there is memory for a response of [`MAX_BYTES`]. Fails if this memory does not become free within
    /// [`MAX_MEMORY_WAIT`], or is not free now after an earlier wait has failed.
    pub async fn wait_for_memory(&self) -> Result<(), SizeError> {
        if self.has_waited.load(Ordering::Relaxed) && !self.try_reserve() {
            return Err(SizeError::Busy);
        }
        let reserve = async {
            let permits = permits(MAX_BYTES);
            let of_owner = self.owner.0.clone().acquire_many_owned(permits).await?;
            let of_process = self.process.permits.clone().acquire_many_owned(permits).await?;
            Ok(Mutex::new(Reservation { of_owner, of_process }))
        };
        match timeout(MAX_MEMORY_WAIT, self.reservation.get_or_try_init(|| reserve)).await {
            Ok(Ok(_)) => {
                // `LoadRounds::run` checks `has_reservation` before each poll. The yield causes a new poll, so that the
                // rest of the response is built outside the worker threads.
                tokio::task::yield_now().await;
                Ok(())
            }
            Ok(Err(tokio::sync::AcquireError { .. })) | Err(_) => {
                self.has_waited.store(true, Ordering::Relaxed);
                Err(SizeError::Busy)
            }
        }
    }

    /// Splits the reserved memory of a finished response. `bytes` is the size of the response. The returned value keeps
    /// this size reserved until the value is dropped. The rest is given back when this [`ResponseSize`] is dropped.
    pub fn finish(&self, bytes: usize) -> UnreadResponse {
        let reservation = self.reservation.get().and_then(|reservation| {
            let Reservation { of_owner, of_process } = &mut *reservation.lock();
            let permits = permits(bytes.min(MAX_BYTES)) as usize;
            Some(Reservation { of_owner: of_owner.split(permits)?, of_process: of_process.split(permits)? })
        });
        self.process.unread.increment(bytes as f64);
        UnreadResponse { bytes, gauge: self.process.unread.clone(), _reservation: reservation }
    }
}

/// The bytes of the rows that one statement has read, counted row by row, because statements of a request can run
/// concurrently. Dropping this value without [`keep`](Self::keep) uncounts the rows.
pub struct RowBytes<'r> {
    response: &'r ResponseSize,
    bytes: usize,
}

impl RowBytes<'_> {
    /// Counts a row. Fails if the rows of the response are too large, or if the response must first wait for memory.
    pub fn add(&mut self, bytes: usize) -> Result<(), SizeError> {
        self.bytes += bytes;
        if self.response.row_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > MAX_ROW_BYTES {
            return Err(SizeError::TooLarge);
        }
        let has_memory = !self.response.needs_reservation() || self.response.try_reserve();
        if has_memory { Ok(()) } else { Err(SizeError::MustWait) }
    }

    /// Keeps the rows counted, because the statement is complete.
    pub fn keep(mut self) {
        self.bytes = 0;
    }
}

impl Drop for RowBytes<'_> {
    fn drop(&mut self) {
        self.response.row_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A finished response that its client has not read completely.
pub struct UnreadResponse {
    bytes: usize,
    gauge: Gauge,
    _reservation: Option<Reservation>,
}

impl Drop for UnreadResponse {
    fn drop(&mut self) {
        self.gauge.decrement(self.bytes as f64);
    }
}

#[cfg(test)]
mod tests {
    use futures::poll;

    use super::*;

    fn large(process: &ProcessMemory, owner: &OwnerMemory) -> ResponseSize {
        let size = ResponseSize::new(process.clone(), owner.clone());
        assert_eq!(size.add(SMALL_BYTES + 1), Ok(()));
        size
    }

    #[tokio::test]
    async fn an_owner_that_does_not_read_delays_only_its_own_large_responses() {
        let (process, own, other) = (ProcessMemory::default(), OwnerMemory::default(), OwnerMemory::default());
        let mut unread = Vec::new();
        for _ in 0..MAX_OWNER_BYTES / MAX_BYTES {
            let size = large(&process, &own);
            assert_eq!(size.ensure_memory().await, Ok(()));
            assert_eq!(size.add(MAX_BYTES - SMALL_BYTES - 1), Ok(()));
            assert_eq!(size.add(1), Err(SizeError::TooLarge));
            unread.push(size.finish(MAX_BYTES));
        }
        let waits = large(&process, &own);
        let mut reservation = Box::pin(waits.ensure_memory());
        assert!(poll!(&mut reservation).is_pending());
        let small = ResponseSize::new(process.clone(), own.clone());
        assert_eq!((small.add(SMALL_BYTES), small.ensure_memory().await), (Ok(()), Ok(())));
        assert_eq!(large(&process, &other).ensure_memory().await, Ok(()));
        unread.pop();
        assert_eq!(reservation.await, Ok(()));
    }

    #[tokio::test]
    async fn a_finished_response_keeps_only_its_own_size() {
        let (process, owner) = (ProcessMemory::default(), OwnerMemory::default());
        let unread = {
            let size = large(&process, &owner);
            assert_eq!(size.ensure_memory().await, Ok(()));
            size.finish(100 << 10)
        };
        let taken = |semaphore: &Semaphore, bytes| permits(bytes) as usize - semaphore.available_permits();
        assert_eq!((taken(&owner.0, MAX_OWNER_BYTES), taken(&process.permits, MAX_PROCESS_BYTES)), (100, 100));
        drop(unread);
        assert_eq!((taken(&owner.0, MAX_OWNER_BYTES), taken(&process.permits, MAX_PROCESS_BYTES)), (0, 0));
    }

    #[tokio::test]
    async fn large_rows_wait_before_they_are_read() {
        let (process, owner) = (ProcessMemory::default(), OwnerMemory::default());
        let others: Vec<_> = (0..MAX_OWNER_BYTES / MAX_BYTES).map(|_| large(&process, &owner)).collect();
        for other in &others {
            assert_eq!(other.ensure_memory().await, Ok(()));
        }
        let size = ResponseSize::new(process, owner);
        let mut rejected = size.rows();
        assert_eq!((rejected.add(SMALL_BYTES), rejected.add(1)), (Ok(()), Err(SizeError::MustWait)));
        drop(rejected);
        assert_eq!(size.rows().add(SMALL_BYTES), Ok(()));
        // Memory that is free is reserved without a wait.
        drop(others);
        let mut rows = size.rows();
        assert_eq!((rows.add(MAX_ROW_BYTES), size.has_reservation()), (Ok(()), true));
        assert_eq!(rows.add(1), Err(SizeError::TooLarge));
    }

    #[tokio::test]
    async fn the_rows_of_concurrent_statements_are_counted_together() {
        let size = ResponseSize::new(ProcessMemory::default(), OwnerMemory::default());
        assert_eq!(size.wait_for_memory().await, Ok(()));
        let (mut one, mut other) = (size.rows(), size.rows());
        assert_eq!((one.add(MAX_ROW_BYTES / 2), other.add(MAX_ROW_BYTES / 2)), (Ok(()), Ok(())));
        assert_eq!(one.add(1), Err(SizeError::TooLarge));
        drop(one);
        assert_eq!(other.add(1), Ok(()));
        other.keep();
        assert_eq!(size.rows().add(MAX_ROW_BYTES / 2), Err(SizeError::TooLarge));
    }
}
