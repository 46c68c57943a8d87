//! A new customer, or a known one for another operator.

use async_graphql::Enum;
use entity::customer_event::EventType;
use entity::value::{
    Address, CustomerId, EmailAddress, ExternalCustomerId, IdempotencyKey, OperatorId, PersonName, PhoneNumber,
    RequestId,
};
use entity::{customer, customer_operator};
use sea_orm::sea_query::{Alias, Expr, ExprTrait, Query, SelectStatement, SimpleExpr};
use sea_orm::{
    ActiveValue, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, FromQueryResult, IdenStatic, IntoActiveModel,
    Iterable, JoinType, QueryFilter, QueryOrder, QueryTrait,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::field::fields_where;
use super::rows::{Link, write};
use super::{CustomerField, CustomerView, Customers, search};
use crate::database::{OptimisticWrite, TransactionError, WriteBatch};
use crate::error::{Error, ErrorCode, InputField, Violation};
use crate::service::idempotency::{self, IdempotentRequest};
use crate::service::restrictions::Findings;
use crate::service::{Actor, Origin, history, now};

/// What a request says of a new customer. A value that could not be read is `None`, and its fault in `faults`.
#[derive(Clone, Debug, Default)]
pub struct NewCustomer {
    pub external_customer_id: Option<ExternalCustomerId>,
    pub email: Option<EmailAddress>,
    pub phone: Option<PhoneNumber>,
    pub first_name: Option<PersonName>,
    pub last_name: Option<PersonName>,
    pub address: Option<Address>,
    pub idempotency_key: Option<IdempotencyKey>,
    pub faults: Vec<Violation>,
}

/// What became of a `createCustomer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum, Serialize, Deserialize)]
#[graphql(name = "CreateCustomerOutcome")]
pub enum Outcome {
    /// Nobody on the platform had this email or phone: the customer is new.
    Created,
    /// The person was known on the platform already: their customer record is now connected to your operator.
    Connected,
}

/// What a customer was recognised by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum, Serialize, Deserialize)]
pub enum MatchKey {
    /// The email address.
    Email,
    /// The phone number.
    Phone,
}

#[derive(Clone)]
pub struct Created {
    pub view: CustomerView,
    pub outcome: Outcome,
    pub matched_by: Vec<MatchKey>,
    pub unapplied_fields: Vec<CustomerField>,
    pub warnings: Vec<Violation>,
    /// Whether this was done before, by a request with the same idempotency key.
    pub replayed: bool,
}

/// What is kept of a `createCustomer` under its idempotency key.
#[derive(Serialize, Deserialize)]
struct StoredOutcome {
    customer: uuid::Uuid,
    outcome: Outcome,
    matched_by: Vec<MatchKey>,
    unapplied_fields: Vec<CustomerField>,
    warnings: Vec<ErrorCode>,
}

impl Customers {
    /// Creates a customer, or connects the one that has the email or the phone to the caller's operator.
    pub async fn create(&self, actor: &Actor, request: RequestId, new: NewCustomer) -> Result<Created, Error> {
        let origin = actor.origin(request)?;
        let (Some(external_customer_id), Some(email), []) =
            (&new.external_customer_id, &new.email, new.faults.as_slice())
        else {
            let refusals = self.restrictions.check(new.email.as_ref(), new.phone.as_ref()).refusals;
            return Err(Error::Rejected([new.faults, refusals].concat()));
        };
        let mut disclosures = self.limits.reserve_disclosures(&origin, 1 + u32::from(new.phone.is_some()))?;
        let idempotent = self.idempotent(&origin, new.idempotency_key.as_ref(), || new.canonical_form());
        let attempt = Attempt { origin, idempotent: idempotent.as_ref(), external_customer_id, email, new: &new };
        let created = self.with_checked_phone(new.phone.as_ref(), |is_checked| {
            let attempt = &attempt;
            OptimisticWrite::run(&self.database, "customer.create", move |write_tx| {
                let work = self.try_create(write_tx, attempt, is_checked);
                let replay = async |kept| self.replay(&attempt.origin, kept).await;
                idempotency::or_replay(attempt.idempotent, self.database.reader(), work, replay)
            })
        });
        let created = created.await;
        match &created {
            Ok(Created { outcome: Outcome::Connected, replayed: false, matched_by, .. }) => {
                disclosures.disclosed("connected", matched_by.len() as u32);
            }
            Err(error) if error.has(ErrorCode::IdentityConflict) => disclosures.disclosed("identity conflict", 2),
            Ok(_) | Err(_) => {}
        }
        created
    }

    /// `None`: it would store a phone that is not judged.
    async fn try_create(
        &self,
        write_tx: OptimisticWrite,
        attempt: &Attempt<'_>,
        is_phone_checked: bool,
    ) -> Result<Option<Created>, TransactionError> {
        let Attempt { origin, idempotent, external_customer_id, email, new } = *attempt;
        let Findings { refusals, warnings } = self.restrictions.check(Some(email), new.phone.as_ref());
        if !refusals.is_empty() {
            return Err(Error::Rejected(refusals).into());
        }

        let Existing { holders, is_id_taken } =
            self.find_existing(&write_tx, origin.operator, external_customer_id, email, new.phone.as_ref()).await?;
        let own = holders.iter().filter(|(_, is_own)| *is_own).map(|(customer, _)| customer);
        let taken = taken(is_id_taken, own, email, new.phone.as_ref());
        if !taken.is_empty() {
            return Err(Error::Rejected(taken).into());
        }

        let matches = || holders.iter().map(|(customer, _)| customer);
        let by_email = matches().find(|customer| customer.email == *email);
        let by_phone = matches().find(|customer| new.phone.is_some() && customer.phone == new.phone);
        let stores_phone = new.phone.is_some() && by_email.or(by_phone).is_none_or(|current| current.phone.is_none());
        let mut writes = WriteBatch::new(attempt.origin.operator);
        let (customer, outcome, unapplied_fields) = match (by_email, by_phone) {
            (Some(one), Some(other)) if one.id != other.id => {
                let conflict = |field| Violation::of(ErrorCode::IdentityConflict, field);
                return Err(Error::Rejected(vec![conflict(InputField::Email), conflict(InputField::Phone)]).into());
            }
            _ if stores_phone && !is_phone_checked => return Ok(None),
            (Some(current), _) | (None, Some(current)) => {
                let customer = fill(&mut writes, current, new)?;
                history::record(&mut writes, &origin, EventType::Connected, Some(current), &customer);
                (customer, Outcome::Connected, unapplied_fields(current, email, new))
            }
            (None, None) => {
                let customer = insert(&mut writes, email, new);
                history::record(&mut writes, &origin, EventType::Created, None, &customer);
                (customer, Outcome::Created, Vec::new())
            }
        };
        let link = Link {
            operator_id: origin.operator,
            customer_id: customer.id,
            external_customer_id: external_customer_id.clone(),
            connected_at: now(),
        };
        writes.insert([link.clone()]);
        search::add(&mut writes, &link, &customer);
        let matched_by = [by_email.map(|_| MatchKey::Email), by_phone.map(|_| MatchKey::Phone)];
        let created = Created {
            view: CustomerView::new(customer, Some(link)),
            outcome,
            matched_by: matched_by.into_iter().flatten().collect(),
            unapplied_fields,
            warnings,
            replayed: false,
        };
        idempotency::write(write_tx, writes, idempotent, || StoredOutcome::of(&created)).await?;
        Ok(Some(created))
    }

    async fn replay(&self, origin: &Origin, kept: StoredOutcome) -> Result<Created, TransactionError> {
        Ok(Created {
            view: self.reload(origin, kept.customer.into()).await?,
            outcome: kept.outcome,
            matched_by: kept.matched_by,
            unapplied_fields: kept.unapplied_fields,
            warnings: self.restrictions.warnings_from_codes(&kept.warnings),
            replayed: true,
        })
    }
}

/// A create whose values are all there.
#[derive(Clone, Copy)]
struct Attempt<'a> {
    origin: Origin,
    idempotent: Option<&'a IdempotentRequest>,
    external_customer_id: &'a ExternalCustomerId,
    email: &'a EmailAddress,
    new: &'a NewCustomer,
}

impl NewCustomer {
    /// The same for two requests exactly if they ask for the same.
    fn canonical_form(&self) -> String {
        json!({ "createCustomer": {
            "externalCustomerId": self.external_customer_id.as_ref().map(|id| id.as_str()),
            "email": self.email.as_ref().map(|email| email.as_str()),
            "phone": self.phone.as_ref().map(|phone| phone.as_str()),
            "firstName": self.first_name.as_ref().map(|name| name.as_str()),
            "lastName": self.last_name.as_ref().map(|name| name.as_str()),
            "address": self.address,
        }})
        .to_string()
    }
}

impl StoredOutcome {
    fn of(created: &Created) -> Self {
        Self {
            customer: *created.view.customer.id.as_uuid(),
            outcome: created.outcome,
            matched_by: created.matched_by.clone(),
            unapplied_fields: created.unapplied_fields.clone(),
            warnings: created.warnings.iter().map(|warning| warning.code).collect(),
        }
    }
}

/// What an operator's own customers hold of a new one.
pub(super) fn taken<'c>(
    is_id_taken: bool,
    own: impl Iterator<Item = &'c customer::Model> + Clone,
    email: &EmailAddress,
    phone: Option<&PhoneNumber>,
) -> Vec<Violation> {
    let is_email_taken = own.clone().any(|customer| customer.email == *email);
    let is_phone_taken = own.clone().any(|customer| phone.is_some() && customer.phone.as_ref() == phone);
    [
        is_id_taken.then(|| Violation::of(ErrorCode::ExternalCustomerIdTaken, InputField::ExternalCustomerId)),
        is_email_taken.then(|| Violation::of(ErrorCode::EmailTaken, InputField::Email)),
        is_phone_taken.then(|| Violation::of(ErrorCode::PhoneTaken, InputField::Phone)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What there is of a new customer already.
struct Existing {
    /// The customers that hold the email or the phone, and whether each is the operator's own.
    holders: Vec<(customer::Model, bool)>,
    is_id_taken: bool,
}

impl Customers {
    /// Looks for all of it in one statement.
    async fn find_existing(
        &self,
        write_tx: &OptimisticWrite,
        operator: OperatorId,
        external_customer_id: &ExternalCustomerId,
        email: &EmailAddress,
        phone: Option<&PhoneNumber>,
    ) -> Result<Existing, DbErr> {
        let values =
            [operator.into(), external_customer_id.clone().into(), email.clone().into(), phone.cloned().into()];
        let rows = if write_tx.is_locking() {
            write_tx.query_all(&existing_sql(values.map(SimpleExpr::from), true)).await?
        } else {
            self.existing_query.run(self.database.reader(), values, |values| existing_sql(values, false)).await?
        };
        let mut look = Existing { holders: Vec::new(), is_id_taken: false };
        for row in rows {
            look.is_id_taken = row.try_get("", "is_id_taken")?;
            if let Some(current) = customer::Model::from_query_result_optional(&row, "held_")? {
                look.holders.push((current, row.try_get("", "is_own")?));
            }
        }
        Ok(look)
    }
}

/// Looks for who holds an operator's external id, an email or a phone. The holders are locked in the order of their ids, so
/// that two who lock the same ones do not wait for each other. A link that comes while this waits is not seen, and found by
/// the constraint.
fn existing_sql([operator, external_customer_id, email, phone]: [SimpleExpr; 4], locks: bool) -> SelectStatement {
    use customer_operator::Column;
    let [current, own, same_id] = ["current", "own", "same_id"].map(Alias::new);
    let mut holders = customer::Entity::find()
        .filter(customer::Column::Email.into_expr().eq(email).or(customer::Column::Phone.into_expr().eq(phone)))
        .order_by_asc(customer::Column::Id)
        .into_query();
    if locks {
        holders.lock_exclusive();
    }
    let of_operator = |link: &Alias| Expr::col((link.clone(), Column::OperatorId)).eq(operator.clone());
    let is_own = Expr::col((own.clone(), Column::CustomerId)).equals((current.clone(), customer::Column::Id));
    let is_same = Expr::col((same_id.clone(), Column::ExternalCustomerId)).eq(external_customer_id);
    let mut query = Query::select();
    for column in customer::Column::iter() {
        query.expr_as(Expr::col((current.clone(), column)), format!("held_{}", column.as_str()));
    }
    query
        .expr_as(Expr::col((own.clone(), Column::CustomerId)).is_not_null(), "is_own")
        .expr_as(Expr::col((same_id.clone(), Column::CustomerId)).is_not_null(), "is_id_taken")
        // There is a row, whatever is found.
        .from_subquery(Query::select().expr_as(Expr::cust("1"), "one").take(), "always")
        .join_subquery(JoinType::LeftJoin, holders, current, Expr::cust("TRUE"))
        .join_as(JoinType::LeftJoin, customer_operator::Entity, own.clone(), is_own.and(of_operator(&own)))
        .join_as(JoinType::LeftJoin, customer_operator::Entity, same_id.clone(), is_same.and(of_operator(&same_id)));
    query
}

fn insert(writes: &mut WriteBatch, email: &EmailAddress, new: &NewCustomer) -> customer::Model {
    let now = now();
    let customer = customer::Model {
        id: CustomerId::new(),
        email: email.clone(),
        phone: new.phone.clone(),
        first_name: new.first_name.clone(),
        last_name: new.last_name.clone(),
        address: new.address.clone(),
        version: 1,
        created_at: now,
        updated_at: now,
        revision: 1,
    };
    writes.insert([customer.clone()]);
    customer
}

/// Gives the customer what it lacks and the request has; what the customer has already stays.
fn fill(writes: &mut WriteBatch, current: &customer::Model, new: &NewCustomer) -> Result<customer::Model, DbErr> {
    fn fill<T: Clone + PartialEq>(column: &mut ActiveValue<Option<T>>, given: &Option<T>)
    where
        Option<T>: Into<sea_orm::Value>,
    {
        if column.as_ref().is_none() {
            column.set_ne(given.clone());
        }
    }
    let mut row = current.clone().into_active_model();
    fill(&mut row.phone, &new.phone);
    fill(&mut row.first_name, &new.first_name);
    fill(&mut row.last_name, &new.last_name);
    fill(&mut row.address, &new.address);
    write(writes, current, row)
}

/// What the request has otherwise than the customer that it was connected to.
fn unapplied_fields(current: &customer::Model, email: &EmailAddress, new: &NewCustomer) -> Vec<CustomerField> {
    fn differs<T: PartialEq>(given: &Option<T>, current: &Option<T>) -> bool {
        given.is_some() && current.is_some() && given != current
    }
    fields_where([
        (CustomerField::Email, *email != current.email),
        (CustomerField::FirstName, differs(&new.first_name, &current.first_name)),
        (CustomerField::LastName, differs(&new.last_name, &current.last_name)),
        (CustomerField::Phone, differs(&new.phone, &current.phone)),
        (CustomerField::Address, differs(&new.address, &current.address)),
    ])
}
