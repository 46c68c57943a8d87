//! Disconnects all customers of an operator that has left the platform, in batches.

use entity::admin_event::EventType as AdminEventType;
use entity::customer_event::DisconnectReason;
use entity::customer_operator::{Column, Entity};
use entity::operator::{self, Status};
use entity::value::{CustomerId, OperatorId};
use sea_orm::sea_query::LockType;
use sea_orm::{ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect, QueryTrait};

use super::row_reads::{lock_own_customers, of_operator};
use super::{Customers, change_rows};
use crate::database::{Transaction, TransactionError, is_one_of};
use crate::error::{Error, ErrorCode, InputField, Violation};
use crate::service::audit::{self, Subject};
use crate::service::{Caller, RequestInfo};

/// The number of customers that one transaction disconnects. Writers of these customers wait for the transaction.
const BATCH: u64 = 100;

impl Customers {
    /// Counts the customers of a suspended operator. If there are any, records in the audit log that they are about to
    /// be disconnected. Platform only. Fails with `INVALID_ARGUMENT` if the operator is not suspended.
    pub async fn start_removing_customers(
        &self,
        caller: &Caller,
        request: &RequestInfo,
        operator: OperatorId,
    ) -> Result<u64, Error> {
        let origin = &caller.authorize_platform_write(request)?;
        let start = || async {
            let transaction = self.database.begin_write().await?;
            lock_suspended(&transaction, operator).await?;
            let links = Entity::find().filter(Column::OperatorId.eq(operator));
            let count = links.count(&transaction).await?;
            if count > 0 {
                let removed = AdminEventType::OperatorCustomersRemoved;
                audit::add_entry(&transaction, origin, removed, operator, Subject::Operator, &[]).await?;
            }
            transaction.commit().await?;
            Ok(count)
        };
        self.database.with_retry("customer.start_removal", start).await
    }

    /// Disconnects all customers from a suspended operator, with the reason `ENDED`, in batches. Calls `progress` with
    /// the number of disconnected customers after each batch. Platform only. Each batch is a separate transaction, so
    /// an interrupted removal can be continued by calling this method again.
    pub async fn remove_customers(
        &self,
        caller: &Caller,
        request: &RequestInfo,
        operator: OperatorId,
        mut progress: impl FnMut(u64),
    ) -> Result<(), Error> {
        let mut after = None;
        loop {
            let removed = self.remove_customer_batch(caller, request, operator, after).await?;
            progress(removed.len() as u64);
            // At the end, the removal starts again from the first customer, in case others were connected meanwhile.
            if removed.is_empty() && after.is_none() {
                return Ok(());
            }
            after = removed.last().copied();
        }
    }

    /// Disconnects a batch of customers from a suspended operator: the first ones in the order of their ids, or the
    /// first ones after `after`. Returns the ids of the disconnected customers, in order. Platform only.
    ///
    /// A removal passes the last id of each batch as `after`. Each batch would otherwise read the index entries of all
    /// earlier batches again, because PostgreSQL keeps entries of deleted rows for a while.
    pub async fn remove_customer_batch(
        &self,
        caller: &Caller,
        request: &RequestInfo,
        operator: OperatorId,
        after: Option<CustomerId>,
    ) -> Result<Vec<CustomerId>, Error> {
        let origin = &caller.authorize_platform_write(request)?;
        // The removal may take hours, and a newer version may migrate the database in the meantime.
        self.database.ensure_may_write().await?;
        let remove = || async {
            let transaction = self.database.begin_write().await?;
            lock_suspended(&transaction, operator).await?;
            // Two statements: PostgreSQL would plan the join with a limit as if the limit was a tenth of all links, and
            // then read all customers before `after`.
            let ids = Entity::find().select_only().column(Column::CustomerId).filter(Column::OperatorId.eq(operator));
            let ids = ids.apply_if(after, |links, after| links.filter(Column::CustomerId.gt(after)));
            let ids = ids.order_by_asc(Column::CustomerId).limit(BATCH).into_tuple();
            let ids: Vec<CustomerId> = ids.all(&transaction).await?;
            let batch = of_operator(operator).filter(is_one_of(&transaction, Column::CustomerId, ids));
            let batch = lock_own_customers(&transaction, batch.order_by_asc(Column::CustomerId)).await?;
            for own in &batch {
                let ended = DisconnectReason::Ended;
                transaction.write(change_rows::disconnected(origin, &own.customer, &own.link, ended)).await?;
            }
            transaction.commit().await?;
            Ok(batch.iter().map(|own| own.customer.id).collect())
        };
        self.database.with_retry("customer.remove_batch", remove).await
    }
}

/// Locks the operator, so that it stays suspended until the end of the transaction. Fails if the operator is not
/// suspended.
async fn lock_suspended(transaction: &Transaction, operator: OperatorId) -> Result<(), TransactionError> {
    let found = operator::Entity::find_by_id(operator).lock(LockType::NoKeyUpdate).one(transaction).await?;
    let violation = match found.map(|operator| operator.status) {
        Some(Status::Suspended) => return Ok(()),
        Some(Status::Active) => Violation::argument(
            InputField::OperatorId,
            "The operator is not suspended. Run `vivamo operator suspend OPERATOR`, wait 40 seconds, and try again.",
        ),
        None => Violation::of(ErrorCode::OperatorNotFound, InputField::OperatorId),
    };
    Err(violation.into())
}
