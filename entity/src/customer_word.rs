//! Table `customer_word`: the search index.
//!
//! A row is one word by which one operator finds one customer (see [`SearchWord`]). Each operator has its own rows for
//! a shared customer, because they include the words of its own external id, and so that a search reads only one
//! operator's rows. All rows are derived from `customer` and `customer_operator` and can be rebuilt: delete them and
//! run `vivamo migrate`. Written by `service::customers::search`.

use sea_orm::entity::prelude::*;

use crate::value::{CustomerId, OperatorId, SearchWord};

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "customer_word")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub operator_id: OperatorId,
    #[sea_orm(primary_key, auto_increment = false)]
    pub customer_id: CustomerId,
    /// The number of the value, times 1000, plus the number of the word in it. Negative for the external id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub place: i16,
    /// `None` if the value now has fewer words than before: the row is overwritten instead of deleted.
    pub word: Option<SearchWord>,
}

impl ActiveModelBehavior for ActiveModel {}
