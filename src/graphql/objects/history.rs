//! `CustomerEvent` and the history of a customer.

use std::sync::Arc;

use async_graphql::connection::EmptyFields;
use async_graphql::{Context, Enum, ID, Object, SimpleObject};
use entity::customer_event::{self, FieldValues};
use entity::value::CustomerEventId;
use serde::Deserialize;

use super::address::Address;
use super::api_key::ApiKey;
use super::types::{CustomerEvent, CustomerEventConnection, CustomerEventEdge, Operator};
use crate::error::Error;
use crate::graphql::context::{caller, services};
use crate::graphql::cursor::{Cursors, ListId};
use crate::graphql::event_enums::{DisconnectReason, VerifiableField};
use crate::graphql::fetch::{self, HistoryPageKey};
use crate::graphql::json_writer::{CannotWriteJson, FieldWriter, SelectedField, WriteJson};
use crate::graphql::pagination::{Edge, PageArguments};
use crate::graphql::time::Time;
use crate::service::customers::{CustomerField, HistoryList};

/// Type of a history entry. Types may be added, so keep a default case.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::customer_event::EventType")]
enum CustomerEventType {
    /// The customer was created.
    Created,
    /// An existing customer was connected to an operator. If the connection filled empty fields, other operators see
    /// the entry as `UPDATED`. Otherwise other operators do not see the entry.
    Connected,
    /// The customer was updated.
    Updated,
    /// The customer was disconnected from an operator. Only the platform sees such entries.
    Disconnected,
    /// The person proved ownership of the email or the phone. `verifiedField` names the field.
    Verified,
    /// The customer was erased. The values in all its entries are null. Only the platform sees such entries; operators
    /// get an `ERASED` change in the feed.
    Erased,
    /// An operator changed its own id for the customer. Only this operator and the platform see such entries.
    ExternalCustomerIdChanged,
}

impl CustomerEvent {
    /// Returns the entry, or `None` if it does not exist or the caller may not see it.
    pub async fn find(context: &Context<'_>, id: CustomerEventId) -> Result<Option<Self>, Error> {
        Ok(services(context)
            .customers
            .find_history_entry(caller(context), id)
            .await?
            .map(|entry| Self(Arc::new(entry))))
    }
}

/// An entry in a customer's history. When the customer is erased, the values in its entries become null; otherwise
/// entries never change. If `own` is false, an operator sees which fields changed and when, but neither who made
/// the change nor the values.
#[Object]
impl CustomerEvent {
    /// Global id, for example `evt_01h455vb4pex5vsknk084sn02q`.
    pub async fn id(&self) -> ID {
        self.0.id.to_string().into()
    }

    /// Type of the entry.
    async fn r#type(&self) -> CustomerEventType {
        self.0.r#type.into()
    }

    /// Id of the customer. The customer may have been erased since.
    async fn customer_id(&self) -> ID {
        self.0.customer_id.to_string().into()
    }

    /// Time of the change.
    async fn occurred_at(&self) -> Time {
        Time(self.0.occurred_at)
    }

    /// Version of the customer after the change.
    async fn version(&self) -> i32 {
        self.0.version
    }

    /// True if your operator made the change. With the platform key: true if the platform made the change.
    async fn own(&self) -> bool {
        self.0.own
    }

    /// Operator that made the change. Null if the platform made the change. With an operator's key, also null if `own`
    /// is false.
    async fn operator(&self, context: &Context<'_>) -> Option<Result<Operator, Error>> {
        Some(fetch::load(context, self.details()?.operator_id?).await.map(Operator))
    }

    /// API key that made the change. Null if the platform made the change. With an operator's key, also null if `own`
    /// is false.
    async fn api_key(&self, context: &Context<'_>) -> Option<Result<ApiKey, Error>> {
        let key = self.details()?.api_key_id?;
        fetch::loader(context).load_one(key).await.map(|key| key.map(Into::into)).transpose()
    }

    /// Operator from which the customer was disconnected. Null unless `type` is `DISCONNECTED`.
    async fn disconnected_operator(&self, context: &Context<'_>) -> Option<Result<Operator, Error>> {
        Some(fetch::load(context, self.details()?.disconnected_operator_id?).await.map(Operator))
    }

    /// Reason for the disconnect. Null unless `type` is `DISCONNECTED`.
    async fn reason(&self) -> Option<DisconnectReason> {
        self.details()?.reason.map(Into::into)
    }

    /// Id of the request that made the change, as in the `x-request-id` response header. For a command: the id of the
    /// command run. With an operator's key, null if `own` is false.
    async fn request_id(&self) -> Option<String> {
        Some(self.details()?.request_id.to_string())
    }

    /// Staff member named in the `Vivamo-Actor` header of the request. Null if the request had no such header. With an
    /// operator's key, also null if `own` is false.
    async fn actor(&self) -> Option<&str> {
        self.details()?.actor.as_ref().map(|actor| actor.as_str())
    }

    /// Fields that changed. Empty if none of these fields changed, for example if only `externalCustomerId` changed.
    /// Always empty for `ERASED`.
    async fn changed_fields(&self) -> &[CustomerField] {
        &self.0.changed_fields
    }

    /// The verified field: the person proved ownership of this email or phone. Null unless `type` is `VERIFIED`.
    async fn verified_field(&self) -> Option<VerifiableField> {
        self.0.verified_field.map(Into::into)
    }

    /// Values of the changed fields before the change. Null if the change created the customer. With an operator's key,
    /// also null if `own` is false.
    async fn before(&self) -> Option<Result<CustomerValues<'_>, Error>> {
        let event = self.details().filter(|event| event.r#type != customer_event::EventType::Created)?;
        Some(CustomerValues::read(&event.before))
    }

    /// Values of the changed fields after the change. With an operator's key, null if `own` is false.
    async fn after(&self) -> Option<Result<CustomerValues<'_>, Error>> {
        Some(CustomerValues::read(&self.details()?.after))
    }
}

impl CustomerEvent {
    /// The whole entry, if the caller may see it.
    fn details(&self) -> Option<&customer_event::Model> {
        self.0.details.as_ref()
    }
}

/// Values of a customer's fields before or after a change. A field is null if it was empty, if it did not change, or if
/// the customer was erased.
#[derive(Deserialize, SimpleObject)]
#[serde(rename_all = "camelCase")]
struct CustomerValues<'e> {
    /// Email address.
    email: Option<&'e str>,
    /// Phone number in E.164 format.
    phone: Option<&'e str>,
    /// First name.
    first_name: Option<&'e str>,
    /// Last name.
    last_name: Option<&'e str>,
    /// The operator's own id for the customer. Null except in `DISCONNECTED` and `EXTERNAL_CUSTOMER_ID_CHANGED`
    /// entries.
    external_customer_id: Option<&'e str>,
    /// Postal address.
    address: Option<Address>,
}

impl<'e> CustomerValues<'e> {
    fn read(stored: &'e FieldValues) -> Result<Self, Error> {
        // The error of the parser is omitted, because it may quote a value.
        Self::deserialize(&stored.0).map_err(|_| Error::internal("the values of a history entry are malformed"))
    }
}

impl CustomerEventConnection {
    /// Reads a page of history entries.
    pub async fn load(context: &Context<'_>, list: HistoryList, arguments: PageArguments) -> Result<Self, Error> {
        let cursors = Cursors::new(context, ListId::History(list));
        let page = fetch::load(context, HistoryPageKey { list, page: arguments.parse(Some(&cursors))? }).await?;
        let edge = |cursor, event| CustomerEventEdge { cursor, node: CustomerEvent(event) };
        Ok(Self::new(page, &cursors, |event| list.position(event), EmptyFields, edge))
    }
}

impl Edge for CustomerEventEdge {
    type Node = CustomerEvent;

    fn node(&self) -> &CustomerEvent {
        &self.node
    }
}

impl WriteJson for CustomerEvent {
    const MAY_WAIT: &'static [&'static str] = &["operator", "apiKey", "disconnectedOperator"];

    fn field_writer<'q>(field: &SelectedField<'q>) -> Result<FieldWriter<'q, Self>, CannotWriteJson> {
        let values: fn(&customer_event::Model) -> &FieldValues = match field.name() {
            "before" => |event| &event.before,
            "after" => |event| &event.after,
            _ => return field.resolver(),
        };
        let resolve = field.resolver()?;
        Ok(Box::new(move |event: &Self, text| {
            // async-graphql adds the error, with the index of the entry in its path.
            let is_malformed = |event| CustomerValues::read(values(event)).is_err();
            if event.details().is_some_and(is_malformed) {
                return Err(CannotWriteJson::MustResolve);
            }
            resolve(event, text)
        }))
    }
}
