//! The rules of the service, over the entities. Every method's first parameter is who calls.

pub mod api_keys;
pub mod customers;
pub mod deployment;
pub mod operators;
pub mod page;
pub mod restrictions;

pub use api_keys::ApiKeys;
pub use customers::Customers;
pub use operators::Operators;

use chrono::{DateTime, SubsecRound, Utc};
use entity::api_key::Access;
use entity::deployment::Environment;
use entity::value::{ApiKeyId, OperatorId};

use secrecy::SecretString;

use crate::database::Database;
use crate::error::{Error, ErrorCode};
use crate::keyed_hash::KeyedHash;
use restrictions::Restrictions;

/// Everything that a caller can ask for.
#[derive(Clone)]
pub struct Services {
    pub environment: Environment,
    pub customers: Customers,
    pub operators: Operators,
    pub api_keys: ApiKeys,
}

impl Services {
    pub fn new(
        database: &Database,
        environment: Environment,
        hash: KeyedHash,
        platform_key: Option<&SecretString>,
    ) -> Self {
        Self {
            environment,
            customers: Customers::new(database.clone(), Restrictions::new(environment)),
            operators: Operators::new(database.clone()),
            api_keys: ApiKeys::new(database.clone(), environment, hash, platform_key),
        }
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

    /// The operator in whose name the caller may write.
    pub fn writing_operator(&self) -> Result<OperatorId, Error> {
        match *self {
            Self::Operator { id, access: Access::ReadWrite, .. } => Ok(id),
            Self::Operator { access: Access::ReadOnly, .. } | Self::Platform => Err(ErrorCode::Forbidden.into()),
        }
    }

    /// That the caller is the platform.
    pub fn as_platform(&self) -> Result<(), Error> {
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

/// The present, as exact as both databases keep it.
fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(6)
}
