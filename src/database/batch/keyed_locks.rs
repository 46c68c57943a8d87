//! Locks by key: the batches of a key run one after the other, so that more requests share each of them.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout;

/// The maximum time for which a batch waits for the batch before it. A batch that waits for a row lock, or for a slow
/// disk, therefore hardly delays the batches after it.
const MAX_LOCK_WAIT: Duration = Duration::from_millis(2);

/// A lock for each key whose batches are running.
pub(super) struct KeyedLocks<K> {
    locks: Mutex<HashMap<K, Arc<Lock>>>,
}

type Lock = tokio::sync::Mutex<()>;

/// The lock of a batch, which is released when this value is dropped.
pub(super) struct KeyedGuard<'a, K: Eq + Hash> {
    owner: &'a KeyedLocks<K>,
    key: K,
    /// `None` if the batch before this one is still running.
    guard: Option<OwnedMutexGuard<()>>,
}

impl<K: Clone + Eq + Hash> KeyedLocks<K> {
    /// Waits until no other batch of this key is running, for at most [`MAX_LOCK_WAIT`].
    pub(super) async fn lock_or_time_out(&self, key: K) -> KeyedGuard<'_, K> {
        let lock = self.locks.lock().entry(key.clone()).or_default().clone();
        let mut guard = KeyedGuard { owner: self, key, guard: None };
        guard.guard = timeout(MAX_LOCK_WAIT, lock.lock_owned()).await.ok();
        guard
    }
}

impl<K> Default for KeyedLocks<K> {
    fn default() -> Self {
        Self { locks: Mutex::default() }
    }
}

impl<K: Eq + Hash> Drop for KeyedGuard<'_, K> {
    fn drop(&mut self) {
        let mut locks = self.owner.locks.lock();
        self.guard = None;
        // Only `locks` refers to the lock, so no other batch has it or waits for it.
        if locks.get(&self.key).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            locks.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_batch_waits_for_the_end_of_the_batch_before_it() {
        let keyed = KeyedLocks::default();
        let first = keyed.lock_or_time_out("key").await;
        assert!(keyed.lock_or_time_out("other key").await.guard.is_some());
        let mut second = Box::pin(keyed.lock_or_time_out("key"));
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        assert!(second.await.guard.is_some());
        assert!(keyed.locks.lock().is_empty());
    }

    #[tokio::test]
    async fn a_batch_does_not_wait_for_long() {
        let keyed = KeyedLocks::default();
        let first = keyed.lock_or_time_out("key").await;
        let second = keyed.lock_or_time_out("key").await;
        assert!(first.guard.is_some() && second.guard.is_none());
        drop(first);
        assert!(keyed.lock_or_time_out("key").await.guard.is_some());
        drop(second);
        assert!(keyed.locks.lock().is_empty());
    }
}
