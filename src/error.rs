//! Every way in which a request can fail, and the words for it.

use std::time::Duration;

use async_graphql::Enum;
use async_graphql::resolver_utils::EnumType;
use entity::value::{AddressPart, Reason};
use serde::{Deserialize, Serialize};

/// What went wrong, for a program to act on. Values may be added: keep a default branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Enum, Serialize, Deserialize, thiserror::Error)]
pub enum ErrorCode {
    /// The external customer id is empty, longer than 255 characters, has a blank at either end or a control character.
    #[error("The external customer id is not valid")]
    InvalidExternalCustomerId,
    /// The email address does not have the form `local@domain.tld`, or is longer than 254 bytes.
    #[error("The email address is not valid")]
    InvalidEmail,
    /// The phone number cannot be read, or no such number is possible.
    #[error("The phone number is not valid")]
    InvalidPhone,
    /// The name is blank, longer than 100 characters or has a control character.
    #[error("The name is not valid")]
    InvalidName,
    /// A part of the address is missing, too long or has a control character, or the country is unknown.
    #[error("The address is not valid")]
    InvalidAddress,
    /// An argument that is not a customer's value: a page size, a cursor, or a reference that this caller cannot use.
    #[error("The argument is not valid.")]
    InvalidArgument,

    /// Production only, a warning in sandbox: the email address is at a provider of disposable addresses.
    #[error("Disposable email addresses are not accepted. Please use a permanent email address.")]
    DisposableEmail,
    /// Production only, a warning in sandbox: the email address has a `+` before the `@`.
    #[error("Email addresses with a plus suffix are not supported. Please use an address without a +.")]
    PlusSuffixEmail,
    /// Production only, a warning in sandbox: the phone number is not a valid number of a mobile line.
    #[error("Sorry, this phone number cannot be used. Please use a valid mobile number.")]
    PhoneNotMobile,
    /// Production only: the carrier that knows whether the phone number is a mobile line did not answer. Nothing was
    /// written; send the request again.
    #[error("The phone number cannot be verified at the moment. Please send the request again.")]
    PhoneLookupUnavailable,

    /// You already use this external customer id for a customer.
    #[error("You already have a customer with this external customer id.")]
    ExternalCustomerIdTaken,
    /// A customer with this email address exists: on create one of your own, on update any other.
    #[error("A customer with this email address already exists.")]
    EmailTaken,
    /// A customer with this phone number exists: on create one of your own, on update any other.
    #[error("A customer with this phone number already exists.")]
    PhoneTaken,
    /// The email address and the phone number belong to two different customers, so neither can be connected.
    #[error("The email address and the phone number belong to different customers.")]
    IdentityConflict,
    /// The customer has changed since the version that you expected. Read it again, then decide.
    #[error("The customer has changed since the version that you expected. Read it again before you update it.")]
    VersionConflict,
    /// You used this idempotency key for another request within the last 24 hours.
    #[error("This idempotency key was used for another request. Use a new key for each thing that you want done.")]
    IdempotencyKeyReused,

    /// You have no such customer.
    #[error("You have no such customer.")]
    CustomerNotFound,
    /// There is no such operator.
    #[error("There is no such operator.")]
    OperatorNotFound,
    /// There is no such API key.
    #[error("There is no such API key.")]
    ApiKeyNotFound,
    /// The request has no API key, or one that is not valid (any more). HTTP status 401.
    #[error("This request needs a valid API key, in the header: Authorization: Bearer <key>")]
    Unauthenticated,
    /// The API key is valid, but may not do this.
    #[error("This API key may not do this.")]
    Forbidden,
    /// You ask too much in too short a time: wait for `retryAfterMs`, then send the request again. HTTP status 429 if it
    /// is the whole request that is refused.
    #[error("Too many requests. Please wait before you send this one again.")]
    RateLimited,
    /// The request is not one that this schema can answer: its syntax, its shape or its size is wrong.
    #[error("The request is not valid.")]
    BadRequest,
    /// The service cannot answer at the moment. The request can be sent again.
    #[error("The service is not available at the moment. Please send the request again.")]
    Unavailable,
    /// A fault of the service. Report it with the request id.
    #[error("Something went wrong on our side. Please report it with the request id.")]
    Internal,
}

impl ErrorCode {
    /// The code as it is written in the schema and in answers, such as `INVALID_EMAIL`.
    pub fn name(self) -> &'static str {
        Self::items().iter().find(|item| item.value == self).map_or("INTERNAL", |item| item.name)
    }

    /// Whether the same request may succeed when it is sent again.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Unavailable | Self::PhoneLookupUnavailable | Self::RateLimited)
    }
}

/// An argument that a fault can be reported for. Its path is `inputPath` in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InputField {
    // Of `createCustomer`, `updateCustomer` and `validateCustomer`.
    ExternalCustomerId,
    Customer,
    CustomerExternalCustomerId,
    ExpectedVersion,
    IdempotencyKey,
    Email,
    Phone,
    FirstName,
    LastName,
    Address(AddressPart),

    // Of the mutations that manage operators and keys.
    Id,
    Name,
    OperatorId,
    ExpiresAt,

    // Of queries.
    ByExternalCustomerId,
    ByEmail,
    ByPhone,
    FilterSearch,
    FilterEmail,
    FilterPhone,
    FilterExternalCustomerId,
    FilterConnectedAt,
    OrderBy,
    First,
    Last,
    After,
    Before,
}

impl InputField {
    /// Names from the argument of the GraphQL field down to the value, for example `["input", "data", "email"]`.
    pub fn path(self) -> &'static [&'static str] {
        match self {
            Self::ExternalCustomerId => &["input", "externalCustomerId"],
            Self::Customer => &["input", "customer"],
            Self::CustomerExternalCustomerId => &["input", "customer", "externalCustomerId"],
            Self::ExpectedVersion => &["input", "expectedVersion"],
            Self::IdempotencyKey => &["input", "idempotencyKey"],
            Self::Email => &["input", "data", "email"],
            Self::Phone => &["input", "data", "phone"],
            Self::FirstName => &["input", "data", "firstName"],
            Self::LastName => &["input", "data", "lastName"],
            Self::Address(part) => match part {
                AddressPart::Line1 => &["input", "data", "address", "line1"],
                AddressPart::Line2 => &["input", "data", "address", "line2"],
                AddressPart::City => &["input", "data", "address", "city"],
                AddressPart::Region => &["input", "data", "address", "region"],
                AddressPart::PostalCode => &["input", "data", "address", "postalCode"],
                AddressPart::Country => &["input", "data", "address", "country"],
            },
            Self::Id => &["input", "id"],
            Self::Name => &["input", "name"],
            Self::OperatorId => &["input", "operatorId"],
            Self::ExpiresAt => &["input", "expiresAt"],
            Self::ByExternalCustomerId => &["by", "externalCustomerId"],
            Self::ByEmail => &["by", "email"],
            Self::ByPhone => &["by", "phone"],
            Self::FilterSearch => &["filter", "search"],
            Self::FilterEmail => &["filter", "email"],
            Self::FilterPhone => &["filter", "phone"],
            Self::FilterExternalCustomerId => &["filter", "externalCustomerId"],
            Self::FilterConnectedAt => &["filter", "connectedAt"],
            Self::OrderBy => &["orderBy"],
            Self::First => &["first"],
            Self::Last => &["last"],
            Self::After => &["after"],
            Self::Before => &["before"],
        }
    }
}

/// One fault of a request, with a message that the caller may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub code: ErrorCode,
    /// The argument at fault. `None` if no single argument is at fault.
    pub field: Option<InputField>,
    pub detail: Option<Detail>,
    /// Time to wait before the request is sent again. `None` if it is not known.
    pub retry_after: Option<Duration>,
}

/// An addition to the message of an error code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detail {
    Reason(Reason),
    Note(&'static str),
}

impl Violation {
    /// A fault that no single argument causes.
    pub fn new(code: ErrorCode) -> Self {
        Self { code, field: None, detail: None, retry_after: None }
    }

    /// A fault of one argument.
    pub fn of(code: ErrorCode, field: InputField) -> Self {
        Self { field: Some(field), ..Self::new(code) }
    }

    pub fn with_reason(self, reason: Reason) -> Self {
        Self { detail: Some(Detail::Reason(reason)), ..self }
    }

    pub fn with_note(self, note: &'static str) -> Self {
        Self { detail: Some(Detail::Note(note)), ..self }
    }

    pub fn with_retry_after(self, retry_after: Option<Duration>) -> Self {
        Self { retry_after, ..self }
    }

    /// The names of [`InputField::path`]; empty if no single argument is at fault.
    pub fn input_path(&self) -> &'static [&'static str] {
        self.field.map_or(&[], InputField::path)
    }

    /// The message of the code, with the detail. Holds no value of a person.
    pub fn message(&self) -> String {
        match &self.detail {
            None => self.code.to_string(),
            Some(Detail::Reason(reason)) => {
                let subject = match self.field {
                    Some(InputField::Address(part)) => part.name(),
                    _ => "it",
                };
                let code = self.code.to_string();
                format!("{}: {subject} {reason}.", code.trim_end_matches('.'))
            }
            Some(Detail::Note(note)) => format!("{} {note}", self.code),
        }
    }
}

/// Why a request failed. It has no `Display`, so that no `?` can hand a database's words to a client.
#[derive(Clone, Debug)]
pub enum Error {
    /// The caller's fault: one entry for each.
    Rejected(Vec<Violation>),
    /// Ours: the cause is for the log alone, and says nothing of a person.
    Failed { code: ErrorCode, cause: String },
}

impl Error {
    /// Whether this is among the caller's faults.
    pub fn has(&self, code: ErrorCode) -> bool {
        match self {
            Self::Rejected(violations) => violations.iter().any(|violation| violation.code == code),
            Self::Failed { .. } => false,
        }
    }
}

impl From<Violation> for Error {
    fn from(violation: Violation) -> Self {
        Self::Rejected(vec![violation])
    }
}

impl From<ErrorCode> for Error {
    fn from(code: ErrorCode) -> Self {
        Violation::new(code).into()
    }
}
