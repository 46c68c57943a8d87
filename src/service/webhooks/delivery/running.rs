//! The deliveries of a process that are in progress.

use std::collections::HashMap;

use entity::value::OperatorId;
use tokio::task::{Id, JoinSet};

use crate::service::webhooks::endpoints::MAX_ENDPOINTS_PER_OPERATOR;

/// The maximum number of endpoints that a process delivers to at the same time.
const MAX_CONCURRENT_ENDPOINTS: usize = 200;

/// The deliveries of this process that are in progress.
#[derive(Default)]
pub(super) struct Running {
    tasks: JoinSet<()>,
    operators: HashMap<Id, OperatorId>,
}

impl Running {
    pub(super) fn spawn(&mut self, operator: OperatorId, delivery: impl Future<Output = ()> + Send + 'static) {
        let task = self.tasks.spawn(delivery).id();
        self.operators.insert(task, operator);
    }

    /// Forgets the deliveries that have ended. Returns true if there were any.
    pub(super) fn remove_ended(&mut self) -> bool {
        let before = self.operators.len();
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            self.operators.remove(&ended.map_or_else(|error| error.id(), |(task, ())| task));
        }
        self.operators.len() < before
    }

    /// The number of deliveries that may begin.
    pub(super) fn free(&self) -> usize {
        MAX_CONCURRENT_ENDPOINTS.saturating_sub(self.operators.len())
    }

    pub(super) fn is_full(&self) -> bool {
        self.free() == 0
    }

    /// The operators with as many deliveries as an operator may have endpoints. The delivery to an endpoint that was
    /// deleted in the meantime counts until it ends. Otherwise an operator that creates and deletes endpoints of slow
    /// hosts could take most deliveries of the process.
    pub(super) fn busy_operators(&self) -> Vec<OperatorId> {
        let mut counts: HashMap<OperatorId, u64> = HashMap::new();
        for operator in self.operators.values() {
            *counts.entry(*operator).or_default() += 1;
        }
        counts.retain(|_, count| *count >= MAX_ENDPOINTS_PER_OPERATOR);
        counts.into_keys().collect()
    }

    /// Waits for all deliveries.
    pub(super) async fn finish(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}
