//! The types of the objects that refer to each other: a customer has operators and a history, an operator has
//! customers, and a history entry has an operator. These types are in one file, so that the files with the fields of
//! these types do not import each other.

use std::sync::Arc;

use async_graphql::SimpleObject;
use entity::operator;

use crate::graphql::cursor::Cursor;
use crate::graphql::fetch::CustomerCountKey;
use crate::graphql::pagination::Connection;
use crate::service::customers::{CustomerView, HistoryEntry};

pub struct Customer(pub Arc<CustomerView>);

pub struct Operator(pub Arc<operator::Model>);

pub struct CustomerEvent(pub Arc<HistoryEntry>);

pub type CustomerConnection = Connection<CustomerEdge, CustomerCount>;

/// A customer in a list.
#[derive(SimpleObject)]
#[graphql(complex)]
pub struct CustomerEdge {
    /// Cursor of this customer, for `after` and `before`.
    pub cursor: Cursor,
    /// The customer.
    pub node: Customer,
}

pub struct CustomerCount(pub CustomerCountKey);

pub type CustomerEventConnection = Connection<CustomerEventEdge>;

/// A history entry in a list.
#[derive(SimpleObject)]
pub struct CustomerEventEdge {
    /// Cursor of this entry, for `after` and `before`.
    pub cursor: Cursor,
    /// The history entry.
    pub node: CustomerEvent,
}
