//! URLs of webhook endpoints.
//!
//! - Accepted: absolute `http` and `https` URLs, at most 2,000 characters in canonical form.
//! - Canonical form: the form of the [URL Standard](https://url.spec.whatwg.org/), without white space at the ends. The
//!   host is in lower case and in ASCII (IDNA), an IPv4 address is in decimal notation, and the default port is left
//!   out.
//! - Rejected: other schemes, user names and passwords, fragments.
//! - Examples: `" HTTPS://Example.com:443/hook"` becomes `https://example.com/hook`; `https://user@example.com/` is
//!   rejected.

use sea_orm::DeriveValueType;
use url::Url;

use super::{Reason, masked_debug};

/// The URL of a webhook endpoint, in canonical form. The path and the query may hold a token, so `Debug` hides the URL.
#[derive(Clone, PartialEq, Eq, DeriveValueType)]
pub struct WebhookUrl(String);

impl WebhookUrl {
    pub const MAX_CHARACTERS: usize = 2000;

    pub fn parse(text: &str) -> Result<Self, Reason> {
        if text.trim().is_empty() {
            return Err(Reason::Empty);
        }
        let too_long = Reason::TooLong(Self::MAX_CHARACTERS);
        // This check limits the work of parsing. The canonical form is checked below.
        if text.len() > 4 * Self::MAX_CHARACTERS {
            return Err(too_long);
        }
        // `Url::parse` would remove tabs and line breaks, and accept a URL that was pasted with line breaks.
        if text.trim().contains(char::is_control) {
            return Err(Reason::ControlCharacter);
        }
        let url = Url::parse(text.trim()).map_err(|_| Reason::NotAUrl)?;
        if !["http", "https"].contains(&url.scheme()) {
            return Err(Reason::NotAUrl);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Reason::UrlWithUser);
        }
        if url.fragment().is_some() {
            return Err(Reason::UrlWithFragment);
        }
        let canonical = String::from(url);
        if canonical.len() > Self::MAX_CHARACTERS { Err(too_long) } else { Ok(Self(canonical)) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns true if the scheme is `https`.
    pub fn is_https(&self) -> bool {
        self.0.starts_with("https:")
    }
}

masked_debug!(WebhookUrl);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parse_returns_the_canonical_form() {
        let longest = format!("https://example.com/{}", "x".repeat(2000 - 20));
        for (input, canonical) in [
            ("https://example.com/hook?token=1", "https://example.com/hook?token=1"),
            (" HTTPS://Example.COM:443\n", "https://example.com/"),
            ("http://localhost:8080/a/../b", "http://localhost:8080/b"),
            ("https://bücher.example/", "https://xn--bcher-kva.example/"),
            ("http://2130706433/", "http://127.0.0.1/"),
            ("http://0177.0.0.1/", "http://127.0.0.1/"),
            ("http://0x7f.1/", "http://127.0.0.1/"),
            ("https://[::FFFF:7f00:1]/", "https://[::ffff:7f00:1]/"),
            ("https:example.com", "https://example.com/"),
            ("https://example.com\\hook", "https://example.com/hook"),
            (longest.as_str(), longest.as_str()),
        ] {
            assert_eq!(WebhookUrl::parse(input).unwrap().as_str(), canonical, "{input}");
        }
        let too_long = format!("{longest}x");
        for (input, reason) in [
            ("", Reason::Empty),
            (" \n", Reason::Empty),
            ("example.com/hook", Reason::NotAUrl),
            ("/hook", Reason::NotAUrl),
            ("https://", Reason::NotAUrl),
            ("https://exa mple.com/", Reason::NotAUrl),
            ("https://1.2.3.4.5/", Reason::NotAUrl),
            ("https://example.com:70000/", Reason::NotAUrl),
            ("ftp://example.com/", Reason::NotAUrl),
            ("javascript:alert(1)", Reason::NotAUrl),
            ("file:///etc/passwd", Reason::NotAUrl),
            ("https://user@example.com/", Reason::UrlWithUser),
            ("https://user:secret@example.com/", Reason::UrlWithUser),
            ("https://:secret@example.com/", Reason::UrlWithUser),
            ("https://example.com/#a", Reason::UrlWithFragment),
            ("https://example.com/#", Reason::UrlWithFragment),
            ("https://example.com/a\nb", Reason::ControlCharacter),
            (too_long.as_str(), Reason::TooLong(2000)),
        ] {
            assert_eq!(WebhookUrl::parse(input), Err(reason), "{input}");
        }
    }

    #[test]
    fn debug_output_hides_the_url() {
        let url = WebhookUrl::parse("https://example.com/?token=1").unwrap();
        assert_eq!(format!("{url:?}"), "WebhookUrl(***)");
        assert!(url.is_https() && !WebhookUrl::parse("http://example.com/").unwrap().is_https());
    }

    proptest! {
        #[test]
        fn canonical_forms_are_unchanged_by_parsing(text in "(https?://)?[a-z0-9.:/?@#%\\[\\] -]{0,40}|.{0,40}") {
            if let Ok(url) = WebhookUrl::parse(&text) {
                prop_assert_eq!(WebhookUrl::parse(url.as_str()), Ok(url));
            }
        }
    }
}
