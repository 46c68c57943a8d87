//! Reads rows of `customer` and `customer_operator`.
//!
//! Columns are read by their position in the entity, because reading them by name takes several times as long, and a
//! response can have hundreds of rows.

use crate::database::try_get_time;
use entity::value::{CustomerId, EmailAddress, OperatorId, PhoneNumber};
use entity::{customer, customer_operator};
use sea_orm::sea_query::{Expr, ExprTrait, IntoTableRef, LockType, SelectStatement, SimpleExpr};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DbErr, EntityTrait, Iterable, QueryFilter, QueryResult, QuerySelect,
    QueryTrait, Select, SelectTwo,
};

/// A row of `customer_operator`: the customer is connected to the operator.
pub(super) type Link = customer_operator::Model;

/// A customer of an operator, and its link to the operator.
pub(super) struct OwnCustomer {
    pub(super) link: Link,
    pub(super) customer: customer::Model,
}

/// Reads a link whose first column is at `first`.
pub(super) fn link_at(row: &QueryResult, first: usize) -> Result<Link, DbErr> {
    use customer_operator::Column;
    let at = |column: Column| first + column as usize;
    Ok(Link {
        operator_id: row.try_get_by_index(at(Column::OperatorId))?,
        customer_id: row.try_get_by_index(at(Column::CustomerId))?,
        external_customer_id: row.try_get_by_index(at(Column::ExternalCustomerId))?,
        connected_at: row.try_get_by_index(at(Column::ConnectedAt))?,
    })
}

/// Reads a customer whose first column is at `first`.
pub(super) fn customer_at(row: &QueryResult, first: usize) -> Result<customer::Model, DbErr> {
    use customer::Column;
    let at = |column: Column| first + column as usize;
    Ok(customer::Model {
        id: row.try_get_by_index(at(Column::Id))?,
        email: row.try_get_by_index(at(Column::Email))?,
        phone: row.try_get_by_index(at(Column::Phone))?,
        first_name: row.try_get_by_index(at(Column::FirstName))?,
        last_name: row.try_get_by_index(at(Column::LastName))?,
        address: row.try_get_by_index(at(Column::Address))?,
        version: row.try_get_by_index(at(Column::Version))?,
        created_at: row.try_get_by_index(at(Column::CreatedAt))?,
        updated_at: row.try_get_by_index(at(Column::UpdatedAt))?,
        revision: row.try_get_by_index(at(Column::Revision))?,
        email_verified_at: try_get_time(row, at(Column::EmailVerifiedAt))?,
        phone_verified_at: try_get_time(row, at(Column::PhoneVerifiedAt))?,
    })
}

/// Reads a customer whose first column is at `first`. `None` if an outer join found no customer.
pub(super) fn joined_customer_at(row: &QueryResult, first: usize) -> Result<Option<customer::Model>, DbErr> {
    let id: Option<CustomerId> = row.try_get_by_index(first + customer::Column::Id as usize)?;
    id.map(|_| customer_at(row, first)).transpose()
}

/// Reads a link whose first column is at `first`, and the customer after it.
pub(super) fn own_customer_at(row: &QueryResult, first: usize) -> Result<OwnCustomer, DbErr> {
    let link = link_at(row, first)?;
    let customer = customer_at(row, first + customer_operator::Column::iter().len())?;
    Ok(OwnCustomer { link, customer })
}

/// Like [`own_customer_at`]. `None` if an outer join found no link.
pub(super) fn joined_own_customer_at(row: &QueryResult, first: usize) -> Result<Option<OwnCustomer>, DbErr> {
    let operator: Option<OperatorId> = row.try_get_by_index(first + customer_operator::Column::OperatorId as usize)?;
    operator.map(|_| own_customer_at(row, first)).transpose()
}

/// Reads customers. The second value is true for a customer that is connected to `operator`.
pub(super) async fn read_with_ownership(
    connection: &impl ConnectionTrait,
    customers: Select<customer::Entity>,
    operator: Option<OperatorId>,
) -> Result<Vec<(customer::Model, bool)>, DbErr> {
    let is_own = match operator {
        Some(operator) => {
            use customer_operator::{Column, Entity};
            let is_of_customer = Column::CustomerId.into_expr().eq(customer::Column::Id.into_expr());
            let links = Entity::find().filter(Column::OperatorId.eq(operator)).filter(is_of_customer);
            Expr::exists(links.select_only().expr(Expr::cust("1")).into_query())
        }
        None => Expr::cust("FALSE"),
    };
    let rows = connection.query_all(&customers.expr_as(is_own, "is_own").into_query()).await?;
    let read = |row: &QueryResult| Ok((customer_at(row, 0)?, row.try_get("", "is_own")?));
    rows.iter().map(read).collect()
}

/// Runs a query for all columns of `customer`.
pub(super) async fn read_customers(
    connection: &impl ConnectionTrait,
    query: &SelectStatement,
) -> Result<Vec<customer::Model>, DbErr> {
    connection.query_all(query).await?.iter().map(|row| customer_at(row, 0)).collect()
}

/// Runs a query for links and their customers, such as [`of_operator`].
pub(super) async fn read_own_customers(
    connection: &impl ConnectionTrait,
    query: &SelectStatement,
) -> Result<Vec<OwnCustomer>, DbErr> {
    connection.query_all(query).await?.iter().map(|row| own_customer_at(row, 0)).collect()
}

/// Runs a query for links and their customers, and locks both. The link is locked as well, because a query that waits
/// for the customer would otherwise return a link that was deleted in the meantime.
pub(super) async fn lock_own_customers(
    connection: &impl ConnectionTrait,
    mut query: SelectTwo<customer_operator::Entity, customer::Entity>,
) -> Result<Vec<OwnCustomer>, DbErr> {
    let locked = [customer::Entity.into_table_ref(), customer_operator::Entity.into_table_ref()];
    QuerySelect::query(&mut query).lock_with_tables(LockType::Update, locked);
    read_own_customers(connection, &query.into_query()).await
}

/// Selects the links of an operator, with their customers.
pub(super) fn of_operator(operator: impl Into<SimpleExpr>) -> SelectTwo<customer_operator::Entity, customer::Entity> {
    customer_operator::Entity::find()
        .filter(customer_operator::Column::OperatorId.into_expr().eq(operator))
        .inner_join(customer::Entity)
        .select_also(customer::Entity)
}

/// Matches the customers that have this email or this phone.
pub(super) fn has_email_or_phone(email: Option<&EmailAddress>, phone: Option<&PhoneNumber>) -> Condition {
    Condition::any()
        .add_option(email.map(|email| customer::Column::Email.eq(email.clone())))
        .add_option(phone.map(|phone| customer::Column::Phone.eq(phone.clone())))
}
