//! Checks the input of `createCustomer` and writes nothing.

use entity::value::{EmailAddress, PhoneNumber};

use super::existing::UniqueValues;
use super::{CustomerDraft, Customers};
use crate::error::{Error, Violation};
use crate::service::Caller;
use crate::service::restrictions::Restriction;

/// The result of [`Customers::validate`].
#[derive(Clone, Debug)]
pub struct Validation {
    /// The email in canonical form. `None` if the email is invalid.
    pub email: Option<EmailAddress>,
    /// The phone in canonical form. `None` if the phone is invalid or omitted.
    pub phone: Option<PhoneNumber>,
    pub violations: Vec<Violation>,
    /// Violations of restrictions that only production enforces.
    pub warnings: Vec<Restriction>,
}

impl Customers {
    /// Finds the violations that [`create`](Self::create) would report, except conflicts with customers of other
    /// operators and phones that only the carrier lookup would reject. Writes nothing.
    pub async fn validate(&self, caller: &Caller, draft: CustomerDraft) -> Result<Validation, Error> {
        let CustomerDraft {
            external_customer_id,
            email,
            optional_values,
            connect_by: _,
            idempotency_key: _,
            mut violations,
        } = draft;
        let phone = optional_values.given_phone();
        let restrictions = self.restrictions.check_without_carrier(email.as_ref(), phone);
        violations.extend(restrictions.violations);
        if let (Some(operator), Some(external_customer_id), Some(email), []) =
            (caller.operator(), &external_customer_id, &email, violations.as_slice())
        {
            let values = UniqueValues { operator, external_customer_id, email, phone };
            violations = self.find_own_matches(values).await?.violations();
        }
        Ok(Validation { phone: phone.cloned(), email, violations, warnings: restrictions.warnings })
    }
}
