//! Keyset pagination: pages of lists, read in few statements.
//!
//! A [`Position`] is the sort key and the id of a row. A page therefore starts where the previous page ended, even if
//! earlier rows were inserted or deleted in the meantime. One `UNION ALL` reads several lists. Each part of the
//! `UNION ALL`, a *branch*, has its own limit:
//!
//! ```sql
//! SELECT 0 AS "branch", "branch_rows".*
//! FROM (SELECT … WHERE (connected_at, customer_id) > ($1, $2) ORDER BY … LIMIT 21) AS "branch_rows"
//! UNION ALL SELECT 1 AS "branch", "branch_rows".* FROM (…) AS "branch_rows"
//! ```
//!
//! Each of these branches reads one row more than the size of the page. The additional row shows that there are more
//! rows.
//!
//! A [`Scan`] reads a list with a condition that has no index, or with a search. It checks the rows one by one in the
//! order of the list. It ends when the page is full, or after [`MAX_SCAN`](scan::MAX_SCAN) rows. Further branches of
//! the same statement read certain rows of the scan, its *milestones*, which show how far the scan has come. If the
//! page is not full, the scan has ended at the last milestone, and the next page starts there. The example shows only
//! this milestone. All branches are in one statement so that they see the same rows:
//!
//! ```sql
//! SELECT 0 AS "branch", "customer_operator".*, "customer".*
//! FROM (SELECT * FROM (SELECT connected_at, customer_id, operator_id … WHERE (connected_at, customer_id) > ($1, $2)
//!                      ORDER BY … LIMIT 10000) AS "scan"
//!       WHERE (SELECT 1 FROM … WHERE … customer_id = "scan"."customer_id" …) IS NOT NULL
//!       ORDER BY 1, 2 LIMIT 21) AS "branch_rows"
//! INNER JOIN "customer_operator" ON … INNER JOIN "customer" ON …
//! UNION ALL SELECT 1 AS "branch", "customer_operator".*, "customer".*
//! FROM (SELECT connected_at, customer_id, operator_id … LIMIT 1 OFFSET 9999) AS "branch_rows"
//! INNER JOIN … INNER JOIN …
//! ```

mod branches;
mod by_owner;
mod counts;
mod keyset;
mod list;
mod read;
mod scan;

pub use branches::{BRANCH_ROWS, ROW};
pub use by_owner::pages_by_owner;
pub use counts::{Count, counts, list_counts};
pub use keyset::{Direction, HasPosition, Page, PageEnds, PageRequest, Position, Section, SortKey, SortOrder};
pub use list::{JoinedTable, ListPart, ListRequest};
pub use read::{page, pages};
pub use scan::{MAX_BOUNDED_SCAN, SCAN, Scan};
