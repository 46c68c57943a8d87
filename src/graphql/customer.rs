use std::iter;
use std::sync::Arc;

use async_graphql::{ComplexObject, Context, ID, InputType, Object, QueryPathSegment, SimpleObject};
use entity::customer_operator;
use entity::value::AddressParts;

use super::cursor::{Cursor, Cursors, ListName};
use super::customer_input::{
    CreateCustomerInput, CustomerFilterInput, CustomerOrderInput, CustomerRefInput, UpdateCustomerInput,
};
use super::history::CustomerEventConnection;
use super::operator::Operator;
use super::pagination::{PageArguments, PageInfo, complexity, total};
use super::time::Time;
use super::{actor, loader, request_id, services};
use crate::database::pages::{Page, PageRequest, Positioned};
use crate::error::{Error, ErrorCode, Violation};
use crate::service::customers::{
    Created, CustomerField, CustomerList, CustomerPage, CustomerRef, CustomerView, MatchKey, Outcome, Updated,
    Validation,
};

pub struct Customer(CustomerView);

impl Customer {
    /// The customer so named, if the caller may see it.
    pub async fn find(context: &Context<'_>, reference: &CustomerRef) -> Result<Option<Self>, Error> {
        Ok(services(context).customers.find(actor(context), reference).await?.map(Self))
    }
}

/// A person, with one record on the whole platform: every operator that the person is a customer of sees the same
/// values.
#[Object]
impl Customer {
    /// The customer's id, such as `cus_01h455vb4pex5vsknk084sn02q`: the same for every operator.
    pub async fn id(&self) -> ID {
        self.0.customer.id.to_string().into()
    }

    /// Your own id for the customer, as you gave it. Null for the platform.
    async fn external_customer_id(&self, context: &Context<'_>) -> Option<&str> {
        actor(context).operator()?;
        self.0.link.as_ref().map(|link| link.external_customer_id.as_str())
    }

    /// The email address: lower case, the domain in IDNA ASCII form, such as `ada@example.com`.
    async fn email(&self) -> &str {
        self.0.customer.email.as_str()
    }

    /// The phone number in E.164 form, such as `+14155552671`. Null while it is not known; payment and disbursement
    /// flows then ask for it, to verify the customer by SMS.
    async fn phone(&self) -> Option<&str> {
        self.0.customer.phone.as_ref().map(|phone| phone.as_str())
    }

    /// The first name. Null while it is not known.
    async fn first_name(&self) -> Option<&str> {
        self.0.customer.first_name.as_ref().map(|name| name.as_str())
    }

    /// The last name. Null while it is not known.
    async fn last_name(&self) -> Option<&str> {
        self.0.customer.last_name.as_ref().map(|name| name.as_str())
    }

    /// The postal address. Null while it is not known.
    async fn address(&self) -> Option<Address> {
        self.0.customer.address.as_ref().map(|address| address.parts().clone().into())
    }

    /// What the SDK would still ask the customer for, in this order: `FIRST_NAME`, `LAST_NAME`, `PHONE`, `ADDRESS`.
    /// Payment and disbursement flows need the phone number for SMS verification.
    async fn missing_fields(&self) -> Vec<CustomerField> {
        self.0.missing_fields()
    }

    /// The version of the record: 1 when it is new, one more with each change. Give it to `updateCustomer` as
    /// `expectedVersion` to change only what you have seen.
    async fn version(&self) -> i32 {
        self.0.customer.version
    }

    /// When the record was created, by whichever operator was first.
    async fn created_at(&self) -> Time {
        self.0.customer.created_at.into()
    }

    /// When a value of the record was last changed.
    async fn updated_at(&self) -> Time {
        self.0.customer.updated_at.into()
    }

    /// The operators that the customer is connected to, the first first. An operator sees itself alone.
    #[graphql(complexity = "complexity(first, last, child_complexity)")]
    async fn operators(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "How many, from the start: 1 to 100, 20 by default.")] first: Option<i32>,
        #[graphql(desc = "Only what comes after this cursor.")] after: Option<String>,
        #[graphql(desc = "How many, from the end: 1 to 100.")] last: Option<i32>,
        #[graphql(desc = "Only what comes before this cursor.")] before: Option<String>,
    ) -> Option<Result<CustomerOperatorConnection, Error>> {
        // Each field of a customer would else have room for it.
        Some(Box::pin(self.operators_page(context, PageArguments { first, after, last, before })).await)
    }

    /// What happened to the customer, the oldest entry first. An operator sees the entries that it caused.
    #[graphql(complexity = "complexity(first, last, child_complexity)")]
    async fn history(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "How many, from the start: 1 to 100, 20 by default.")] first: Option<i32>,
        #[graphql(desc = "Only what comes after this cursor.")] after: Option<String>,
        #[graphql(desc = "How many, from the end: 1 to 100.")] last: Option<i32>,
        #[graphql(desc = "Only what comes before this cursor.")] before: Option<String>,
    ) -> Option<Result<CustomerEventConnection, Error>> {
        let arguments = PageArguments { first, after, last, before };
        Some(Box::pin(CustomerEventConnection::load(context, self.0.customer.id, arguments)).await)
    }
}

impl Customer {
    async fn operators_page(
        &self,
        context: &Context<'_>,
        arguments: PageArguments,
    ) -> Result<CustomerOperatorConnection, Error> {
        let actor = actor(context);
        let customer = self.0.customer.id;
        let cursors = Cursors::new(context, ListName::OperatorsOf(customer));
        let request = arguments.parse(&cursors)?;
        let page = match (&self.0.link, actor.operator(), &self.0.operators) {
            // All that an operator may see is the link that led to the customer.
            (Some(link), Some(_), _) => request.of_one(link.clone()),
            (_, _, Some((fetched, page))) if *fetched == request => page.clone(),
            _ => {
                let page = loader(context).load_one((customer, request)).await?;
                page.ok_or(ErrorCode::Internal)?
            }
        };
        CustomerOperatorConnection::new(context, &cursors, page).await
    }
}

/// A postal address.
#[derive(SimpleObject)]
pub struct Address {
    /// Street and house number, such as `1 Main St`.
    line1: String,
    /// What follows the first line, such as `Apartment 4`. Null if there is nothing.
    line2: Option<String>,
    /// The city.
    city: String,
    /// The state, province or county. Null where addresses have none.
    region: Option<String>,
    /// The postal code. Null where addresses have none.
    postal_code: Option<String>,
    /// The country, as an ISO 3166-1 alpha-2 code such as `US`.
    country: String,
}

impl From<AddressParts> for Address {
    fn from(parts: AddressParts) -> Self {
        let AddressParts { line1, line2, city, region, postal_code, country } = parts;
        Self { line1, line2, city, region, postal_code, country }
    }
}

/// A page of customers.
#[derive(SimpleObject)]
#[graphql(complex)]
pub struct CustomerConnection {
    /// The customers of this page.
    edges: Vec<CustomerEdge>,
    /// How to get to the pages before and after this one.
    page_info: PageInfo,
    #[graphql(skip)]
    list: Arc<CustomerList>,
}

/// A customer in a page.
#[derive(SimpleObject)]
#[graphql(complex)]
struct CustomerEdge {
    /// The customer's place in the list, for `after` and `before`.
    cursor: Cursor,
    /// The customer.
    node: Customer,
}

#[ComplexObject]
impl CustomerEdge {
    /// The id that the operator whose list this is has for the customer. Null in the platform's list of all customers.
    async fn external_customer_id(&self) -> Option<&str> {
        self.node.0.link.as_ref().map(|link| link.external_customer_id.as_str())
    }

    /// When the customer was connected to that operator. Null in the platform's list of all customers.
    async fn connected_at(&self) -> Option<Time> {
        self.node.0.link.as_ref().map(|link| link.connected_at.into())
    }
}

impl CustomerConnection {
    /// A page of the customers that the caller sees.
    async fn of_caller(
        context: &Context<'_>,
        filter: CustomerFilterInput,
        order: Option<CustomerOrderInput>,
        arguments: PageArguments,
    ) -> Result<Self, Error> {
        let list = filter.list(actor(context).operator(), order)?;
        Self::load(context, list, arguments).await
    }

    /// A page of a list of customers.
    pub async fn load(context: &Context<'_>, list: CustomerList, arguments: PageArguments) -> Result<Self, Error> {
        let list = Arc::new(list);
        let cursors = Cursors::new(context, ListName::Customers(list.clone()));
        let request = arguments.parse(&cursors)?;
        let page = CustomerPage { list: list.clone(), request, operators: operators_of_each(context) };
        let page = if is_one_of_many(context) {
            loader(context).load_one(page).await?
        } else {
            // There is nothing to wait for.
            services(context).customers.pages(actor(context), &[page]).await?.pop()
        };
        Ok(Self::new(list, &cursors, page.ok_or(ErrorCode::Internal)?))
    }

    fn new(list: Arc<CustomerList>, cursors: &Arc<Cursors>, page: Page<CustomerView>) -> Self {
        let edge = |view: CustomerView| CustomerEdge { cursor: cursors.at(list.position(&view)), node: Customer(view) };
        let page_info = PageInfo::by(&page, cursors, |view| list.position(view));
        Self { page_info, edges: page.rows.into_iter().map(edge).collect(), list }
    }
}

/// Whether the field is one of something in a list.
fn is_one_of_many(context: &Context<'_>) -> bool {
    let path = context.path_node.iter().flat_map(|node| iter::once(node).chain(node.parents()));
    path.into_iter().any(|node| matches!(node.segment, QueryPathSegment::Index(_)))
}

/// Which page of the operators of each customer of a page the request asks for, if it is the same of each and the platform
/// asks: to an operator, who sees itself alone, it costs nothing.
fn operators_of_each(context: &Context<'_>) -> Option<PageRequest> {
    if actor(context).operator().is_some() {
        return None;
    }
    let fields = context.look_ahead().field("edges").field("node").field("operators").selection_fields();
    let [field] = fields.as_slice() else { return None };
    let given = field.arguments().ok()?;
    let of_name = |name| given.iter().find(|(own, _)| own == name).map(|(_, value)| value.clone());
    let arguments = PageArguments {
        first: InputType::parse(of_name("first")).ok()?,
        after: InputType::parse(of_name("after")).ok()?,
        last: InputType::parse(of_name("last")).ok()?,
        before: InputType::parse(of_name("before")).ok()?,
    };
    arguments.of_any_list()
}

#[ComplexObject]
impl CustomerConnection {
    /// How many customers the list holds in all. Counted only when asked for.
    async fn total_count(&self, context: &Context<'_>) -> Option<Result<i32, Error>> {
        total(loader(context).load_one(self.list.clone()).await.transpose()?)
    }
}

/// A page of the operators that a customer is connected to.
#[derive(SimpleObject)]
struct CustomerOperatorConnection {
    /// The operators of this page.
    edges: Vec<CustomerOperatorEdge>,
    /// How to get to the pages before and after this one.
    page_info: PageInfo,
}

/// An operator that a customer is connected to.
#[derive(SimpleObject)]
struct CustomerOperatorEdge {
    /// The operator's place in the list, for `after` and `before`.
    cursor: Cursor,
    /// The operator.
    node: Operator,
    /// The id that this operator has for the customer.
    external_customer_id: String,
    /// When the customer was connected to this operator.
    connected_at: Time,
}

impl CustomerOperatorConnection {
    async fn new(
        context: &Context<'_>,
        cursors: &Arc<Cursors>,
        page: Page<customer_operator::Model>,
    ) -> Result<Self, Error> {
        let page_info = PageInfo::of(&page, cursors);
        let ids = || page.rows.iter().map(|link| link.operator_id);
        // Most often all are known, and there is nothing to wait for.
        let operators = match services(context).operators.cached(actor(context), ids()) {
            Some(operators) => operators,
            None => {
                let loaded = loader(context).load_many(ids()).await?;
                let of_link = |link: &customer_operator::Model| loaded.get(&link.operator_id).cloned();
                page.rows.iter().map(of_link).collect::<Option<_>>().ok_or(ErrorCode::Internal)?
            }
        };
        let edges = page.rows.into_iter().zip(operators).map(|(link, operator)| CustomerOperatorEdge {
            cursor: cursors.at(link.position()),
            node: operator.into(),
            external_customer_id: link.external_customer_id.into(),
            connected_at: link.connected_at.into(),
        });
        Ok(Self { edges: edges.collect(), page_info })
    }
}

/// What became of a `createCustomer`.
#[derive(SimpleObject)]
struct CreateCustomerPayload {
    /// The customer: the new one, or the one that is now connected to your operator.
    customer: Customer,
    /// Whether the customer is new on the platform, or was connected.
    outcome: Outcome,
    /// What the customer was recognised by. Empty for a new customer. After a match by phone alone the customer has
    /// another email address than the one you gave: decide whether that is who you meant.
    matched_by: Vec<MatchKey>,
    /// The values that you gave and the customer has otherwise. They were not changed: one operator does not overwrite
    /// what another relies on. Use `updateCustomer` if yours are the right ones.
    unapplied_fields: Vec<CustomerField>,
    /// What production would refuse. Always empty in production.
    warnings: Vec<CustomerWarning>,
    /// Whether this was done before, by a request with the same idempotency key. Nothing was done now, and the customer
    /// is as it is now.
    replayed: bool,
}

/// What became of an `updateCustomer`.
#[derive(SimpleObject)]
struct UpdateCustomerPayload {
    /// The customer as it is now.
    customer: Customer,
    /// What production would refuse. Always empty in production.
    warnings: Vec<CustomerWarning>,
    /// Whether this was done before, by a request with the same idempotency key. Nothing was done now, and the customer
    /// is as it is now.
    replayed: bool,
}

/// What is wrong with a value, without the request being refused for it.
#[derive(SimpleObject)]
struct CustomerWarning {
    /// The code of the error that would be answered.
    code: ErrorCode,
    /// The message of that error.
    message: String,
    /// Where in the field's arguments the value is, such as `["input", "data", "email"]`.
    input_path: Vec<String>,
}

impl From<Created> for CreateCustomerPayload {
    fn from(created: Created) -> Self {
        Self {
            customer: Customer(created.view),
            outcome: created.outcome,
            matched_by: created.matched_by,
            unapplied_fields: created.unapplied_fields,
            warnings: created.warnings.into_iter().map(Into::into).collect(),
            replayed: created.replayed,
        }
    }
}

impl From<Updated> for UpdateCustomerPayload {
    fn from(updated: Updated) -> Self {
        Self {
            customer: Customer(updated.view),
            warnings: updated.warnings.into_iter().map(Into::into).collect(),
            replayed: updated.replayed,
        }
    }
}

impl From<Violation> for CustomerWarning {
    fn from(violation: Violation) -> Self {
        Self {
            code: violation.code,
            message: violation.message(),
            input_path: violation.input_path().iter().map(ToString::to_string).collect(),
        }
    }
}

#[derive(Default)]
pub struct CustomerQuery;

#[Object]
impl CustomerQuery {
    /// One customer of yours. Null if there is none so named, or if it is not yours to see.
    async fn customer(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "How you name the customer.")] by: CustomerRefInput,
    ) -> Option<Result<Customer, Error>> {
        match by.parse(actor(context)) {
            Ok(reference) => Customer::find(context, &reference?).await.transpose(),
            Err(error) => Some(Err(error)),
        }
    }

    /// Your customers, the one connected first first. For the platform: all customers, the oldest first.
    #[graphql(complexity = "complexity(first, last, child_complexity)")]
    async fn customers(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "How many, from the start: 1 to 100, 20 by default.")] first: Option<i32>,
        #[graphql(desc = "Only what comes after this cursor.")] after: Option<String>,
        #[graphql(desc = "How many, from the end: 1 to 100.")] last: Option<i32>,
        #[graphql(desc = "Only what comes before this cursor.")] before: Option<String>,
        #[graphql(desc = "Only customers of whom all of this holds.")] filter: Option<CustomerFilterInput>,
        #[graphql(
            desc = "In which order: by default the one connected first first. Not beside `search`, and not for the platform, whose list of all customers has one order."
        )]
        order_by: Option<CustomerOrderInput>,
    ) -> Option<Result<CustomerConnection, Error>> {
        let arguments = PageArguments { first, after, last, before };
        Some(CustomerConnection::of_caller(context, filter.unwrap_or_default(), order_by, arguments).await)
    }

    /// A dry run of `createCustomer`: writes nothing, and asks no carrier whether the phone is a mobile line. For forms
    /// that want to say what is wrong before they are sent. The platform has no customers of its own, and creates none:
    /// for its key this tells of the values alone.
    async fn validate_customer(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "Who the customer would be.")] input: CreateCustomerInput,
    ) -> Option<Result<CustomerValidation, Error>> {
        Some(services(context).customers.validate(actor(context), input.parse()).await.map(Into::into))
    }
}

/// What would become of a `createCustomer` with the same input.
#[derive(SimpleObject)]
struct CustomerValidation {
    /// The email address as it would be stored. Null if it is not one.
    email: Option<String>,
    /// The phone number as it would be stored. Null if none was given, or if it is not one.
    phone: Option<String>,
    /// Why the customer would be refused, as far as your own customers tell. Whether somebody is known elsewhere on the
    /// platform is not said.
    faults: Vec<CustomerWarning>,
    /// What would be accepted here, and refused in production.
    warnings: Vec<CustomerWarning>,
}

impl From<Validation> for CustomerValidation {
    fn from(validation: Validation) -> Self {
        Self {
            email: validation.email.map(|email| email.as_str().to_owned()),
            phone: validation.phone.map(|phone| phone.as_str().to_owned()),
            faults: validation.faults.into_iter().map(Into::into).collect(),
            warnings: validation.warnings.into_iter().map(Into::into).collect(),
        }
    }
}

#[derive(Default)]
pub struct CustomerMutation;

#[Object]
impl CustomerMutation {
    /// Creates a customer record, as is needed before any payment or disbursement. If the platform knows the email or
    /// the phone already, the existing customer is connected to your operator instead of being duplicated; what it
    /// lacks is filled from your input, and what it has otherwise stays and is named in `unappliedFields`.
    async fn create_customer(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "Who the customer is.")] input: CreateCustomerInput,
    ) -> Option<Result<CreateCustomerPayload, Error>> {
        Some(
            services(context)
                .customers
                .create(actor(context), request_id(context), input.parse())
                .await
                .map(Into::into),
        )
    }

    /// Changes values of a customer of yours, for every operator that the person is a customer of. Left out, a value
    /// stays as it is; null removes it.
    async fn update_customer(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "Which customer, and what to change.")] input: UpdateCustomerInput,
    ) -> Option<Result<UpdateCustomerPayload, Error>> {
        Some(
            services(context)
                .customers
                .update(actor(context), request_id(context), input.parse())
                .await
                .map(Into::into),
        )
    }
}
