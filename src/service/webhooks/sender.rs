//! Sends deliveries over HTTP.
//!
//! An endpoint belongs to somebody else and may be faulty or hostile. Therefore the client connects only to allowed
//! addresses (see `addresses`), uses no proxy and follows no redirect. An attempt takes at most 15 seconds. The body of
//! a response is not kept, and reading it stops after 1 KiB.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use entity::deployment::Environment;
use entity::value::WebhookUrl;
use entity::webhook::Failure;
use reqwest::dns::Resolve;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode, Url};
use tokio::time::timeout;

use super::addresses::{AddressFilter, FilteredResolver, NoPublicAddress, SystemResolver};
use super::signature::{ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER};

/// The settings of [`Sender`].
#[derive(Clone)]
pub struct SenderSettings {
    pub environment: Environment,
    pub addresses: AddressFilter,
    /// Resolves host names. The results are filtered.
    pub resolver: Arc<dyn Resolve>,
    /// The maximum time to connect, including the DNS lookup and the TLS handshake.
    pub connect_timeout: Duration,
    /// The maximum time for a whole attempt.
    pub timeout: Duration,
}

impl SenderSettings {
    /// Settings with the resolver of the operating system and the usual timeouts, which are the same in both
    /// environments.
    pub fn new(environment: Environment, addresses: AddressFilter) -> Self {
        let (connect_timeout, timeout) = (Duration::from_secs(5), Duration::from_secs(15));
        Self { environment, addresses, resolver: Arc::new(SystemResolver::default()), connect_timeout, timeout }
    }
}

/// Sends deliveries.
pub struct Sender {
    client: Client,
    addresses: AddressFilter,
}

/// One attempt of a delivery.
pub struct Attempt {
    /// The id of the message, the same for each attempt to deliver the same changes.
    pub id: String,
    /// Seconds since 1970.
    pub timestamp: i64,
    /// One signature per valid secret, separated by spaces.
    pub signatures: String,
    pub body: Vec<u8>,
}

/// The response of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: StatusCode,
    /// The backoff that the endpoint asks for before the next attempt.
    pub retry_after: Option<TimeDelta>,
}

impl Sender {
    /// Reading a response body stops after this number of bytes. The connection can be used again only after the whole
    /// body was read.
    const MAX_READ_BYTES: usize = 1024;
    /// The maximum time for reading the body. The result of the attempt is already known by then, because the status
    /// comes before the body.
    const READ_TIMEOUT: Duration = Duration::from_secs(1);
    /// Shorter than the time after which Node.js closes an idle connection, which is five seconds. An attempt fails if
    /// the receiver closes the connection while the attempt begins.
    const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

    /// Sets up the HTTP client. Fails if the system has no CA certificates.
    pub fn new(settings: SenderSettings) -> Result<Self, reqwest::Error> {
        let SenderSettings { environment, addresses, resolver, connect_timeout, timeout } = settings;
        // reqwest needs a default provider of cryptography for the process. An error means that there is one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .user_agent("Vivamo-Webhooks")
            .dns_resolver(Arc::new(FilteredResolver::new(addresses.clone(), resolver)))
            // A redirect could point to a private address, and a proxy would connect to addresses that this service
            // does not check.
            .redirect(Policy::none())
            .no_proxy()
            .https_only(environment == Environment::Production)
            .connect_timeout(connect_timeout)
            .timeout(timeout)
            .pool_idle_timeout(Self::IDLE_TIMEOUT)
            .build()?;
        Ok(Self { client, addresses })
    }

    /// Sends an attempt, and returns the response of the endpoint.
    pub async fn send(&self, url: &WebhookUrl, attempt: Attempt, now: DateTime<Utc>) -> Result<Response, Failure> {
        let url = Url::parse(url.as_str()).map_err(|_| Failure::Connection)?;
        // The client does not resolve an address in a URL, so the resolver does not check such an address.
        if !self.addresses.allows_url(&url) {
            return Err(Failure::ForbiddenAddress);
        }
        let Attempt { id, timestamp, signatures, body } = attempt;
        let request = self
            .client
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header(ID_HEADER, id)
            .header(TIMESTAMP_HEADER, timestamp)
            .header(SIGNATURE_HEADER, signatures)
            .body(body);
        let mut response = request.send().await.map_err(|error| failure(&error))?;
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let result = Response {
            status: response.status(),
            retry_after: retry_after.and_then(|text| parse_retry_after(text, now)),
        };
        let read = async {
            let mut bytes = 0;
            while let Ok(Some(chunk)) = response.chunk().await {
                bytes += chunk.len();
                if bytes > Self::MAX_READ_BYTES {
                    break;
                }
            }
        };
        let _ = timeout(Self::READ_TIMEOUT, read).await;
        Ok(result)
    }
}

fn failure(error: &reqwest::Error) -> Failure {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if inner.is::<NoPublicAddress>() {
            return Failure::ForbiddenAddress;
        }
        cause = inner.source();
    }
    if error.is_timeout() { Failure::Timeout } else { Failure::Connection }
}

/// Parses the `Retry-After` header: a number of seconds, or a date.
fn parse_retry_after(text: &str, now: DateTime<Utc>) -> Option<TimeDelta> {
    let text = text.trim();
    match text.parse() {
        Ok(seconds) => TimeDelta::try_seconds(seconds),
        Err(_) => Some(DateTime::parse_from_rfc2822(text).ok()?.to_utc() - now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::now;

    #[test]
    fn retry_after_is_a_number_of_seconds_or_a_date() {
        let now = now();
        for (text, seconds) in [
            ("0", Some(0)),
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("-1", Some(-1)),
            ("99999999999999999999", None),
            ("9223372036854775807", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(parse_retry_after(text, now).map(|backoff| backoff.num_seconds()), seconds, "{text}");
        }
        let date = (now + TimeDelta::hours(1)).format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let backoff = parse_retry_after(&date, now).unwrap();
        assert!((3599..=3600).contains(&backoff.num_seconds()), "{date}: {backoff}");
    }
}
