//! A dry run of creating a customer.

use entity::customer_operator;
use entity::value::{EmailAddress, PhoneNumber};
use sea_orm::{ColumnTrait, QueryFilter};

use super::create::taken;
use super::rows::{holds_any, of_operator};
use super::{Customers, NewCustomer};
use crate::error::{Error, Violation};
use crate::service::Actor;
use crate::service::restrictions::Findings;

/// What would become of a `createCustomer`.
#[derive(Clone, Debug)]
pub struct Validation {
    /// In canonical form; `None` where it is not one.
    pub email: Option<EmailAddress>,
    pub phone: Option<PhoneNumber>,
    pub faults: Vec<Violation>,
    pub warnings: Vec<Violation>,
}

impl Customers {
    /// What a `create` of the same would find wrong, as far as the caller's own customers tell. WriteBatch nothing, and asks
    /// no carrier.
    pub async fn validate(&self, actor: &Actor, new: NewCustomer) -> Result<Validation, Error> {
        let Findings { refusals, warnings } = self.restrictions.check(new.email.as_ref(), new.phone.as_ref());
        let mut faults = [new.faults.as_slice(), &refusals].concat();
        if let (Some(operator), Some(external_customer_id), Some(email), []) =
            (actor.operator(), &new.external_customer_id, &new.email, faults.as_slice())
        {
            let of_customer = holds_any(Some(email), new.phone.as_ref());
            let of_link = customer_operator::Column::ExternalCustomerId.eq(external_customer_id.clone());
            let own = of_operator(operator).filter(of_customer.add(of_link)).all(self.database.reader()).await?;
            let is_id_taken = own.iter().any(|(link, _)| link.external_customer_id == *external_customer_id);
            let own = own.iter().filter_map(|(_, customer)| customer.as_ref());
            faults = taken(is_id_taken, own, email, new.phone.as_ref());
        }
        Ok(Validation { email: new.email, phone: new.phone, faults, warnings })
    }
}
