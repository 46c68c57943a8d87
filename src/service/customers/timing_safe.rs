//! Lookups of an email or a phone among the customers of an operator whose response time does not reveal the customers
//! of other operators.

use entity::{customer, customer_operator};
use sea_orm::sea_query::{BinOper, Expr, ExprTrait, Func, Order, Query, SelectStatement, SimpleExpr};
use sea_orm::{ColumnTrait, Condition};

use crate::database::subquery;

/// Selects `id`, the id of the customer that has this value in `column`, the email or the phone. It is null if no
/// customer has the value. Also selects `next_own_id`, the first id of the operator's customers at or after the id of
/// the customer that was read, or the operator's last id if there is none. If both ids are equal, the customer with the
/// value is one of the operator's customers.
///
/// Timing-safe: the query does the same work for known and unknown people, so response times do not reveal the
/// customers of other operators (a difference of 2 µs shows after 30 requests per person). Instead of looking up
/// `value`, it reads the first customer at or after `value` in index order, then the operator's first link at or after
/// that customer's id. Looking up the link itself would also reveal how many operators the person has. If the operator
/// has any link, it always finds one: otherwise a person whose record is newer than the operator's customers would cost
/// less than the next person in index order. The query does less work if the value sorts after all stored values, and
/// takes longer if it reads a row from the disk. Do not turn this query into a join: PostgreSQL would read all links of
/// the operator.
///
/// If the operator has no link, `LEAST` ignores the null on PostgreSQL, and is null on SQLite. Neither finds a link
/// then.
///
/// ```sql
/// SELECT CASE WHEN email = $2 THEN id END AS id,
///   (SELECT customer_id FROM customer_operator AS own
///    WHERE own.operator_id = $1 AND own.customer_id >= LEAST(customer.id,
///      (SELECT own.customer_id FROM customer_operator AS own WHERE own.operator_id = $1
///       ORDER BY own.customer_id DESC LIMIT 1))
///    ORDER BY own.customer_id LIMIT 1) AS next_own_id
/// FROM customer WHERE email >= $2 ORDER BY email LIMIT 1
/// ```
pub(super) fn timing_safe_lookup(operator: SimpleExpr, column: customer::Column, value: SimpleExpr) -> SelectStatement {
    const OWN: &str = "own";
    let id = customer::Column::Id.into_expr();
    let own_id = || Expr::col((OWN, customer_operator::Column::CustomerId));
    let one_own = |order| {
        Query::select()
            .expr(own_id())
            .from_as(customer_operator::Entity, OWN)
            .and_where(Expr::col((OWN, customer_operator::Column::OperatorId)).eq(operator.clone()))
            .order_by((OWN, customer_operator::Column::CustomerId), order)
            .limit(1)
            .take()
    };
    let last_own = subquery(one_own(Order::Desc));
    let next_own = one_own(Order::Asc).and_where(own_id().gte(Func::least([id.clone(), last_own]))).take();
    Query::select()
        .expr_as(Expr::case(column.into_expr().eq(value.clone()), id), customer::Column::Id)
        .expr_as(subquery(next_own), NEXT_OWN_ID)
        .from(customer::Entity)
        .and_where(column.into_expr().gte(value))
        .order_by(column, Order::Asc)
        .limit(1)
        .take()
}

/// The second column of [`timing_safe_lookup`].
pub(super) const NEXT_OWN_ID: &str = "next_own_id";

/// Matches the operator's links, with their customers, if the customer has all these values. Each value is an email or
/// a phone. Takes the same time whether or not the platform knows the person (see [`timing_safe_lookup`]).
pub(super) fn has_all<V: Into<SimpleExpr>>(
    operator: impl Into<SimpleExpr>,
    values: impl IntoIterator<Item = (customer::Column, V)>,
) -> Condition {
    let values: Vec<_> = values.into_iter().map(|(column, value)| (column, value.into())).collect();
    let is_candidate = values.first().cloned().map(|(column, value)| {
        let lookup = timing_safe_lookup(operator.into(), column, value);
        let next_own_id = Query::select().column(NEXT_OWN_ID).from_subquery(lookup, "lookup").take();
        customer_operator::Column::CustomerId.into_expr().eq(subquery(next_own_id))
    });
    // The concatenation prevents the database from looking up a value in an index.
    let is_in_row = |(column, value): (customer::Column, SimpleExpr)| {
        column.into_expr().binary(BinOper::Custom("||"), "").eq(value)
    };
    values.into_iter().map(is_in_row).fold(Condition::all().add_option(is_candidate), Condition::add)
}
