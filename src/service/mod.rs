//! The business rules: permissions, validation, and the reads and writes of the data. This folder does not depend on
//! the HTTP server. Only the code that delivers webhooks and the code that calls Twilio use HTTP. This folder uses only
//! the derive macro `Enum` of async-graphql: some enums of this folder are types of the schema, and the doc comments of
//! these enums are the descriptions in the schema.
//!
//! Each method that reads or writes data for a caller has the [`Caller`] as its first parameter, so that nobody forgets
//! to check the caller's rights. [`Services`] holds the services that GraphQL and the command line call. The other
//! modules serve these services.

pub mod api_keys;
pub mod audit;
pub mod authentication;
mod caller;
pub mod cost;
pub mod customers;
pub mod deployment;
pub mod disposable_domains;
mod expired_rows;
pub mod feed;
pub mod feed_positions;
pub mod idempotency;
pub mod job_errors;
mod key_format;
pub mod limits;
pub mod operators;
pub mod phone_lookup;
pub mod restrictions;
mod time;
pub mod webhooks;

pub use api_keys::ApiKeys;
pub use audit::AuditLog;
pub use authentication::Authenticator;
pub use caller::{Caller, Origin, RequestInfo};
pub use customers::Customers;
pub use feed::Feed;
pub use limits::RateLimits;
pub use operators::Operators;
pub use time::{check_year, every, now, without_leap_second};
pub use webhooks::Webhooks;

use std::sync::Arc;

use entity::deployment::Environment;
use secrecy::SecretString;

use crate::config::RateLimitSettings;
use crate::database::Database;
use crate::keyed_hash::KeyedHasher;
use disposable_domains::DisposableDomains;
use phone_lookup::{CarrierSettings, PhoneLookup};
use restrictions::Restrictions;
use webhooks::addresses::AddressFilter;

/// All services of one process, on one database.
pub struct Services {
    pub environment: Environment,
    /// Hashes with the secret that the database uses.
    pub hasher: KeyedHasher,
    pub customers: Customers,
    pub feed: Feed,
    pub operators: Operators,
    pub authenticator: Authenticator,
    pub api_keys: ApiKeys,
    pub audit_log: AuditLog,
    pub webhooks: Webhooks,
    pub limits: RateLimits,
}

/// The settings of [`Services`].
pub struct ServiceSettings {
    pub environment: Environment,
    /// Hashes API keys, idempotency keys and phone numbers, derives the secrets of webhook endpoints, and signs
    /// cursors.
    pub hasher: KeyedHasher,
    /// The key of [`Caller::Platform`]. `None` disables platform access through the API.
    pub platform_key: Option<SecretString>,
    pub disposable_domains: DisposableDomains,
    /// The lookup of line types in production. If `None`, the numbering plans decide.
    pub carrier: Option<CarrierSettings>,
    pub limits: RateLimitSettings,
    pub webhook_addresses: AddressFilter,
}

impl ServiceSettings {
    /// Settings without a platform key, a carrier and limits.
    pub fn new(environment: Environment, hasher: KeyedHasher) -> Self {
        let disposable_domains = DisposableDomains::new(Vec::new(), Vec::new());
        Self {
            environment,
            hasher,
            platform_key: None,
            disposable_domains,
            carrier: None,
            limits: RateLimitSettings::OFF,
            webhook_addresses: AddressFilter::default(),
        }
    }
}

impl Services {
    pub fn new(database: &Database, settings: ServiceSettings) -> Arc<Self> {
        let ServiceSettings {
            environment,
            hasher,
            platform_key,
            disposable_domains,
            carrier,
            limits,
            webhook_addresses,
        } = settings;
        let limits = RateLimits::new(limits);
        let carrier = carrier.filter(|_| environment == Environment::Production);
        let phone_lookup = carrier.map(|carrier| PhoneLookup::new(carrier, database.clone(), hasher.clone()));
        let restrictions = Restrictions::new(environment, disposable_domains, phone_lookup);
        let authenticator = Authenticator::new(database.clone(), environment, hasher.clone(), platform_key.as_ref());
        let api_keys = ApiKeys::new(database.clone(), environment, authenticator.clone());
        let feed = Feed::new(database.clone());
        Arc::new(Self {
            environment,
            webhooks: Webhooks::new(database.clone(), environment, hasher.clone(), webhook_addresses, feed.clone()),
            customers: Customers::new(database.clone(), restrictions, hasher.clone(), limits.clone()),
            feed,
            operators: Operators::new(database.clone(), api_keys.clone(), authenticator.clone()),
            authenticator,
            api_keys,
            audit_log: AuditLog::new(database.clone()),
            limits,
            hasher,
        })
    }
}
