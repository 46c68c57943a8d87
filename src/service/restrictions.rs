//! Which emails and phones production refuses, and sandbox warns of.

use std::sync::Arc;

use entity::deployment::Environment;
use entity::value::{EmailAddress, LineType, PhoneNumber};

use super::disposable_domains::DisposableDomains;
use crate::error::{ErrorCode, Violation};

/// The input paths of the two values that are restricted.
pub const EMAIL: &[&str] = &["input", "data", "email"];
pub const PHONE: &[&str] = &["input", "data", "phone"];

/// What to do about a restricted value.
#[derive(Clone, Debug)]
pub struct Restrictions {
    pub environment: Environment,
    pub disposable_domains: Arc<DisposableDomains>,
    /// Whether a carrier says which phones are mobile, so that the numbering plan need not.
    pub asks_carrier: bool,
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
    pub fn judge(&self, email: Option<&EmailAddress>, phone: Option<&PhoneNumber>) -> Findings {
        let findings = email.and_then(|email| self.of_email(email)).into_iter();
        let findings = findings.chain(phone.and_then(|phone| self.of_phone(phone))).collect();
        match self.environment {
            Environment::Production => Findings { refusals: findings, warnings: Vec::new() },
            Environment::Sandbox => Findings { refusals: Vec::new(), warnings: findings },
        }
    }

    fn of_email(&self, email: &EmailAddress) -> Option<Violation> {
        if self.disposable_domains.include(email) {
            Some(Violation::new(ErrorCode::DisposableEmail, EMAIL))
        } else if email.local().contains('+') {
            Some(match self.environment {
                Environment::Production => Violation::new(ErrorCode::PlusSuffixEmail, EMAIL),
                Environment::Sandbox => Violation::with_note(
                    ErrorCode::PlusSuffixEmail,
                    EMAIL,
                    "Some payment gateways refuse such addresses in every environment.",
                ),
            })
        } else {
            None
        }
    }

    fn of_phone(&self, phone: &PhoneNumber) -> Option<Violation> {
        let is_mobile = self.asks_carrier || phone.line_type() == LineType::Mobile;
        (!is_mobile).then(|| Violation::new(ErrorCode::PhoneNotMobile, PHONE))
    }
}
