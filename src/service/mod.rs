//! The business rules: permissions, validation, and the reads and writes of the data. This folder does not depend on
//! the HTTP server. Only the code that delivers webhooks and the code that calls Twilio use HTTP. This folder uses only
//! the derive macro `Enum` of async-graphql: some enums of this folder are types of the schema, and the doc comments of
//! these enums are the descriptions in the schema.
//!
//! Each method that reads or writes data for a caller has the [`Actor`] as its first parameter, so that nobody forgets
//! to check the caller's rights. [`Services`] holds the services that GraphQL and the command line call. The other
//! modules serve these services.

pub mod api_keys;
pub mod audit;
pub mod cost;
pub mod customers;
pub mod deployment;
pub mod disposable_domains;
mod expired_rows;
pub mod feed;
pub mod idempotency;
pub mod job_errors;
mod key_format;
pub mod limits;
pub mod operators;
pub mod phone_lookup;
pub mod restrictions;
mod token_buckets;
pub mod webhooks;

pub use api_keys::ApiKeys;
pub use audit::AuditLog;
pub use customers::Customers;
pub use feed::Feed;
pub use limits::Limits;
pub use operators::Operators;
pub use webhooks::Webhooks;

use std::sync::Arc;

use chrono::{DateTime, Datelike, SubsecRound, Utc};
use entity::api_key::Access;
use entity::deployment::Environment;
use entity::value::{ApiKeyId, OperatorId, RequestId, StaffName};

use secrecy::SecretString;

use crate::config::{LimitSettings, UnknownLinePolicy};
use crate::database::{Database, Tenant};
use crate::error::{Error, ErrorCode, Violation};
use crate::keyed_hash::KeyedHash;
use disposable_domains::DisposableDomains;
use phone_lookup::{LineTypeLookup, PhoneLookup};
use restrictions::Restrictions;
use webhooks::addresses::AddressFilter;

/// All services of one process, on one database.
pub struct Services {
    pub environment: Environment,
    /// Hashes with the secret that the database uses.
    pub hash: KeyedHash,
    pub customers: Customers,
    pub feed: Feed,
    pub operators: Operators,
    pub api_keys: ApiKeys,
    pub audit_log: AuditLog,
    pub webhooks: Webhooks,
    pub limits: Limits,
}

/// The settings of [`Services`].
pub struct ServiceSettings {
    pub environment: Environment,
    /// Hashes API keys, idempotency keys and phone numbers, derives the secrets of webhook endpoints, and signs
    /// cursors.
    pub hash: KeyedHash,
    /// The key of [`Actor::Platform`]. `None` disables platform access through the API.
    pub platform_key: Option<SecretString>,
    pub disposable_domains: DisposableDomains,
    /// The lookup of line types in production, and the policy for unknown line types. If `None`, the numbering plans
    /// decide.
    pub carrier: Option<(Arc<dyn LineTypeLookup>, UnknownLinePolicy)>,
    pub limits: LimitSettings,
    pub webhook_addresses: AddressFilter,
}

impl ServiceSettings {
    /// Settings without a platform key, a carrier and limits.
    pub fn new(environment: Environment, hash: KeyedHash) -> Self {
        let disposable_domains = DisposableDomains::new(Vec::new(), Vec::new());
        Self {
            environment,
            hash,
            platform_key: None,
            disposable_domains,
            carrier: None,
            limits: LimitSettings::OFF,
            webhook_addresses: AddressFilter::default(),
        }
    }
}

impl Services {
    pub fn new(database: &Database, settings: ServiceSettings) -> Arc<Self> {
        let ServiceSettings { environment, hash, platform_key, disposable_domains, carrier, limits, webhook_addresses } =
            settings;
        let limits = Limits::new(limits);
        let carrier = carrier.filter(|_| environment == Environment::Production);
        let phone_lookup =
            carrier.map(|(carrier, policy)| PhoneLookup::new(carrier, policy, database.clone(), hash.clone()));
        let restrictions = Restrictions { environment, disposable_domains, phone_lookup };
        let api_keys = ApiKeys::new(database.clone(), environment, hash.clone(), platform_key.as_ref());
        let feed = Feed::new(database.clone());
        Arc::new(Self {
            environment,
            webhooks: Webhooks::new(database.clone(), environment, hash.clone(), webhook_addresses, feed.clone()),
            customers: Customers::new(database.clone(), restrictions, hash.clone(), limits.clone()),
            feed,
            operators: Operators::new(database.clone(), api_keys.clone()),
            api_keys,
            audit_log: AuditLog::new(database.clone()),
            limits,
            hash,
        })
    }
}

/// The authenticated caller. The staff member in the `Vivamo-Actor` header, which the schema calls `actor`, is
/// [`RequestInfo::staff`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A caller with an API key of an operator.
    Operator {
        id: OperatorId,
        key: ApiKeyId,
        access: Access,
        /// The operator's disclosure budget. `None` stands for the default.
        disclosures_per_hour: Option<i32>,
    },
    /// A caller with the platform key, or the command line.
    Platform,
}

impl Actor {
    /// The operator whose customers the caller sees. `None` for the platform, which sees all customers.
    pub fn operator(&self) -> Option<OperatorId> {
        match *self {
            Self::Operator { id, .. } => Some(id),
            Self::Platform => None,
        }
    }

    /// Returns the id under which the caller's idempotency keys and feed rows are stored: the id of the operator, or
    /// [`OperatorId::PLATFORM`].
    pub fn owner(&self) -> OperatorId {
        self.operator().unwrap_or(OperatorId::PLATFORM)
    }

    /// Returns the tenant that the caller's statements run for.
    pub fn tenant(&self) -> Tenant {
        self.operator().map_or(Tenant::Platform, Tenant::Operator)
    }

    /// The operator's API key. `None` for the platform.
    pub fn key(&self) -> Option<ApiKeyId> {
        match *self {
            Self::Operator { key, .. } => Some(key),
            Self::Platform => None,
        }
    }

    /// Checks that the caller may write, and returns the origin to record with the changes. Fails with `FORBIDDEN` for
    /// operators with a read-only key.
    pub fn origin(&self, request: &RequestInfo) -> Result<Origin, Error> {
        self.require_write()?;
        Ok(Origin { actor: *self, request: request.clone() })
    }

    /// Fails with `FORBIDDEN` for operators with a read-only key.
    pub fn require_write(&self) -> Result<(), Error> {
        if self.is_read_only() { Err(forbidden("The key is read-only.")) } else { Ok(()) }
    }

    /// True for an operator with a read-only key.
    pub fn is_read_only(&self) -> bool {
        matches!(self, Self::Operator { access: Access::ReadOnly, .. })
    }

    /// Returns the caller's operator. Fails with `FORBIDDEN` for the platform, which has no customers of its own.
    pub fn require_operator(&self) -> Result<OperatorId, Error> {
        self.operator().ok_or_else(|| forbidden("An operator's API key is required."))
    }

    /// Fails with `FORBIDDEN` unless the caller is the platform.
    pub fn require_platform(&self) -> Result<(), Error> {
        if *self == Self::Platform { Ok(()) } else { Err(forbidden("The platform key is required.")) }
    }

    /// True if the caller may see this operator. An operator sees only itself.
    pub fn sees(&self, operator: OperatorId) -> bool {
        self.operator().is_none_or(|own| own == operator)
    }
}

fn forbidden(reason: &'static str) -> Error {
    Violation::new(ErrorCode::Forbidden).with_note(reason).into()
}

/// The request, or the run of a command, that makes a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestInfo {
    /// The id of the request. The run of a command has an id too.
    pub id: RequestId,
    /// The staff member on whose behalf the caller sends the request, if the request names one.
    pub staff: Option<StaffName>,
    /// The user of the operating system who runs the command. `None` for a request.
    pub os_user: Option<String>,
}

impl RequestInfo {
    /// Describes the run of a command by the user of this process. The user is `unknown` if it has no name, for example
    /// in a container.
    pub fn command_line() -> Self {
        let os_user = whoami::username().unwrap_or_else(|_| "unknown".to_owned());
        Self { os_user: Some(os_user), ..RequestId::new().into() }
    }
}

impl From<RequestId> for RequestInfo {
    fn from(id: RequestId) -> Self {
        Self { id, staff: None, os_user: None }
    }
}

/// The origin of a change, as the history of customers and the administrative audit log record it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub actor: Actor,
    pub request: RequestInfo,
}

impl Origin {
    /// Returns the id under which the caller's idempotency keys are stored and the caller's writes are batched.
    pub fn owner(&self) -> OperatorId {
        self.actor.owner()
    }
}

/// Returns the current time in microseconds, the precision of PostgreSQL. A time that is written therefore equals the
/// time that is read back.
#[expect(clippy::disallowed_methods, reason = "this function truncates the time to microseconds")]
pub fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(6)
}

/// Turns a leap second (`23:59:60`) into the first second of the next minute, as PostgreSQL does. Returns other times
/// unchanged.
pub fn without_leap_second(time: DateTime<Utc>) -> DateTime<Utc> {
    const SECOND: u32 = 1_000_000_000;
    // In a leap second, `chrono` has more than a second of nanoseconds.
    let nanoseconds = time.timestamp_subsec_nanos();
    let seconds = time.timestamp() + i64::from(nanoseconds / SECOND);
    DateTime::from_timestamp(seconds, nanoseconds % SECOND).unwrap_or(time)
}

/// Returns true for the years 0001 to 9999 in UTC, whose times both databases can store and compare.
pub fn is_in_calendar(time: DateTime<Utc>) -> bool {
    (1..=9999).contains(&time.year())
}
