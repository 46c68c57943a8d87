//! Whether a phone number is a mobile line: asked of the numbering plan, or of the carrier.

mod cache;
mod twilio;

pub use twilio::{Twilio, TwilioSettings};

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use entity::phone_lookup::CarrierLineType;
use entity::value::{LineType, PhoneNumber};
use moka::future::Cache;

use crate::database::Database;
use crate::error::{Error, ErrorCode, InputField, Violation};
use crate::keyed_hash::KeyedHash;

/// Someone who knows what line a number belongs to.
pub trait LineTypeLookup: Send + Sync {
    /// What is known without asking anyone; `None`: it has to be asked.
    fn known(&self, phone: &PhoneNumber) -> Option<CarrierLineType>;

    /// Asks, which may take seconds.
    fn look_up<'a>(
        &'a self,
        phone: &'a PhoneNumber,
    ) -> Pin<Box<dyn Future<Output = Result<CarrierLineType, Fault>> + Send + 'a>>;
}

/// The numbering plans, which are part of the binary.
pub struct NumberingPlan;

impl LineTypeLookup for NumberingPlan {
    fn known(&self, phone: &PhoneNumber) -> Option<CarrierLineType> {
        Some(match phone.line_type() {
            LineType::Mobile => CarrierLineType::Mobile,
            LineType::Other => CarrierLineType::Other,
        })
    }

    fn look_up<'a>(
        &'a self,
        phone: &'a PhoneNumber,
    ) -> Pin<Box<dyn Future<Output = Result<CarrierLineType, Fault>> + Send + 'a>> {
        Box::pin(async move { Ok(self.known(phone).unwrap_or(CarrierLineType::Unknown)) })
    }
}

/// Why a carrier gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It could not be reached, or had no time for us.
    Unavailable { retry_after: Option<Duration> },
    /// It does not take our question: our credentials, our account or our address of it are wrong.
    Misconfigured { what: String },
}

/// What to think of a number of which the carrier cannot say what line it belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownLinePolicy {
    /// It is not proven to be mobile.
    #[default]
    Refuse,
    Accept,
}

/// Asks a carrier, and remembers what it said.
#[derive(Clone)]
pub struct PhoneLookup {
    lines: Arc<dyn LineTypeLookup>,
    unknown_lines: UnknownLinePolicy,
    database: Database,
    hash: KeyedHash,
    /// One question for all who ask it at once; what was answered a moment ago, besides.
    asked: Cache<Vec<u8>, CarrierLineType>,
}

impl PhoneLookup {
    const MAX_ASKED: u64 = 10_000;
    const MOMENT: Duration = Duration::from_secs(60);

    pub fn new(
        lines: Arc<dyn LineTypeLookup>,
        unknown_lines: UnknownLinePolicy,
        database: Database,
        hash: KeyedHash,
    ) -> Self {
        let asked = Cache::builder().max_capacity(Self::MAX_ASKED).time_to_live(Self::MOMENT).build();
        Self { lines, unknown_lines, database, hash, asked }
    }

    /// Refuses a number that is not a mobile line. Not to be called within a transaction: it may take seconds.
    pub async fn check(&self, phone: &PhoneNumber) -> Result<(), Error> {
        let hash = self.hash.of("phone lookup", &[phone.as_str().as_bytes()]);
        let line = self.asked.try_get_with(hash.clone(), self.look_up(&hash, phone)).await;
        let line = line.map_err(Arc::unwrap_or_clone)?;
        let is_mobile = match line {
            CarrierLineType::Mobile => true,
            CarrierLineType::Other => false,
            CarrierLineType::Unknown => self.unknown_lines == UnknownLinePolicy::Accept,
        };
        if is_mobile { Ok(()) } else { Err(Violation::of(ErrorCode::PhoneNotMobile, InputField::Phone).into()) }
    }

    async fn look_up(&self, hash: &[u8], phone: &PhoneNumber) -> Result<CarrierLineType, Error> {
        if let Some(line) = cache::find(&self.database, hash).await? {
            return Ok(line);
        }
        let asked = self.lines.look_up(phone).await;
        let outcome = if asked.is_ok() { "answered" } else { "failed" };
        metrics::counter!("vivamo_phone_lookups_total", "outcome" => outcome).increment(1);
        let line = asked.map_err(|fault| match fault {
            Fault::Unavailable { retry_after } => {
                tracing::warn!("the carrier look-up gave no answer");
                Error::from(Violation::new(ErrorCode::PhoneLookupUnavailable).with_retry_after(retry_after))
            }
            Fault::Misconfigured { what } => {
                // Nobody's phone is at fault: somebody has to mend our settings.
                tracing::error!(what, "ALARM: the carrier look-up is misconfigured, and no new phone can be stored");
                ErrorCode::PhoneLookupUnavailable.into()
            }
        })?;
        cache::store(&self.database, hash, line).await?;
        Ok(line)
    }
}
