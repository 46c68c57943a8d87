//! The cost of a request, computed from its work.

use sea_orm::Iterable;

use crate::request::{Work, WorkCounter};

/// The weights of the work of a request, in thousandths of a cost of 1. A cost of 1 stands for about 100 µs of
/// processor time of the service and its database together, which `benches/service/cost.py` measures.
pub mod weights {
    /// The work to read and check a request and to send the response.
    pub const REQUEST: u64 = 500;
    /// The work to parse and validate a field of the document.
    pub const FIELD: u64 = 8;
    pub const QUERY: u64 = 100;
    pub const ROW: u64 = 75;
    /// A value of the response.
    pub const VALUE: u64 = 1;
    /// The work to parse 4 KiB of the body.
    pub const PARAMETERS: u64 = 1000;
    pub const ENTRY: u64 = 1;
    pub const CHECK: u64 = 15;
    pub const WRITE: u64 = 60;
    /// The estimate for an item of a list: a row and its values.
    pub const ITEM: u64 = 100;
    /// The estimate for a search, for a condition without an index, or for a count.
    pub const SCAN: u64 = 1000;

    /// Estimates the work for a page of a list.
    pub fn list(items: u64, is_scanned: bool) -> u64 {
        QUERY + items * ITEM + u64::from(is_scanned) * SCAN
    }

    /// Converts work to a cost.
    pub fn cost_of_work(work: u64) -> u32 {
        u32::try_from(work.div_ceil(1000)).unwrap_or(u32::MAX)
    }
}

/// The minimum cost of each mutation in a request. The work of a mutation can cost more, for example if many rows are
/// written.
pub const MUTATION_COST: u32 = 10;

/// The minimum cost of `validateCustomer`, which looks up the same values as `createCustomer`.
pub const VALIDATION_COST: u32 = 2;

/// Returns the cost of a request from the counted work, the number of fields of the operation, and the number of
/// values in the response that the counted work does not include.
pub fn cost_of_request(work: &WorkCounter, fields: u64, values: u64) -> u32 {
    let work: u64 = Work::iter().map(|kind| work.get(kind) * weight(kind)).sum();
    weights::cost_of_work(weights::REQUEST + work + fields * weights::FIELD + values * weights::VALUE)
}

/// Returns the weight of one unit of a kind of work.
fn weight(kind: Work) -> u64 {
    match kind {
        // The number of statements varies with retries and batches, which the caller cannot influence. Each statement
        // consists of queries and writes, which have weights.
        Work::Statement => 0,
        Work::Query => weights::QUERY,
        Work::Row => weights::ROW,
        Work::Entry => weights::ENTRY,
        Work::Check => weights::CHECK,
        Work::Write => weights::WRITE,
        Work::Value => weights::VALUE,
        Work::Parameters => weights::PARAMETERS,
    }
}
