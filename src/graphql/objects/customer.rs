//! `Customer`, lists of customers, and the list of a customer's operators.

use std::sync::Arc;

use async_graphql::connection::EmptyFields;
use async_graphql::{ComplexObject, Context, ContextSelectionSet, ID, Object, SimpleObject};
use entity::value::OperatorId;
use entity::{customer_operator, operator};

use super::address::Address;
use super::types::{Customer, CustomerConnection, CustomerCount, CustomerEdge, CustomerEventConnection, Operator};
use crate::database::pages::{Count, HasPosition, Page, PageRequest};
use crate::error::Error;
use crate::graphql::context::{caller, services};
use crate::graphql::cursor::{Cursor, Cursors, ListId};
use crate::graphql::fetch::{self, CustomerCountKey};
use crate::graphql::inputs::{CustomerFilterInput, CustomerOrderInput};
use crate::graphql::json_writer::{CannotWriteJson, FieldWriter, SelectedField, WriteJson};
use crate::graphql::pagination::{Connection, Edge, PageArguments, PageInfo, list_complexity, total_count};
use crate::graphql::time::Time;
use crate::service::customers::{CustomerField, CustomerPage, CustomerRef, CustomerView, HistoryList, ListedCustomer};

impl Customer {
    /// Returns the customer, or `None` if it does not exist or the caller may not see it.
    pub async fn find(context: &Context<'_>, reference: &CustomerRef) -> Result<Option<Self>, Error> {
        Ok(services(context).customers.find(caller(context), reference).await?.map(|view| Self(Arc::new(view))))
    }

    fn postal_address(&self) -> Option<Address> {
        self.0.customer.address.as_ref().map(|address| address.parts().clone().into())
    }
}

/// A person. There is one record per person on the platform, shared by all operators that the person is connected to.
#[Object]
impl Customer {
    /// Global id, for example `cus_01h455vb4pex5vsknk084sn02q`. All operators see the same id.
    pub async fn id(&self) -> ID {
        self.0.customer.id.to_string().into()
    }

    /// Your own id for this customer, exactly as you sent it. Null for the platform key.
    async fn external_customer_id(&self, context: &Context<'_>) -> Option<&str> {
        caller(context).operator()?;
        self.0.link.as_ref().map(|link| link.external_customer_id.as_str())
    }

    /// Email address in lower case, with the domain in ASCII (IDNA) form, for example `ada@example.com`.
    async fn email(&self) -> &str {
        self.0.customer.email.as_str()
    }

    /// Phone number in E.164 format, for example `+14155552671`. Null if unknown. Payment and disbursement flows ask
    /// the customer for a missing phone number, because these flows verify the customer by SMS.
    async fn phone(&self) -> Option<&str> {
        self.0.customer.phone.as_ref().map(|phone| phone.as_str())
    }

    /// Time at which the person last proved ownership of the email. Null if the current email has not been verified.
    async fn email_verified_at(&self) -> Option<Time> {
        self.0.customer.email_verified_at.map(Time)
    }

    /// Time at which the person last proved ownership of the phone. Null if the current phone has not been verified.
    async fn phone_verified_at(&self) -> Option<Time> {
        self.0.customer.phone_verified_at.map(Time)
    }

    /// First name. Null if unknown.
    async fn first_name(&self) -> Option<&str> {
        self.0.customer.first_name.as_ref().map(|name| name.as_str())
    }

    /// Last name. Null if unknown.
    async fn last_name(&self) -> Option<&str> {
        self.0.customer.last_name.as_ref().map(|name| name.as_str())
    }

    /// Postal address. Null if unknown.
    async fn address(&self) -> Option<Address> {
        self.postal_address()
    }

    /// Fields that are still empty, in the order in which the Vivamo SDK asks for them. This is the order of the values
    /// of `CustomerField`.
    async fn missing_fields(&self) -> Vec<CustomerField> {
        self.0.missing_fields()
    }

    /// Version of the record. The version starts at 1 and increases by 1 with each mutation that changes one or more of
    /// the fields in `CustomerField`. Pass the version as `expectedVersion` to avoid overwriting somebody else's
    /// change.
    async fn version(&self) -> i32 {
        self.0.customer.version
    }

    /// Time at which the record was created.
    async fn created_at(&self) -> Time {
        Time(self.0.customer.created_at)
    }

    /// Time at which one of the fields in `CustomerField` last changed.
    async fn updated_at(&self) -> Time {
        Time(self.0.customer.updated_at)
    }

    /// Operators that the customer is connected to, oldest connection first. An operator sees only itself.
    #[graphql(complexity = "list_complexity(first, last, child_complexity)")]
    async fn operators(
        &self,
        context: &Context<'_>,
        #[graphql(
            desc = "Number of items from the start of the list, or after the cursor `after`: 1 to 100. Default: 20."
        )]
        first: Option<i32>,
        #[graphql(desc = "Return items after this cursor.")] after: Option<String>,
        #[graphql(
            desc = "Number of items from the end of the list, or before the cursor `before`: 1 to 100. Cannot be combined with `first`."
        )]
        last: Option<i32>,
        #[graphql(desc = "Return items before this cursor.")] before: Option<String>,
    ) -> Option<Result<CustomerOperatorConnection, Error>> {
        let arguments = PageArguments { first, after, last, before };
        // Boxed. Without the box, the future of each field of `Customer` would be as large as this future.
        Some(Box::pin(CustomerOperatorConnection::load(context, &self.0, arguments)).await)
    }

    /// History entries of this customer, in the order of `version`. An operator sees the entry of its own connection
    /// and later entries. Each `version` since then has an entry. If `own` is false, an operator sees neither who made
    /// the change nor the values.
    #[graphql(complexity = "list_complexity(first, last, child_complexity)")]
    async fn history(
        &self,
        context: &Context<'_>,
        #[graphql(
            desc = "Number of items from the start of the list, or after the cursor `after`: 1 to 100. Default: 20."
        )]
        first: Option<i32>,
        #[graphql(desc = "Return items after this cursor.")] after: Option<String>,
        #[graphql(
            desc = "Number of items from the end of the list, or before the cursor `before`: 1 to 100. Cannot be combined with `first`."
        )]
        last: Option<i32>,
        #[graphql(desc = "Return items before this cursor.")] before: Option<String>,
    ) -> Option<Result<CustomerEventConnection, Error>> {
        let arguments = PageArguments { first, after, last, before };
        // Boxed. Without the box, the future of each field of `Customer` would be as large as this future.
        Some(
            Box::pin(CustomerEventConnection::load(context, HistoryList::OfCustomer(self.0.customer.id), arguments))
                .await,
        )
    }
}

impl WriteJson for Customer {
    const MAY_WAIT: &'static [&'static str] = &["history"];

    fn field_writer<'q>(field: &SelectedField<'q>) -> Result<FieldWriter<'q, Self>, CannotWriteJson> {
        match field.name() {
            "id" => field.id(|customer: &Self| customer.0.customer.id),
            "email" => field.string(|customer: &Self| Some(customer.0.customer.email.as_str())),
            "phone" => field.string(|customer: &Self| Some(customer.0.customer.phone.as_ref()?.as_str())),
            "firstName" => field.string(|customer: &Self| Some(customer.0.customer.first_name.as_ref()?.as_str())),
            "lastName" => field.string(|customer: &Self| Some(customer.0.customer.last_name.as_ref()?.as_str())),
            "operators" => {
                let writer = field.object_writer::<CustomerOperatorConnection>()?;
                let arguments = PageArguments {
                    first: field.argument("first")?,
                    after: field.argument("after")?,
                    last: field.argument("last")?,
                    before: field.argument("before")?,
                };
                let (context, request) =
                    (field.context, arguments.parse(None).map_err(|_| CannotWriteJson::MustResolve)?);
                Ok(Box::new(move |customer, json| {
                    let connection = CustomerOperatorConnection::in_memory(context, &customer.0, &request);
                    writer.write(&connection.ok_or(CannotWriteJson::MustResolve)?, json)
                }))
            }
            "address" => {
                let writer = field.object_writer::<Address>()?;
                Ok(Box::new(move |customer, json| writer.write_optional(customer.postal_address().as_ref(), json)))
            }
            _ => field.resolver(),
        }
    }
}

impl Edge for CustomerEdge {
    type Node = Customer;

    fn node(&self) -> &Customer {
        &self.node
    }
}

#[ComplexObject]
impl CustomerEdge {
    /// The operator's own id for the customer. Null in the platform's list of all customers.
    async fn external_customer_id(&self) -> Option<&str> {
        self.node.0.link.as_ref().map(|link| link.external_customer_id.as_str())
    }

    /// Time at which the customer was connected to the operator. The customer can appear in lists up to 30 seconds
    /// after this time. Null in the platform's list of all customers.
    async fn connected_at(&self) -> Option<Time> {
        self.node.0.link.as_ref().map(|link| Time(link.connected_at))
    }
}

#[Object]
impl CustomerCount {
    /// Number of customers in the list. Null if counting stopped at its limit: 1,000,000 customers or, with `search` or
    /// a condition that has no index (see `CustomerFilter`), 10,000 checked customers (20,000 if `search` has one
    /// or two words). Computed only if requested.
    async fn total_count(&self, context: &Context<'_>) -> Option<Result<i32, Error>> {
        total_count(self.count(context).await)
    }

    /// Number of customers that were counted: equal to `totalCount`, or a lower bound if `totalCount` is null. Computed
    /// only if requested.
    async fn total_count_at_least(&self, context: &Context<'_>) -> Option<Result<i32, Error>> {
        let counted = |(Count::Exactly(count) | Count::AtLeast(count))| Count::Exactly(count);
        total_count(self.count(context).await.map(counted))
    }
}

impl CustomerCount {
    async fn count(&self, context: &Context<'_>) -> Result<Count, Error> {
        fetch::load(context, self.0.clone()).await
    }
}

impl CustomerConnection {
    /// Reads a page of an operator's customers, or of all customers if `operator` is `None`.
    pub async fn load(
        context: &Context<'_>,
        operator: Option<OperatorId>,
        filter: Option<CustomerFilterInput>,
        order: Option<CustomerOrderInput>,
        arguments: PageArguments,
    ) -> Result<Self, Error> {
        let list = filter.unwrap_or_default().parse(operator, order, |violations| arguments.check_sizes(violations));
        let list = Arc::new(list?);
        let cursors = Cursors::new(context, ListId::Customers(list.clone()));
        let CustomerPage { customers, plan } =
            fetch::customers(context, list.clone(), arguments.parse(Some(&cursors))?).await?;
        let count = CustomerCount(CustomerCountKey { list, plan });
        let edge = |cursor, row: ListedCustomer| CustomerEdge { cursor, node: Customer(row.view) };
        Ok(Self::new(customers, &cursors, HasPosition::position, count, edge))
    }
}

pub type CustomerOperatorConnection = Connection<CustomerOperatorEdge>;

/// An operator that a customer is connected to.
#[derive(SimpleObject)]
#[graphql(complex)]
pub struct CustomerOperatorEdge {
    /// Cursor of this operator, for `after` and `before`.
    cursor: Cursor,
    /// The operator.
    node: Operator,
    #[graphql(skip)]
    link: Arc<customer_operator::Model>,
}

#[ComplexObject]
impl CustomerOperatorEdge {
    /// The operator's own id for the customer.
    async fn external_customer_id(&self) -> &str {
        self.link.external_customer_id.as_str()
    }

    /// Time at which the customer was connected to the operator.
    async fn connected_at(&self) -> Time {
        Time(self.link.connected_at)
    }
}

impl Edge for CustomerOperatorEdge {
    type Node = Operator;

    fn node(&self) -> &Operator {
        &self.node
    }

    fn field_writer<'q>(field: &SelectedField<'q>) -> Result<FieldWriter<'q, Self>, CannotWriteJson> {
        match field.name() {
            "externalCustomerId" => field.string(|edge: &Self| Some(edge.link.external_customer_id.as_str())),
            _ => field.resolver(),
        }
    }
}

impl CustomerOperatorConnection {
    /// Reads a page of a customer's operators.
    async fn load(context: &Context<'_>, view: &CustomerView, arguments: PageArguments) -> Result<Self, Error> {
        let cursors = Cursors::new(context, ListId::OperatorsOfCustomer(view.customer.id));
        let page = fetch::links_of_customer(context, view, arguments.parse(Some(&cursors))?).await?;
        let operators = fetch::operators(context, page.rows.iter().map(|link| link.operator_id)).await?;
        Ok(Self::of(&cursors, &page, operators))
    }

    /// Returns a page of a customer's operators if the rows of the page are in memory.
    fn in_memory(context: &ContextSelectionSet<'_>, view: &CustomerView, request: &PageRequest) -> Option<Self> {
        let page = view.links_in_memory(caller(context), request)?;
        let ids = page.rows.iter().map(|link| link.operator_id);
        let operators = services(context).operators.cached(caller(context), ids)?;
        let cursors = Cursors::new(context, ListId::OperatorsOfCustomer(view.customer.id));
        Some(Self::of(&cursors, &page, operators))
    }

    fn of(
        cursors: &Arc<Cursors>,
        page: &Page<Arc<customer_operator::Model>>,
        operators: Vec<Arc<operator::Model>>,
    ) -> Self {
        let page_info = PageInfo::new(page, cursors, HasPosition::position);
        let edge = |(link, operator): (&Arc<customer_operator::Model>, _)| CustomerOperatorEdge {
            cursor: cursors.at(link.position()),
            node: Operator(operator),
            link: link.clone(),
        };
        let edges = page.rows.iter().zip(operators).map(edge).collect();
        Self { edges, page_info, extra: EmptyFields }
    }
}
