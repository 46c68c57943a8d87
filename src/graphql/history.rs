use std::sync::Arc;

use async_graphql::{Context, Enum, ID, Object, SimpleObject};
use entity::customer_event::{self, Values};
use entity::value::{AddressParts, CustomerEventId, CustomerId};
use entity::{api_key, operator};
use serde_json::Value;

use super::api_key::ApiKey;
use super::cursor::{Cursor, Cursors, ListName};
use super::customer::Address;
use super::operator::Operator;
use super::pagination::{PageArguments, PageInfo};
use super::time::Time;
use super::{actor, loader, services};
use crate::database::pages::{PageRequest, Positioned};
use crate::error::{Error, ErrorCode};
use crate::service::customers::CustomerField;

/// The history of a customer, as a key of the loader.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HistoryOf(pub CustomerId, pub PageRequest);

pub struct CustomerEvent(customer_event::Model);

/// What happened to a customer.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::customer_event::EventType")]
enum CustomerEventType {
    /// The customer was new on the platform.
    Created,
    /// The customer was known, and was connected to one more operator.
    Connected,
    /// Values of the customer were changed.
    Updated,
}

impl CustomerEvent {
    /// The entry with this id, if the caller may see it.
    pub async fn find(context: &Context<'_>, id: CustomerEventId) -> Result<Option<Self>, Error> {
        Ok(services(context).history.find(actor(context), id).await?.map(Self))
    }

    async fn load_operator(&self, context: &Context<'_>) -> Result<Arc<operator::Model>, Error> {
        loader(context).load_one(self.0.operator_id).await?.ok_or_else(|| ErrorCode::Internal.into())
    }

    async fn load_api_key(&self, context: &Context<'_>) -> Result<Option<api_key::Model>, Error> {
        loader(context).load_one(self.0.api_key_id).await
    }
}

/// An entry of a customer's history: what happened, when, and who caused it. Entries are never changed.
#[Object]
impl CustomerEvent {
    /// The entry's id, such as `evt_01h455vb4pex5vsknk084sn02q`.
    pub async fn id(&self) -> ID {
        self.0.id.to_string().into()
    }

    /// What happened.
    async fn r#type(&self) -> CustomerEventType {
        self.0.r#type.into()
    }

    /// When it happened.
    async fn occurred_at(&self) -> Time {
        self.0.occurred_at.into()
    }

    /// The version of the customer after it.
    async fn version(&self) -> i32 {
        self.0.version
    }

    /// The operator that caused it.
    async fn operator(&self, context: &Context<'_>) -> Result<Operator, Error> {
        self.load_operator(context).await.map(Into::into)
    }

    /// The key with which it was caused.
    async fn api_key(&self, context: &Context<'_>) -> Option<Result<ApiKey, Error>> {
        self.load_api_key(context).await.map(|key| key.map(Into::into)).transpose()
    }

    /// The id of the request that caused it, as in the header `x-request-id` of its answer.
    async fn request_id(&self) -> String {
        self.0.request_id.to_string()
    }

    /// The values that changed.
    async fn changed_fields(&self) -> Vec<CustomerField> {
        let names = [
            ("email", CustomerField::Email),
            ("firstName", CustomerField::FirstName),
            ("lastName", CustomerField::LastName),
            ("phone", CustomerField::Phone),
            ("address", CustomerField::Address),
        ];
        names.into_iter().filter(|(name, _)| self.0.after.0.contains_key(*name)).map(|(_, field)| field).collect()
    }

    /// The changed values as they were. Null for a new customer.
    async fn before(&self) -> Option<CustomerValues> {
        (self.0.r#type != customer_event::EventType::Created).then(|| (&self.0.before).into())
    }

    /// The changed values as they are since.
    async fn after(&self) -> CustomerValues {
        (&self.0.after).into()
    }
}

/// Values of a customer. A value that is not among the `changedFields` is null, as is one that was or is not known.
#[derive(SimpleObject)]
struct CustomerValues {
    /// The email address.
    email: Option<String>,
    /// The phone number.
    phone: Option<String>,
    /// The first name.
    first_name: Option<String>,
    /// The last name.
    last_name: Option<String>,
    /// The postal address.
    address: Option<Address>,
}

impl From<&Values> for CustomerValues {
    fn from(Values(values): &Values) -> Self {
        let text = |name: &str| values.get(name).and_then(Value::as_str).map(str::to_owned);
        let address = values.get("address").cloned();
        let address: Option<AddressParts> = address.and_then(|value| serde_json::from_value(value).ok());
        Self {
            email: text("email"),
            phone: text("phone"),
            first_name: text("firstName"),
            last_name: text("lastName"),
            address: address.map(Into::into),
        }
    }
}

/// A page of a customer's history.
#[derive(SimpleObject)]
pub struct CustomerEventConnection {
    /// The entries of this page.
    edges: Vec<CustomerEventEdge>,
    /// How to get to the pages before and after this one.
    page_info: PageInfo,
}

/// An entry in a page.
#[derive(SimpleObject)]
struct CustomerEventEdge {
    /// The entry's place in the list, for `after` and `before`.
    cursor: Cursor,
    /// The entry.
    node: CustomerEvent,
}

impl CustomerEventConnection {
    /// A page of the history of a customer.
    pub async fn load(context: &Context<'_>, customer: CustomerId, arguments: PageArguments) -> Result<Self, Error> {
        let cursors = Cursors::new(context, ListName::HistoryOf(customer));
        let request = arguments.parse(&cursors)?;
        let page = loader(context).load_one(HistoryOf(customer, request)).await?.ok_or(ErrorCode::Internal)?;
        let page_info = PageInfo::of(&page, &cursors);
        let edge = |event: customer_event::Model| CustomerEventEdge {
            cursor: cursors.at(event.position()),
            node: CustomerEvent(event),
        };
        Ok(Self { edges: page.rows.into_iter().map(edge).collect(), page_info })
    }
}
