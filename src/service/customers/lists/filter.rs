//! Conditions on the customers of a list.

use chrono::{DateTime, Utc};
use entity::value::{EmailAddress, ExternalCustomerId, OperatorId, PhoneNumber, SearchQuery};
use entity::{customer, customer_operator};
use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{ColumnTrait, Condition, Value};

use crate::service::customers::{CustomerField, timing_safe};

/// Conditions on the customers of a list. All conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CustomerFilter {
    /// Only for an operator's list. A list with a search is ordered by customer id, but [some
    /// customers](super::sections::FirstSection) come first.
    pub search: Option<SearchQuery>,
    pub email: Option<EmailAddress>,
    pub phone: Option<PhoneNumber>,
    /// Only for an operator's list.
    pub external_customer_id: Option<ExternalCustomerId>,
    /// Matches customers for which all these fields are empty.
    pub missing: Vec<CustomerField>,
    pub email_verified: Option<bool>,
    pub phone_verified: Option<bool>,
    pub created_at: TimeRange,
    /// Only for an operator's list.
    pub connected_at: TimeRange,
}

/// A range of times, from `from` (inclusive) to `before` (exclusive). `None` leaves an end open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TimeRange {
    pub from: Option<DateTime<Utc>>,
    pub before: Option<DateTime<Utc>>,
}

// `matches_at_most_one`, `on_other_columns` and `on_link` name all fields, so that the compiler reports a new field.
// Each condition except the search must be in `email_and_phone`, `on_other_columns` or `on_link`: a condition that is
// in none of them would match every customer.
impl CustomerFilter {
    /// Returns true if the filter has a condition that at most one customer can meet.
    pub(super) fn matches_at_most_one(&self) -> bool {
        let Self {
            email,
            phone,
            external_customer_id,
            missing,
            search: _,
            email_verified: _,
            phone_verified: _,
            created_at: _,
            connected_at: _,
        } = self;
        let is_impossible = missing.iter().any(|field| !field.is_optional());
        is_impossible || email.is_some() || phone.is_some() || external_customer_id.is_some()
    }

    /// Returns true if the filter has conditions besides the search.
    pub(super) fn has_conditions(&self) -> bool {
        !(self.on_customer().is_empty() && self.on_link().is_empty())
    }

    /// Conditions on columns of `customer`.
    pub(super) fn on_customer(&self) -> Condition {
        let has = |(column, value): (customer::Column, Value)| column.eq(value);
        self.email_and_phone().map(has).fold(self.on_other_columns(), Condition::add)
    }

    /// Conditions on the operator's links, with their customers, except the search. If `email` is given, the customer
    /// must have this email too.
    pub(super) fn on_own_customer(&self, operator: OperatorId, email: Option<&EmailAddress>) -> Condition {
        let email = email.map(|email| (customer::Column::Email, email.clone().into()));
        let values = timing_safe::has_all(operator, email.into_iter().chain(self.email_and_phone()));
        Condition::all().add(values).add(self.on_other_columns()).add(self.on_link())
    }

    /// The email and the phone that the customer must have.
    fn email_and_phone(&self) -> impl Iterator<Item = (customer::Column, Value)> {
        let email = self.email.clone().map(|email| (customer::Column::Email, email.into()));
        let phone = self.phone.clone().map(|phone| (customer::Column::Phone, phone.into()));
        email.into_iter().chain(phone)
    }

    /// Conditions on the columns of `customer` except the email and the phone.
    fn on_other_columns(&self) -> Condition {
        use customer::Column::{CreatedAt, EmailVerifiedAt, PhoneVerifiedAt};
        let Self {
            missing,
            email_verified,
            phone_verified,
            created_at,
            search: _,
            email: _,
            phone: _,
            external_customer_id: _,
            connected_at: _,
        } = self;
        let verified = |column: customer::Column, is_verified: bool| {
            if is_verified { column.is_not_null() } else { column.is_null() }
        };
        let missing = missing
            .iter()
            // For a plain `IS NULL`, PostgreSQL would read all customers without a phone from the index of phones. The
            // condition is therefore `(phone IS NULL)::integer = 1`, which no index fits.
            .map(|field| {
                if field.is_optional() { field.column().is_null().cast_as("integer").eq(1) } else { Expr::val(1).eq(0) }
            });
        let conditions = Condition::all()
            .add_option(email_verified.map(|is_verified| verified(EmailVerifiedAt, is_verified)))
            .add_option(phone_verified.map(|is_verified| verified(PhoneVerifiedAt, is_verified)))
            .add_option(created_at.from.map(|from| CreatedAt.gte(from)))
            .add_option(created_at.before.map(|before| CreatedAt.lt(before)));
        missing.fold(conditions, Condition::add)
    }

    /// Conditions on columns of `customer_operator`.
    pub(super) fn on_link(&self) -> Condition {
        use customer_operator::Column::{ConnectedAt, ExternalCustomerId};
        let Self {
            external_customer_id,
            connected_at,
            search: _,
            email: _,
            phone: _,
            missing: _,
            email_verified: _,
            phone_verified: _,
            created_at: _,
        } = self;
        Condition::all()
            .add_option(external_customer_id.clone().map(|id| ExternalCustomerId.eq(id)))
            .add_option(connected_at.from.map(|from| ConnectedAt.gte(from)))
            .add_option(connected_at.before.map(|before| ConnectedAt.lt(before)))
    }
}
