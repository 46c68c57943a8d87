//! The statements of an erasure.

use entity::{customer_change, customer_event, phone_lookup};
use sea_orm::sea_query::{Expr, ExprTrait, Query, SimpleExpr};
use sea_orm::{ColumnTrait, Condition, DbBackend, IdenStatic, Iterable};

use crate::database::{WriteStatement, delete_in_cte};
use crate::service::customers::history::HISTORY_ORDER;

/// Deletes cached results of carrier lookups.
pub(super) const DELETE_LOOKUPS: WriteStatement = WriteStatement {
    name: "erase lookups",
    columns: || vec![phone_lookup::Column::Hash.as_str()],
    build: |new, _| Box::new(delete_in_cte::<phone_lookup::Entity>(new, &[phone_lookup::Column::Hash])),
    must_write_all: false,
};

/// Sets the values of history entries to null. The entries keep the names of the changed fields.
pub(super) const REDACT_EVENTS: WriteStatement = WriteStatement {
    name: "redact events",
    columns: || vec!["of_customer", "first_version", "first_id", "last_version", "last_id"],
    build: |new, backend| {
        let without_values = |column: customer_event::Column| (column, without_values(backend, column.as_str()));
        let columns = customer_event::Column::iter().filter(has_values_in_history);
        let mut update = Query::update();
        update.table(customer_event::Entity).from(new.clone()).values(columns.map(without_values));
        let listed =
            |columns: &[&'static str]| Expr::tuple(columns.iter().map(|column| Expr::col((new.clone(), *column))));
        let position = || Expr::tuple(HISTORY_ORDER.map(|column| column.into_expr()));
        let of_customer = Expr::col((new.clone(), "of_customer"));
        update.and_where(customer_event::Column::CustomerId.into_expr().eq(of_customer));
        update.and_where(position().gte(listed(&["first_version", "first_id"])));
        update.and_where(position().lte(listed(&["last_version", "last_id"])));
        Box::new(update)
    },
    must_write_all: false,
};

/// Removes the external ids from the feed rows of history entries.
pub(super) const REDACT_FEED: WriteStatement = WriteStatement {
    name: "redact feed",
    columns: || vec!["of_customer", "first_id", "last_id"],
    build: |new, _| {
        use customer_change::Column::{CustomerId, Id};
        let listed = |column: &'static str| Expr::col((new.clone(), column));
        let columns = || customer_change::Column::iter().filter(has_values_in_feed);
        let mut update = Query::update();
        update.table(customer_change::Entity).from(new.clone());
        update.values(columns().map(|column| (column, Expr::cust("NULL"))));
        update.and_where(CustomerId.into_expr().eq(listed("of_customer")));
        update.and_where(Id.into_expr().between(listed("first_id"), listed("last_id")));
        let has_values = columns().map(|column| column.is_not_null());
        update.cond_where(has_values.fold(Condition::any(), Condition::add));
        Box::new(update)
    },
    must_write_all: false,
};

/// Returns true for the columns with personal data, which must be JSON objects. Names all columns, so that the compiler
/// reports a new column.
fn has_values_in_history(column: &customer_event::Column) -> bool {
    use customer_event::Column::{
        Actor, After, ApiKeyId, Before, CustomerId, DisconnectedOperatorId, Id, OccurredAt, OperatorId, Reason,
        RequestId, Type, VerifiedField, Version,
    };
    match column {
        Before | After => true,
        // The staff member in `actor` is not the customer.
        Id
        | CustomerId
        | OperatorId
        | ApiKeyId
        | RequestId
        | Actor
        | Type
        | Version
        | OccurredAt
        | DisconnectedOperatorId
        | Reason
        | VerifiedField => false,
    }
}

/// Like [`has_values_in_history`], for the feed. The columns with personal data must be nullable.
fn has_values_in_feed(column: &customer_change::Column) -> bool {
    use customer_change::Column::{
        ChangedFields, CustomerId, ExternalCustomerId, Id, OccurredAt, Own, Position, ReaderId, Swept, Type, Version,
    };
    match column {
        ExternalCustomerId => true,
        ReaderId | Position | Id | CustomerId | Type | Version | ChangedFields | Own | OccurredAt | Swept => false,
    }
}

/// Returns an expression for the JSON object in `column` with the same names, each with the value null.
fn without_values(backend: DbBackend, column: &str) -> SimpleExpr {
    let object = if backend == DbBackend::Postgres {
        format!(r#"SELECT COALESCE(jsonb_object_agg(name, NULL), '{{}}') FROM jsonb_object_keys("{column}") AS name"#)
    } else {
        format!(r#"SELECT json_group_object(key, NULL) FROM json_each("{column}")"#)
    };
    Expr::cust(format!("({object})"))
}
