//! Lists, and the branches that read a page of a list.

use sea_orm::sea_query::{Expr, ExprTrait, SelectStatement, SimpleExpr};
use sea_orm::{EntityTrait, IdenStatic, Iterable};

use super::branches::{Branch, ROWS, limit};
use super::keyset::{PageRequest, Position, SortKey, SortOrder};
use super::scan::Scan;

/// A list, or a part of a list. A row may be in several parts of a list.
pub struct ListPart {
    pub query: SelectStatement,
    /// The columns of a row's [`Position`]: the sort key and the id, or only one of them if it is unique in the list.
    pub position_columns: Vec<SimpleExpr>,
    pub order: SortOrder,
    /// Tables to join to the rows of the page after the limit has been applied.
    pub joined: Vec<JoinedTable>,
    /// Reads the rows one by one. With a scan, the first columns that `query` selects must be `position_columns`,
    /// because the page is ordered by column number. A row of the page then has only the columns of the joined tables.
    pub scan: Option<Scan>,
}

/// A page to read of a list with one or more parts. A list with several parts must be in ascending order.
pub struct ListRequest {
    pub parts: Vec<ListPart>,
    pub request: PageRequest,
}

/// A table to join, with all its columns.
pub struct JoinedTable {
    /// The columns of the table, with a comma before each column.
    columns: String,
    /// The `INNER JOIN` of the table.
    join: String,
}

impl ListPart {
    /// A list in ascending order of the columns.
    pub fn new(query: SelectStatement, position_columns: Vec<SimpleExpr>) -> Self {
        Self { query, position_columns, order: SortOrder::Ascending, joined: Vec::new(), scan: None }
    }

    /// Adds the branch that reads the page to `group`, then one branch for each milestone of a scan.
    pub(super) fn add_branches(self, request: &PageRequest, group: &mut Vec<Branch>) {
        let Self { mut query, position_columns, order, joined, scan } = self;
        for (position, is_after) in [(&request.after, true), (&request.before, false)] {
            let Some(Position { sort_key, id }) = position else { continue };
            // The position is one of this list, so its sort key fits the columns. A single column is compared without
            // a tuple.
            let (row, bound) = match sort_key {
                // The list, or this section of the list, is in the order of the ids.
                SortKey::First | SortKey::OnlyId => (position_columns[0].clone(), Expr::val(*id)),
                SortKey::Time(time) => {
                    (Expr::tuple(position_columns.clone()), Expr::tuple([Expr::val(*time), Expr::val(*id)]))
                }
                SortKey::Number(number) => {
                    (Expr::tuple(position_columns.clone()), Expr::tuple([Expr::val(*number), Expr::val(*id)]))
                }
                SortKey::Text(text) => (position_columns[0].clone(), Expr::val(text.as_str())),
            };
            query.and_where(if is_after == (order == SortOrder::Ascending) { row.gt(bound) } else { row.lt(bound) });
        }
        let order = request.order(order);
        let direction = match order {
            SortOrder::Ascending => "ASC",
            SortOrder::Descending => "DESC",
        };
        let scan_order: Vec<_> = (1..=position_columns.len()).map(|column| format!("{column} {direction}")).collect();
        for column in position_columns {
            query.order_by_expr(column, order.into());
        }
        let (columns, join) =
            joined.iter().map(|joined| (joined.columns.as_str(), joined.join.as_str())).unzip::<_, _, String, String>();
        let select = if scan.is_some() { columns } else { ROWS.to_owned() + &columns };
        let branch = |filters, suffix| Branch {
            select: select.clone(),
            query: query.clone(),
            filters,
            suffix,
            join: join.clone(),
        };
        let page_limit = limit(request.size + 1);
        let Some(scan) = scan else {
            group.push(branch(None, page_limit));
            return;
        };
        let milestones = scan.milestones();
        group.push(branch(Some(scan.filters), format!(" ORDER BY {}{page_limit}", scan_order.join(", "))));
        group.extend(milestones.iter().map(|number| branch(None, format!(" LIMIT 1 OFFSET {}", number - 1))));
    }
}

impl ListRequest {
    /// A page of a list that has one part.
    pub fn new(list: ListPart, request: PageRequest) -> Self {
        Self { parts: vec![list], request }
    }
}

impl JoinedTable {
    /// Joins the table of `E`. Each item of `on` is a column of `E`, another table, and the column of that table which
    /// must have the same value.
    pub fn new<E: EntityTrait>(on: &[(E::Column, &str, &str)]) -> Self {
        let table = E::default().table_name();
        let columns = E::Column::iter().map(|column| format!(", \"{table}\".\"{}\"", column.as_str())).collect();
        let is_equal = |(column, other_table, other): &(E::Column, &str, &str)| {
            format!("\"{table}\".\"{}\" = \"{other_table}\".\"{other}\"", column.as_str())
        };
        let on: Vec<_> = on.iter().map(is_equal).collect();
        Self { columns, join: format!(" INNER JOIN \"{table}\" ON {}", on.join(" AND ")) }
    }
}
