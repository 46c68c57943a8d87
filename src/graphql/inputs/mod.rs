//! The inputs of the queries and mutations in `resolvers/customers.rs`, and the collection of violations, which all
//! inputs use. The other inputs are beside their resolvers.

mod customer;
mod customer_list;
mod violations;

pub use customer::{CreateCustomerInput, CustomerRefInput, DisconnectCustomerInput, UpdateCustomerInput};
pub use customer_list::{CustomerFilterInput, CustomerOrderInput};
pub use violations::{Violations, optional};
