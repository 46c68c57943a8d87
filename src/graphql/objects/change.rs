//! `Change` and the change feed.

use async_graphql::{Context, Enum, ID, Object, SimpleObject};
use entity::customer_change;

use super::types::Customer;
use crate::error::Error;
use crate::graphql::context::{caller, request_data, services};
use crate::graphql::cursor::{Cursor, Cursors, ListId};
use crate::graphql::fetch::{self, VisibleCustomer};
use crate::graphql::items::Items;
use crate::graphql::json_writer::WriteJson;
use crate::graphql::pagination::feed_arguments;
use crate::graphql::time::Time;
use crate::service::customers::CustomerField;
use crate::service::feed::FeedRequest;

/// Type of a change. Types may be added, so keep a default case.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::customer_event::EventType")]
pub enum ChangeType {
    /// Your operator created the customer. With the platform key: an operator created it.
    Created,
    /// An existing customer was connected to your operator. With the platform key: to an operator.
    Connected,
    /// The fields in `changedFields` changed.
    Updated,
    /// The customer was disconnected from your operator. With the platform key: from an operator.
    Disconnected,
    /// The person proved ownership of the email or the phone. If the record got a new phone with this verification,
    /// `changedFields` contains `PHONE`.
    Verified,
    /// The platform erased the customer.
    Erased,
    /// Your operator changed its own id for the customer. With the platform key: an operator changed its own id.
    ExternalCustomerIdChanged,
}

/// A page of the change feed.
#[derive(SimpleObject)]
pub struct ChangeFeed {
    /// Changes, oldest first.
    changes: Items<Change>,
    /// Cursor to pass as `after` in the next request. The cursor is present even if `changes` is empty.
    cursor: Cursor,
    /// True if there may be more changes: request the next page immediately. If false, wait a few seconds first.
    has_more: bool,
}

pub struct Change(customer_change::Model);

/// A change to a customer, as your operator sees it. With the platform key: as the platform sees it. Personal data is
/// only in `customer`, and in `externalCustomerId` if your external ids are personal data, for example email addresses.
#[Object]
impl Change {
    /// Id of the change. The entry of the change in `Customer.history` has the same id. An operator cannot read the
    /// entries of `DISCONNECTED` and `ERASED` changes. Use the id to recognise a change that you have already
    /// processed.
    async fn id(&self) -> ID {
        self.0.id.to_string().into()
    }

    /// Type of the change.
    async fn r#type(&self) -> ChangeType {
        self.0.r#type.into()
    }

    /// Time of the change.
    async fn occurred_at(&self) -> Time {
        Time(self.0.occurred_at)
    }

    /// Id of the customer.
    async fn customer_id(&self) -> ID {
        self.0.customer_id.to_string().into()
    }

    /// Your own id for the customer at the time of the change. For an `EXTERNAL_CUSTOMER_ID_CHANGED` change: the new
    /// id. Null for the platform key. After an erasure, only the `ERASED` change still has the id.
    async fn external_customer_id(&self) -> Option<&str> {
        self.0.external_customer_id.as_ref().map(|id| id.as_str())
    }

    /// Version of the customer after the change. The changes of one customer come in the order of their versions.
    /// Several changes can have the same version, for example an update and a later disconnect.
    async fn version(&self) -> i32 {
        self.0.version
    }

    /// Fields that changed. Empty if none of these fields changed, for example if only `externalCustomerId` changed.
    /// Always empty for `ERASED`.
    async fn changed_fields(&self) -> Vec<CustomerField> {
        CustomerField::changed_in(&self.0).collect()
    }

    /// True if your operator made the change. With the platform key: true if the platform made the change.
    async fn own(&self) -> bool {
        self.0.own
    }

    /// The current record of the customer, which may be newer than the change. Null if your operator is not connected
    /// to the customer any more, or if the customer was erased. Also null if the read failed: `errors` then has an
    /// entry with the path of this field. Delete your copy of the customer only if there is no such entry.
    async fn customer(&self, context: &Context<'_>) -> Option<Result<Customer, Error>> {
        let found = fetch::loader(context).load_one(VisibleCustomer(self.0.customer_id)).await;
        // The customers of all changes are loaded together. Without this wait, all of them would be built before the
        // size of the first one is known. If the wait fails, the list of changes reports it.
        let _ = request_data(context).response_size.ensure_memory().await;
        found.map(|found| found.map(Customer)).transpose()
    }
}

impl WriteJson for Change {
    const MAY_WAIT: &'static [&'static str] = &["customer"];
}

impl ChangeFeed {
    /// Reads a part of the caller's feed.
    pub async fn load(
        context: &Context<'_>,
        first: i32,
        after: Option<String>,
        types: Option<Vec<ChangeType>>,
    ) -> Result<Self, Error> {
        let cursors = Cursors::new(context, ListId::Changes);
        let (size, after) = feed_arguments(first, after.as_deref(), &cursors)?;
        let types = types.map(|types| types.into_iter().map(Into::into).collect());
        let page = services(context).feed.poll(caller(context), FeedRequest { size, after, types }).await?;
        let changes = page.changes.into_iter().map(Change).collect();
        Ok(Self { changes, cursor: cursors.at(page.end.into()), has_more: page.has_more })
    }

    /// Returns the cursor of the end of the caller's feed.
    pub async fn end(context: &Context<'_>) -> Result<Cursor, Error> {
        let cursors = Cursors::new(context, ListId::Changes);
        Ok(cursors.at(services(context).feed.end_for_caller(caller(context)).await?.into()))
    }
}
