//! Email addresses.
//!
//! - Accepted: `local@domain` with an ASCII local part without quotes (at most 64 bytes) and a domain of at least two
//!   labels; at most 254 bytes in canonical form.
//! - Canonical form: without white space and invisible characters at the ends, in lower case, the domain in ASCII
//!   (IDNA).
//! - Rejected: display names, quoted local parts, IP addresses, invisible characters inside the address (except joiners
//!   in the domain).
//! - Examples: `" Ada@BÜCHER.example "` becomes `ada@xn--bcher-kva.example`; `ada@localhost` is rejected.

use email_address::Options;
use sea_orm::DeriveValueType;
use serde::Serialize;

use super::{Reason, is_blank, masked_debug};

/// An email address in canonical form, for example `ada@example.com`.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, DeriveValueType)]
pub struct EmailAddress(String);

impl EmailAddress {
    /// RFC 5321, 4.5.3.1.3 allows 256 octets for a path, two of which are the angle brackets.
    pub const MAX_BYTES: usize = 254;
    /// RFC 5321, 4.5.3.1.1.
    const MAX_LOCAL_BYTES: usize = 64;

    pub fn parse(text: &str) -> Result<Self, Reason> {
        // `MAX_BYTES` is checked below, on the canonical form. This check limits the work of computing the canonical
        // form: a filter with an email may be part of thousands of lists.
        if text.len() > 4 * Self::MAX_BYTES {
            return Err(Reason::EmailTooLong);
        }
        let text = text.trim_matches(is_blank);
        if text.is_empty() {
            return Err(Reason::Empty);
        }
        let is_hidden = |char: &char| *char != ' ' && (is_blank(*char) || char.is_control());
        // Joiners are allowed in the domain, because words of some languages contain joiners.
        let is_joiner = |char: &char| matches!(char, '\u{200c}' | '\u{200d}');
        let (local, domain) = text.rsplit_once('@').ok_or(Reason::NotAnEmail)?;
        let hidden_in_domain = domain.chars().find(|char| is_hidden(char) && !is_joiner(char));
        if let Some(char) = local.chars().find(is_hidden).or(hidden_in_domain) {
            return Err(Reason::InvisibleCharacter(char));
        }
        if !local.is_ascii() || local.contains('"') {
            return Err(Reason::UnsupportedLocalPart);
        }
        if local.len() > Self::MAX_LOCAL_BYTES {
            return Err(Reason::LocalPartTooLong);
        }
        let domain = idna::domain_to_ascii_strict(domain).map_err(|_| Reason::NotADomain)?;
        // A domain whose last label has only digits counts as an IP address.
        if domain.rsplit('.').next().is_none_or(|last| last.bytes().all(|byte| byte.is_ascii_digit())) {
            return Err(Reason::NotADomain);
        }
        let address = format!("{}@{domain}", local.to_ascii_lowercase());
        if address.len() > Self::MAX_BYTES {
            return Err(Reason::EmailTooLong);
        }
        let options = Options::default().with_minimum_sub_domains(2).without_domain_literal().without_display_text();
        email_address::EmailAddress::parse_with_options(&address, options).map_err(|_| Reason::NotAnEmail)?;
        Ok(Self(address))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the `@`.
    pub fn local_part(&self) -> &str {
        self.0.rsplit_once('@').map_or(self.as_str(), |(local, _)| local)
    }

    /// The part after the `@`, in ASCII (IDNA).
    pub fn domain(&self) -> &str {
        self.0.rsplit_once('@').map_or("", |(_, domain)| domain)
    }
}

masked_debug!(EmailAddress);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> Option<String> {
        EmailAddress::parse(text).ok().map(|email| email.0)
    }

    #[test]
    fn parse_returns_the_canonical_form() {
        let longest_local = "a".repeat(64);
        let label = "b".repeat(63);
        let longest = format!("{longest_local}@{label}.{label}.{}.com", "c".repeat(57));
        assert_eq!(longest.len(), 254);
        for (input, expected) in [
            ("user@example.com", "user@example.com"),
            ("  User.Name@Example.COM ", "user.name@example.com"),
            ("a+b@example.com", "a+b@example.com"),
            ("o'brien_{x}!#$%&*/=?^`|~-@example.com", "o'brien_{x}!#$%&*/=?^`|~-@example.com"),
            ("user@bücher.example", "user@xn--bcher-kva.example"),
            ("user@BÜCHER.example", "user@xn--bcher-kva.example"),
            ("user@xn--bcher-kva.example", "user@xn--bcher-kva.example"),
            ("user@ｅｘａｍｐｌｅ。com", "user@example.com"),
            ("user@例え.テスト", "user@xn--r8jz45g.xn--zckzah"),
            ("1@2.co", "1@2.co"),
            ("user@3m.com", "user@3m.com"),
            ("\u{feff}user@example.com\u{200b}", "user@example.com"),
            ("\u{202d} user@example.com\u{202c}\r\n", "user@example.com"),
            ("user@نامه\u{200c}ای.com", "user@xn--mgba3gch31f060k.com"),
            (longest.as_str(), longest.as_str()),
        ] {
            assert_eq!(canonical(input).as_deref(), Some(expected), "{input:?}");
        }
    }

    #[test]
    fn parse_rejects_everything_but_a_mailbox_at_a_domain() {
        let too_long_local = format!("{}@example.com", "a".repeat(65));
        let label = "b".repeat(63);
        let too_long = format!("{}@{label}.{label}.{}.com", "a".repeat(64), "c".repeat(58));
        let too_long_label = format!("a@{}.com", "b".repeat(64));
        let too_many_blanks = format!("a@example.com{}", " ".repeat(1004));
        for bad in [
            "",
            " ",
            "user",
            "@",
            "user@",
            "@example.com",
            "user@localhost",
            "a@b@example.com",
            "user name@example.com",
            ".user@example.com",
            "user.@example.com",
            "us..er@example.com",
            "user@.example.com",
            "user@example..com",
            "user@example.com.",
            "user@-example.com",
            "user@example-.com",
            "user@exa_mple.com",
            "user@exa mple.com",
            "user@example.com/path",
            "user@exam%70le.com",
            "user@127.0.0.1",
            "user@1.2",
            "user@example.123",
            "user@[127.0.0.1]",
            "user@[IPv6:::1]",
            "user@xn--a.com",
            "\"user\"@example.com",
            "\"us er\"@example.com",
            "user(comment)@example.com",
            "user@example.com(comment)",
            "User <user@example.com>",
            "<user@example.com>",
            "mailto:user@example.com,b@example.com",
            "usér@example.com",
            "用户@example.com",
            "user@example.com\0",
            "us\u{200b}er@example.com",
            "us\ner@example.com",
            "us\\er@example.com",
            "user,x@example.com",
            "user;x@example.com",
            "user:x@example.com",
            too_long_local.as_str(),
            too_long.as_str(),
            too_long_label.as_str(),
            too_many_blanks.as_str(),
        ] {
            assert_eq!(canonical(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn an_invisible_character_inside_is_named() {
        for (input, char) in [
            ("us\u{200b}er@example.com", '\u{200b}'),
            ("user\u{feff}@example.com", '\u{feff}'),
            ("user@\u{202a}example.com", '\u{202a}'),
            ("user@exam\u{ad}ple.com", '\u{ad}'),
            ("us\u{3164}er@example.com", '\u{3164}'),
            ("us\u{a0}er@example.com", '\u{a0}'),
            ("us\ner@example.com", '\n'),
            ("user@example\u{2028}.com", '\u{2028}'),
            ("us\u{200d}er@example.com", '\u{200d}'),
        ] {
            let reason = EmailAddress::parse(input).unwrap_err();
            assert_eq!(reason, Reason::InvisibleCharacter(char), "{input:?}");
            assert!(reason.to_string().ends_with(&format!("U+{:04X}", u32::from(char))), "{reason}");
        }
    }

    #[test]
    fn debug_output_hides_the_address() {
        let email = EmailAddress::parse("user@example.com").unwrap();
        assert_eq!(format!("{:?}", Some(email)), "Some(EmailAddress(***))");
    }

    proptest! {
        #[test]
        fn parsing_the_canonical_form_returns_it_unchanged(text in "\\PC{0,12}@\\PC{0,12}\\.\\PC{1,4}|[a-zA-Z0-9.+_'-]{1,70}@([A-Za-z0-9ü-]{1,10}\\.){1,3}[a-zA-Zé]{2,4}") {
            if let Some(once) = canonical(&text) {
                prop_assert_eq!(canonical(&once), Some(once.clone()));
                prop_assert!(once.is_ascii() && once.len() <= EmailAddress::MAX_BYTES);
                prop_assert!(!once.bytes().any(|byte| byte.is_ascii_uppercase() || byte.is_ascii_control() || byte == b' '));
            }
        }
    }
}
