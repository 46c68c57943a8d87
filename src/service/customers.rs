//! One person, one record: create or connect, update, and who sees what.

use async_graphql::Enum;
use entity::value::{Address, CustomerId, EmailAddress, ExternalCustomerId, OperatorId, PersonName, PhoneNumber};
use entity::{customer, customer_operator};
use sea_orm::ActiveValue::{self, Set};
use sea_orm::sea_query::LockType;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, Condition, DatabaseTransaction, DbErr, EntityTrait, FromQueryResult, IdenStatic,
    IntoActiveModel, QueryFilter, QueryOrder, QuerySelect, QueryTrait, Select, SelectA, SelectB, SelectTwo,
};

use super::page::{self, Page, PageRequest, Position, Positioned};
use super::phone_lookup::PhoneLookup;
use super::restrictions::{EMAIL, Findings, PHONE, Restrictions};
use super::{Actor, now};
use crate::database::{Aborted, Database, with_retry};
use crate::error::{Error, ErrorCode, Violation};

#[derive(Clone)]
pub struct Customers {
    database: Database,
    restrictions: Restrictions,
    phone_lookup: Option<PhoneLookup>,
}

/// A value of a customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Enum)]
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

/// Which customers a list holds: those that have all the values given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CustomerFilter {
    pub email: Option<EmailAddress>,
    pub phone: Option<PhoneNumber>,
    pub external_customer_id: Option<ExternalCustomerId>,
}

/// A list of customers: those of an operator, oldest link first, or all of the platform's, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CustomerList {
    pub operator: Option<OperatorId>,
    pub filter: CustomerFilter,
}

/// What a request says of a new customer. A value that could not be read is `None`, and its fault in `faults`.
#[derive(Clone, Debug, Default)]
pub struct NewCustomer {
    pub external_customer_id: Option<ExternalCustomerId>,
    pub email: Option<EmailAddress>,
    pub phone: Option<PhoneNumber>,
    pub first_name: Option<PersonName>,
    pub last_name: Option<PersonName>,
    pub address: Option<Address>,
    pub faults: Vec<Violation>,
}

/// What a request says of an existing customer: each value is left as it is (`NotSet`), cleared (`Set(None)`) or set.
/// A value that could not be read is left as it is, and its fault in `faults`.
#[derive(Clone, Debug, Default)]
pub struct CustomerChanges {
    /// `None`: an id that no customer can have.
    pub customer: Option<OwnCustomerRef>,
    pub expected_version: Option<i32>,
    pub email: ActiveValue<EmailAddress>,
    pub phone: ActiveValue<Option<PhoneNumber>>,
    pub first_name: ActiveValue<Option<PersonName>>,
    pub last_name: ActiveValue<Option<PersonName>>,
    pub address: ActiveValue<Option<Address>>,
    pub faults: Vec<Violation>,
}

/// How an operator names a customer of its own that it writes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnCustomerRef {
    Id(CustomerId),
    ExternalCustomerId(ExternalCustomerId),
}

/// What became of a `createCustomer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(name = "CreateCustomerOutcome")]
pub enum Outcome {
    /// Nobody on the platform had this email or phone: the customer is new.
    Created,
    /// The person was known on the platform already: their customer record is now connected to your operator.
    Connected,
}

/// What a customer was recognised by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub enum MatchKey {
    /// The email address.
    Email,
    /// The phone number.
    Phone,
}

#[derive(Clone, Debug)]
pub struct Created {
    pub view: CustomerView,
    pub outcome: Outcome,
    pub matched_by: Vec<MatchKey>,
    pub unapplied_fields: Vec<CustomerField>,
    pub warnings: Vec<Violation>,
}

#[derive(Clone, Debug)]
pub struct Updated {
    pub view: CustomerView,
    pub warnings: Vec<Violation>,
}

/// What would become of a `createCustomer`.
#[derive(Clone, Debug)]
pub struct Validation {
    /// In canonical form; `None` where it is not one.
    pub email: Option<EmailAddress>,
    pub phone: Option<PhoneNumber>,
    pub faults: Vec<Violation>,
    pub warnings: Vec<Violation>,
}

const EXTERNAL_CUSTOMER_ID: &[&str] = &["input", "externalCustomerId"];
const CUSTOMER: &[&str] = &["input", "customer"];
const EXPECTED_VERSION: &[&str] = &["input", "expectedVersion"];

impl Customers {
    pub fn new(database: Database, restrictions: Restrictions, phone_lookup: Option<PhoneLookup>) -> Self {
        Self { database, restrictions, phone_lookup }
    }

    /// Creates a customer, or connects the one that has the email or the phone to the caller's operator.
    pub async fn create(&self, actor: &Actor, new: NewCustomer) -> Result<Created, Error> {
        let operator = actor.writing_operator()?;
        let Findings { refusals, warnings } = self.restrictions.judge(new.email.as_ref(), new.phone.as_ref());
        let faults = [new.faults.as_slice(), &refusals].concat();
        let (Some(external_customer_id), Some(email), []) = (&new.external_customer_id, &new.email, faults.as_slice())
        else {
            return Err(Error::Rejected(faults));
        };
        let created = self.with_judged_phone(new.phone.as_ref(), |is_judged| {
            let new = &new;
            with_retry("customer.create", move || {
                self.try_create(operator, external_customer_id, email, new, is_judged)
            })
        });
        Ok(Created { warnings, ..created.await? })
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

    /// `None`: it would store a phone that is not judged.
    async fn try_create(
        &self,
        operator: OperatorId,
        external_customer_id: &ExternalCustomerId,
        email: &EmailAddress,
        new: &NewCustomer,
        is_phone_judged: bool,
    ) -> Result<Option<Created>, Aborted> {
        let transaction = self.database.begin_write().await?;
        let matches = lock_holders(&transaction, email, new.phone.as_ref()).await?;
        let own_links = customer_operator::Entity::find()
            .filter(customer_operator::Column::OperatorId.eq(operator))
            .filter(
                Condition::any()
                    .add(customer_operator::Column::ExternalCustomerId.eq(external_customer_id.clone()))
                    .add(customer_operator::Column::CustomerId.is_in(matches.iter().map(|customer| customer.id))),
            )
            .all(&transaction)
            .await?;
        let by_email = matches.iter().find(|customer| customer.email == *email);
        let by_phone = matches.iter().find(|customer| new.phone.is_some() && customer.phone == new.phone);

        let own: Vec<_> = own_links
            .into_iter()
            .map(|link| {
                let customer = matches.iter().find(|customer| customer.id == link.customer_id);
                (link, customer.cloned())
            })
            .collect();
        let taken = taken(&own, external_customer_id, email, new.phone.as_ref());
        if !taken.is_empty() {
            return Err(Error::Rejected(taken).into());
        }
        let stores_phone = new.phone.is_some() && by_email.or(by_phone).is_none_or(|held| held.phone.is_none());

        let (customer, outcome, unapplied_fields) = match (by_email, by_phone) {
            (Some(one), Some(other)) if one.id != other.id => {
                let conflict = |path| Violation::new(ErrorCode::IdentityConflict, path);
                return Err(Error::Rejected(vec![conflict(EMAIL), conflict(PHONE)]).into());
            }
            _ if stores_phone && !is_phone_judged => return Ok(None),
            (Some(held), _) | (None, Some(held)) => {
                let unapplied_fields = unapplied_fields(held, email, new);
                (fill(&transaction, held, new).await?, Outcome::Connected, unapplied_fields)
            }
            (None, None) => (insert(&transaction, email, new).await?, Outcome::Created, Vec::new()),
        };
        let link = customer_operator::ActiveModel {
            operator_id: Set(operator),
            customer_id: Set(customer.id),
            external_customer_id: Set(external_customer_id.clone()),
            connected_at: Set(now()),
        };
        let link = link.insert(&transaction).await?;
        transaction.commit().await?;

        let matched_by = [by_email.map(|_| MatchKey::Email), by_phone.map(|_| MatchKey::Phone)];
        Ok(Some(Created {
            view: CustomerView { customer, link: Some(link) },
            outcome,
            matched_by: matched_by.into_iter().flatten().collect(),
            unapplied_fields,
            warnings: Vec::new(),
        }))
    }

    /// Changes values of a customer of the caller's operator.
    pub async fn update(&self, actor: &Actor, changes: CustomerChanges) -> Result<Updated, Error> {
        let operator = actor.writing_operator()?;
        let phone = changes.phone.try_as_ref().and_then(Option::as_ref);
        self.with_judged_phone(phone, |is_judged| {
            let changes = &changes;
            with_retry("customer.update", move || self.try_update(operator, changes, is_judged))
        })
        .await
    }

    /// `None`: it would store a phone that is not judged.
    async fn try_update(
        &self,
        operator: OperatorId,
        changes: &CustomerChanges,
        is_phone_judged: bool,
    ) -> Result<Option<Updated>, Aborted> {
        let transaction = self.database.begin_write().await?;
        let held = match &changes.customer {
            Some(customer) => lock_own(&transaction, operator, customer).await?,
            None => None,
        };
        let Some((link, held)) = held else {
            let faults = match changes.faults.as_slice() {
                [] => vec![Violation::new(ErrorCode::CustomerNotFound, CUSTOMER)],
                faults => faults.to_vec(),
            };
            return Err(Error::Rejected(faults).into());
        };

        let mut row = held.clone().into_active_model();
        change(&mut row.email, &changes.email);
        change(&mut row.phone, &changes.phone);
        change(&mut row.first_name, &changes.first_name);
        change(&mut row.last_name, &changes.last_name);
        change(&mut row.address, &changes.address);
        let email = row.email.is_set().then(|| row.email.as_ref());
        let phone = row.phone.is_set().then(|| row.phone.as_ref().as_ref()).flatten();

        let Findings { refusals, warnings } = self.restrictions.judge(email, phone);
        let faults = [changes.faults.as_slice(), &refusals].concat();
        if !faults.is_empty() {
            return Err(Error::Rejected(faults).into());
        }

        let mut faults = Vec::new();
        if changes.expected_version.is_some_and(|version| version != held.version) {
            faults.push(Violation::new(ErrorCode::VersionConflict, EXPECTED_VERSION));
        }
        if email.is_some() || phone.is_some() {
            let others = customer::Entity::find()
                .filter(holds_any(email, phone))
                .filter(customer::Column::Id.ne(held.id))
                .all(&transaction)
                .await?;
            if others.iter().any(|other| Some(&other.email) == email) {
                faults.push(Violation::new(ErrorCode::EmailTaken, EMAIL));
            }
            if others.iter().any(|other| phone.is_some() && other.phone.as_ref() == phone) {
                faults.push(Violation::new(ErrorCode::PhoneTaken, PHONE));
            }
        }
        if !faults.is_empty() {
            return Err(Error::Rejected(faults).into());
        }

        if phone.is_some() && !is_phone_judged {
            return Ok(None);
        }

        let customer = write(&transaction, held, row).await?;
        transaction.commit().await?;
        Ok(Some(Updated { view: CustomerView { customer, link: Some(link) }, warnings }))
    }

    /// What a `create` of the same would find wrong, as far as the caller's own customers tell. Writes nothing, and asks
    /// no carrier.
    pub async fn validate(&self, actor: &Actor, new: NewCustomer) -> Result<Validation, Error> {
        let Findings { refusals, warnings } = self.restrictions.judge(new.email.as_ref(), new.phone.as_ref());
        let mut faults = [new.faults.as_slice(), &refusals].concat();
        if let (Some(operator), Some(external_customer_id), Some(email), []) =
            (actor.operator(), &new.external_customer_id, &new.email, faults.as_slice())
        {
            let of_customer = holds_any(Some(email), new.phone.as_ref());
            let of_link = customer_operator::Column::ExternalCustomerId.eq(external_customer_id.clone());
            let own = of_operator(operator).filter(of_customer.add(of_link)).all(self.database.reads()).await?;
            faults = taken(&own, external_customer_id, email, new.phone.as_ref());
        }
        Ok(Validation { email: new.email, phone: new.phone, faults, warnings })
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
        let (mut of_all, mut of_operators) = (Vec::new(), Vec::new());
        for (list, request) in lists {
            match list.seen_by(actor) {
                None => of_all.push((all(&list.filter).into_query(), *request)),
                Some(operator) => of_operators.push((of_operator_with(operator, &list.filter).into_query(), *request)),
            }
        }
        let reads = self.database.reads();
        let by_id = [customer::Column::Id.into_expr()];
        let mut of_all = page::pages(reads, of_all, &by_id, |row| {
            let customer = customer::Model::from_query_result(row, "")?;
            Ok(CustomerView { customer, link: None })
        })
        .await?
        .into_iter();
        let by_connection =
            [customer_operator::Column::ConnectedAt.into_expr(), customer_operator::Column::CustomerId.into_expr()];
        let mut of_operators = page::pages(reads, of_operators, &by_connection, |row| {
            let link = customer_operator::Model::from_query_result(row, SelectA.as_str())?;
            let customer = customer::Model::from_query_result(row, SelectB.as_str())?;
            Ok(CustomerView { customer, link: Some(link) })
        })
        .await?
        .into_iter();
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
            (links.into_query(), *request)
        });
        let by_connection =
            [customer_operator::Column::ConnectedAt.into_expr(), customer_operator::Column::OperatorId.into_expr()];
        let pages = page::pages(self.database.reads(), queries.collect(), &by_connection, |row| {
            customer_operator::Model::from_query_result(row, "")
        });
        Ok(pages.await?)
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
}

impl Positioned for CustomerView {
    fn position(&self) -> Position {
        let id = *self.customer.id.as_uuid();
        Position { at: self.link.as_ref().map(|link| link.connected_at), id }
    }
}

/// A link's place among those of its customer.
impl Positioned for customer_operator::Model {
    fn position(&self) -> Position {
        Position { at: Some(self.connected_at), id: *self.operator_id.as_uuid() }
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
        Condition::all()
            .add_option(self.email.clone().map(|email| customer::Column::Email.eq(email)))
            .add_option(self.phone.clone().map(|phone| customer::Column::Phone.eq(phone)))
    }

    fn of_link(&self) -> Condition {
        let id = self.external_customer_id.clone();
        Condition::all().add_option(id.map(|id| customer_operator::Column::ExternalCustomerId.eq(id)))
    }
}

/// What an operator's own customers hold of a new one.
fn taken(
    own: &[(customer_operator::Model, Option<customer::Model>)],
    external_customer_id: &ExternalCustomerId,
    email: &EmailAddress,
    phone: Option<&PhoneNumber>,
) -> Vec<Violation> {
    let links = || own.iter().map(|(link, _)| link);
    let customers = || own.iter().filter_map(|(_, customer)| customer.as_ref());
    [
        links()
            .any(|link| link.external_customer_id == *external_customer_id)
            .then(|| Violation::new(ErrorCode::ExternalCustomerIdTaken, EXTERNAL_CUSTOMER_ID)),
        customers().any(|customer| customer.email == *email).then(|| Violation::new(ErrorCode::EmailTaken, EMAIL)),
        customers()
            .any(|customer| phone.is_some() && customer.phone.as_ref() == phone)
            .then(|| Violation::new(ErrorCode::PhoneTaken, PHONE)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Locks the customers that hold the email or the phone, in the order of their ids, so that two who lock the same ones
/// do not wait for each other.
async fn lock_holders(
    transaction: &DatabaseTransaction,
    email: &EmailAddress,
    phone: Option<&PhoneNumber>,
) -> Result<Vec<customer::Model>, DbErr> {
    customer::Entity::find()
        .filter(holds_any(Some(email), phone))
        .order_by_asc(customer::Column::Id)
        .lock_exclusive()
        .all(transaction)
        .await
}

fn holds_any(email: Option<&EmailAddress>, phone: Option<&PhoneNumber>) -> Condition {
    Condition::any()
        .add_option(email.map(|email| customer::Column::Email.eq(email.clone())))
        .add_option(phone.map(|phone| customer::Column::Phone.eq(phone.clone())))
}

/// Locks a customer of the operator.
async fn lock_own(
    transaction: &DatabaseTransaction,
    operator: OperatorId,
    customer: &OwnCustomerRef,
) -> Result<Option<(customer_operator::Model, customer::Model)>, DbErr> {
    let mut own = of_operator(operator).filter(match customer {
        OwnCustomerRef::Id(id) => customer_operator::Column::CustomerId.eq(*id),
        OwnCustomerRef::ExternalCustomerId(id) => customer_operator::Column::ExternalCustomerId.eq(id.clone()),
    });
    QuerySelect::query(&mut own).lock_with_tables(LockType::Update, [customer::Entity]);
    Ok(own.one(transaction).await?.and_then(|(link, customer)| Some((link, customer?))))
}

async fn insert(
    transaction: &DatabaseTransaction,
    email: &EmailAddress,
    new: &NewCustomer,
) -> Result<customer::Model, DbErr> {
    let now = now();
    let row = customer::ActiveModel {
        id: Set(CustomerId::new()),
        email: Set(email.clone()),
        phone: Set(new.phone.clone()),
        first_name: Set(new.first_name.clone()),
        last_name: Set(new.last_name.clone()),
        address: Set(new.address.clone()),
        version: Set(1),
        created_at: Set(now),
        updated_at: Set(now),
    };
    row.insert(transaction).await
}

/// Gives the customer what it lacks and the request has; what the customer has already stays.
async fn fill(
    transaction: &DatabaseTransaction,
    held: &customer::Model,
    new: &NewCustomer,
) -> Result<customer::Model, DbErr> {
    fn fill<T: Clone + Into<sea_orm::Value> + PartialEq>(column: &mut ActiveValue<Option<T>>, given: &Option<T>)
    where
        Option<T>: Into<sea_orm::Value>,
    {
        if column.as_ref().is_none() {
            column.set_ne(given.clone());
        }
    }
    let mut row = held.clone().into_active_model();
    fill(&mut row.phone, &new.phone);
    fill(&mut row.first_name, &new.first_name);
    fill(&mut row.last_name, &new.last_name);
    fill(&mut row.address, &new.address);
    write(transaction, held.clone(), row).await
}

/// What the request has otherwise than the customer that it was connected to.
fn unapplied_fields(held: &customer::Model, email: &EmailAddress, new: &NewCustomer) -> Vec<CustomerField> {
    fn differs<T: PartialEq>(given: &Option<T>, held: &Option<T>) -> bool {
        given.is_some() && held.is_some() && given != held
    }
    those([
        (CustomerField::Email, *email != held.email),
        (CustomerField::FirstName, differs(&new.first_name, &held.first_name)),
        (CustomerField::LastName, differs(&new.last_name, &held.last_name)),
        (CustomerField::Phone, differs(&new.phone, &held.phone)),
        (CustomerField::Address, differs(&new.address, &held.address)),
    ])
}

fn those<const N: usize>(fields: [(CustomerField, bool); N]) -> Vec<CustomerField> {
    fields.into_iter().filter(|(_, holds)| *holds).map(|(field, _)| field).collect()
}

/// Sets a column to the value that the request has for it, if that is another one.
fn change<T: Clone + PartialEq + Into<sea_orm::Value>>(column: &mut ActiveValue<T>, given: &ActiveValue<T>) {
    if let Set(value) = given {
        column.set_ne(value.clone());
    }
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
