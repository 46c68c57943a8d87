//! Table `customer_operator`: the link table between customers and operators.
//!
//! A row connects a customer to an operator, under the operator's own id for that customer. Two customers of an
//! operator cannot have the same external id. Rows are written by `service::customers`.

use chrono::{DateTime, Utc};
use sea_orm::entity::prelude::*;

use crate::value::{CustomerId, ExternalCustomerId, OperatorId};

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "customer_operator")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub operator_id: OperatorId,
    #[sea_orm(primary_key, auto_increment = false)]
    pub customer_id: CustomerId,
    pub external_customer_id: ExternalCustomerId,
    pub connected_at: DateTime<Utc>,
    #[sea_orm(belongs_to, from = "customer_id", to = "id")]
    pub customer: HasOne<super::customer::Entity>,
}

impl ActiveModelBehavior for ActiveModel {}
