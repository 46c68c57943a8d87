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

/// The conditions of a [`CustomerFilter`] in SQL, except the search.
struct SqlConditions {
    /// The email and the phone that the customer must have.
    email_and_phone: Vec<(customer::Column, Value)>,
    /// Conditions on the other columns of `customer`.
    on_other_columns: Condition,
    /// Conditions on columns of `customer_operator`.
    on_link: Condition,
}

impl CustomerFilter {
    /// Returns true if the filter has a condition that at most one customer can meet.
    pub(super) fn matches_at_most_one(&self) -> bool {
        let is_impossible = self.missing.iter().any(|field| !field.is_optional());
        is_impossible || self.email.is_some() || self.phone.is_some() || self.external_customer_id.is_some()
    }

    /// Returns true if the filter has conditions besides the search.
    pub(super) fn has_conditions(&self) -> bool {
        !(self.on_customer().is_empty() && self.on_link().is_empty())
    }

    /// Conditions on columns of `customer`.
    pub(super) fn on_customer(&self) -> Condition {
        let SqlConditions { email_and_phone, on_other_columns, on_link: _ } = self.conditions();
        email_and_phone.into_iter().map(|(column, value)| column.eq(value)).fold(on_other_columns, Condition::add)
    }

    /// Conditions on columns of `customer_operator`.
    pub(super) fn on_link(&self) -> Condition {
        self.conditions().on_link
    }

    /// Conditions on the operator's links, with their customers, except the search. If `email` is given, the customer
    /// must have this email too.
    pub(super) fn on_own_customer(&self, operator: OperatorId, email: Option<&EmailAddress>) -> Condition {
        let SqlConditions { email_and_phone, on_other_columns, on_link } = self.conditions();
        let email = email.map(|email| (customer::Column::Email, email.clone().into()));
        let values = timing_safe::has_all(operator, email.into_iter().chain(email_and_phone));
        Condition::all().add(values).add(on_other_columns).add(on_link)
    }

    /// Returns the conditions in SQL. Uses every field except the search: a field that is left out here would match
    /// every customer.
    fn conditions(&self) -> SqlConditions {
        use customer::Column::{CreatedAt, Email, EmailVerifiedAt, Phone, PhoneVerifiedAt};
        use customer_operator::Column::{ConnectedAt, ExternalCustomerId};
        let Self {
            search: _,
            email,
            phone,
            external_customer_id,
            missing,
            email_verified,
            phone_verified,
            created_at,
            connected_at,
        } = self;
        let email = email.clone().map(|email| (Email, email.into()));
        let phone = phone.clone().map(|phone| (Phone, phone.into()));
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
        let on_other_columns = Condition::all()
            .add_option(email_verified.map(|is_verified| verified(EmailVerifiedAt, is_verified)))
            .add_option(phone_verified.map(|is_verified| verified(PhoneVerifiedAt, is_verified)))
            .add_option(created_at.from.map(|from| CreatedAt.gte(from)))
            .add_option(created_at.before.map(|before| CreatedAt.lt(before)));
        let on_link = Condition::all()
            .add_option(external_customer_id.clone().map(|id| ExternalCustomerId.eq(id)))
            .add_option(connected_at.from.map(|from| ConnectedAt.gte(from)))
            .add_option(connected_at.before.map(|before| ConnectedAt.lt(before)));
        SqlConditions {
            email_and_phone: email.into_iter().chain(phone).collect(),
            on_other_columns: missing.fold(on_other_columns, Condition::add),
            on_link,
        }
    }
}
