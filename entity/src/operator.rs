//! A business on the platform.

use chrono::{DateTime, Utc};
use sea_orm::entity::prelude::*;

use crate::value::{DisplayName, OperatorId};

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "operator")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: OperatorId,
    pub name: DisplayName,
    pub created_at: DateTime<Utc>,
    #[sea_orm(has_many)]
    pub customers: HasMany<super::customer_operator::Entity>,
    #[sea_orm(has_many)]
    pub api_keys: HasMany<super::api_key::Entity>,
}

impl ActiveModelBehavior for ActiveModel {}
