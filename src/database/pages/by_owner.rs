//! Pages of the lists of several owners, for example the operators of each customer of a page.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

use sea_orm::sea_query::{
    Alias, Asterisk, Expr, ExprTrait, OverStatement, Query, SelectStatement, SimpleExpr, Value, ValueType,
    WindowStatement,
};
use sea_orm::{ColumnTrait, Condition, DbErr, QueryResult};

use super::branches::{Branch, limit, rows_by_branch};
use super::keyset::{HasPosition, Page, PageRequest};
use super::list::{ListPart, ListRequest};
use super::read::pages;
use crate::database::{Reader, is_one_of};

/// Loads a page of the list of each owner. `list` selects the rows that match a condition on the owner, in ascending
/// order and without a scan or joined tables. `read` returns a row's owner and the row. The same owner may be in
/// several requests.
///
/// - **If all owners request the same first or last page**, which is usual, one statement reads the rows of all owners
///   without order, and this function forms the pages. If that statement reaches its limit, a second statement numbers
///   the rows of each owner and reads only the rows of the pages.
/// - **Otherwise** all pages are read by a `UNION ALL`. The text of the `UNION ALL` depends on the number of owners, so
///   PostgreSQL plans it again for each number. The text of the single statement for all owners hardly varies.
pub async fn pages_by_owner<K: Copy + Eq + Hash + ValueType + Into<Value>, T: HasPosition + Clone>(
    reader: &Reader,
    requests: &[(K, PageRequest)],
    owner: impl ColumnTrait,
    list: impl Fn(Condition) -> ListPart,
    read: impl Fn(&QueryResult) -> Result<(K, T), DbErr>,
) -> Result<Vec<Page<T>>, DbErr> {
    /// The smallest limit of the statement for all owners. This value is large, so that most requests use it as their
    /// limit. The SQL text then rarely varies, and most requests need no second statement.
    const MIN_ROWS: usize = 1000;
    let [(_, request), ..] = requests else { return Ok(Vec::new()) };
    let has_position = request.after.is_some() || request.before.is_some();
    if has_position || requests.iter().any(|(_, other)| other != request) {
        let each = requests.iter().map(|(key, request)| ListRequest::new(list(owner.eq(*key).into()), request.clone()));
        return pages(reader, each.collect(), |row| read(row).map(|(_, row)| row), |_, row| row.position()).await;
    }
    let owners = requests.iter().map(|(owner, _)| *owner);
    // Rounded up, because each limit is another SQL statement.
    let max_rows = MIN_ROWS.max(owners.len().next_power_of_two() * (request.size + 1));
    let list = list(is_one_of(reader, owner, owners).into());
    let mut rows =
        rows_by_branch(reader, vec![vec![Branch::rows(list.query.clone(), limit(max_rows))]]).await?.remove(0);
    // Numbering the rows costs as much as reading them, and only long lists need the numbers.
    if rows.len() == max_rows {
        let query = numbered(list, owner.into_expr(), request);
        rows = rows_by_branch(reader, vec![vec![Branch::rows(query, String::new())]]).await?.remove(0);
    }
    let mut rows_by_owner: HashMap<K, Vec<T>> = HashMap::with_capacity(requests.len());
    for row in &rows {
        let (owner, row) = read(row)?;
        rows_by_owner.entry(owner).or_default().push(row);
    }
    let mut pages: Vec<Page<T>> = Vec::with_capacity(requests.len());
    let mut first_page_of: HashMap<K, usize> = HashMap::with_capacity(requests.len());
    for (owner, _) in requests {
        let page = match first_page_of.entry(*owner) {
            Entry::Occupied(first) => pages[*first.get()].clone(),
            Entry::Vacant(entry) => {
                entry.insert(pages.len());
                let mut rows = rows_by_owner.remove(owner).unwrap_or_default();
                rows.sort_by_key(HasPosition::position);
                request.page(rows)
            }
        };
        pages.push(page);
    }
    Ok(pages)
}

/// Selects the rows of each owner's page, and one row more (see [`PageRequest::page`]).
fn numbered(list: ListPart, owner: SimpleExpr, request: &PageRequest) -> SelectStatement {
    let ListPart { query: mut all, position_columns, order, .. } = list;
    let mut window = WindowStatement::new();
    window.add_partition_by(owner);
    for column in position_columns {
        window.order_by_expr(column, request.order(order).into());
    }
    all.expr_window_as(Expr::cust("ROW_NUMBER()"), window, "number");
    let is_of_page = Expr::col(Alias::new("number")).lte(Expr::cust((request.size + 1).to_string()));
    Query::select().column(Asterisk).from_subquery(all, "numbered").and_where(is_of_page).take()
}
