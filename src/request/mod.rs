//! The request that a task works for: its tenant, the count of its work, and the memory of its response. Also the queue
//! that shares connections and carrier lookups fairly between tenants.

mod context;
mod fair_queue;
mod response_size;
mod run_to_completion;

pub use context::{RequestContext, Work, WorkCounter, count_query, count_work, is_alone, response, run_as, tenant};
pub use fair_queue::{Claim, FairQueue, Permit, Tenant};
pub use response_size::{OwnerMemory, ProcessMemory, ResponseSize, SizeError, UnreadResponse};
pub use run_to_completion::run_to_completion;
