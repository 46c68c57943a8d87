//! Restrictions on emails and phones: production rejects values that violate a restriction, sandbox only warns.
//!
//! The restricted values are emails at disposable domains, emails with a plus suffix (`ada+1@example.com`), and phones
//! that are not mobile. Without a carrier lookup, this module checks phones by the numbering plans. With a carrier
//! lookup, this module does not check phones: the lookup checks a phone just before the phone is stored.

use entity::deployment::Environment;
use entity::value::{EmailAddress, LineType, PhoneNumber};

use super::disposable_domains::DisposableDomains;
use super::phone_lookup::PhoneLookup;
use crate::error::{ErrorCode, InputField, Violation};

/// The checks, and the environment that decides if a violation is an error or a warning.
pub struct Restrictions {
    pub environment: Environment,
    pub disposable_domains: DisposableDomains,
    /// Decides which phones are mobile. `None` if the numbering plans decide.
    pub phone_lookup: Option<PhoneLookup>,
}

impl Restrictions {
    /// Checks the values that a request would store, and finds at most one violation for each. Production returns the
    /// violations as an error, sandbox as warnings.
    pub fn check(
        &self,
        email: Option<&EmailAddress>,
        phone: Option<&PhoneNumber>,
    ) -> Result<Vec<Violation>, Vec<Violation>> {
        let on_email = email.and_then(|email| self.check_email(email));
        let on_phone = phone.and_then(|phone| self.check_phone(phone));
        let found: Vec<_> = on_email.into_iter().chain(on_phone).collect();
        let is_refused = self.environment == Environment::Production && !found.is_empty();
        if is_refused { Err(found) } else { Ok(found) }
    }

    /// Restores warnings from the codes that are stored with the outcome of a request.
    pub fn warnings_from_codes(&self, codes: &[ErrorCode]) -> Vec<Violation> {
        codes.iter().map(|code| self.violation(*code)).collect()
    }

    fn violation(&self, code: ErrorCode) -> Violation {
        let field = if code == ErrorCode::PhoneNotMobile { InputField::Phone } else { InputField::Email };
        let violation = Violation::of(code, field);
        match (code, self.environment) {
            (ErrorCode::PlusSuffixEmail, Environment::Sandbox) => {
                violation.with_note("Some payment gateways reject such addresses in every environment.")
            }
            _ => violation,
        }
    }

    fn check_email(&self, email: &EmailAddress) -> Option<Violation> {
        if self.disposable_domains.is_disposable(email) {
            Some(self.violation(ErrorCode::DisposableEmail))
        } else if email.local_part().contains('+') {
            Some(self.violation(ErrorCode::PlusSuffixEmail))
        } else {
            None
        }
    }

    fn check_phone(&self, phone: &PhoneNumber) -> Option<Violation> {
        let is_not_mobile = self.phone_lookup.is_none() && phone.line_type() != LineType::Mobile;
        is_not_mobile.then(|| self.violation(ErrorCode::PhoneNotMobile))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn restrictions(environment: Environment) -> Restrictions {
        let disposable_domains = DisposableDomains::new(Vec::new(), Vec::new());
        Restrictions { environment, disposable_domains, phone_lookup: None }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn sandbox_warns_about_what_production_refuses(
            emails in proptest::collection::vec("[a-z+]{1,8}@([a-z]{1,6}\\.)?(mailinator|yopmail|example|duck|gmail)\\.com", 1..20),
            phones in proptest::collection::vec("\\+(1[2-9][0-9]{9}|44[0-9]{10}|49[0-9]{10}|225[0-9]{10})", 1..20),
        ) {
            let (sandbox, production) = (restrictions(Environment::Sandbox), restrictions(Environment::Production));
            let codes = |violations: &[Violation]| -> Vec<_> {
                violations.iter().map(|violation| (violation.code, violation.field)).collect()
            };
            for (email, phone) in emails.iter().zip(&phones) {
                let (email, phone) = (EmailAddress::parse(email).ok(), PhoneNumber::parse(phone).ok());
                let warned = sandbox.check(email.as_ref(), phone.as_ref());
                let refused = production.check(email.as_ref(), phone.as_ref());
                prop_assert!(warned.is_ok() && refused.as_ref().ok().is_none_or(Vec::is_empty));
                let refusals = refused.err().unwrap_or_default();
                prop_assert_eq!(codes(&warned.unwrap()), codes(&refusals));
                let is_restricted = email.is_some_and(|email| email.local_part().contains('+'));
                prop_assert!(!is_restricted || !refusals.is_empty());
            }
        }
    }
}
