//! Polls a connection again immediately if it wakes itself.
//!
//! hyper reads the body of a request only when the handler asks for it. The handler runs inside the connection, so
//! asking for the body wakes the task that is running. tokio treats this as a yield: it queues the task and wakes an
//! idle thread, which may take the connection to another core. With one client, this takes about a fifth of the
//! server's processor time.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// Polls `connection` a second time if it was woken during the first poll.
pub async fn poll_again_if_woken<F: Future>(connection: F) -> F::Output {
    let mut connection = pin!(connection);
    let state = Arc::new(State::default());
    let waker = Waker::from(state.clone());
    std::future::poll_fn(|context| {
        state.task.register(context.waker());
        // A future that wakes itself twice wants to let other tasks run, for example because it has used up its budget.
        for _ in 0..2 {
            // A swap and not a store: the poll must see what the thread of the last wake did before the wake.
            state.phase.swap(POLLED, Ordering::SeqCst);
            if let Poll::Ready(output) = connection.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Poll::Ready(output);
            }
            if state.phase.compare_exchange(POLLED, IDLE, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                return Poll::Pending;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

/// The connection waits for a wake.
const IDLE: u8 = 0;
/// The connection is polled, and has not been woken since the poll began.
const POLLED: u8 = 1;
/// The connection was woken. It is polled again, or its task will run.
const WOKEN: u8 = 2;

#[derive(Default)]
struct State {
    /// [`IDLE`], [`POLLED`] or [`WOKEN`].
    phase: AtomicU8,
    task: AtomicWaker,
}

impl Wake for State {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.phase.swap(WOKEN, Ordering::SeqCst) == IDLE {
            self.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use parking_lot::Mutex;

    use super::*;

    #[derive(Default)]
    struct Task(AtomicU8);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Returns the number of polls and the number of wakes of the task after one poll of a future that wakes itself
    /// during its first polls.
    fn poll_once(own_wakes: u8) -> (u8, u8) {
        let (task, mut polls) = (Arc::new(Task::default()), 0);
        let connection = poll_fn(|context| {
            polls += 1;
            if polls <= own_wakes {
                context.waker().wake_by_ref();
            }
            Poll::<()>::Pending
        });
        let poll = pin!(poll_again_if_woken(connection)).poll(&mut Context::from_waker(&Waker::from(task.clone())));
        assert!(poll.is_pending());
        (polls, task.0.load(Ordering::SeqCst))
    }

    #[test]
    fn a_connection_that_wakes_itself_once_is_polled_again_without_waking_its_task() {
        assert_eq!(poll_once(0), (1, 0));
        assert_eq!(poll_once(1), (2, 0));
        assert_eq!(poll_once(2), (2, 1));
    }

    #[test]
    fn a_wake_between_polls_wakes_the_task() {
        let (task, waker) = (Arc::new(Task::default()), Mutex::new(None::<Waker>));
        let connection = poll_fn(|context| {
            *waker.lock() = Some(context.waker().clone());
            Poll::<()>::Pending
        });
        let mut polled = pin!(poll_again_if_woken(connection));
        let task_waker = Waker::from(task.clone());
        for round in 0..3 {
            assert!(polled.as_mut().poll(&mut Context::from_waker(&task_waker)).is_pending());
            assert_eq!(task.0.load(Ordering::SeqCst), round);
            waker.lock().as_ref().unwrap().wake_by_ref();
            assert_eq!(task.0.load(Ordering::SeqCst), round + 1);
        }
    }
}
