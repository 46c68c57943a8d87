//! Which emails and phones production refuses, and sandbox warns of.

use std::sync::Arc;

use entity::deployment::Environment;
use entity::phone_lookup::CarrierLineType;
use entity::value::{EmailAddress, PhoneNumber};

use super::disposable_domains::DisposableDomains;
use super::phone_lookup::LineTypeLookup;
use crate::error::{ErrorCode, InputField, Violation};

/// What to do about a restricted value.
#[derive(Clone)]
pub struct Restrictions {
    pub environment: Environment,
    pub disposable_domains: Arc<DisposableDomains>,
    /// Who says which phones are mobile. What has to be asked is judged later, when it is about to be stored.
    pub lines: Arc<dyn LineTypeLookup>,
}

/// What the restrictions find in an email and a phone.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Why the values are refused: always empty in sandbox.
    pub refusals: Vec<Violation>,
    /// What production would refuse: always empty in production.
    pub warnings: Vec<Violation>,
}

impl Restrictions {
    /// Judges the values that a request would store, at most one finding for each.
    pub fn check(&self, email: Option<&EmailAddress>, phone: Option<&PhoneNumber>) -> Findings {
        let findings = email.and_then(|email| self.of_email(email)).into_iter();
        let findings = findings.chain(phone.and_then(|phone| self.of_phone(phone))).collect();
        match self.environment {
            Environment::Production => Findings { refusals: findings, warnings: Vec::new() },
            Environment::Sandbox => Findings { refusals: Vec::new(), warnings: findings },
        }
    }

    /// The warnings with these codes, in the words of today.
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

    fn of_email(&self, email: &EmailAddress) -> Option<Violation> {
        if self.disposable_domains.is_disposable(email) {
            Some(self.violation(ErrorCode::DisposableEmail))
        } else if email.local_part().contains('+') {
            Some(self.violation(ErrorCode::PlusSuffixEmail))
        } else {
            None
        }
    }

    fn of_phone(&self, phone: &PhoneNumber) -> Option<Violation> {
        let is_other = self.lines.known(phone).is_some_and(|line| line != CarrierLineType::Mobile);
        is_other.then(|| self.violation(ErrorCode::PhoneNotMobile))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::service::phone_lookup::NumberingPlan;

    fn restrictions(environment: Environment) -> Restrictions {
        let disposable_domains = Arc::new(DisposableDomains::new(Vec::new(), Vec::new()));
        Restrictions { environment, disposable_domains, lines: Arc::new(NumberingPlan) }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn sandbox_warns_of_what_production_refuses(
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
