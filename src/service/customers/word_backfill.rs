//! Adds search words to links that have none.

use std::collections::BTreeSet;

use entity::value::{CustomerId, OperatorId};
use entity::{customer, customer_operator, customer_word};
use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect, QueryTrait};

use super::row_reads::{OwnCustomer, lock_own_customers};
use super::{Customers, change_rows, words};
use crate::database::{TransactionError, WriteSet, subquery};
use crate::error::Error;
use crate::service::Caller;

/// The key of a link. Links are examined in the order of their keys.
type LinkKey = (OperatorId, CustomerId);

impl Customers {
    /// Adds words to the links that have none, for example after an upgrade from a version without search.
    pub async fn add_missing_words(&self, caller: &Caller) -> Result<(), Error> {
        caller.require_platform()?;
        let mut last = None;
        loop {
            // A newer version may have deleted the words in the meantime, and writes them by other rules.
            self.database.ensure_may_write().await?;
            last = self.database.with_retry("customer.words", || self.try_add_missing_words(last)).await?;
            if last.is_none() {
                return Ok(());
            }
        }
    }

    /// Adds words to a batch of links that come after the given link. Returns the last link that was examined, or
    /// `None` if there are no more links. The number of examined links is limited, because a statement may take at most
    /// 5 seconds.
    async fn try_add_missing_words(&self, after: Option<LinkKey>) -> Result<Option<LinkKey>, TransactionError> {
        use customer_operator::Column::{CustomerId, OperatorId};
        use customer_word::Column;
        const MAX_EXAMINED: u64 = 10_000;
        const BATCH: usize = 500;
        let transaction = self.database.begin_write().await?;
        let words = customer_word::Entity::find()
            .select_only()
            .column(Column::Place)
            .filter(Column::OperatorId.into_expr().eq(OperatorId.into_expr()))
            .filter(Column::CustomerId.into_expr().eq(CustomerId.into_expr()))
            .limit(1);
        let position = || Expr::tuple([OperatorId.into_expr(), CustomerId.into_expr()]);
        let links = customer_operator::Entity::find()
            .apply_if(after, |links, (operator, customer)| {
                links.filter(position().gt(Expr::tuple([Expr::val(operator), Expr::val(customer)])))
            })
            .order_by_asc(OperatorId)
            .order_by_asc(CustomerId);
        let end = links.clone().select_only().columns([OperatorId, CustomerId]).offset(MAX_EXAMINED - 1).limit(1);
        let end: Option<LinkKey> = end.into_tuple().one(&transaction).await?;
        // PostgreSQL executes this subquery once for each link. For `NOT EXISTS`, it could read the words of all links.
        let has_no_words = subquery(words.into_query()).is_null();
        let without_words = links
            .inner_join(customer::Entity)
            .select_also(customer::Entity)
            .filter(has_no_words)
            .apply_if(end, |links, (operator, customer)| {
                links.filter(position().lte(Expr::tuple([Expr::val(operator), Expr::val(customer)])))
            })
            .limit(BATCH as u64);
        let links = lock_own_customers(&transaction, without_words).await?;
        if links.is_empty() {
            return Ok(end);
        }
        let mut replaced = BTreeSet::new();
        for OwnCustomer { link, customer } in &links {
            let mut writes = WriteSet::new(link.operator_id, customer.id);
            // Concurrent writes of the customer wait for its lock. On PostgreSQL, the statement of such a write does
            // not see the words that this transaction adds, so it would not delete them. The customer therefore gets
            // its next revision, once per batch: such a write then fails with a conflict and runs again.
            if replaced.insert(customer.id) {
                change_rows::raise_revision(&mut writes, customer);
            }
            words::add(&mut writes, link, customer);
            transaction.write(writes).await?;
        }
        transaction.commit().await?;
        Ok(links.get(BATCH - 1).map(|OwnCustomer { link, .. }| (link.operator_id, link.customer_id)).or(end))
    }
}
