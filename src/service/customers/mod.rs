//! One person, one record: create or connect, update, and who sees what.

mod create;
mod search;
mod update;

pub use create::{Created, MatchKey, NewCustomer, Outcome, Validation};
pub use update::{CustomerChanges, OwnCustomerRef, Updated};

use std::sync::Arc;

use async_graphql::Enum;
use chrono::{DateTime, Utc};
use entity::value::{
    CustomerId, EmailAddress, ExternalCustomerId, IdempotencyKey, OperatorId, PhoneNumber, SearchText,
};
use entity::{customer, customer_operator};
use sea_orm::ActiveValue::Set;
use sea_orm::sea_query::{Expr, ExprTrait, LockType, Query, SimpleExpr};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, Condition, ConnectionTrait, DbErr, EntityName, EntityTrait, IdenStatic, Iterable,
    QueryFilter, QueryResult, QuerySelect, QueryTrait, Select, SelectTwo, TryIntoModel,
};
use serde::{Deserialize, Serialize};

use super::idempotency::IdempotentRequest;
use super::phone_lookup::PhoneLookup;
use super::restrictions::Restrictions;
use super::{Actor, Limits, Origin, now};
use crate::database::pages::{self, JoinedTable, Key, List, Page, PageRequest, Position, Positioned};
use crate::database::{
    BatchedQuery, Database, Dml, OptimisticWrite, TransactionError, WriteBatch, WriteStatement, row_values,
};
use crate::error::{Error, ErrorCode};
use crate::keyed_hash::KeyedHash;
use search::Plan;

/// That a customer is one of an operator.
type Link = customer_operator::Model;

#[derive(Clone)]
pub struct Customers {
    database: Database,
    restrictions: Restrictions,
    phone_lookup: Option<PhoneLookup>,
    hash: KeyedHash,
    limits: Limits,
    /// Of an operator's customers, by the kinds of their names.
    own_queries: Arc<[BatchedQuery<2>; 4]>,
    /// Of what a new customer has that others have already.
    existing_query: Arc<BatchedQuery<4>>,
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
#[derive(Clone)]
pub struct CustomerView {
    pub customer: customer::Model,
    /// The link of the operator through which the customer is seen; `None` where the platform looks at all customers.
    pub link: Option<customer_operator::Model>,
    /// A page of the operators that the customer is connected to, where it was fetched with the customer.
    pub operators: Option<(PageRequest, Page<customer_operator::Model>)>,
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
    /// Of an operator's list alone, which is in the order of the customers' ids then.
    pub search: Option<SearchText>,
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

/// A page of a list of customers, and of each of them a page of its operators, where that is asked for.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CustomerPage {
    pub list: Arc<CustomerList>,
    pub request: PageRequest,
    pub operators: Option<PageRequest>,
}

/// A list of customers: those of an operator, or all of the platform's, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CustomerList {
    pub operator: Option<OperatorId>,
    pub filter: CustomerFilter,
    /// Of an operator's list alone, and not of a search.
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
        Self {
            database,
            restrictions,
            phone_lookup,
            hash,
            limits,
            own_queries: Arc::default(),
            existing_query: Arc::default(),
        }
    }

    /// Makes an attempt that stops, and leaves nothing behind, when it is about to store a phone that nobody has judged
    /// yet; then has the phone judged, which no transaction can wait for, and makes the attempt anew.
    async fn with_checked_phone<T, F>(
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
            lookup.check(phone).await?;
        }
        attempt(true).await?.ok_or_else(|| ErrorCode::Internal.into())
    }

    /// A request that carries an idempotency key.
    fn idempotent(
        &self,
        origin: &Origin,
        key: Option<&IdempotencyKey>,
        canonical_form: impl FnOnce() -> String,
    ) -> Option<IdempotentRequest> {
        key.map(|key| IdempotentRequest::new(&self.hash, origin.operator, key, &canonical_form()))
    }

    /// The customer of a request that was done before, as it is now.
    async fn reload(&self, origin: &Origin, id: CustomerId) -> Result<CustomerView, TransactionError> {
        let own = self.find_own(origin.operator, &CustomerRef::Id(id)).await?;
        let (link, customer) = own.ok_or_else(|| Error::from(ErrorCode::CustomerNotFound))?;
        Ok(CustomerView::new(customer, Some(link)))
    }

    /// The customer so named, if the caller may see it.
    pub async fn find(&self, actor: &Actor, reference: &CustomerRef) -> Result<Option<CustomerView>, Error> {
        let Some(operator) = actor.operator() else {
            let (_, column, name) = reference.column();
            let found = customer::Entity::find().filter(column.eq(name)).one(self.database.reader()).await?;
            return Ok(found.map(|customer| CustomerView::new(customer, None)));
        };
        let found = self.find_own(operator, reference).await?;
        Ok(found.map(|(link, customer)| CustomerView::new(customer, Some(link))))
    }

    /// The customer of an operator's own that is so named.
    async fn find_own(
        &self,
        operator: OperatorId,
        reference: &CustomerRef,
    ) -> Result<Option<(Link, customer::Model)>, DbErr> {
        let (kind, column, name) = reference.column();
        let own =
            |[operator, name]: [SimpleExpr; 2]| of_operator(operator).filter(column.clone().eq(name)).into_query();
        let rows = self.own_queries[kind].run(self.database.reader(), [operator.into(), name], own).await?;
        rows.first().map(own_at).transpose()
    }

    /// The same before it is written to.
    async fn find_own_for_update(
        &self,
        write_tx: &OptimisticWrite,
        operator: OperatorId,
        reference: &CustomerRef,
    ) -> Result<Option<(Link, customer::Model)>, DbErr> {
        if !write_tx.is_locking() {
            return self.find_own(operator, reference).await;
        }
        let (_, column, name) = reference.column();
        let mut own = of_operator(operator).filter(column.eq(name));
        QuerySelect::query(&mut own).lock_with_tables(LockType::Update, [customer::Entity]);
        let row = write_tx.query_one_raw(write_tx.get_database_backend().build(&own.into_query())).await?;
        row.as_ref().map(own_at).transpose()
    }

    /// Pages of lists of customers, each as far as the caller may see it.
    pub async fn pages(&self, actor: &Actor, pages: &[CustomerPage]) -> Result<Vec<Page<CustomerView>>, Error> {
        let reads = self.database.reader();
        let searches: Vec<_> = pages
            .iter()
            .filter_map(|page| Some((page.list.seen_by(actor)?, page.list.filter.search.as_ref()?)))
            .collect();
        let mut plans = search::plans(reads, &searches).await?.into_iter();
        let (mut of_all, mut of_operators, mut sorted) = (Vec::new(), Vec::new(), Vec::new());
        for CustomerPage { list, request, .. } in pages {
            let Some(operator) = list.seen_by(actor) else {
                let columns = vec![customer::Column::Id.into_expr()];
                let rows = all(&list.filter).into_query();
                of_all.push((List { rows, columns, descending: false, beside: None }, request.clone()));
                continue;
            };
            let (rows, beside) = match &list.filter.search {
                Some(search) => {
                    let customers = of_operator_with(operator, &list.filter);
                    (search::find(customers, operator, search, plans.next().unwrap_or(Plan::Walk)), None)
                }
                None if list.filter.of_customer().is_empty() => {
                    (links_with(operator, &list.filter).into_query(), Some(customers_beside_links()))
                }
                None => (of_operator_with(operator, &list.filter).into_query(), None),
            };
            let list_of_rows = List { rows, columns: list.columns(), descending: list.order.descending, beside };
            of_operators.push((list_of_rows, request.clone()));
            sorted.push(list);
        }
        let read = |row: &QueryResult| Ok(CustomerView::new(customer_at(row, pages::ROW)?, None));
        let position = |_, view: &CustomerView| Position { key: Key::None, id: *view.customer.id.as_uuid() };
        let mut of_all = pages::pages(reads, of_all, read, position).await?.into_iter();
        let read = |row: &QueryResult| {
            let link = link_at(row, pages::ROW)?;
            Ok(CustomerView::new(customer_at(row, pages::ROW + LINK_COLUMNS)?, Some(link)))
        };
        let position = |number: usize, view: &CustomerView| sorted[number].position(view);
        let mut of_operators = pages::pages(reads, of_operators, read, position).await?.into_iter();
        let next = |page: &CustomerPage| match page.list.seen_by(actor) {
            None => of_all.next(),
            Some(_) => of_operators.next(),
        };
        let mut found: Vec<_> = pages.iter().filter_map(next).collect();
        let wanting = || pages.iter().zip(&found).filter_map(|(page, found)| Some((page.operators.as_ref()?, found)));
        let of_each = |(request, found): (&PageRequest, &Page<CustomerView>)| {
            found.rows.iter().map(|view| (view.customer.id, request.clone())).collect::<Vec<_>>()
        };
        let wanted: Vec<_> = wanting().flat_map(of_each).collect();
        if !wanted.is_empty() {
            let mut operators = self.operators(actor, &wanted).await?.into_iter();
            for (page, found) in pages.iter().zip(&mut found) {
                let Some(request) = &page.operators else { continue };
                for view in &mut found.rows {
                    view.operators = operators.next().map(|operators| (request.clone(), operators));
                }
            }
        }
        Ok(found)
    }

    /// How many customers the lists hold, each as far as the caller may see it.
    pub async fn counts(&self, actor: &Actor, lists: &[Arc<CustomerList>]) -> Result<Vec<u64>, Error> {
        let queries = lists.iter().map(|list| match list.seen_by(actor) {
            None => all(&list.filter).select_only().column(customer::Column::Id).into_query(),
            Some(operator) => links_with(operator, &list.filter)
                .select_only()
                .column(customer_operator::Column::CustomerId)
                .into_query(),
        });
        Ok(pages::counts(self.database.reader(), queries.map(|query| (query, None)).collect()).await?)
    }

    /// Pages of the operators that customers are connected to, oldest link first, each as far as the caller may see it.
    pub async fn operators(
        &self,
        actor: &Actor,
        lists: &[(CustomerId, PageRequest)],
    ) -> Result<Vec<Page<customer_operator::Model>>, Error> {
        let links = |of: Condition| {
            let links = customer_operator::Entity::find()
                .filter(of)
                .apply_if(actor.operator(), |links, own| links.filter(customer_operator::Column::OperatorId.eq(own)));
            let columns = vec![
                customer_operator::Column::ConnectedAt.into_expr(),
                customer_operator::Column::OperatorId.into_expr(),
            ];
            List { rows: links.into_query(), columns, descending: false, beside: None }
        };
        let owner = customer_operator::Column::CustomerId;
        if let [(_, request), ..] = lists
            && request.is_at_an_end()
            && lists.iter().all(|(_, other)| other == request)
        {
            let owners = pages::padded(lists.iter().map(|(customer, _)| *customer).collect());
            let number = owners.len();
            let all = links(owner.is_in(owners).into());
            let read = |row: &QueryResult| {
                let link = link_at(row, pages::ROW)?;
                Ok((link.customer_id, link))
            };
            let pages = pages::pages_of_owners(self.database.reader(), number, all, owner.into_expr(), request, read);
            let mut pages = pages.await?;
            let page =
                |(customer, _): &(CustomerId, _)| pages.remove(customer).unwrap_or_else(|| request.page(Vec::new()));
            return Ok(lists.iter().map(page).collect());
        }
        let queries = lists.iter().map(|(customer, request)| (links(owner.eq(*customer).into()), request.clone()));
        let read = |row: &QueryResult| link_at(row, pages::ROW);
        Ok(pages::pages(self.database.reader(), queries.collect(), read, |_, row| row.position()).await?)
    }
}

impl CustomerRef {
    /// The number of this kind of name, the column that holds it, and the name.
    fn column(&self) -> (usize, SimpleExpr, sea_orm::Value) {
        match self {
            Self::Id(id) => (0, customer::Column::Id.into_expr(), (*id).into()),
            Self::ExternalCustomerId(id) => {
                (1, customer_operator::Column::ExternalCustomerId.into_expr(), id.clone().into())
            }
            Self::Email(email) => (2, customer::Column::Email.into_expr(), email.clone().into()),
            Self::Phone(phone) => (3, customer::Column::Phone.into_expr(), phone.clone().into()),
        }
    }
}

impl CustomerList {
    /// The operator whose customers the list holds when this caller looks at it; `None`: all customers.
    fn seen_by(&self, actor: &Actor) -> Option<OperatorId> {
        actor.operator().or(self.operator)
    }

    /// A customer's place in the list.
    pub fn position(&self, view: &CustomerView) -> Position {
        let key = match (&view.link, &self.filter.search, self.order.field) {
            (None, _, _) | (_, Some(_), _) => Key::None,
            (Some(link), None, CustomerOrderField::ConnectedAt) => Key::Time(link.connected_at),
            (Some(link), None, CustomerOrderField::ExternalCustomerId) => {
                Key::Text(link.external_customer_id.as_str().to_owned())
            }
        };
        Position { key, id: *view.customer.id.as_uuid() }
    }

    /// The columns of the positions in an operator's list.
    fn columns(&self) -> Vec<SimpleExpr> {
        let id = customer_operator::Column::CustomerId.into_expr();
        match (&self.filter.search, self.order.field) {
            (Some(_), _) => vec![id],
            (None, CustomerOrderField::ConnectedAt) => vec![customer_operator::Column::ConnectedAt.into_expr(), id],
            (None, CustomerOrderField::ExternalCustomerId) => {
                vec![customer_operator::Column::ExternalCustomerId.into_expr()]
            }
        }
    }
}

impl CustomerView {
    fn new(customer: customer::Model, link: Option<Link>) -> Self {
        Self { customer, link, operators: None }
    }

    /// What the SDK would still ask the customer for.
    pub fn missing_fields(&self) -> Vec<CustomerField> {
        let customer = &self.customer;
        let missing = [
            (CustomerField::FirstName, customer.first_name.is_none()),
            (CustomerField::LastName, customer.last_name.is_none()),
            (CustomerField::Phone, customer.phone.is_none()),
            (CustomerField::Address, customer.address.is_none()),
        ];
        fields_where(missing)
    }
}

/// A link's place among those of its customer.
impl Positioned for customer_operator::Model {
    fn position(&self) -> Position {
        Position { key: Key::Time(self.connected_at), id: *self.operator_id.as_uuid() }
    }
}

/// Reads the columns of a link from this one on, in the order of the entity. By name takes several times as long, and a
/// page has hundreds of them.
fn link_at(row: &QueryResult, first: usize) -> Result<Link, DbErr> {
    let [operator_id, customer_id, external_customer_id, connected_at] = [0, 1, 2, 3].map(|column| first + column);
    Ok(Link {
        operator_id: row.try_get_by_index(operator_id)?,
        customer_id: row.try_get_by_index(customer_id)?,
        external_customer_id: row.try_get_by_index(external_customer_id)?,
        connected_at: row.try_get_by_index(connected_at)?,
    })
}

const LINK_COLUMNS: usize = 4;

/// The same of a customer.
fn customer_at(row: &QueryResult, first: usize) -> Result<customer::Model, DbErr> {
    let [id, email, phone, first_name, last_name, address, version, created_at, updated_at, revision] =
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map(|column| first + column);
    Ok(customer::Model {
        id: row.try_get_by_index(id)?,
        email: row.try_get_by_index(email)?,
        phone: row.try_get_by_index(phone)?,
        first_name: row.try_get_by_index(first_name)?,
        last_name: row.try_get_by_index(last_name)?,
        address: row.try_get_by_index(address)?,
        version: row.try_get_by_index(version)?,
        created_at: row.try_get_by_index(created_at)?,
        updated_at: row.try_get_by_index(updated_at)?,
        revision: row.try_get_by_index(revision)?,
    })
}

/// An operator's own customer.
fn own_at(row: &QueryResult) -> Result<(Link, customer::Model), DbErr> {
    Ok((link_at(row, 0)?, customer_at(row, LINK_COLUMNS)?))
}

/// The links of an operator, with their customers: the only way to an operator's customers.
fn of_operator(operator: impl Into<SimpleExpr>) -> SelectTwo<customer_operator::Entity, customer::Entity> {
    customer_operator::Entity::find()
        .filter(customer_operator::Column::OperatorId.into_expr().eq(operator))
        .inner_join(customer::Entity)
        .select_also(customer::Entity)
}

fn of_operator_with(
    operator: OperatorId,
    filter: &CustomerFilter,
) -> SelectTwo<customer_operator::Entity, customer::Entity> {
    of_operator(operator).filter(filter.of_customer()).filter(filter.of_link())
}

/// The customers of links that are of a page.
fn customers_beside_links() -> JoinedTable {
    JoinedTable {
        table: customer::Entity.table_name(),
        columns: customer::Column::iter().map(|column| column.as_str()).collect(),
        id: customer_operator::Column::CustomerId.as_str(),
    }
}

/// The links of an operator alone; the customers are joined only where the filter asks for a value of theirs.
fn links_with(operator: OperatorId, filter: &CustomerFilter) -> Select<customer_operator::Entity> {
    let links = customer_operator::Entity::find()
        .filter(customer_operator::Column::OperatorId.eq(operator))
        .filter(filter.of_link())
        .apply_if(filter.search.as_ref(), |links, search| links.filter(search::is_found(operator, search)));
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

fn fields_where<const N: usize>(fields: [(CustomerField, bool); N]) -> Vec<CustomerField> {
    fields.into_iter().filter(|(_, holds)| *holds).map(|(field, _)| field).collect()
}

/// WriteBatch customers over those with the revisions before.
const REPLACE: WriteStatement = WriteStatement {
    name: "replace customers",
    columns: || customer::Column::iter().map(|column| column.as_str()).collect(),
    statement: |new| {
        use customer::Column::{Id, Revision};
        let of = |column| Expr::col((new.clone(), column));
        let others = customer::Column::iter().filter(|column| !matches!(column, Id));
        let update = Query::update()
            .table(customer::Entity)
            .values(others.map(|column| (column, of(column))))
            .from(new.clone())
            .and_where(Id.into_expr().eq(of(Id)))
            .and_where(Revision.into_expr().eq(of(Revision).sub(1)))
            .take();
        Dml::Update(update)
    },
    must_write_all: true,
};

/// WriteBatch the columns that are set, as a new version, and the words that change with them; none set, only that something
/// happened to the customer. If that is no longer the one that is current, the race is lost.
fn write(
    writes: &mut WriteBatch,
    current: &customer::Model,
    mut row: customer::ActiveModel,
) -> Result<customer::Model, DbErr> {
    let is_changed = row.is_changed();
    if is_changed {
        row.version = Set(current.version + 1);
        row.updated_at = Set(now());
    }
    row.revision = Set(current.revision + 1);
    let customer = row.try_into_model()?;
    writes.push(REPLACE, vec![row_values(&customer)]);
    if is_changed {
        search::change(writes, current, &customer);
    }
    Ok(customer)
}
