//! Restrictions on emails and phones: production refuses what they find, sandbox warns about it.
//!
//! Disposable email domains, a plus suffix (`ada+1@example.com`), and phones that are not mobile. Here, a phone is checked
//! by what is known without a network call; the carrier lookup follows when the phone is about to be stored.

use std::sync::Arc;

use entity::deployment::Environment;
use entity::value::{EmailAddress, LineType, PhoneNumber};

use super::disposable_domains::DisposableDomains;
use crate::error::{ErrorCode, InputField, Violation};

/// The checks, and the environment that decides what a finding leads to.
#[derive(Clone)]
pub struct Restrictions {
    pub environment: Environment,
    pub disposable_domains: Arc<DisposableDomains>,
    /// True if a carrier lookup decides which phones are mobile. Otherwise the numbering plans do.
    pub has_carrier: bool,
}

/// The violated restrictions.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Reasons to refuse the request. Always empty in sandbox.
    pub refusals: Vec<Violation>,
    /// Reasons for which production would refuse the request. Always empty in production.
    pub warnings: Vec<Violation>,
}

impl Restrictions {
    /// Checks the values that a request would store. Reports at most one finding for each.
    pub fn check(&self, email: Option<&EmailAddress>, phone: Option<&PhoneNumber>) -> Findings {
        let on_email = email.and_then(|email| self.check_email(email));
        let on_phone = phone.and_then(|phone| self.check_phone(phone));
        let findings = on_email.into_iter().chain(on_phone).collect();
        match self.environment {
            Environment::Production => Findings { refusals: findings, warnings: Vec::new() },
            Environment::Sandbox => Findings { refusals: Vec::new(), warnings: findings },
        }
    }

    /// Restores warnings from their codes, as stored with the outcome of a request.
    pub fn warnings_from_codes(&self, codes: &[ErrorCode]) -> Vec<Violation> {
        codes.iter().map(|code| self.violation(*code)).collect()
    }

    fn violation(&self, code: ErrorCode) -> Violation {
        let field = if code == ErrorCode::PhoneNotMobile { InputField::Phone } else { InputField::Email };
        let violation = Violation::of(code, field);
        match (code, self.environment) {
            (ErrorCode::PlusSuffixEmail, Environment::Sandbox) => {
                violation.with_note("Some payment gateways refuse such addresses in every environment.")
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
        let is_not_mobile = !self.has_carrier && phone.line_type() != LineType::Mobile;
        is_not_mobile.then(|| self.violation(ErrorCode::PhoneNotMobile))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn restrictions(environment: Environment) -> Restrictions {
        let disposable_domains = Arc::new(DisposableDomains::new(Vec::new(), Vec::new()));
        Restrictions { environment, disposable_domains, has_carrier: false }
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
                prop_assert_eq!(codes(&warned.warnings), codes(&refused.refusals));
                prop_assert!(warned.refusals.is_empty() && refused.warnings.is_empty());
                let is_restricted = email.is_some_and(|email| email.local_part().contains('+'));
                prop_assert!(!is_restricted || !refused.refusals.is_empty());
            }
        }
    }
}
