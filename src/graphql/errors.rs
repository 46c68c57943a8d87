//! Turns errors into entries of `errors` in the response. The `extensions` of all entries have the same shape. Internal
//! causes are written only to the log.

use std::sync::Arc;

use async_graphql::{ErrorExtensionValues, ID, Response, ServerError, SimpleObject, Value, from_value, to_value};
use entity::value::RequestId;
use serde::Serialize;

use crate::error::{Error, ErrorCode, Violation};
use crate::request;

/// The maximum number of failed fields that a response reports. If more fields of a query fail, the response has no
/// data: a client could otherwise not tell a field that failed from a field whose value is null.
const MAX_FAILED_FIELDS: usize = 50;

/// Messages of async-graphql are cut to this number of characters.
const MAX_MESSAGE_LENGTH: usize = 300;

/// The `extensions` of every entry in `errors`.
#[derive(Clone, Debug, Serialize, SimpleObject)]
#[serde(rename_all = "camelCase")]
pub struct ErrorExtensions {
    /// Error code.
    #[serde(serialize_with = "serialize_code")]
    pub code: ErrorCode,
    /// Path of the invalid value in the arguments of the field, for example `["input", "data", "email"]`. If several
    /// arguments contradict each other, the path usually names one of them. Absent if no argument is at fault. Also
    /// absent if a value has the wrong type: the message then names the field or variable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_path: Option<Vec<String>>,
    /// True if the same request may succeed later: with the codes `UNAVAILABLE`, `PHONE_LOOKUP_UNAVAILABLE` and
    /// `RATE_LIMITED`. Two errors can be retried although the value is false: HTTP status 408, and `INTERNAL`, once (a
    /// mutation only with the same `idempotencyKey`). For a mutation without an `idempotencyKey`, see `UNAVAILABLE`.
    pub retryable: bool,
    /// Time to wait before a retry, in milliseconds. Absent if unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<i32>,
    /// Id of your own customer that already has the value, with the codes `EXTERNAL_CUSTOMER_ID_TAKEN`, `EMAIL_TAKEN`
    /// and `PHONE_TAKEN`. Absent if the customer is not yours, and with all other codes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customer_id: Option<ID>,
    /// Id of the request, for example `req_01h455vb4pex5vsknk084sn02q`. Include the id when you report a problem.
    pub request_id: String,
}

fn serialize_code<S: serde::Serializer>(code: &ErrorCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(code.name())
}

impl ErrorExtensions {
    pub fn new(violation: &Violation, request_id: RequestId) -> Self {
        Self {
            code: violation.code,
            input_path: violation.field.map(|field| field.path().into_iter().map(ToOwned::to_owned).collect()),
            retryable: violation.code.is_retryable(),
            retry_after_ms: violation.retry_after_ms().map(|wait| i32::try_from(wait).unwrap_or(i32::MAX)),
            customer_id: violation.own_customer.map(|id| id.to_string().into()),
            request_id: request_id.to_string(),
        }
    }
}

/// The approximate memory of the error of a field until it is rendered.
const ERROR_BYTES: usize = 1024;

/// Wraps an error as the source of async-graphql's error, where [`render_errors`] finds it. Counts the memory of the
/// error: a response with many errors waits for memory like any large response.
impl From<Error> for async_graphql::Error {
    fn from(error: Error) -> Self {
        if let Some(response) = request::response() {
            // If the response is too large, its lists fail.
            let _ = response.add(ERROR_BYTES);
        }
        Self { source: Some(Arc::new(error)), ..Self::new("") }
    }
}

/// A response with errors that are ready for the client, and the codes of these errors for the log.
pub struct RenderedResponse {
    pub response: Response,
    pub codes: Vec<ErrorCode>,
}

/// Renders the errors of a response: one entry per violation. Causes of internal errors are logged and not shown. If
/// more than [`MAX_FAILED_FIELDS`] fields failed, removes the data, but not that of a mutation: it may have the secret
/// of a new key.
pub fn render_errors(mut response: Response, is_mutation: bool, request_id: RequestId) -> RenderedResponse {
    let mut codes = Vec::new();
    let mut errors = std::mem::take(&mut response.errors);
    if errors.len() > MAX_FAILED_FIELDS {
        if is_mutation {
            // The errors of the mutations themselves come first, so that none of them is left out.
            errors.sort_by_key(|error| error.path.len());
        } else {
            response.data = Value::Null;
        }
    }
    for error in errors.into_iter().take(MAX_FAILED_FIELDS) {
        for violation in violations(&error, request_id) {
            codes.push(violation.code);
            let extensions = extensions(&ErrorExtensions::new(&violation, request_id));
            response.errors.push(ServerError { message: violation.message, extensions, source: None, ..error.clone() });
        }
    }
    RenderedResponse { response, codes }
}

fn violations(error: &ServerError, request_id: RequestId) -> Vec<Violation> {
    match error.source.as_ref().map(|source| source.downcast_ref::<Error>()) {
        // Errors of the document: syntax, limits, validation, values of the wrong type.
        None => vec![Violation::new(ErrorCode::BadRequest).with_message(shorten(&error.message))],
        Some(Some(Error::Rejected(violations))) => violations.clone(),
        Some(Some(Error::Failed { code, cause, is_logged })) => {
            if *is_logged {
                tracing::debug!(%request_id, code = code.name(), cause, "request failed");
            } else {
                tracing::error!(%request_id, code = code.name(), cause, "request failed");
            }
            vec![Violation::new(*code)]
        }
        Some(None) => {
            tracing::error!(%request_id, "request failed with an unexpected type of error");
            vec![Violation::new(ErrorCode::Internal)]
        }
    }
}

/// Shortens a message of async-graphql, and removes the value that it may quote.
fn shorten(message: &str) -> String {
    let message = message.split(", found ").next().unwrap_or_default();
    let value = [" does not contain the value ", " does not contain value "];
    let message = match value.iter().find_map(|words| message.split_once(words)) {
        Some((enumeration, _value)) => format!("{enumeration} does not contain the given value"),
        None => message.to_owned(),
    };
    match message.char_indices().nth(MAX_MESSAGE_LENGTH) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message,
    }
}

fn extensions(extensions: &ErrorExtensions) -> Option<ErrorExtensionValues> {
    from_value(to_value(extensions).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use async_graphql::PathSegment;

    use super::*;
    use crate::request::{OwnerMemory, ProcessMemory, RequestContext, ResponseSize};

    #[tokio::test]
    async fn the_errors_of_fields_count_as_memory() {
        let size = Arc::new(ResponseSize::new(ProcessMemory::default(), OwnerMemory::default()));
        let context = RequestContext { response: Some(size.clone()), ..RequestContext::default() };
        context.scope(async { drop(async_graphql::Error::from(Error::internal("a test"))) }).await;
        assert_eq!(size.bytes(), ERROR_BYTES);
    }

    #[test]
    fn a_query_with_too_many_failed_fields_has_no_data() {
        for (is_mutation, failed, has_data) in [
            (false, MAX_FAILED_FIELDS, true),
            (false, MAX_FAILED_FIELDS + 1, false),
            (true, MAX_FAILED_FIELDS + 1, true),
        ] {
            let error =
                |length| ServerError { path: vec![PathSegment::Index(0); length], ..ServerError::new("", None) };
            let mut response = Response::new(Value::Boolean(true));
            response.errors = vec![error(3); failed - 1];
            response.errors.push(error(1));
            let RenderedResponse { response, codes } = render_errors(response, is_mutation, RequestId::new());
            assert_eq!(response.data != Value::Null, has_data, "{is_mutation} {failed}");
            assert_eq!((response.errors.len(), codes.len()), (MAX_FAILED_FIELDS, MAX_FAILED_FIELDS));
            // The error of a mutation itself is never left out.
            assert!(!is_mutation || response.errors.iter().any(|error| error.path.len() == 1));
        }
    }
}
