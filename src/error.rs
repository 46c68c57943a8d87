//! Errors of requests: their codes, their messages and the arguments at fault.
//!
//! A request fails with [`Error::Rejected`], which lists the reasons to reject it, or with [`Error::Failed`], whose
//! cause is never sent to a client. The enum [`ErrorCode`] defines each code together with its message and its
//! documentation. For example, `Violation::of(ErrorCode::InvalidEmail, InputField::Email).with_reason(Reason::Empty)`
//! has the message "The email address is not valid: it is empty." and the input path `["input", "data", "email"]`.

use std::time::Duration;

use async_graphql::Enum;
use async_graphql::resolver_utils::EnumType;
use entity::value::{AddressPart, CustomerId, Reason};

/// Machine-readable error code. New codes may be added, so keep a default case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Enum, thiserror::Error)]
pub enum ErrorCode {
    /// The external customer id is empty or null, has more than 255 characters, has a control character, or starts or
    /// ends with white space or an invisible character.
    #[error("The external customer id is not valid")]
    InvalidExternalCustomerId,
    /// The email address is null, does not have the form `local@domain.tld`, has an invisible character inside (other
    /// than a joiner in the domain), has a quotation mark (`"`) or a non-ASCII character before the `@`, or is too
    /// long: more than 64 bytes before the `@`, or more than 254 bytes in total.
    #[error("The email address is not valid")]
    InvalidEmail,
    /// The phone number cannot be parsed, or cannot exist, for example because of its country code or length.
    #[error("The phone number is not valid")]
    InvalidPhone,
    /// The name of a customer, an operator or an API key has no visible character, has more than 100 characters, or
    /// contains control characters, line separators or bidirectional controls (U+202A to U+202E, U+2066 to U+2069).
    /// Also reported if the new name of an operator is null.
    #[error("The name is not valid")]
    InvalidName,
    /// The country is unknown, or a required part of the address is missing or blank. Also reported if a part is too
    /// long, has only invisible characters such as Hangul fillers, or contains bidirectional controls (such as U+202E)
    /// or control characters other than line breaks.
    #[error("The address is not valid")]
    InvalidAddress,
    /// The URL of a webhook endpoint is null, is not an absolute URL with `https://` (in sandbox also `http://`), is
    /// longer than 2,000 characters after percent-encoding, contains a control character, a user name, a password or a
    /// fragment, or has as its host `localhost` or an IP address that webhooks may not reach.
    #[error("The URL is not valid")]
    InvalidUrl,
    /// An argument is invalid or missing, for example a page size or a cursor, and no other code fits.
    #[error("The argument is not valid")]
    InvalidArgument,

    /// The email address belongs to a provider of disposable addresses. Production reports this code as an error,
    /// sandbox as a warning.
    #[error("Disposable email addresses are not accepted. Please use a permanent email address.")]
    DisposableEmail,
    /// The email address has a `+` before the `@`. Production reports this code as an error, sandbox as a warning.
    #[error("Email addresses with a plus suffix are not supported. Please use an address without a +.")]
    PlusSuffixEmail,
    /// The phone number is not valid in its country, or cannot be a mobile number. Production reports this code as an
    /// error, sandbox as a warning.
    #[error("Sorry, this phone number cannot be used. Please use a valid mobile number.")]
    PhoneNotMobile,
    /// The carrier lookup, which decides whether a phone is a mobile line, returned no result, or could not begin
    /// because too many lookups were in progress. Nothing was changed. Retry the request. Occurs only in production.
    #[error("The phone number could not be checked, and nothing was changed. Please retry.")]
    PhoneLookupUnavailable,

    /// You already use this external customer id for a customer.
    #[error("You already have a customer with this external customer id. Use that customer, or send another id.")]
    ExternalCustomerIdTaken,
    /// The email address belongs to another customer. In `createCustomer`: to one of your own customers. In
    /// `updateCustomer`: to any customer of the platform. `customerId` names the customer if it is yours.
    #[error("Another customer has this email address. With the platform key, `customer` finds it by the email.")]
    EmailTaken,
    /// The phone number belongs to another customer. In `createCustomer`: to one of your own customers. In
    /// `updateCustomer`: to any customer of the platform. `customerId` names the customer if it is yours. In
    /// `recordVerification`: only with `takeOver`, if the other customer proved ownership of the phone after
    /// `verifiedAt`.
    #[error("Another customer has this phone number. With the platform key, `customer` finds it by the phone.")]
    PhoneTaken,
    /// Nothing was connected, because the email and the phone belong to two different customers, or because none of the
    /// values that matched is in `connectBy`. The message says what to do.
    #[error(
        "The email and the phone belong to two different customers, so nothing was connected. To connect the customer that \
         has the email, omit the phone (`connectBy` must list EMAIL), or contact the platform."
    )]
    IdentityConflict,
    /// The version of the customer differs from `expectedVersion`, usually because the customer was changed in the
    /// meantime. Read the customer again, then retry with its current version.
    #[error(
        "The version of the customer differs from `expectedVersion`. Read the customer again, then retry with its version."
    )]
    VersionConflict,
    /// You used this idempotency key for a different request within the last 24 hours.
    #[error(
        "This idempotency key was used for another mutation, or with other values. To retry that request, send it \
         unchanged. For a different request, use a new key."
    )]
    IdempotencyKeyReused,

    /// The customer does not exist, or is not connected to your operator. In `disconnectCustomer` with the platform
    /// key: the customer is not connected to the operator given by `operatorId`. Also reported if you repeat
    /// `createCustomer`, `updateCustomer` or `recordVerification` with its idempotency key after the customer was
    /// erased, or disconnected from your operator, even if the customer was connected again.
    #[error("There is no such customer, or the customer is not connected to the operator.")]
    CustomerNotFound,
    /// The operator does not exist.
    #[error("There is no such operator. Check its id.")]
    OperatorNotFound,
    /// The API key does not exist.
    #[error("There is no such API key. Check its id.")]
    ApiKeyNotFound,
    /// The webhook endpoint does not exist, or does not belong to your operator.
    #[error("There is no such webhook endpoint. Check its id.")]
    WebhookNotFound,
    /// The operator has the maximum number of webhook endpoints already. Delete an endpoint first.
    #[error("The operator has the maximum number of webhook endpoints. Delete one first.")]
    TooManyWebhooks,
    /// The request has no valid API key, or the operator of the key is suspended. HTTP status 401.
    #[error("This request needs a valid API key, in the header: Authorization: Bearer <key>")]
    Unauthenticated,
    /// The role of the API key does not allow this operation: for example, a mutation with a read-only key,
    /// `createCustomer` with the platform key, or, with an operator's key, a field that requires the platform key.
    #[error("This API key does not allow this operation.")]
    Forbidden,
    /// A limit was reached: cost, requests in flight, failed authentications, or disclosures (see
    /// `Operator.disclosuresPerHour`). The message names the limit. Wait `retryAfterMs` milliseconds, then retry. HTTP
    /// status 429 if the whole request was rejected.
    #[error("Too many requests. Wait before you retry.")]
    RateLimited,
    /// Changes after the given cursor or time were deleted, or the database was restored from a backup that is older
    /// than the cursor. Read `Viewer.changesCursor`, read all customers again, and continue from the new cursor.
    #[error(
        "Changes after this point are no longer stored. Read `viewer.changesCursor`, read all customers, and continue from that cursor."
    )]
    CursorExpired,
    /// The response would be larger than 4 MiB, or the data that it is built from would be larger than 8 MiB. Request
    /// smaller pages or fewer fields.
    #[error(
        "The response would be larger than 4 MiB, or its database rows larger than 8 MiB. Request smaller pages \
         (`first`), or fewer lists and fields."
    )]
    ResponseTooLarge,
    /// The request is malformed, violates the schema, or exceeds a limit.
    #[error("The request is not valid.")]
    BadRequest,
    /// The request contains the hash of a document instead of the document. The service stores no documents, so send
    /// the document as `query`. Apollo Client and urql automatically repeat the request with the document.
    #[error("PersistedQueryNotSupported")]
    PersistedQueryNotSupported,
    /// The service is temporarily unavailable, or did not finish in time. A mutation may have been applied, or may
    /// still be applied. Retry a query, or a mutation with the same `idempotencyKey`. If a mutation has no
    /// `idempotencyKey`, wait 20 seconds (with the platform key 6 minutes), and check if it was applied.
    #[error(
        "The service is temporarily unavailable, or did not finish in time. Retry the request. Retry a mutation only \
         with the same `idempotencyKey`, because it may have been applied."
    )]
    Unavailable,
    /// An unexpected error on our side. A mutation may have been applied: retry it once with the same `idempotencyKey`.
    /// If the error occurs again, report it with `requestId`.
    #[error(
        "An unexpected error occurred on our side. A mutation may have been applied: retry it once with the same \
         `idempotencyKey`. Please report the error with its request id."
    )]
    Internal,
}

impl ErrorCode {
    /// The name in the schema, for example `INVALID_EMAIL`.
    pub fn name(self) -> &'static str {
        Self::items().iter().find(|item| item.value == self).map_or("INTERNAL", |item| item.name)
    }

    /// True if the same request may succeed later.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Unavailable | Self::PhoneLookupUnavailable | Self::RateLimited)
    }
}

/// Declares [`InputField`] from a table with the path of each argument.
macro_rules! input_fields {
    ($($field:ident: $path:expr,)+) => {
        /// An argument that can be at fault. Its path is the `inputPath` of an error.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum InputField {
            $($field,)+
            Address(AddressPart),
        }

        impl InputField {
            /// Returns the names from the argument of the GraphQL field down to the value, for example
            /// `["input", "data", "email"]`.
            pub fn path(self) -> Vec<&'static str> {
                match self {
                    $(Self::$field => $path.to_vec(),)+
                    Self::Address(part) => vec!["input", "data", "address", part.name()],
                }
            }
        }
    };
}

input_fields! {
    // Arguments of `createCustomer`, `updateCustomer`, `validateCustomer` and `disconnectCustomer`, which also has
    // `OperatorId`.
    ExternalCustomerId: ["input", "externalCustomerId"],
    Customer: ["input", "customer"],
    CustomerExternalCustomerId: ["input", "customer", "externalCustomerId"],
    ExpectedVersion: ["input", "expectedVersion"],
    IdempotencyKey: ["input", "idempotencyKey"],
    Data: ["input", "data"],
    Email: ["input", "data", "email"],
    Phone: ["input", "data", "phone"],
    FirstName: ["input", "data", "firstName"],
    LastName: ["input", "data", "lastName"],

    // Arguments of `recordVerification` and `eraseCustomer`, which also have `Id` and `IdempotencyKey`.
    Value: ["input", "value"],
    VerifiedAt: ["input", "verifiedAt"],
    TakeOver: ["input", "takeOver"],
    Reference: ["input", "reference"],

    // Arguments of the mutations for operators and API keys.
    Id: ["input", "id"],
    Name: ["input", "name"],
    OperatorId: ["input", "operatorId"],
    Status: ["input", "status"],
    DisclosuresPerHour: ["input", "disclosuresPerHour"],
    ExpiresAt: ["input", "expiresAt"],

    // Arguments of the mutations for webhook endpoints, which also have `Id` and `OperatorId`.
    Url: ["input", "url"],
    Types: ["input", "types"],
    Enabled: ["input", "enabled"],
    DeliverFromCursor: ["input", "deliverFrom", "cursor"],
    DeliverFromTime: ["input", "deliverFrom", "time"],
    OverlapHours: ["input", "overlapHours"],

    // Arguments of queries.
    ByExternalCustomerId: ["by", "externalCustomerId"],
    ByEmail: ["by", "email"],
    ByPhone: ["by", "phone"],
    FilterSearch: ["filter", "search"],
    FilterEmail: ["filter", "email"],
    FilterPhone: ["filter", "phone"],
    FilterExternalCustomerId: ["filter", "externalCustomerId"],
    FilterCreatedAtFrom: ["filter", "createdAt", "from"],
    FilterCreatedAtBefore: ["filter", "createdAt", "before"],
    FilterConnectedAt: ["filter", "connectedAt"],
    FilterConnectedAtFrom: ["filter", "connectedAt", "from"],
    FilterConnectedAtBefore: ["filter", "connectedAt", "before"],
    FilterOperatorId: ["filter", "operatorId"],
    FilterApiKeyId: ["filter", "apiKeyId"],
    OrderBy: ["orderBy"],
    First: ["first"],
    Last: ["last"],
    After: ["after"],
    Before: ["before"],
}

/// One reason to reject a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub code: ErrorCode,
    /// The message for the caller. It contains no personal data.
    pub message: String,
    /// The argument at fault. `None` if no single argument is at fault.
    pub field: Option<InputField>,
    /// Time to wait before a retry. `None` if it is not known.
    pub retry_after: Option<Duration>,
    /// The caller's own customer that already has the value.
    pub own_customer: Option<CustomerId>,
}

impl Violation {
    /// A violation that no single argument causes.
    pub fn new(code: ErrorCode) -> Self {
        Self { code, message: code.to_string(), field: None, retry_after: None, own_customer: None }
    }

    /// A violation by one argument.
    pub fn of(code: ErrorCode, field: InputField) -> Self {
        Self { field: Some(field), ..Self::new(code) }
    }

    /// A violation by one argument, with the code [`ErrorCode::InvalidArgument`]. The note is the message, because the
    /// message of this code gives no details.
    pub fn argument(field: InputField, note: &'static str) -> Self {
        Self::of(ErrorCode::InvalidArgument, field).with_message(note)
    }

    /// Replaces the message. The new message must not contain personal data.
    pub fn with_message(self, message: impl Into<String>) -> Self {
        Self { message: message.into(), ..self }
    }

    /// Adds the reason why the value could not be parsed, for example ": it is empty." The message of
    /// [`ErrorCode::InvalidArgument`] does not say which value is meant, so the reason then names the argument.
    pub fn with_reason(self, reason: Reason) -> Self {
        let subject = match self.field {
            Some(InputField::Address(part)) => part.name().to_owned(),
            Some(field) if self.code == ErrorCode::InvalidArgument => format!("`{}`", field.path().join(".")),
            _ => "it".to_owned(),
        };
        Self { message: format!("{}: {subject} {reason}.", self.message), ..self }
    }

    /// Adds a sentence to the message.
    pub fn with_note(self, note: &'static str) -> Self {
        Self { message: format!("{} {note}", self.message), ..self }
    }

    pub fn with_retry_after(self, retry_after: Option<Duration>) -> Self {
        Self { retry_after, ..self }
    }

    /// The time to wait before a retry in milliseconds, rounded up: a client that waits for this time does not retry
    /// too early.
    pub fn retry_after_ms(&self) -> Option<u32> {
        self.retry_after.map(|wait| u32::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX))
    }
}

/// The failure of a request. This type has no `Display`, so that `?` cannot pass the message of a database error to a
/// client.
#[derive(Clone, Debug)]
pub enum Error {
    /// The request was rejected: one violation for each reason.
    Rejected(Vec<Violation>),
    /// The service is at fault. `cause` is for the log and contains no personal data. `is_logged` is true if the log
    /// already has a line about the failure.
    Failed { code: ErrorCode, cause: String, is_logged: bool },
}

impl Error {
    /// Rejects the request if there are violations.
    pub fn reject_if_any(violations: Vec<Violation>) -> Result<(), Self> {
        if violations.is_empty() { Ok(()) } else { Err(Self::Rejected(violations)) }
    }

    /// A defect of the service, or rows that were changed outside the service.
    pub fn internal(cause: &str) -> Self {
        Self::Failed { code: ErrorCode::Internal, cause: cause.to_owned(), is_logged: false }
    }

    /// Describes the error for the log and for the people who run the service: the cause of a failure, or the messages
    /// of the violations, one per line.
    pub fn describe(&self) -> String {
        match self {
            Self::Rejected(violations) => {
                violations.iter().map(|violation| violation.message.as_str()).collect::<Vec<_>>().join("\n")
            }
            Self::Failed { cause, .. } => cause.clone(),
        }
    }

    /// True if the request was rejected for this code.
    pub fn has(&self, code: ErrorCode) -> bool {
        matches!(self, Self::Rejected(violations) if violations.iter().any(|violation| violation.code == code))
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
