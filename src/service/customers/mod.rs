//! One person, one record: create or connect, update, and who sees what.

mod create;
mod update;

pub use create::{Created, MatchKey, NewCustomer, Outcome, Validation};
pub use update::{CustomerChanges, OwnCustomerRef, Updated};

use async_graphql::Enum;
use chrono::{DateTime, Utc};
use entity::value::{CustomerId, EmailAddress, ExternalCustomerId, IdempotencyKey, OperatorId, PhoneNumber};
use entity::{customer, customer_operator};
use sea_orm::ActiveValue::Set;
use sea_orm::sea_query::{Expr, ExprTrait, SimpleExpr};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, Condition, DatabaseTransaction, DbErr, EntityTrait, FromQueryResult, IdenStatic,
    QueryFilter, QueryResult, QuerySelect, QueryTrait, Select, SelectA, SelectB, SelectTwo,
};
use serde::{Deserialize, Serialize};

use super::idempotency::Keyed;
use super::page::{self, Key, List, Page, PageRequest, Position, Positioned};
use super::phone_lookup::PhoneLookup;
use super::restrictions::Restrictions;
use super::{Actor, Limits, Origin, now};
use crate::database::{Aborted, Database};
use crate::error::{Error, ErrorCode};
use crate::keyed_hash::KeyedHash;

/// That a customer is one of an operator.
type Link = customer_operator::Model;

#[derive(Clone)]
pub struct Customers {
    database: Database,
    restrictions: Restrictions,
    phone_lookup: Option<PhoneLookup>,
    hash: KeyedHash,
    limits: Limits,
}

/// A value of a customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Enum, Serialize, Deserialize)]
pub enum CustomerField {
    /// The email address.
    Email,
    /// The first name.
    FirstName,
    /// The last name.
    LastName,
    /// The phone number. Payment and disbursement flows need it for SMS verification.
    Phone,
    /// The postal address, as a whole.
    Address,
}

/// A customer as a caller sees it.
#[derive(Clone, Debug)]
pub struct CustomerView {
    pub customer: customer::Model,
    /// The link of the operator through which the customer is seen; `None` where the platform looks at all customers.
    pub link: Option<customer_operator::Model>,
}

/// How a caller names a customer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CustomerRef {
    Id(CustomerId),
    ExternalCustomerId(ExternalCustomerId),
    Email(EmailAddress),
    Phone(PhoneNumber),
}

/// Which customers a list holds: those of whom all of this holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CustomerFilter {
    pub email: Option<EmailAddress>,
    pub phone: Option<PhoneNumber>,
    pub external_customer_id: Option<ExternalCustomerId>,
    /// Values that the customer lacks, all of them.
    pub missing: Vec<CustomerField>,
    pub created_at: TimeRange,
    /// Of the link, where there is one.
    pub connected_at: TimeRange,
}

/// From one time on, that included, until another, that not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TimeRange {
    pub from: Option<DateTime<Utc>>,
    pub before: Option<DateTime<Utc>>,
}

/// What an operator's list is sorted by: what never changes, so that cursors stay where they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CustomerOrder {
    pub field: CustomerOrderField,
    pub descending: bool,
}

/// A column to sort customers by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Enum)]
pub enum CustomerOrderField {
    /// When the customer was connected to the operator.
    #[default]
    ConnectedAt,
    /// The operator's id for the customer, compared byte by byte.
    ExternalCustomerId,
}

/// A list of customers: those of an operator, or all of the platform's, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CustomerList {
    pub operator: Option<OperatorId>,
    pub filter: CustomerFilter,
    /// Of an operator's list alone.
    pub order: CustomerOrder,
}

impl Customers {
    pub fn new(
        database: Database,
        restrictions: Restrictions,
        phone_lookup: Option<PhoneLookup>,
        hash: KeyedHash,
        limits: Limits,
    ) -> Self {
        Self { database, restrictions, phone_lookup, hash, limits }
    }

    /// Makes an attempt that stops, and leaves nothing behind, when it is about to store a phone that nobody has judged
    /// yet; then has the phone judged, which no transaction can wait for, and makes the attempt anew.
    async fn with_judged_phone<T, F>(
        &self,
        phone: Option<&PhoneNumber>,
        attempt: impl Fn(bool) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<Option<T>, Error>>,
    {
        if let Some(done) = attempt(self.phone_lookup.is_none()).await? {
            return Ok(done);
        }
        if let (Some(lookup), Some(phone)) = (&self.phone_lookup, phone) {
            lookup.judge(phone).await?;
        }
        attempt(true).await?.ok_or_else(|| ErrorCode::Internal.into())
    }

    /// A request that carries an idempotency key.
    fn keyed(
        &self,
        origin: &Origin,
        key: Option<&IdempotencyKey>,
        canonical_form: impl FnOnce() -> String,
    ) -> Option<Keyed> {
        key.map(|key| Keyed::new(&self.hash, origin.operator, key, &canonical_form()))
    }

    /// The customer of a request that was done before, as it is now.
    async fn view_again(
        &self,
        transaction: &DatabaseTransaction,
        origin: &Origin,
        id: CustomerId,
    ) -> Result<CustomerView, Aborted> {
        let own = of_operator(origin.operator).filter(customer::Column::Id.eq(id)).one(transaction).await?;
        match own {
            Some((link, Some(customer))) => Ok(CustomerView { customer, link: Some(link) }),
            _ => Err(Error::from(ErrorCode::CustomerNotFound).into()),
        }
    }

    /// The customer so named, if the caller may see it.
    pub async fn find(&self, actor: &Actor, reference: &CustomerRef) -> Result<Option<CustomerView>, Error> {
        let named = match reference {
            CustomerRef::Id(id) => customer::Column::Id.eq(*id),
            CustomerRef::ExternalCustomerId(id) => customer_operator::Column::ExternalCustomerId.eq(id.clone()),
            CustomerRef::Email(email) => customer::Column::Email.eq(email.clone()),
            CustomerRef::Phone(phone) => customer::Column::Phone.eq(phone.clone()),
        };
        let reads = self.database.reads();
        match actor.operator() {
            Some(operator) => {
                let found = of_operator(operator).filter(named).one(reads).await?;
                Ok(found.and_then(|(link, customer)| Some(CustomerView { customer: customer?, link: Some(link) })))
            }
            None => {
                let found = customer::Entity::find().filter(named).one(reads).await?;
                Ok(found.map(|customer| CustomerView { customer, link: None }))
            }
        }
    }

    /// Pages of lists of customers, each as far as the caller may see it.
    pub async fn pages(
        &self,
        actor: &Actor,
        lists: &[(CustomerList, PageRequest)],
    ) -> Result<Vec<Page<CustomerView>>, Error> {
        let (mut of_all, mut of_operators, mut orders) = (Vec::new(), Vec::new(), Vec::new());
        for (list, request) in lists {
            match list.seen_by(actor) {
                None => {
                    let columns = vec![customer::Column::Id.into_expr()];
                    let list = List { rows: all(&list.filter).into_query(), columns, descending: false };
                    of_all.push((list, request.clone()));
                }
                Some(operator) => {
                    let CustomerOrder { field, descending } = list.order;
                    let rows = of_operator_with(operator, &list.filter).into_query();
                    of_operators.push((List { rows, columns: field.columns(), descending }, request.clone()));
                    orders.push(list.order);
                }
            }
        }
        let reads = self.database.reads();
        let read = |row: &QueryResult| {
            let customer = customer::Model::from_query_result(row, "")?;
            Ok(CustomerView { customer, link: None })
        };
        let position = |_, view: &CustomerView| view.position(CustomerOrder::default());
        let mut of_all = page::pages(reads, of_all, read, position).await?.into_iter();
        let read = |row: &QueryResult| {
            let link = customer_operator::Model::from_query_result(row, SelectA.as_str())?;
            let customer = customer::Model::from_query_result(row, SelectB.as_str())?;
            Ok(CustomerView { customer, link: Some(link) })
        };
        let position = |number: usize, view: &CustomerView| view.position(orders[number]);
        let mut of_operators = page::pages(reads, of_operators, read, position).await?.into_iter();
        let next = |(list, _): &(CustomerList, PageRequest)| match list.seen_by(actor) {
            None => of_all.next(),
            Some(_) => of_operators.next(),
        };
        Ok(lists.iter().filter_map(next).collect())
    }

    /// How many customers the lists hold, each as far as the caller may see it.
    pub async fn counts(&self, actor: &Actor, lists: &[CustomerList]) -> Result<Vec<u64>, Error> {
        let queries = lists.iter().map(|list| match list.seen_by(actor) {
            None => all(&list.filter).select_only().column(customer::Column::Id).into_query(),
            Some(operator) => links_with(operator, &list.filter)
                .select_only()
                .column(customer_operator::Column::CustomerId)
                .into_query(),
        });
        Ok(page::counts(self.database.reads(), queries.collect()).await?)
    }

    /// Pages of the operators that customers are connected to, oldest link first, each as far as the caller may see it.
    pub async fn operators(
        &self,
        actor: &Actor,
        lists: &[(CustomerId, PageRequest)],
    ) -> Result<Vec<Page<customer_operator::Model>>, Error> {
        let queries = lists.iter().map(|(customer, request)| {
            let links = customer_operator::Entity::find()
                .filter(customer_operator::Column::CustomerId.eq(*customer))
                .apply_if(actor.operator(), |links, own| links.filter(customer_operator::Column::OperatorId.eq(own)));
            let columns = vec![
                customer_operator::Column::ConnectedAt.into_expr(),
                customer_operator::Column::OperatorId.into_expr(),
            ];
            (List { rows: links.into_query(), columns, descending: false }, request.clone())
        });
        let read = |row: &QueryResult| customer_operator::Model::from_query_result(row, "");
        Ok(page::pages(self.database.reads(), queries.collect(), read, |_, row| row.position()).await?)
    }
}

impl CustomerList {
    /// The operator whose customers the list holds when this caller looks at it; `None`: all customers.
    fn seen_by(&self, actor: &Actor) -> Option<OperatorId> {
        actor.operator().or(self.operator)
    }
}

impl CustomerView {
    /// What the SDK would still ask the customer for.
    pub fn missing_fields(&self) -> Vec<CustomerField> {
        let customer = &self.customer;
        let missing = [
            (CustomerField::FirstName, customer.first_name.is_none()),
            (CustomerField::LastName, customer.last_name.is_none()),
            (CustomerField::Phone, customer.phone.is_none()),
            (CustomerField::Address, customer.address.is_none()),
        ];
        those(missing)
    }

    /// The customer's place in a list of this order.
    pub fn position(&self, order: CustomerOrder) -> Position {
        let key = match (&self.link, order.field) {
            (None, _) => Key::None,
            (Some(link), CustomerOrderField::ConnectedAt) => Key::Time(link.connected_at),
            (Some(link), CustomerOrderField::ExternalCustomerId) => {
                Key::Text(link.external_customer_id.as_str().to_owned())
            }
        };
        Position { key, id: *self.customer.id.as_uuid() }
    }
}

impl CustomerOrderField {
    fn columns(self) -> Vec<SimpleExpr> {
        match self {
            Self::ConnectedAt => vec![
                customer_operator::Column::ConnectedAt.into_expr(),
                customer_operator::Column::CustomerId.into_expr(),
            ],
            Self::ExternalCustomerId => vec![customer_operator::Column::ExternalCustomerId.into_expr()],
        }
    }
}

/// A link's place among those of its customer.
impl Positioned for customer_operator::Model {
    fn position(&self) -> Position {
        Position { key: Key::Time(self.connected_at), id: *self.operator_id.as_uuid() }
    }
}

/// The links of an operator, with their customers: the only way to an operator's customers.
fn of_operator(operator: OperatorId) -> SelectTwo<customer_operator::Entity, customer::Entity> {
    customer_operator::Entity::find()
        .filter(customer_operator::Column::OperatorId.eq(operator))
        .inner_join(customer::Entity)
        .select_also(customer::Entity)
}

fn of_operator_with(
    operator: OperatorId,
    filter: &CustomerFilter,
) -> SelectTwo<customer_operator::Entity, customer::Entity> {
    of_operator(operator).filter(filter.of_customer()).filter(filter.of_link())
}

/// The links of an operator alone; the customers are joined only where the filter asks for a value of theirs.
fn links_with(operator: OperatorId, filter: &CustomerFilter) -> Select<customer_operator::Entity> {
    let links = customer_operator::Entity::find()
        .filter(customer_operator::Column::OperatorId.eq(operator))
        .filter(filter.of_link());
    let of_customer = filter.of_customer();
    if of_customer.is_empty() { links } else { links.inner_join(customer::Entity).filter(of_customer) }
}

/// All customers of the platform. They have no link in this list, so nothing of a link can be asked for.
fn all(filter: &CustomerFilter) -> Select<customer::Entity> {
    customer::Entity::find().filter(filter.of_customer())
}

impl CustomerFilter {
    fn of_customer(&self) -> Condition {
        let missing = self.missing.iter().map(|field| match field {
            // Every customer has one.
            CustomerField::Email => Expr::val(1).eq(0),
            CustomerField::FirstName => customer::Column::FirstName.is_null(),
            CustomerField::LastName => customer::Column::LastName.is_null(),
            CustomerField::Phone => customer::Column::Phone.is_null(),
            CustomerField::Address => customer::Column::Address.is_null(),
        });
        missing.fold(
            Condition::all()
                .add_option(self.email.clone().map(|email| customer::Column::Email.eq(email)))
                .add_option(self.phone.clone().map(|phone| customer::Column::Phone.eq(phone)))
                .add_option(self.created_at.from.map(|from| customer::Column::CreatedAt.gte(from)))
                .add_option(self.created_at.before.map(|before| customer::Column::CreatedAt.lt(before))),
            Condition::add,
        )
    }

    fn of_link(&self) -> Condition {
        let id = self.external_customer_id.clone();
        Condition::all()
            .add_option(id.map(|id| customer_operator::Column::ExternalCustomerId.eq(id)))
            .add_option(self.connected_at.from.map(|from| customer_operator::Column::ConnectedAt.gte(from)))
            .add_option(self.connected_at.before.map(|before| customer_operator::Column::ConnectedAt.lt(before)))
    }
}

fn holds_any(email: Option<&EmailAddress>, phone: Option<&PhoneNumber>) -> Condition {
    Condition::any()
        .add_option(email.map(|email| customer::Column::Email.eq(email.clone())))
        .add_option(phone.map(|phone| customer::Column::Phone.eq(phone.clone())))
}

fn those<const N: usize>(fields: [(CustomerField, bool); N]) -> Vec<CustomerField> {
    fields.into_iter().filter(|(_, holds)| *holds).map(|(field, _)| field).collect()
}

/// Writes the columns that are set, as a new version; none set, nothing is written.
async fn write(
    transaction: &DatabaseTransaction,
    held: customer::Model,
    mut row: customer::ActiveModel,
) -> Result<customer::Model, DbErr> {
    if !row.is_changed() {
        return Ok(held);
    }
    row.version = Set(held.version + 1);
    row.updated_at = Set(now());
    row.update(transaction).await
}
