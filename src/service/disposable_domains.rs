//! The list of disposable email domains: providers of throw-away addresses.
//!
//! The list comes from the `mailchecker` crate. `permanent_domains.txt` exempts domains whose addresses are permanent:
//! providers, privacy relays, and organisations and persons with their own domain. The settings add domains and
//! exceptions. A subdomain is treated like its closest listed parent: if `mailinator.com` is disposable and
//! `good.mailinator.com` is an exception, then `x.mailinator.com` is disposable and `x.good.mailinator.com` is not.

use std::borrow::Cow;
use std::collections::HashMap;

use entity::value::EmailAddress;

/// Corrections of the built-in list, each with a reason, in the format of [`parse_list`].
const PERMANENT_DOMAINS: &str = include_str!("permanent_domains.txt");

/// Maps each listed domain, in ASCII, to true if it is disposable, and to false if it is an exception.
#[derive(Clone, Debug)]
pub struct DisposableDomains(HashMap<Cow<'static, str>, bool>);

impl DisposableDomains {
    /// Builds the list. `disposable` adds domains and `allowed` adds exceptions. A domain that is in both is an
    /// exception.
    pub fn new(disposable: Vec<String>, allowed: Vec<String>) -> Self {
        let listed = mailchecker::blacklist().into_iter().map(|domain| (Cow::Borrowed(domain), true));
        let permanent = parse_list(PERMANENT_DOMAINS).expect("the tests parse this file");
        let permanent = permanent.into_iter().map(|domain| (Cow::Owned(domain), false));
        let disposable = disposable.into_iter().map(|domain| (Cow::Owned(domain), true));
        let allowed = allowed.into_iter().map(|domain| (Cow::Owned(domain), false));
        // For a domain that occurs twice, the later entry wins.
        Self(listed.chain(permanent).chain(disposable).chain(allowed).collect())
    }

    pub fn is_disposable(&self, email: &EmailAddress) -> bool {
        let mut domain_and_parents =
            std::iter::successors(Some(email.domain()), |domain| Some(domain.split_once('.')?.1));
        domain_and_parents.find_map(|domain| self.0.get(domain).copied()).unwrap_or(false)
    }
}

/// Parses a file of domains: one per line, in Unicode or ASCII, with `#` comments. The error names the line.
pub fn parse_list(text: &str) -> Result<Vec<String>, String> {
    let mut domains = Vec::new();
    // Some editors start a file with a byte order mark.
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let domain = line.split('#').next().unwrap_or_default().trim();
        if domain.is_empty() {
            continue;
        }
        let ascii = idna::domain_to_ascii_strict(domain).ok().filter(|ascii| ascii.contains('.'));
        domains.push(ascii.ok_or_else(|| format!("line {}: {domain:?} is not a domain", number + 1))?);
    }
    Ok(domains)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn default_domains() -> DisposableDomains {
        DisposableDomains::new(Vec::new(), Vec::new())
    }

    fn includes(domains: &DisposableDomains, domain: &str) -> bool {
        domains.is_disposable(&EmailAddress::parse(&format!("user@{domain}")).unwrap())
    }

    const DISPOSABLE_SERVICES: [&str; 31] = [
        "mailinator.com",
        "mailinator.net",
        "binkmail.com",
        "guerrillamail.com",
        "guerrillamail.net",
        "guerrillamail.org",
        "guerrillamail.biz",
        "guerrillamail.de",
        "guerrillamailblock.com",
        "sharklasers.com",
        "grr.la",
        "10minutemail.com",
        "10minutemail.net",
        "10minutemail.co.uk",
        "yopmail.com",
        "yopmail.fr",
        "yopmail.net",
        "cool.fr.nf",
        "temp-mail.org",
        "throwawaymail.com",
        "trashmail.com",
        "trashmail.de",
        "getnada.com",
        "maildrop.cc",
        "dispostable.com",
        "fakeinbox.com",
        "mailnesia.com",
        "mintemail.com",
        "spamgourmet.com",
        "tempinbox.com",
        "discard.email",
    ];

    /// Providers of many countries, including some that are decades old.
    const MAJOR_PROVIDERS: [&str; 72] = [
        "gmail.com",
        "googlemail.com",
        "outlook.com",
        "hotmail.com",
        "hotmail.co.uk",
        "hotmail.fr",
        "live.com",
        "msn.com",
        "yahoo.com",
        "yahoo.co.uk",
        "yahoo.co.jp",
        "yahoo.com.br",
        "yahoo.fr",
        "ymail.com",
        "rocketmail.com",
        "aol.com",
        "icloud.com",
        "me.com",
        "mac.com",
        "proton.me",
        "protonmail.com",
        "pm.me",
        "tutanota.com",
        "tuta.io",
        "hey.com",
        "fastmail.com",
        "zoho.com",
        "gmx.de",
        "gmx.net",
        "gmx.at",
        "web.de",
        "t-online.de",
        "freenet.de",
        "posteo.de",
        "mailbox.org",
        "orange.fr",
        "wanadoo.fr",
        "free.fr",
        "sfr.fr",
        "laposte.net",
        "libero.it",
        "virgilio.it",
        "tiscali.it",
        "alice.it",
        "telefonica.net",
        "terra.com.br",
        "uol.com.br",
        "bol.com.br",
        "globo.com",
        "mail.ru",
        "yandex.ru",
        "yandex.com",
        "rambler.ru",
        "bk.ru",
        "seznam.cz",
        "centrum.cz",
        "wp.pl",
        "onet.pl",
        "o2.pl",
        "interia.pl",
        "qq.com",
        "163.com",
        "126.com",
        "sina.com",
        "naver.com",
        "daum.net",
        "hanmail.net",
        "docomo.ne.jp",
        "rediffmail.com",
        "comcast.net",
        "verizon.net",
        "bigpond.com",
    ];

    #[test]
    fn disposable_services_and_their_subdomains_are_disposable() {
        for domain in DISPOSABLE_SERVICES {
            for domain in [domain.to_owned(), format!("sub.{domain}"), format!("a.b.{domain}"), domain.to_uppercase()] {
                assert!(includes(&default_domains(), &domain), "{domain}");
            }
        }
    }

    #[test]
    fn major_providers_are_not_disposable() {
        let disposable: Vec<_> = MAJOR_PROVIDERS.iter().filter(|domain| includes(&default_domains(), domain)).collect();
        assert!(disposable.is_empty(), "{disposable:?}");
    }

    #[test]
    fn corrected_domains_and_their_subdomains_are_not_disposable() {
        let corrected = parse_list(PERMANENT_DOMAINS).unwrap();
        let domains: HashSet<_> = corrected.iter().map(String::as_str).collect();
        assert_eq!(corrected.len(), domains.len(), "a domain is listed twice");
        for family in [
            &["consultant.com", "techie.com", "dr.com", "myself.com", "writeme.com", "photographer.net"][..],
            &["tuta.com", "tuta.io", "tutamail.com", "tutanota.com", "tutanota.de", "keemail.me"],
            &["hush.com", "hush.ai", "hushmail.com", "hushmail.me", "mac.hush.com"],
            &["nus.edu.sg", "tom.com", "lavabit.com", "duck.com", "relay.firefox.com", "8shield.net"],
        ] {
            assert!(family.iter().all(|domain| domains.contains(domain)), "{family:?}");
        }
        let corrected_list = default_domains();
        for domain in domains {
            assert!(!includes(&corrected_list, domain), "{domain}");
            assert!(!includes(&corrected_list, &format!("alias.{domain}")), "a subdomain of {domain}");
            assert!(!DISPOSABLE_SERVICES.contains(&domain), "{domain}");
        }
        for line in PERMANENT_DOMAINS.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            assert!(line.split_once(" # ").is_some_and(|(_, reason)| !reason.trim().is_empty()), "no reason: {line}");
        }
    }

    #[test]
    fn a_setting_can_list_a_corrected_domain_again() {
        let domains = DisposableDomains::new(vec!["hush.com".to_owned()], Vec::new());
        assert!(includes(&domains, "hush.com") && !includes(&domains, "hush.ai"));
    }

    #[test]
    fn lookalikes_are_not_disposable() {
        for domain in ["my-own-mailinator.com", "mailinator.com.example.org", "example.com"] {
            assert!(!includes(&default_domains(), domain), "{domain}");
        }
    }

    #[test]
    fn parsed_lists_add_domains_and_exceptions() {
        let disposable =
            parse_list("\u{feff}# ours\nwegwerf.example\n  BÜCHER.example  # in any spelling\n\n").unwrap();
        let allowed = parse_list("good.mailinator.com\n").unwrap();
        let domains = DisposableDomains::new(disposable, allowed);
        for domain in
            ["wegwerf.example", "x.wegwerf.example", "xn--bcher-kva.example", "mailinator.com", "bad.mailinator.com"]
        {
            assert!(includes(&domains, domain), "{domain}");
        }
        for domain in ["good.mailinator.com", "very.good.mailinator.com", "example.com"] {
            assert!(!includes(&domains, domain), "{domain}");
        }
        assert_eq!(parse_list("example.com\nno domain\n"), Err("line 2: \"no domain\" is not a domain".to_owned()));
        assert!(parse_list("com").is_err());
    }
}
