//! The response to a request: the result of its execution, or the reason why it was not executed.

use async_graphql::Value;
use async_graphql_axum::GraphQLResponse;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use entity::value::RequestId;
use serde_json::json;

use super::MediaType;
use crate::error::{ErrorCode, Violation};
use crate::graphql::ErrorExtensions;

/// A request that was refused before it was executed.
pub struct HttpError {
    pub status: StatusCode,
    pub violation: Violation,
    pub message: String,
    /// A header of this response alone, such as `Retry-After`.
    pub header: Option<(HeaderName, HeaderValue)>,
}

impl HttpError {
    /// A request that is not well formed: `BAD_REQUEST` with a message of its own.
    pub fn new(status: StatusCode, message: &str) -> Self {
        let violation = Violation::new(ErrorCode::BadRequest);
        Self { status, violation, message: message.to_owned(), header: None }
    }

    /// An error with the message of its code.
    pub fn from_code(status: StatusCode, code: ErrorCode) -> Self {
        Self { status, violation: Violation::new(code), message: code.to_string(), header: None }
    }

    /// 405, with the methods that are allowed.
    pub fn method_not_allowed(allowed: &'static str, message: &str) -> Self {
        Self {
            header: Some((header::ALLOW, HeaderValue::from_static(allowed))),
            ..Self::new(StatusCode::METHOD_NOT_ALLOWED, message)
        }
    }

    /// 429, with the seconds to wait.
    pub fn too_many_requests(violation: Violation) -> Self {
        let seconds = violation.retry_after.unwrap_or_default().as_secs() + 1;
        let (status, message) = (StatusCode::TOO_MANY_REQUESTS, violation.message.clone());
        Self { status, violation, message, header: Some((header::RETRY_AFTER, seconds.into())) }
    }

    pub fn into_response(self, request_id: RequestId) -> Response {
        let Self { status, violation, message, header } = self;
        let extensions = ErrorExtensions::new(&violation, request_id);
        let body = json!({ "errors": [{ "message": message, "extensions": extensions }] });
        let mut response = (status, body.to_string()).into_response();
        if let Some((name, value)) = header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// The result of an execution. A request that could not be executed at all has errors without a path; its response has no
/// `data`, and the status 400 if the media type allows it.
pub fn from_graphql(response: async_graphql::Response, media_type: MediaType) -> Response {
    let is_request_error = response.errors.iter().any(|error| error.path.is_empty());
    if !is_request_error || response.data != Value::Null {
        return GraphQLResponse::from(response).into_response();
    }
    let status = match media_type {
        MediaType::GraphqlResponse => StatusCode::BAD_REQUEST,
        MediaType::Json => StatusCode::OK,
    };
    (status, json!({ "errors": response.errors }).to_string()).into_response()
}
