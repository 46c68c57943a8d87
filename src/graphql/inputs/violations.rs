//! Collects the violations of the arguments of a field, so that all violations are reported together.

use async_graphql::{ID, MaybeUndefined};
use chrono::{DateTime, Utc};
use entity::value::{EmailAddress, ExternalCustomerId, IdempotencyKey, OperatorId, PersonName, PhoneNumber, Reason};

use crate::error::{Error, ErrorCode, InputField, Violation};
use crate::graphql::time::Time;
use crate::service::{Caller, check_year};

/// The violations found in the arguments of a field. A method that parses a value adds a violation and returns `None`
/// if the value is invalid.
#[derive(Default)]
pub struct Violations(Vec<Violation>);

impl Violations {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn add(&mut self, violation: Violation) {
        self.0.push(violation);
    }

    /// Adds the violation of a check that failed.
    pub fn check(&mut self, checked: Result<(), Violation>) {
        self.0.extend(checked.err());
    }

    /// Adds a violation with the code `INVALID_ARGUMENT`.
    pub fn argument(&mut self, field: InputField, note: &'static str) {
        self.add(Violation::argument(field, note));
    }

    /// Adds a violation with the code `INVALID_ARGUMENT`, and returns `None`.
    pub fn reject<T>(&mut self, field: InputField, note: &'static str) -> Option<T> {
        self.argument(field, note);
        None
    }

    /// Adds a violation with the code `INVALID_ARGUMENT` if there is no value.
    pub fn require<T>(&mut self, value: Option<T>, field: InputField, note: &'static str) -> Option<T> {
        if value.is_none() {
            self.argument(field, note);
        }
        value
    }

    /// Returns the value, or fails with the violations if there are any.
    pub fn finish<T>(self, value: T) -> Result<T, Error> {
        Error::reject_if_any(self.0)?;
        Ok(value)
    }

    /// Returns the value, or fails with the violations if there are any. `value` must be `None` only if there are
    /// violations.
    pub fn finish_parsed<T>(self, value: Option<T>) -> Result<T, Error> {
        self.finish(value)?.ok_or_else(|| Error::internal("a value is missing, although no violation was found"))
    }

    pub fn into_violations(self) -> Vec<Violation> {
        self.0
    }

    pub fn value<T>(&mut self, code: ErrorCode, field: InputField, parsed: Result<T, Reason>) -> Option<T> {
        parsed.map_err(|reason| self.add(Violation::of(code, field).with_reason(reason))).ok()
    }

    /// Parses the new value of a field that cannot be null. Returns `None` if the field is omitted or invalid.
    pub fn not_null<T>(
        &mut self,
        code: ErrorCode,
        field: InputField,
        input: MaybeUndefined<String>,
        parse: impl FnOnce(&str) -> Result<T, Reason>,
    ) -> Option<T> {
        match input {
            MaybeUndefined::Undefined => None,
            MaybeUndefined::Null => self.value(code, field, Err(Reason::NotRemovable)),
            MaybeUndefined::Value(text) => self.value(code, field, parse(&text)),
        }
    }

    pub fn email(&mut self, field: InputField, text: &str) -> Option<EmailAddress> {
        self.value(ErrorCode::InvalidEmail, field, EmailAddress::parse(text))
    }

    pub fn phone(&mut self, field: InputField, text: &str) -> Option<PhoneNumber> {
        self.value(ErrorCode::InvalidPhone, field, PhoneNumber::parse(text))
    }

    pub fn name(&mut self, field: InputField, text: &str) -> Option<PersonName> {
        self.value(ErrorCode::InvalidName, field, PersonName::parse(text))
    }

    pub fn external_customer_id(&mut self, field: InputField, text: &str) -> Option<ExternalCustomerId> {
        self.value(ErrorCode::InvalidExternalCustomerId, field, ExternalCustomerId::parse(text))
    }

    /// Parses an `operatorId` that is required with the platform key and not available with other keys. The notes are
    /// for the two violations. Returns an unknown id for a malformed id.
    pub fn operator_id(
        &mut self,
        caller: &Caller,
        id: Option<ID>,
        not_available: &'static str,
        required: &'static str,
    ) -> Option<OperatorId> {
        let note = match (caller.operator(), &id) {
            (Some(_), Some(_)) => Some(not_available),
            (None, None) => Some(required),
            (Some(_), None) | (None, Some(_)) => None,
        };
        if let Some(note) = note {
            self.argument(InputField::OperatorId, note);
        }
        id.map(|id| OperatorId::parse_or_unknown(&id))
    }

    pub fn idempotency_key(&mut self, text: &str) -> Option<IdempotencyKey> {
        self.value(ErrorCode::InvalidArgument, InputField::IdempotencyKey, IdempotencyKey::parse(text))
    }

    pub fn time(&mut self, field: InputField, time: Option<Time>) -> Option<DateTime<Utc>> {
        let Time(time) = time?;
        check_year(time, field).map_err(|violation| self.add(violation)).ok()
    }
}

/// Parses a field that can be cleared. Returns `None` for an omitted field and for an invalid value, and `Some(None)`
/// for null.
pub fn optional<I, T>(input: MaybeUndefined<I>, parse: impl FnOnce(I) -> Option<T>) -> Option<Option<T>> {
    match input {
        MaybeUndefined::Undefined => None,
        MaybeUndefined::Null => Some(None),
        MaybeUndefined::Value(input) => parse(input).map(Some),
    }
}
