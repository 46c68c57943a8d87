//! Restrictions on emails and phones: production rejects values that violate a restriction, sandbox only warns.
//!
//! The restricted values are emails at disposable domains, emails with a plus suffix (`ada+1@example.com`), and phones
//! that are not mobile. Without a carrier lookup, this module checks phones by the numbering plans. With a carrier
//! lookup, this module does not check phones: the lookup checks a phone just before the phone is stored.

use entity::deployment::Environment;
use entity::value::{EmailAddress, LineType, PhoneNumber};
use sea_orm::EnumIter;
use serde::{Deserialize, Serialize};

use super::Caller;
use super::disposable_domains::DisposableDomains;
use super::phone_lookup::PhoneLookup;
use crate::error::{Error, ErrorCode, InputField, Violation};

/// The checks, and the environment that decides whether a violation is an error or a warning.
pub struct Restrictions {
    environment: Environment,
    disposable_domains: DisposableDomains,
    /// Decides which phones are mobile. `None` if the numbering plans decide.
    phone_lookup: Option<PhoneLookup>,
}

/// A restriction that a value violates. The names of the variants are stored with the results of idempotency keys, so
/// do not rename them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, Serialize, Deserialize)]
pub enum Restriction {
    DisposableEmail,
    PlusSuffixEmail,
    PhoneNotMobile,
}

/// The result of [`Restrictions::check_without_carrier`]. At least one of the lists is empty, because production only
/// rejects and sandbox only warns.
#[derive(Debug)]
pub struct Checked {
    pub violations: Vec<Violation>,
    pub warnings: Vec<Restriction>,
}

impl Restrictions {
    /// Without `phone_lookup`, the numbering plans decide which phones are mobile.
    pub fn new(
        environment: Environment,
        disposable_domains: DisposableDomains,
        phone_lookup: Option<PhoneLookup>,
    ) -> Self {
        Self { environment, disposable_domains, phone_lookup }
    }

    /// Returns true if [`check_with_carrier`](Self::check_with_carrier) must accept a new phone before it is stored.
    pub fn needs_carrier(&self) -> bool {
        self.phone_lookup.is_some()
    }

    /// Asks the carrier whether the phone is mobile, as [`PhoneLookup::check`] does. Accepts every phone if the
    /// numbering plans decide.
    pub async fn check_with_carrier(&self, caller: &Caller, phone: &PhoneNumber) -> Result<(), Error> {
        match &self.phone_lookup {
            Some(lookup) => lookup.check(caller, phone).await,
            None => Ok(()),
        }
    }

    /// Checks the values that a request would store, and finds at most one violation for each. With a carrier lookup,
    /// finds none for the phone, which [`check_with_carrier`](Self::check_with_carrier) checks.
    pub fn check_without_carrier(&self, email: Option<&EmailAddress>, phone: Option<&PhoneNumber>) -> Checked {
        let on_email = email.and_then(|email| self.check_email(email));
        let on_phone = phone.and_then(|phone| self.check_phone(phone));
        let violated = on_email.into_iter().chain(on_phone);
        match self.environment {
            Environment::Production => {
                Checked { violations: violated.map(Restriction::violation).collect(), warnings: Vec::new() }
            }
            Environment::Sandbox => Checked { violations: Vec::new(), warnings: violated.collect() },
        }
    }

    fn check_email(&self, email: &EmailAddress) -> Option<Restriction> {
        if self.disposable_domains.is_disposable(email) {
            Some(Restriction::DisposableEmail)
        } else if email.local_part().contains('+') {
            Some(Restriction::PlusSuffixEmail)
        } else {
            None
        }
    }

    fn check_phone(&self, phone: &PhoneNumber) -> Option<Restriction> {
        let is_not_mobile = self.phone_lookup.is_none() && phone.line_type() != LineType::Mobile;
        is_not_mobile.then_some(Restriction::PhoneNotMobile)
    }
}

impl Checked {
    /// Returns the warnings, or rejects the request if a value is rejected.
    pub fn into_warnings(self) -> Result<Vec<Restriction>, Error> {
        Error::reject_if_any(self.violations)?;
        Ok(self.warnings)
    }
}

impl Restriction {
    /// Returns the warning that sandbox reports.
    pub fn warning(self) -> Violation {
        let warning =
            self.violation().with_note("This is only a warning: sandbox accepts the value, and production rejects it.");
        match self {
            Self::PlusSuffixEmail => {
                warning.with_note("Some payment gateways reject such addresses in every environment.")
            }
            Self::DisposableEmail | Self::PhoneNotMobile => warning,
        }
    }

    /// Returns the violation that production reports.
    fn violation(self) -> Violation {
        Violation::of(self.code(), self.field())
    }

    fn code(self) -> ErrorCode {
        match self {
            Self::DisposableEmail => ErrorCode::DisposableEmail,
            Self::PlusSuffixEmail => ErrorCode::PlusSuffixEmail,
            Self::PhoneNotMobile => ErrorCode::PhoneNotMobile,
        }
    }

    fn field(self) -> InputField {
        match self {
            Self::DisposableEmail | Self::PlusSuffixEmail => InputField::Email,
            Self::PhoneNotMobile => InputField::Phone,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sea_orm::Iterable;
    use serde_json::json;

    use super::*;

    fn restrictions(environment: Environment) -> Restrictions {
        let disposable_domains = DisposableDomains::new(Vec::new(), Vec::new());
        Restrictions { environment, disposable_domains, phone_lookup: None }
    }

    #[test]
    fn stored_names_of_warnings_do_not_change() {
        let all: Vec<_> = Restriction::iter().collect();
        let stored = json!(["DisposableEmail", "PlusSuffixEmail", "PhoneNotMobile"]);
        assert_eq!(json!(all), stored);
        assert_eq!(serde_json::from_value::<Vec<Restriction>>(stored).unwrap(), all);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn sandbox_warns_about_what_production_rejects(
            emails in proptest::collection::vec("[a-z+]{1,8}@([a-z]{1,6}\\.)?(mailinator|yopmail|example|duck|gmail)\\.com", 1..20),
            phones in proptest::collection::vec("\\+(1[2-9][0-9]{9}|44[0-9]{10}|49[0-9]{10}|225[0-9]{10})", 1..20),
        ) {
            let (sandbox, production) = (restrictions(Environment::Sandbox), restrictions(Environment::Production));
            for (email, phone) in emails.iter().zip(&phones) {
                let (email, phone) = (EmailAddress::parse(email).ok(), PhoneNumber::parse(phone).ok());
                let warned = sandbox.check_without_carrier(email.as_ref(), phone.as_ref());
                let rejected = production.check_without_carrier(email.as_ref(), phone.as_ref());
                prop_assert!(warned.violations.is_empty() && rejected.warnings.is_empty());
                let violations: Vec<_> = warned.warnings.into_iter().map(Restriction::violation).collect();
                prop_assert_eq!(&violations, &rejected.violations);
                let is_restricted = email.is_some_and(|email| email.local_part().contains('+'));
                prop_assert!(!is_restricted || !violations.is_empty());
            }
        }
    }
}
