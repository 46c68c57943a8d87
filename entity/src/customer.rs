//! One person, one row, on the whole platform.

use chrono::{DateTime, Utc};
use sea_orm::entity::prelude::*;

use crate::value::{Address, CustomerId, EmailAddress, PersonName, PhoneNumber};

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "customer")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: CustomerId,
    #[sea_orm(unique)]
    pub email: EmailAddress,
    #[sea_orm(unique)]
    pub phone: Option<PhoneNumber>,
    pub first_name: Option<PersonName>,
    pub last_name: Option<PersonName>,
    pub address: Option<Address>,
    /// 1 for a new customer, one more with each change of a value.
    pub version: i32,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    /// One more with each change of a value or of the operators.
    pub revision: i32,
    #[sea_orm(has_many)]
    pub operators: HasMany<super::customer_operator::Entity>,
}

impl ActiveModelBehavior for ActiveModel {}
