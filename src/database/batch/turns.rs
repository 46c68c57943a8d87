//! Turns: the batches of a key run one after the other, so that more requests share each of them.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout;

/// The maximum time for which a batch waits for the batch before it. A batch that waits for a row lock, or for a slow
/// disk, therefore hardly delays the batches after it.
const MAX_TURN_WAIT: Duration = Duration::from_millis(2);

/// The keys whose batches are running.
pub(super) struct Turns<K> {
    locks: Mutex<HashMap<K, Arc<Lock>>>,
}

type Lock = tokio::sync::Mutex<()>;

/// The turn of a batch, which ends when this value is dropped.
pub(super) struct Turn<'a, K: Eq + Hash> {
    turns: &'a Turns<K>,
    key: K,
    lock: Arc<Lock>,
    /// `None` if the batch before this one is still running.
    guard: Option<OwnedMutexGuard<()>>,
}

impl<K: Clone + Eq + Hash> Turns<K> {
    /// Waits until no other batch of this key is running, for at most [`MAX_TURN_WAIT`].
    pub(super) async fn wait(&self, key: K) -> Turn<'_, K> {
        let lock = self.locks.lock().entry(key.clone()).or_default().clone();
        let mut turn = Turn { turns: self, key, lock: lock.clone(), guard: None };
        turn.guard = timeout(MAX_TURN_WAIT, lock.lock_owned()).await.ok();
        turn
    }
}

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self { locks: Mutex::default() }
    }
}

impl<K: Eq + Hash> Drop for Turn<'_, K> {
    fn drop(&mut self) {
        self.guard = None;
        let mut locks = self.turns.locks.lock();
        // Only `locks` and this turn refer to the lock, so no other batch needs it.
        if Arc::strong_count(&self.lock) == 2 {
            locks.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_batch_waits_for_the_end_of_the_batch_before_it() {
        let turns = Turns::default();
        let first = turns.wait("key").await;
        assert!(turns.wait("other key").await.guard.is_some());
        let mut second = Box::pin(turns.wait("key"));
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        assert!(second.await.guard.is_some());
        assert!(turns.locks.lock().is_empty());
    }

    #[tokio::test]
    async fn a_batch_does_not_wait_for_long() {
        let turns = Turns::default();
        let first = turns.wait("key").await;
        let second = turns.wait("key").await;
        assert!(first.guard.is_some() && second.guard.is_none());
        drop(first);
        assert!(turns.wait("key").await.guard.is_some());
        drop(second);
        assert!(turns.locks.lock().is_empty());
    }
}
