//! The rules of the service, over the entities. Every method's first parameter is who calls.

pub mod api_keys;
pub mod customers;
pub mod deployment;
pub mod disposable_domains;
pub mod history;
pub mod idempotency;
pub mod limits;
pub mod operators;
pub mod phone_lookup;
pub mod restrictions;

pub use api_keys::ApiKeys;
pub use customers::Customers;
pub use history::History;
pub use limits::{LimitSettings, Limits};
pub use operators::Operators;

use std::sync::Arc;

use chrono::{DateTime, SubsecRound, Utc};
use entity::api_key::Access;
use entity::deployment::Environment;
use entity::value::{ApiKeyId, OperatorId, RequestId};

use secrecy::SecretString;

use crate::database::Database;
use crate::error::{Error, ErrorCode};
use crate::keyed_hash::KeyedHash;
use disposable_domains::DisposableDomains;
use phone_lookup::{LineTypeLookup, NumberingPlan, PhoneLookup, UnknownLinePolicy};
use restrictions::Restrictions;

/// Everything that a caller can ask for.
pub struct Services {
    pub environment: Environment,
    pub customers: Customers,
    pub operators: Operators,
    pub history: History,
    pub api_keys: ApiKeys,
    pub limits: Limits,
}

/// What the services are made with.
pub struct ServiceSettings {
    pub environment: Environment,
    /// Under which keys are recognised.
    pub hash: KeyedHash,
    pub platform_key: Option<SecretString>,
    pub disposable_domains: DisposableDomains,
    /// Who says in production which phones are mobile; without a carrier the numbering plan does.
    pub carrier: Option<(Arc<dyn LineTypeLookup>, UnknownLinePolicy)>,
    pub limits: LimitSettings,
}

impl ServiceSettings {
    pub fn new(environment: Environment, hash: KeyedHash) -> Self {
        let disposable_domains = DisposableDomains::new(Vec::new(), Vec::new());
        Self { environment, hash, platform_key: None, disposable_domains, carrier: None, limits: LimitSettings::OFF }
    }
}

impl Services {
    pub fn new(database: &Database, setup: ServiceSettings) -> Arc<Self> {
        let ServiceSettings { environment, hash, platform_key, disposable_domains, carrier, limits } = setup;
        let limits = Limits::new(limits);
        let carrier = carrier.filter(|_| environment == Environment::Production);
        let restrictions = Restrictions {
            environment,
            disposable_domains: Arc::new(disposable_domains),
            lines: carrier
                .as_ref()
                .map_or_else(|| Arc::new(NumberingPlan) as Arc<dyn LineTypeLookup>, |(lines, _)| lines.clone()),
        };
        let phone_lookup = carrier
            .map(|(carrier, unknown_lines)| PhoneLookup::new(carrier, unknown_lines, database.clone(), hash.clone()));
        Arc::new(Self {
            environment,
            customers: Customers::new(database.clone(), restrictions, phone_lookup, hash.clone(), limits.clone()),
            operators: Operators::new(database.clone()),
            history: History::new(database.clone()),
            api_keys: ApiKeys::new(database.clone(), environment, hash, platform_key.as_ref()),
            limits,
        })
    }
}

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    Operator { id: OperatorId, key: ApiKeyId, access: Access },
    Platform,
}

impl Actor {
    /// The operator whose customers the caller sees; `None` for the platform, which sees all.
    pub fn operator(&self) -> Option<OperatorId> {
        match *self {
            Self::Operator { id, .. } => Some(id),
            Self::Platform => None,
        }
    }

    /// In whose name a request of this caller may write to customers.
    pub fn origin(&self, request: RequestId) -> Result<Origin, Error> {
        match *self {
            Self::Operator { id: operator, key, access: Access::ReadWrite } => Ok(Origin { operator, key, request }),
            Self::Operator { access: Access::ReadOnly, .. } | Self::Platform => Err(ErrorCode::Forbidden.into()),
        }
    }

    /// That the caller is the platform.
    pub fn require_platform(&self) -> Result<(), Error> {
        match self {
            Self::Platform => Ok(()),
            Self::Operator { .. } => Err(ErrorCode::Forbidden.into()),
        }
    }

    /// Whether the caller may see this operator: an operator sees itself alone.
    pub fn sees(&self, operator: OperatorId) -> bool {
        self.operator().is_none_or(|own| own == operator)
    }
}

/// Where a change to a customer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    pub operator: OperatorId,
    pub key: ApiKeyId,
    pub request: RequestId,
}

/// The present, as exact as both databases keep it.
fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(6)
}
