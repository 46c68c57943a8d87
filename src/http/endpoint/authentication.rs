//! Finds the caller of a request by its API key. Charges failed attempts to the address of the client.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use axum::extract::ConnectInfo;
use axum::http::header;
use axum::http::request::Parts;
use ipnet::IpNet;

use super::{HttpError, RequestLog, State, run_database_work};
use crate::database::{describe, error_code};
use crate::error::{ErrorCode, Violation};
use crate::request::{RequestContext, Tenant};
use crate::service::Caller;
use crate::service::authentication::AuthenticationError;

/// Returns the caller whose key is in the `Authorization` header. Without a valid key the error is `UNAUTHENTICATED`,
/// or `RATE_LIMITED` after too many failures from the same IPv4 address or IPv6 /64 network.
pub async fn authenticate(state: &State, parts: &Parts, log: &mut RequestLog) -> Result<Caller, HttpError> {
    let network = client_network(client_address(&state.trusted_proxies, parts));
    log.address = Some(network);
    let limits = &state.services.limits;
    let reject = |violation: Violation| limits.charge_auth_failure(network).err().unwrap_or(violation);
    let key = bearer_token(parts).ok_or_else(|| reject(Violation::new(ErrorCode::Unauthenticated)))?;
    if let Some(caller) = state.services.authenticator.cached_caller(key) {
        return Ok(caller);
    }
    let suspect = limits.is_suspect(network).then_some(network);
    let (services, key) = (state.services.clone(), key.to_owned());
    let authentication = async move { services.authenticator.authenticate(&key, suspect).await };
    let context = RequestContext {
        // The caller is not known yet.
        tenant: Tenant::Service,
        work: log.work.clone(),
        response: None,
        is_sequential: false,
        running: Some(state.running.token()),
    };
    // Boxed, because this rare lookup would otherwise make the future of every request several times as large.
    let lookup = run_database_work(state, log.request_id, context, state.timeouts.work, authentication);
    match Box::pin(lookup).await? {
        Ok(caller) => Ok(caller),
        Err(AuthenticationError::Rejected(violation)) => Err(reject(violation).into()),
        Err(AuthenticationError::Failed(error)) => {
            let (code, cause) = (error_code(&error), describe(&error));
            tracing::error!(request_id = %log.request_id, code = code.name(), cause, "cannot look up the API key");
            Err(Violation::new(code).into())
        }
    }
}

fn bearer_token(parts: &Parts) -> Option<&str> {
    let authorization = parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Returns the address of the client. If the connection comes from a trusted proxy, this is the last address in
/// `X-Forwarded-For` that is not a trusted proxy, or the peer address if there is none. If the connection does not come
/// from a trusted proxy, this is the peer address, because anybody can send the header.
fn client_address(trusted_proxies: &[IpNet], parts: &Parts) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted_proxies.iter().any(|network| network.contains(&address.to_canonical()));
    let peer = parts.extensions.get().map(|ConnectInfo(peer): &ConnectInfo<SocketAddr>| peer.ip());
    let peer = peer.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    if !is_trusted(&peer) {
        return peer;
    }
    // The search goes from right to left. The search ends at an entry that is not an address, because the entries to
    // the left of that entry are not trustworthy.
    let lines = parts.headers.get_all("x-forwarded-for").iter().rev();
    let entries = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    let mut hops = entries.map_while(|entry| parse_address(str::from_utf8(entry).ok()?));
    hops.find(|hop| !is_trusted(hop)).unwrap_or(peer)
}

/// Returns the network that counts as one client: an IPv4 address, or an IPv6 /64 network.
fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

/// Parses an address as proxies write it: `192.0.2.1`, `192.0.2.1:8000`, `2001:db8::1`, `[2001:db8::1]` or
/// `[2001:db8::1]:8000`.
fn parse_address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    text.parse().ok().or_else(with_port).or_else(in_brackets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_network_counts_as_one_client() {
        let address = |text: &str| client_network(text.parse().unwrap());
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff:1"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        assert_eq!(address("::ffff:192.0.2.1"), address("192.0.2.1"));
        assert_ne!(address("192.0.2.1"), address("192.0.2.2"));
    }
}
