//! The inputs of the queries and mutations of customers, and the collection of violations, which all inputs use.

mod customer;
mod customer_list;
mod violations;

pub use customer::{
    CreateCustomerInput, CustomerRefInput, DisconnectCustomerInput, EraseCustomerInput, RecordVerificationInput,
    UpdateCustomerInput,
};
pub use customer_list::{CustomerFilterInput, CustomerOrderInput};
pub use violations::Violations;
