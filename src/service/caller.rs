//! The caller of a request, and the origin of a change.

use entity::api_key::Access;
use entity::value::{ActorName, ApiKeyId, OperatorId, RequestId};

use crate::error::{Error, ErrorCode, Violation};
use crate::request::Tenant;

/// The authenticated caller: an operator or the platform. The member of its staff is [`RequestInfo::actor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
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

impl Caller {
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
    pub fn authorize_write(&self, request: &RequestInfo) -> Result<Origin, Error> {
        self.require_write()?;
        Ok(Origin { caller: *self, request: request.clone() })
    }

    /// Checks that the caller is the platform, and returns the origin to record with the changes. Fails with
    /// `FORBIDDEN` for operators.
    pub fn authorize_platform_write(&self, request: &RequestInfo) -> Result<Origin, Error> {
        self.require_platform()?;
        self.authorize_write(request)
    }

    /// Fails with `FORBIDDEN` for operators with a read-only key.
    pub fn require_write(&self) -> Result<(), Error> {
        if self.is_read_only() { Err(forbidden("The key is read-only.")) } else { Ok(()) }
    }

    /// Returns true for an operator with a read-only key.
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

    /// Returns true if the caller may see this operator. An operator sees only itself.
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
    /// The staff member in the `Vivamo-Actor` header, on whose behalf the caller sends the request.
    pub actor: Option<ActorName>,
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
        Self { id, actor: None, os_user: None }
    }
}

/// The origin of a change, as the history of customers and the administrative audit log record it. Only
/// [`Caller::authorize_write`] makes an origin, so a function with an origin runs for a caller that may write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    caller: Caller,
    request: RequestInfo,
}

impl Origin {
    /// The caller that makes the change.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The request that makes the change.
    pub fn request(&self) -> &RequestInfo {
        &self.request
    }

    /// Returns the id under which the caller's idempotency keys are stored and the caller's writes are batched.
    pub fn owner(&self) -> OperatorId {
        self.caller.owner()
    }
}
