//! The addresses that webhooks may reach.
//!
//! An operator chooses the URL of an endpoint, so a delivery must not reach the network of the service, its databases
//! or the metadata server of its cloud. [`AddressFilter`] accepts only public addresses and the networks in
//! `VIVAMO_WEBHOOK_NETWORKS`. Hosts of the own network with public addresses are left to a firewall. The filter is
//! applied in two places:
//!
//! - to an address in a URL, by [`AddressFilter::allows_url`], when the URL is stored and before each delivery. The
//!   HTTP client does not resolve such an address, so the resolver does not see it;
//! - to the addresses of a host name, by [`FilteredResolver`], at each connection. The client connects only to the
//!   addresses that were checked, so it does not matter whether the name resolves to other addresses later (DNS
//!   rebinding).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs};
use std::sync::{Arc, LazyLock};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// IPv4 networks that are not public: those of the IANA registry of special-purpose addresses, multicast, and an
/// address that Azure uses.
const NOT_PUBLIC_V4: [(&str, &str); 16] = [
    ("0.0.0.0/8", "this network"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "shared address space of carriers (CGNAT), and the metadata server of Alibaba Cloud"),
    ("127.0.0.0/8", "loopback"),
    ("168.63.129.16/32", "platform services of Azure"),
    ("169.254.0.0/16", "link-local, and the metadata servers of most clouds"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "protocol assignments, and the metadata server of Oracle Cloud"),
    ("192.0.2.0/24", "documentation"),
    ("192.88.99.0/24", "6to4 relays"),
    ("192.168.0.0/16", "private"),
    ("198.18.0.0/15", "benchmarks"),
    ("198.51.100.0/24", "documentation"),
    ("203.0.113.0/24", "documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved, and broadcast"),
];

/// The IPv6 network that contains all public addresses, except the addresses of [`NAT64`]. The network does not contain
/// loopback (`::1`), unique local (`fc00::/7`, with the metadata servers of AWS and Google Cloud), link-local
/// (`fe80::/10`), site-local (`fec0::/10`), multicast (`ff00::/8`) or IPv4-compatible addresses (`::/96`).
const GLOBAL_UNICAST_V6: &str = "2000::/3";

/// IPv6 networks inside [`GLOBAL_UNICAST_V6`] that are not public.
const NOT_PUBLIC_V6: [(&str, &str); 4] = [
    ("2001::/23", "protocol assignments, Teredo (which contains an IPv4 address) and ORCHID"),
    ("2001:db8::/32", "documentation"),
    ("2002::/16", "6to4, which contains an IPv4 address"),
    ("3fff::/20", "documentation"),
];

/// The well-known network of NAT64 addresses (RFC 6052). The last 32 bits of such an address are the IPv4 address that
/// the gateway connects to.
const NAT64: &str = "64:ff9b::/96";

struct Networks {
    not_public_v4: Vec<Ipv4Net>,
    global_unicast_v6: Ipv6Net,
    not_public_v6: Vec<Ipv6Net>,
    nat64: Ipv6Net,
}

static NETWORKS: LazyLock<Networks> = LazyLock::new(|| {
    let v4 = |(network, _): (&str, &str)| network.parse().expect("an IPv4 network");
    let v6 = |network: &str| network.parse().expect("an IPv6 network");
    Networks {
        not_public_v4: NOT_PUBLIC_V4.into_iter().map(v4).collect(),
        global_unicast_v6: v6(GLOBAL_UNICAST_V6),
        not_public_v6: NOT_PUBLIC_V6.into_iter().map(|(network, _)| v6(network)).collect(),
        nat64: v6(NAT64),
    }
});

/// Decides which addresses webhooks may reach: public addresses, and the networks in `VIVAMO_WEBHOOK_NETWORKS`.
#[derive(Clone, Debug, Default)]
pub struct AddressFilter {
    /// Networks that may be reached although they are not public.
    allowed: Arc<[IpNet]>,
}

impl AddressFilter {
    /// Allows public addresses and these networks, for example loopback on the machine of a developer.
    pub fn new(allowed: Vec<IpNet>) -> Self {
        Self { allowed: allowed.into() }
    }

    /// Returns true if webhooks may reach the address.
    pub fn allows(&self, address: IpAddr) -> bool {
        // An IPv4-mapped IPv6 address connects to the IPv4 address.
        let address = address.to_canonical();
        let is_public = match address {
            IpAddr::V4(address) => is_public_v4(address),
            IpAddr::V6(address) => is_public_v6(address),
        };
        is_public || self.allowed.iter().any(|network| network.contains(&address))
    }

    /// Returns true if the host of the URL is an address that webhooks may reach, or a name. `localhost` and its
    /// subdomains count as the address 127.0.0.1. The addresses of a name are checked at each connection. [`Url`] has
    /// already turned decimal, octal and hexadecimal forms of an IPv4 address, for example `2130706433` and `0177.1`,
    /// into the usual form.
    pub fn allows_url(&self, url: &Url) -> bool {
        let Some(host) = url.host_str() else { return false };
        // `localhost` always resolves to loopback, so it is checked here already. A request that sets such a URL then
        // fails with a message.
        let name = host.trim_end_matches('.');
        if name == "localhost" || name.ends_with(".localhost") {
            return self.allows(Ipv4Addr::LOCALHOST.into());
        }
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        literal.map_or(true, |address| self.allows(address))
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !NETWORKS.not_public_v4.iter().any(|network| network.contains(&address))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if NETWORKS.nat64.contains(&address) {
        let [.., a, b, c, d] = address.octets();
        return is_public_v4(Ipv4Addr::new(a, b, c, d));
    }
    NETWORKS.global_unicast_v6.contains(&address)
        && !NETWORKS.not_public_v6.iter().any(|network| network.contains(&address))
}

/// Resolves host names with another resolver, and drops the addresses that webhooks may not reach.
pub struct FilteredResolver {
    filter: AddressFilter,
    resolver: Arc<dyn Resolve>,
}

/// The error if a name has no address that webhooks may reach. A name without any address has the same error, so that
/// an operator cannot find out which names exist in the private network of the service.
#[derive(Debug, thiserror::Error)]
#[error("the host name has no public address")]
pub struct NoPublicAddress;

impl FilteredResolver {
    pub fn new(filter: AddressFilter, resolver: Arc<dyn Resolve>) -> Self {
        Self { filter, resolver }
    }
}

impl Resolve for FilteredResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (filter, resolving) = (self.filter.clone(), self.resolver.resolve(name));
        Box::pin(async move {
            let resolved = resolving.await.map_err(|_| NoPublicAddress)?;
            let mut addresses = resolved.filter(move |address| filter.allows(address.ip())).peekable();
            if addresses.peek().is_none() {
                return Err(NoPublicAddress.into());
            }
            Ok(Box::new(addresses) as Addrs)
        })
    }
}

/// The resolver of the operating system.
pub struct SystemResolver {
    /// Has a permit for each further lookup. A lookup blocks a thread until the name server responds, which can take 30
    /// seconds, also after its delivery has timed out. Without this limit, the lookups could take all threads that
    /// tokio has for blocking calls, and the service could not connect to the database.
    permits: Arc<Semaphore>,
}

impl Default for SystemResolver {
    fn default() -> Self {
        /// A quarter of tokio's blocking threads.
        const MAX_LOOKUPS: usize = 128;
        Self { permits: Arc::new(Semaphore::new(MAX_LOOKUPS)) }
    }
}

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let permits = self.permits.clone();
        Box::pin(async move {
            let permit = permits.acquire_owned().await?;
            let lookup = move || {
                let _permit = permit;
                (name.as_str(), 0).to_socket_addrs()
            };
            Ok(Box::new(spawn_blocking(lookup).await??) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use futures::executor::block_on;

    use super::*;

    const PUBLIC: [&str; 18] = [
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "168.63.129.15",
        "169.253.255.255",
        "172.15.255.255",
        "172.32.0.0",
        "192.167.255.255",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2606:4700:4700::1111",
        "2001:200::1",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
    ];

    const NOT_PUBLIC: [&str; 56] = [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "10.255.255.255",
        "100.64.0.1",
        "100.100.100.200",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.254",
        "168.63.129.16",
        "169.254.169.254",
        "169.254.170.2",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.0.1",
        "192.168.255.255",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "::808:808",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:0:7f00:1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b::a00:1",
        "64:ff9b:1::808:808",
        "100::1",
        "2001::1",
        "2001:0:808:808::f7f7:f7f7",
        "2001:10::1",
        "2001:20::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:808:808::1",
        "3fff::1",
        "4000::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fd20:ce::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ];

    #[test]
    fn only_public_addresses_may_be_reached() {
        let filter = AddressFilter::default();
        for address in PUBLIC {
            assert!(filter.allows(address.parse().unwrap()), "{address}");
        }
        for address in NOT_PUBLIC {
            assert!(!filter.allows(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn a_setting_allows_further_networks() {
        let filter = AddressFilter::new(vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]);
        for address in ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1", "8.8.8.8"] {
            assert!(filter.allows(address.parse().unwrap()), "{address}");
        }
        for address in ["10.0.0.1", "169.254.169.254", "64:ff9b::7f00:1", "::7f00:1", "::2"] {
            assert!(!filter.allows(address.parse().unwrap()), "{address}");
        }
        assert!(filter.allows_url(&Url::parse("http://localhost:9000/").unwrap()));
    }

    #[test]
    fn every_spelling_of_an_address_in_a_url_is_checked() {
        let filter = AddressFilter::default();
        let not_public = [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "0177.0.0.1",
            "017700000001",
            "127.0.0.1.",
            "１２７.0.0.1",
            "127。0。0。1",
            "%31%32%37.0.0.1",
            "user:password@127.0.0.1",
            "169.254.169.254",
            "2852039166",
            "0xa9fea9fe",
            "0251.0376.0251.0376",
            "0",
            "[::1]",
            "[0:0:0:0:0:0:0:1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[::127.0.0.1]",
            "[64:ff9b::127.0.0.1]",
            "[2002:7f00:1::]",
            "[fd00:ec2::254]",
            "localhost",
            "localhost.",
            "LOCALHOST",
            "a.localhost",
        ];
        for host in not_public {
            for url in [format!("https://{host}/"), format!("https://{host}:8443/hook")] {
                assert!(!filter.allows_url(&Url::parse(&url).unwrap()), "{url}");
            }
        }
        for host in ["example.com", "8.8.8.8", "134744072", "[2606:4700:4700::1111]", "localhost.example.com"] {
            assert!(filter.allows_url(&Url::parse(&format!("https://{host}/")).unwrap()), "{host}");
        }
        assert!(!filter.allows_url(&Url::parse("data:text/plain,127.0.0.1").unwrap()));
    }

    /// Resolves every name to these addresses.
    struct Fixed(Vec<&'static str>);

    impl Resolve for Fixed {
        fn resolve(&self, _: Name) -> Resolving {
            let addresses: Vec<_> = self.0.iter().map(|address| SocketAddr::new(address.parse().unwrap(), 0)).collect();
            Box::pin(async move { Ok(Box::new(addresses.into_iter()) as Addrs) })
        }
    }

    #[test]
    fn addresses_that_are_not_public_are_dropped_from_the_result_of_a_lookup() {
        let resolve = |addresses: &[&'static str]| {
            let resolver = FilteredResolver::new(AddressFilter::default(), Arc::new(Fixed(addresses.to_vec())));
            let found = block_on(resolver.resolve("example.com".parse().unwrap()));
            found.map(|found| found.map(|address| address.ip().to_string()).collect::<Vec<_>>())
        };
        assert_eq!(resolve(&["127.0.0.1", "8.8.8.8", "fe80::1", "::ffff:10.0.0.1"]).unwrap(), ["8.8.8.8"]);
        for addresses in [&["127.0.0.1", "::1"][..], &["169.254.169.254"], &[]] {
            assert!(resolve(addresses).unwrap_err().is::<NoPublicAddress>());
        }
    }
}
