//! What an operator finds its customers by: the words of their values and of its own ids for them. All of it follows from
//! the customer and the link, and can be made again from them.

use sea_orm::entity::prelude::*;

use crate::value::{CustomerId, OperatorId, Word};

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "customer_word")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub operator_id: OperatorId,
    #[sea_orm(primary_key, auto_increment = false)]
    pub customer_id: CustomerId,
    /// Which word of which value it is.
    #[sea_orm(primary_key, auto_increment = false)]
    pub place: i16,
    /// None where a value has fewer words than it once had.
    pub word: Option<Word>,
}

impl ActiveModelBehavior for ActiveModel {}
