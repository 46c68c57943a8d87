//! Which emails and phones production refuses, and sandbox warns of.

use std::collections::HashSet;
use std::sync::LazyLock;

use entity::deployment::Environment;
use entity::value::{EmailAddress, LineType, PhoneNumber};

use crate::error::{ErrorCode, Violation};

/// The input paths of the two values that are restricted.
pub const EMAIL: &[&str] = &["input", "data", "email"];
pub const PHONE: &[&str] = &["input", "data", "phone"];

/// Domains at which people keep a permanent alias in front of a mailbox of theirs. Lists of disposable domains name
/// them, but mail to them arrives for as long as their owner wants it to.
const PRIVACY_RELAYS: [&str; 16] = [
    "addy.io",
    "aleeas.com",
    "anonaddy.com",
    "anonaddy.me",
    "duck.com",
    "mozmail.com",
    "passfwd.com",
    "passinbox.com",
    "passmail.com",
    "passmail.net",
    "privaterelay.appleid.com",
    "relay.firefox.com",
    "silomails.com",
    "simplelogin.co",
    "simplelogin.com",
    "slmail.me",
];

static DISPOSABLE_DOMAINS: LazyLock<HashSet<&'static str>> = LazyLock::new(|| {
    let relays = HashSet::from(PRIVACY_RELAYS);
    mailchecker::blacklist().into_iter().filter(|domain| !relays.contains(domain)).collect()
});

/// What to do about a restricted value.
#[derive(Clone, Copy, Debug)]
pub struct Restrictions {
    environment: Environment,
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
    pub fn new(environment: Environment) -> Self {
        LazyLock::force(&DISPOSABLE_DOMAINS);
        Self { environment }
    }

    /// Judges the values that a request would store, at most one finding for each.
    pub fn judge(&self, email: Option<&EmailAddress>, phone: Option<&PhoneNumber>) -> Findings {
        let email = email.and_then(|email| {
            if is_disposable(email.domain()) {
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
        });
        let phone = phone
            .filter(|phone| phone.line_type() != LineType::Mobile)
            .map(|_| Violation::new(ErrorCode::PhoneNotMobile, PHONE));
        let findings = email.into_iter().chain(phone).collect();
        match self.environment {
            Environment::Production => Findings { refusals: findings, warnings: Vec::new() },
            Environment::Sandbox => Findings { refusals: Vec::new(), warnings: findings },
        }
    }
}

/// Whether the domain, or one that it is a subdomain of, is a known provider of disposable addresses.
fn is_disposable(domain: &str) -> bool {
    let mut suffix = Some(domain);
    while let Some(domain) = suffix {
        if PRIVACY_RELAYS.contains(&domain) {
            return false;
        }
        if DISPOSABLE_DOMAINS.contains(domain) {
            return true;
        }
        suffix = domain.split_once('.').map(|(_, parent)| parent);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_disposable_domains_and_their_subdomains() {
        for domain in
            ["mailinator.com", "sub.mailinator.com", "a.b.yopmail.com", "guerrillamail.com", "10minutemail.com"]
        {
            assert!(is_disposable(domain), "{domain}");
        }
        for domain in ["gmail.com", "outlook.com", "notmailinator.com", "mailinator.com.example.org", "com"] {
            assert!(!is_disposable(domain), "{domain}");
        }
        for domain in PRIVACY_RELAYS {
            assert!(!is_disposable(domain), "{domain}");
            assert!(!is_disposable(&format!("alias.{domain}")), "a subdomain of {domain}");
        }
    }
}
