//! Which domains give out email addresses to be thrown away.

use std::borrow::Cow;
use std::collections::HashMap;

use entity::value::EmailAddress;

/// Domains at which people keep a permanent alias in front of a mailbox of theirs. Lists of disposable domains name
/// them, but mail to them arrives for as long as their owner wants it to.
const PRIVACY_RELAYS: [&str; 20] = [
    "8alias.com",
    "addy.io",
    "aleeas.com",
    "anonaddy.com",
    "anonaddy.me",
    "dralias.com",
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
    "simplelogin.fr",
    "simplelogin.io",
    "slmail.me",
];

/// Domains, and whether they are disposable; a subdomain is what its nearest known parent is.
#[derive(Clone, Debug)]
pub struct DisposableDomains(HashMap<Cow<'static, str>, bool>);

impl DisposableDomains {
    /// mailchecker's list without the privacy relays, with `disposable` added and `allowed` taken away.
    pub fn new(disposable: Vec<String>, allowed: Vec<String>) -> Self {
        let known = mailchecker::blacklist().into_iter().map(|domain| (Cow::Borrowed(domain), true));
        let relays = PRIVACY_RELAYS.into_iter().map(|domain| (Cow::Borrowed(domain), false));
        let disposable = disposable.into_iter().map(|domain| (Cow::Owned(domain), true));
        let allowed = allowed.into_iter().map(|domain| (Cow::Owned(domain), false));
        // Of two words on one domain the later one counts.
        Self(known.chain(relays).chain(disposable).chain(allowed).collect())
    }

    pub fn include(&self, email: &EmailAddress) -> bool {
        let mut domain = Some(email.domain());
        while let Some(known) = domain {
            if let Some(is_disposable) = self.0.get(known) {
                return *is_disposable;
            }
            domain = known.split_once('.').map(|(_, parent)| parent);
        }
        false
    }
}

/// The domains of a file: one a line, in any spelling; `#` begins a comment. An error names the line.
pub fn read_list(text: &str) -> Result<Vec<String>, String> {
    let mut domains = Vec::new();
    for (number, line) in text.lines().enumerate() {
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
    use super::*;

    fn domains() -> DisposableDomains {
        DisposableDomains::new(Vec::new(), Vec::new())
    }

    fn includes(domains: &DisposableDomains, domain: &str) -> bool {
        domains.include(&EmailAddress::parse(&format!("user@{domain}")).unwrap())
    }

    const NAMED_SERVICES: [&str; 31] = [
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

    /// Of many countries, with those that people have had for decades.
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
    fn the_named_services_and_their_subdomains_are_disposable() {
        for domain in NAMED_SERVICES {
            for domain in [domain.to_owned(), format!("sub.{domain}"), format!("a.b.{domain}"), domain.to_uppercase()] {
                assert!(includes(&domains(), &domain), "{domain}");
            }
        }
    }

    #[test]
    fn no_major_provider_of_any_country_is_disposable() {
        let refused: Vec<_> = MAJOR_PROVIDERS.iter().filter(|domain| includes(&domains(), domain)).collect();
        assert!(refused.is_empty(), "{refused:?}");
    }

    #[test]
    fn privacy_relays_and_lookalikes_are_not_disposable() {
        for domain in PRIVACY_RELAYS {
            assert!(!includes(&domains(), domain), "{domain}");
            assert!(!includes(&domains(), &format!("alias.{domain}")), "a subdomain of {domain}");
        }
        for domain in ["my-own-mailinator.com", "mailinator.com.example.org", "example.com"] {
            assert!(!includes(&domains(), domain), "{domain}");
        }
    }

    #[test]
    fn lists_add_and_take_away() {
        let disposable = read_list("# ours\nwegwerf.example\n  BÜCHER.example  # in any spelling\n\n").unwrap();
        let allowed = read_list("good.mailinator.com\n").unwrap();
        let domains = DisposableDomains::new(disposable, allowed);
        for domain in
            ["wegwerf.example", "x.wegwerf.example", "xn--bcher-kva.example", "mailinator.com", "bad.mailinator.com"]
        {
            assert!(includes(&domains, domain), "{domain}");
        }
        for domain in ["good.mailinator.com", "very.good.mailinator.com", "example.com"] {
            assert!(!includes(&domains, domain), "{domain}");
        }
        assert_eq!(read_list("example.com\nno domain\n"), Err("line 2: \"no domain\" is not a domain".to_owned()));
        assert!(read_list("com").is_err());
    }
}
