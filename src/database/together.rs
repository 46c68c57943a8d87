//! What requests ask for at the same moment, answered as one.

use std::collections::HashMap;
use std::hash::Hash;
use std::mem::ManuallyDrop;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::task;

use super::connection::count_statement;

/// Those who ask at this moment, by the kind of their questions.
pub(super) struct Together<K, Q, A>(Mutex<HashMap<K, Vec<Asking<Q, A>>>>);

type Asking<Q, A> = (Q, oneshot::Sender<A>);

impl<K: Clone + Eq + Hash, Q, A> Together<K, Q, A> {
    /// The answer to a question. The first of those who ask the same kind of question at this moment answers them all, in
    /// their order. `None`: that one gave up.
    pub(super) async fn ask(&self, kind: K, question: Q, answer: impl AsyncFnOnce(Vec<Q>) -> Vec<A>) -> Option<A> {
        let (tell, told) = oneshot::channel();
        if self.is_first(&kind, (question, tell)) {
            let gathering = Gathering { all: self, kind };
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

    fn is_first(&self, kind: &K, asking: Asking<Q, A>) -> bool {
        let mut all = self.lock();
        let same = all.entry(kind.clone()).or_default();
        same.push(asking);
        same.len() == 1
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Vec<Asking<Q, A>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, Q, A> Default for Together<K, Q, A> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// Questions of a kind that somebody is about to answer. Should that one give up, those who ask are told nothing.
struct Gathering<'a, K: Clone + Eq + Hash, Q, A> {
    all: &'a Together<K, Q, A>,
    kind: K,
}

impl<K: Clone + Eq + Hash, Q, A> Gathering<'_, K, Q, A> {
    /// Those who ask until now. Whoever comes next is the first of others.
    fn end(self) -> Vec<Asking<Q, A>> {
        let gathering = ManuallyDrop::new(self);
        gathering.take()
    }

    fn take(&self) -> Vec<Asking<Q, A>> {
        self.all.lock().remove(&self.kind).unwrap_or_default()
    }
}

impl<K: Clone + Eq + Hash, Q, A> Drop for Gathering<'_, K, Q, A> {
    fn drop(&mut self) {
        self.take();
    }
}
