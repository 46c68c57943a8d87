//! Twilio Lookup v2, line type intelligence.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use entity::phone_lookup::CarrierLineType;
use entity::value::PhoneNumber;
use rand::RngExt;
use reqwest::header::RETRY_AFTER;
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{Fault, LineTypeLookup};

#[derive(Clone, Debug)]
pub struct TwilioSettings {
    /// Such as `https://lookups.twilio.com`.
    pub url: Url,
    /// The SID of an API key (`SK…`) or of the account (`AC…`).
    pub user: String,
    pub password: SecretString,
}

pub struct Twilio {
    client: Client,
    settings: TwilioSettings,
    /// The account's limit is on questions at a time.
    places: Semaphore,
}

/// What an answer holds of use. Everything in it may be missing.
#[derive(Deserialize)]
struct Answer {
    valid: Option<bool>,
    line_type_intelligence: Option<LineTypeIntelligence>,
}

#[derive(Deserialize)]
struct LineTypeIntelligence {
    #[serde(rename = "type")]
    line_type: Option<String>,
    error_code: Option<i64>,
}

/// How one attempt ended without an answer.
enum Failure {
    /// The next one may succeed.
    Passing {
        retry_after: Option<Duration>,
    },
    Lasting(Fault),
}

impl Twilio {
    const CONNECT: Duration = Duration::from_secs(1);
    const REQUEST: Duration = Duration::from_secs(2);
    /// For all attempts together; a client waits that long.
    const TOTAL: Duration = Duration::from_millis(2500);
    const ATTEMPTS: u32 = 3;
    const PLACES: usize = 20;

    pub fn new(settings: TwilioSettings) -> Result<Self, reqwest::Error> {
        // The process needs one, and no more than one; whether it is there already is all the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .connect_timeout(Self::CONNECT)
            .timeout(Self::REQUEST)
            // Our credentials are for this host alone.
            .redirect(Policy::none())
            .build()?;
        Ok(Self { client, settings, places: Semaphore::new(Self::PLACES) })
    }

    async fn try_all(&self, phone: &PhoneNumber) -> Result<CarrierLineType, Fault> {
        let started = Instant::now();
        let mut retry_after = None;
        for attempt in 1..=Self::ATTEMPTS {
            match self.attempt(phone).await {
                Ok(line) => return Ok(line),
                Err(Failure::Lasting(fault)) => return Err(fault),
                Err(Failure::Passing { retry_after: wanted }) => {
                    retry_after = wanted;
                    let pause = wanted.unwrap_or_else(|| Duration::from_millis(rand::rng().random_range(100..400)));
                    if attempt == Self::ATTEMPTS || started.elapsed() + pause > Self::TOTAL {
                        break;
                    }
                    tokio::time::sleep(pause).await;
                }
            }
        }
        Err(Fault::Unavailable { retry_after })
    }

    async fn attempt(&self, phone: &PhoneNumber) -> Result<CarrierLineType, Failure> {
        const PASSING: Failure = Failure::Passing { retry_after: None };
        let _place = self.places.acquire().await.map_err(|_| PASSING)?;
        let base = self.settings.url.as_str().trim_end_matches('/');
        let digits = phone.as_str().trim_start_matches('+');
        let url = format!("{base}/v2/PhoneNumbers/%2B{digits}?Fields=line_type_intelligence");
        let request =
            self.client.get(url).basic_auth(&self.settings.user, Some(self.settings.password.expose_secret()));
        let response = request.send().await.map_err(|_| PASSING)?;
        let status = response.status();
        if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
            return Err(Failure::Passing { retry_after: retry_after(&response) });
        }
        if status != StatusCode::OK {
            return Err(misconfigured(&format!("it answers {}", status.as_u16())));
        }
        line(response.json().await.map_err(|_| PASSING)?)
    }
}

impl LineTypeLookup for Twilio {
    fn known(&self, _: &PhoneNumber) -> Option<CarrierLineType> {
        None
    }

    fn look_up<'a>(
        &'a self,
        phone: &'a PhoneNumber,
    ) -> Pin<Box<dyn Future<Output = Result<CarrierLineType, Fault>> + Send + 'a>> {
        Box::pin(async move {
            let asked = timeout(Self::TOTAL, self.try_all(phone)).await;
            asked.unwrap_or(Err(Fault::Unavailable { retry_after: None }))
        })
    }
}

/// What an answer says of the line. Twilio's error codes are at <https://www.twilio.com/docs/api/errors>.
fn line(answer: Answer) -> Result<CarrierLineType, Failure> {
    let Answer { valid, line_type_intelligence } = answer;
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
            // `unknown`, nothing, and types that are yet to come.
            Some(_) | None => CarrierLineType::Unknown,
        }),
        // A Canadian number that needs an approval, a country without data, a number outside coverage.
        Some(60601 | 60607 | 60610) => Ok(CarrierLineType::Unknown),
        // The package is not enabled, or the account is of another region.
        Some(code @ (60606 | 60614 | 60619)) => Err(misconfigured(&format!("its error is {code}"))),
        // A provider behind it failed, too many questions about one number, and errors that are yet to come.
        Some(_) => Err(Failure::Passing { retry_after: None }),
    }
}

fn misconfigured(what: &str) -> Failure {
    Failure::Lasting(Fault::Misconfigured { what: what.to_owned() })
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}
