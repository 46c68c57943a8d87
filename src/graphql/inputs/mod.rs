//! The inputs that concern customers, and the violations that are found in any input.

mod customer;
mod customer_list;
mod violations;

pub use customer::{
    CreateCustomerInput, CustomerRefInput, DisconnectCustomerInput, EraseCustomerInput, RecordVerificationInput,
    UpdateCustomerInput,
};
pub use customer_list::{CustomerFilterInput, CustomerOrderInput};
pub use violations::Violations;
