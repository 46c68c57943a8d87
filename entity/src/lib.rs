//! The values and tables of the service.
//!
//! [`value`] has one type for each kind of value. The function `parse` of a type makes a value from text. Search words
//! are made by functions such as [`SearchWord::tokenize`](value::SearchWord::tokenize). The other modules are the
//! tables, one file each. The columns of the tables use these types. Values read from the database are not validated
//! again, so a stricter rule does not make old rows unreadable.

pub mod value;

pub mod admin_event;
pub mod api_key;
pub mod customer;
pub mod customer_change;
pub mod customer_event;
pub mod customer_operator;
pub mod customer_word;
pub mod deployment;
pub mod erasure;
pub mod idempotency_key;
pub mod operator;
pub mod phone_lookup;
pub mod webhook;
