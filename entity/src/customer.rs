//! Table `customer`: one row for each person on the platform, shared by all operators of that person.
//!
//! Email and phone are unique on the platform. Rows are written by `service::customers`.

use chrono::{DateTime, Utc};
use sea_orm::entity::prelude::*;

use crate::value;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "customer")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: value::CustomerId,
    #[sea_orm(unique)]
    pub email: value::EmailAddress,
    #[sea_orm(unique)]
    pub phone: Option<value::PhoneNumber>,
    pub first_name: Option<value::PersonName>,
    pub last_name: Option<value::PersonName>,
    pub address: Option<value::Address>,
    /// Starts at 1 and increases by 1 with each change of the customer's values. Shown to clients.
    pub version: i32,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    /// Starts at 1 and increases by 1 with each change of the customer's values, verifications or links, and when
    /// missing search words are added. Writes compare the revision to detect concurrent changes. Clients do not see the
    /// revision.
    pub revision: i32,
    /// The time at which the person last proved ownership of the email. Null after the email has changed.
    pub email_verified_at: Option<DateTime<Utc>>,
    /// The time at which the person last proved ownership of the phone. Null after the phone has changed.
    pub phone_verified_at: Option<DateTime<Utc>>,
}

impl ActiveModelBehavior for ActiveModel {}
