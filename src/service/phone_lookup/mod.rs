//! Checks that a phone number is a mobile line.
//!
//! By default, `service::restrictions` decides by the numbering plans in the binary. If a carrier lookup ([`Twilio`])
//! is configured, the lookup decides instead, in production only. The lookup asks a provider over the network. The
//! results are cached: in memory for a minute, and in the database, under keyed hashes, for a day or a month. Callers
//! share the lookups that run at the same time fairly ([`FairQueue`]).

mod twilio;

pub use twilio::{Twilio, TwilioTimeouts};

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use entity::phone_lookup::{ActiveModel, CarrierLineType, Column, Entity};
use entity::value::PhoneNumber;
use futures_util::future::BoxFuture;
use metrics::Counter;
use moka::future::Cache;
use sea_orm::sea_query::OnConflict;
use sea_orm::{ColumnTrait, EntityTrait, EnumIter, QueryFilter, Set};

use super::expired_rows::delete_expired;
use super::{Caller, now};
use crate::config::UnknownLinePolicy;
use crate::database::Database;
use crate::error::{Error, ErrorCode, InputField, Violation};
use crate::keyed_hash::{KeyedHasher, PerSecret};
use crate::request::{FairQueue, Tenant, run_as};

/// A lookup provider, for example Twilio, which asks the carriers for line types.
pub trait LineTypeLookup: Send + Sync {
    /// Looks up the line type over the network. May take seconds.
    fn look_up<'a>(&'a self, phone: &'a PhoneNumber) -> BoxFuture<'a, Result<CarrierLineType, LookupError>>;
}

/// The cause of a failed lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookupError {
    /// The provider was unreachable, overloaded or too slow, or its response could not be used. A retry may succeed.
    Unavailable { retry_after: Option<Duration> },
    /// The provider rejects all requests of this service: the URL, the credentials or the account are wrong. `cause` is
    /// for the log.
    Misconfigured { cause: String },
}

/// The settings of [`PhoneLookup`].
pub struct CarrierSettings {
    pub lookup: Arc<dyn LineTypeLookup>,
    /// The policy for a phone whose line type the carrier does not know.
    pub unknown_lines: UnknownLinePolicy,
}

/// A carrier lookup with its caches.
#[derive(Clone)]
pub struct PhoneLookup {
    lookup: Arc<dyn LineTypeLookup>,
    unknown_lines: UnknownLinePolicy,
    database: Database,
    hasher: KeyedHasher,
    /// Has a permit for each lookup that may be in progress.
    queue: FairQueue,
    /// Results of the last minute, by hash. Concurrent lookups of one number share one request.
    recent: Cache<Vec<u8>, CarrierLineType>,
}

const PURPOSE: &str = "phone lookup";

/// The keyed hashes under which a result for a number in E.164 form may be stored.
pub fn lookup_hashes(hasher: &KeyedHasher, phone: &str) -> PerSecret<Vec<u8>> {
    hasher.accepted_digests(PURPOSE, &[phone.as_bytes()])
}

/// The result of a carrier lookup, in the metrics.
#[derive(Clone, Copy, EnumIter)]
pub enum LookupOutcome {
    Answered,
    Failed,
    /// The lookup was not made, because too many lookups were in progress.
    Busy,
}

impl LookupOutcome {
    /// Returns the counter of the lookups with this outcome.
    pub fn counter(self) -> Counter {
        let outcome = match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Busy => "busy",
        };
        metrics::counter!("vivamo_phone_lookups_total", "outcome" => outcome)
    }
}

impl PhoneLookup {
    const MAX_RECENT: u64 = 10_000;
    const RECENT_TTL: Duration = Duration::from_secs(60);
    /// The time for which the database keeps the result for a mobile line.
    const MOBILE_TTL: TimeDelta = TimeDelta::days(30);
    /// The time for which the database keeps any other result. It is shorter, because an unknown number may become
    /// mobile, and its owner should not have to wait for long.
    const OTHER_TTL: TimeDelta = TimeDelta::hours(24);
    /// The maximum number of lookups at a time, because Twilio limits the concurrent requests of an account.
    const MAX_LOOKUPS: usize = 20;
    /// The maximum number of lookups of one tenant at a time. If two tenants use up their shares while the carrier is
    /// slow, lookups of other tenants still start immediately.
    const MAX_TENANT_LOOKUPS: usize = 8;
    /// The longest time that a caller waits before its lookup starts. A lookup takes up to 2.5 seconds, so the request
    /// has more than 5 of its 10 seconds for the database.
    const MAX_WAIT: Duration = Duration::from_secs(2);
    /// The time after which a caller that has waited in vain should retry.
    const RETRY_AFTER: Duration = Duration::from_secs(1);

    pub fn new(settings: CarrierSettings, database: Database, hasher: KeyedHasher) -> Self {
        let CarrierSettings { lookup, unknown_lines } = settings;
        let recent = Cache::builder().max_capacity(Self::MAX_RECENT).time_to_live(Self::RECENT_TTL).build();
        let queue = FairQueue::with_max_per_tenant(Self::MAX_LOOKUPS, Self::MAX_TENANT_LOOKUPS);
        Self { lookup, unknown_lines, database, hasher, queue, recent }
    }

    /// Fails with `PHONE_NOT_MOBILE` if the number is not a mobile line, or if its line type is unknown and the policy
    /// rejects unknown lines. Fails with `PHONE_LOOKUP_UNAVAILABLE` if the provider does not return a result, or if too
    /// many lookups are in progress. The check may take seconds, so it must not run within a transaction.
    pub async fn check(&self, caller: &Caller, phone: &PhoneNumber) -> Result<(), Error> {
        let hash = self.hasher.digest(PURPOSE, &[phone.as_str().as_bytes()]);
        let line = match self.recent.get(&hash).await {
            Some(line) => line,
            None => self.look_up(caller, hash, phone).await?,
        };
        let accepts_unknown = self.unknown_lines == UnknownLinePolicy::Accept;
        let is_accepted = line == CarrierLineType::Mobile || line == CarrierLineType::Unknown && accepts_unknown;
        if is_accepted { Ok(()) } else { Err(Violation::of(ErrorCode::PhoneNotMobile, InputField::Phone).into()) }
    }

    async fn look_up(&self, caller: &Caller, hash: Vec<u8>, phone: &PhoneNumber) -> Result<CarrierLineType, Error> {
        let stored = Entity::find_by_id(hash.clone()).filter(Column::ExpiresAt.gt(now()));
        if let Some(row) = stored.one(&self.database.uncounted_reader()).await? {
            self.recent.insert(hash, row.line).await;
            return Ok(row.line);
        }
        // Callers of the same number share a lookup only after they have waited. Otherwise, a caller could have to wait
        // because another caller has used up its share.
        let Some(_permit) = self.queue.acquire_within(caller.tenant(), Self::MAX_WAIT).await else {
            LookupOutcome::Busy.counter().increment(1);
            let message = "Too many phone numbers are being checked, and nothing was changed. Please retry.";
            let violation = Violation::new(ErrorCode::PhoneLookupUnavailable).with_message(message);
            return Err(violation.with_retry_after(Some(Self::RETRY_AFTER)).into());
        };
        let line = self.recent.try_get_with(hash.clone(), self.ask_carrier(&hash, phone)).await;
        line.map_err(Arc::unwrap_or_clone)
    }

    async fn ask_carrier(&self, hash: &[u8], phone: &PhoneNumber) -> Result<CarrierLineType, Error> {
        let result = self.lookup.look_up(phone).await;
        let outcome = if result.is_ok() { LookupOutcome::Answered } else { LookupOutcome::Failed };
        outcome.counter().increment(1);
        let line = result.map_err(|error| match error {
            LookupError::Unavailable { retry_after } => {
                tracing::warn!("carrier lookup failed: the provider was unreachable, overloaded or too slow");
                Error::from(Violation::new(ErrorCode::PhoneLookupUnavailable).with_retry_after(retry_after))
            }
            LookupError::Misconfigured { cause } => {
                tracing::error!(
                    cause,
                    "carrier lookup is misconfigured, so new phone numbers are rejected: check VIVAMO_TWILIO_URL, \
                     VIVAMO_TWILIO_USER, VIVAMO_TWILIO_PASSWORD and the Twilio account"
                );
                ErrorCode::PhoneLookupUnavailable.into()
            }
        })?;
        // Not as the caller, because callers of other tenants may share this lookup, and get its error.
        run_as(Tenant::Service, self.store(hash, line)).await?;
        Ok(line)
    }

    /// Stores a result for all processes, replacing an earlier result for the number.
    async fn store(&self, hash: &[u8], line: CarrierLineType) -> Result<(), Error> {
        let store = || async {
            let expires_at = now() + if line == CarrierLineType::Mobile { Self::MOBILE_TTL } else { Self::OTHER_TTL };
            let row = ActiveModel { hash: Set(hash.to_vec()), line: Set(line), expires_at: Set(expires_at) };
            let transaction = self.database.begin_write().await?;
            let replace = OnConflict::column(Column::Hash).update_columns([Column::Line, Column::ExpiresAt]).to_owned();
            Entity::insert(row).on_conflict(replace).exec_without_returning(&transaction).await?;
            transaction.commit().await?;
            Ok(())
        };
        self.database.with_retry("phone_lookup.store", store).await
    }
}

/// Deletes expired results and returns their number.
pub async fn delete_expired_results(database: &Database) -> Result<u64, Error> {
    delete_expired::<Entity>(database, "phone_lookup.sweep", Column::ExpiresAt).await
}
