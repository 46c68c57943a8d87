//! The client of Twilio Lookup v2 with Line Type Intelligence.
//!
//! A request is `GET /v2/PhoneNumbers/%2B14155552671?Fields=line_type_intelligence`. A lookup makes up to three
//! attempts within 2.5 seconds. If a `Retry-After` is longer than the remaining time, its value is returned in the
//! error.

use std::time::{Duration, Instant};

use entity::phone_lookup::CarrierLineType;
use entity::value::PhoneNumber;
use futures_util::future::BoxFuture;
use rand::RngExt;
use reqwest::header::RETRY_AFTER;
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::time::timeout;

use super::{LineTypeLookup, LookupError};

/// Asks Twilio for the line types of phones.
pub struct Twilio {
    client: Client,
    url: Url,
    user: SecretString,
    password: SecretString,
    total_timeout: Duration,
}

/// The part of Twilio's response that is used. Any field may be missing.
#[derive(Deserialize)]
struct LookupResponse {
    valid: Option<bool>,
    line_type_intelligence: Option<LineTypeIntelligence>,
}

#[derive(Deserialize)]
struct LineTypeIntelligence {
    #[serde(rename = "type")]
    line_type: Option<String>,
    error_code: Option<i64>,
}

/// The time limits of a lookup. Only tests change the default values.
#[derive(Clone, Copy, Debug)]
pub struct TwilioTimeouts {
    pub connect: Duration,
    /// For one attempt.
    pub request: Duration,
    /// For all attempts together.
    pub total: Duration,
}

impl Default for TwilioTimeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(1), request: Duration::from_secs(2), total: Duration::from_millis(2500) }
    }
}

impl Twilio {
    const MAX_ATTEMPTS: u32 = 3;

    /// Sets up a client for the base URL, for example `https://lookups.twilio.com`. `user` is the SID of an API key
    /// (`SK…`) or of the account (`AC…`).
    pub fn new(
        url: Url,
        user: SecretString,
        password: SecretString,
        timeouts: TwilioTimeouts,
    ) -> Result<Self, reqwest::Error> {
        // reqwest needs a default provider of cryptography for the process. An error means that there is one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .connect_timeout(timeouts.connect)
            .timeout(timeouts.request)
            // A redirect must not send the credentials to another host.
            .redirect(Policy::none())
            .build()?;
        Ok(Self { client, url, user, password, total_timeout: timeouts.total })
    }

    async fn look_up_with_retries(&self, phone: &PhoneNumber) -> Result<CarrierLineType, LookupError> {
        let started = Instant::now();
        let mut attempts = 1;
        loop {
            let result = self.attempt(phone).await;
            let Err(LookupError::Unavailable { retry_after }) = result else { return result };
            let pause = retry_after.unwrap_or_else(|| Duration::from_millis(rand::rng().random_range(100..400)));
            if attempts == Self::MAX_ATTEMPTS || pause > self.total_timeout.saturating_sub(started.elapsed()) {
                return result;
            }
            #[expect(clippy::disallowed_methods, reason = "the backoff")]
            tokio::time::sleep(pause).await;
            attempts += 1;
        }
    }

    async fn attempt(&self, phone: &PhoneNumber) -> Result<CarrierLineType, LookupError> {
        const UNAVAILABLE: LookupError = LookupError::Unavailable { retry_after: None };
        let base = self.url.as_str().trim_end_matches('/');
        let digits = phone.as_str().trim_start_matches('+');
        let url = format!("{base}/v2/PhoneNumbers/%2B{digits}?Fields=line_type_intelligence");
        let request = self.client.get(url).basic_auth(self.user.expose_secret(), Some(self.password.expose_secret()));
        let response = request.send().await.map_err(|_| UNAVAILABLE)?;
        let status = response.status();
        if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
            return Err(LookupError::Unavailable { retry_after: retry_after(&response) });
        }
        if status != StatusCode::OK {
            return Err(LookupError::Misconfigured {
                cause: format!("Twilio responded with HTTP status {}", status.as_u16()),
            });
        }
        line_type(response.json().await.map_err(|_| UNAVAILABLE)?)
    }
}

impl LineTypeLookup for Twilio {
    fn look_up<'a>(&'a self, phone: &'a PhoneNumber) -> BoxFuture<'a, Result<CarrierLineType, LookupError>> {
        Box::pin(async move {
            let result = timeout(self.total_timeout, self.look_up_with_retries(phone)).await;
            result.unwrap_or(Err(LookupError::Unavailable { retry_after: None }))
        })
    }
}

/// Maps a response to a line type. Twilio documents its error codes at <https://www.twilio.com/docs/api/errors>.
fn line_type(response: LookupResponse) -> Result<CarrierLineType, LookupError> {
    let LookupResponse { valid, line_type_intelligence } = response;
    if valid == Some(false) {
        return Ok(CarrierLineType::Other);
    }
    let Some(LineTypeIntelligence { line_type, error_code }) = line_type_intelligence else {
        return Ok(CarrierLineType::Unknown);
    };
    match error_code {
        None => Ok(match line_type.as_deref() {
            Some("mobile") => CarrierLineType::Mobile,
            Some(
                "landline" | "fixedVoip" | "nonFixedVoip" | "tollFree" | "premium" | "sharedCost" | "uan" | "voicemail"
                | "pager" | "personal",
            ) => CarrierLineType::Other,
            // The type is `unknown`, null, or one that Twilio has added later.
            Some(_) | None => CarrierLineType::Unknown,
        }),
        // Twilio has no data: the account is not approved for Canadian numbers (60601), or Twilio does not cover the
        // country (60607) or the number (60610).
        Some(60601 | 60607 | 60610) => Ok(CarrierLineType::Unknown),
        // The account is not allowed to use Line Type Intelligence, or Twilio does not offer this lookup in the region
        // of the request.
        Some(code @ (60606 | 60614 | 60619)) => {
            Err(LookupError::Misconfigured { cause: format!("Twilio responded with error code {code}") })
        }
        // A failure of Twilio's provider, too many requests for one number, or a code that Twilio has added later.
        Some(_) => Err(LookupError::Unavailable { retry_after: None }),
    }
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}
