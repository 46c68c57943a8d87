//! What requests ask for at the same moment, answered as one.

mod arrays;
mod reads;
mod writes;

pub(in crate::database) use arrays::arguments;
pub use reads::BatchedQuery;
pub(in crate::database) use writes::{BatchKey, Prepared};
pub use writes::{Dml, WriteBatch, WriteStatement, insert_from_select, row_values};

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::task;

use crate::database::connection::count_statement;

/// Those who ask at this moment, by the kind of their questions.
pub(in crate::database) struct Batcher<K, Q, A>(Mutex<HashMap<K, Vec<Waiter<Q, A>>>>);

type Waiter<Q, A> = (Q, oneshot::Sender<A>);

impl<K: Clone + Eq + Hash, Q, A> Batcher<K, Q, A> {
    /// The answer to a question. The first of those who ask the same kind of question at this moment answers them all, in
    /// their order. `None`: that one gave up.
    pub(in crate::database) async fn submit(
        &self,
        kind: K,
        question: Q,
        answer: impl AsyncFnOnce(Vec<Q>) -> Vec<A>,
    ) -> Option<A> {
        let (tell, told) = oneshot::channel();
        if self.is_first(&kind, (question, tell)) {
            let mut gathering = OpenBatch { all: self, kind: Some(kind) };
            // Whoever can go on meanwhile does, and may ask as well.
            task::yield_now().await;
            let (questions, asking): (Vec<_>, Vec<_>) = gathering.end().into_iter().unzip();
            for (tell, answer) in asking.into_iter().zip(answer(questions).await) {
                let _ = tell.send(answer);
            }
        } else {
            count_statement();
        }
        told.await.ok()
    }

    fn is_first(&self, kind: &K, asking: Waiter<Q, A>) -> bool {
        let mut all = self.lock();
        let same = all.entry(kind.clone()).or_default();
        same.push(asking);
        same.len() == 1
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Vec<Waiter<Q, A>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, Q, A> Default for Batcher<K, Q, A> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// Questions of a kind that somebody is about to answer. Should that one give up, those who ask are told nothing.
struct OpenBatch<'a, K: Clone + Eq + Hash, Q, A> {
    all: &'a Batcher<K, Q, A>,
    /// None once it has ended.
    kind: Option<K>,
}

impl<K: Clone + Eq + Hash, Q, A> OpenBatch<'_, K, Q, A> {
    /// Those who ask until now. Whoever comes next is the first of others.
    fn end(&mut self) -> Vec<Waiter<Q, A>> {
        self.kind.take().and_then(|kind| self.all.lock().remove(&kind)).unwrap_or_default()
    }
}

impl<K: Clone + Eq + Hash, Q, A> Drop for OpenBatch<'_, K, Q, A> {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::Batcher;

    #[tokio::test]
    async fn nothing_is_kept_of_what_was_answered() {
        let (kind, question) = (Arc::new("kind"), Arc::new("question"));
        let together = Batcher::default();
        let ask = || together.submit(kind.clone(), question.clone(), async |questions: Vec<_>| questions);
        assert_eq!(tokio::join!(ask(), ask()), (Some(question.clone()), Some(question.clone())));
        assert_eq!((Arc::strong_count(&kind), Arc::strong_count(&question)), (1, 1));
    }
}
