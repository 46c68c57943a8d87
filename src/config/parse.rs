//! Parsers of the values of settings. clap adds the name of the setting to their errors.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use axum::http::HeaderValue;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use ipnet::IpNet;
use reqwest::Url;
use sea_orm::ActiveEnum;
use secrecy::SecretString;

use entity::deployment::Environment;

/// Accepts the names that the `deployment` table stores.
pub(super) fn environment() -> impl TypedValueParser<Value = Environment> {
    PossibleValuesParser::new(["sandbox", "production"]).try_map(|name| Environment::try_from_value(&name))
}

/// Removes blanks and line breaks at the ends, because a file or a Kubernetes secret often ends in a line break. Never
/// fails, because clap would show the secret in the message.
pub(super) fn secret(text: &str) -> Result<SecretString, Infallible> {
    Ok(text.trim().into())
}

/// Parses an address, or looks up a host name. Prefers IPv4, because each client that connects to `localhost` tries
/// IPv4.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let example = "expected an address and a port, for example 127.0.0.1:8000";
    if !text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) {
        return Err(example.to_owned());
    }
    let found: Vec<_> = text.to_socket_addrs().map_err(|cause| format!("{example} ({cause})"))?.collect();
    let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
    first.copied().ok_or_else(|| format!("{example} (the host has no address)"))
}

/// Parses a network. A single address becomes the network that contains only this address. IPv4 addresses in IPv6 form
/// (`::ffff:10.0.0.1`) become IPv4 addresses, because the service compares addresses in their canonical form.
pub(super) fn network(text: &str) -> Result<IpNet, &'static str> {
    const MAPPED_BITS: u8 = 96;
    let text = text.trim();
    let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let network = network.map_err(|_| "expected an address or a network, for example 10.0.0.0/8")?;
    // `None` for an IPv4 network, whose prefix has at most 32 bits.
    let prefix = network.prefix_len().checked_sub(MAPPED_BITS);
    Ok(match (network.addr().to_canonical(), prefix) {
        (IpAddr::V4(address), Some(prefix)) => IpNet::new_assert(address.into(), prefix),
        _ => network,
    })
}

/// Accepts `https`, and `http` to this machine only: the requests contain phone numbers and credentials. The URL may
/// end in a path, because paths are appended to it. Credentials have their own settings.
pub(super) fn secure_base_url(text: &str) -> Result<Url, &'static str> {
    let is_secure = |url: &Url| match url.scheme() {
        "https" => true,
        "http" => url.host_str().is_some_and(|host| {
            let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
            host == "localhost" || address.is_ok_and(|address| address.is_loopback())
        }),
        _ => false,
    };
    let is_base = |url: &Url| {
        url.query().is_none() && url.fragment().is_none() && url.username().is_empty() && url.password().is_none()
    };
    let url = Url::parse(text).ok().filter(|url| is_secure(url) && is_base(url));
    url.ok_or(
        "expected a URL with https, and without a user name, a password, a query and a fragment, for example \
         https://lookups.twilio.com (http is allowed only to this machine)",
    )
}

/// Accepts only scheme, host and port, as browsers send them in the Origin header.
pub(super) fn origin(text: &str) -> Result<HeaderValue, &'static str> {
    let text = text.trim();
    let is_origin = Url::parse(text).is_ok_and(|url| url.origin().ascii_serialization() == text);
    let origin = HeaderValue::from_str(text).ok().filter(|_| is_origin);
    origin.ok_or("expected an origin without a path, for example https://dashboard.example.com")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_mapped_addresses_is_an_ipv4_network() {
        for (text, expected) in [
            ("::ffff:10.0.0.1", "10.0.0.1/32"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(network(text).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn a_url_for_credentials_uses_https_or_stays_on_this_machine() {
        for url in ["https://lookups.twilio.com", "http://127.0.0.1:9000", "http://[::1]:9000/x", "http://localhost"] {
            assert!(secure_base_url(url).is_ok(), "{url}");
        }
        for url in [
            "http://lookups.twilio.com",
            "http://127.0.0.1.example.com",
            "http://localhost.example.com",
            "ftp://localhost",
            "https://lookups.twilio.com/?region=us1",
            "https://lookups.twilio.com/#top",
            "https://user@lookups.twilio.com",
            "https://:password@lookups.twilio.com",
        ] {
            assert!(secure_base_url(url).is_err(), "{url}");
        }
    }
}
