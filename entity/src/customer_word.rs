//! Table `customer_word`: the search index.
//!
//! Each row is a word by which an operator can find a customer (see [`SearchWord`]). Each operator has its own rows for
//! a shared customer. The rows include the words of the operator's external id, and a search reads the rows of one
//! operator only. All rows are derived from `customer` and `customer_operator` and can be rebuilt: stop all servers,
//! delete all rows, set `deployment.words_migration` to null, and run `vivamo migrate`. Rows are written by
//! `service::customers::words`.

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
    /// 1000 × the index of the value (see `searchable` in `service::customers::words`) + the index of the word in the
    /// value. The words of the external id start at -1000.
    #[sea_orm(primary_key, auto_increment = false)]
    pub place: i16,
    /// `None` if the value once had more words: the row of a removed word is overwritten, not deleted.
    pub word: Option<SearchWord>,
}

impl ActiveModelBehavior for ActiveModel {}
