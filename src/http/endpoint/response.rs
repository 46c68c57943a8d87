//! The response to a request: the result of its execution, or the reason why there is no result.

use async_graphql::Value;
use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use entity::value::RequestId;
use serde::Serialize;
use tokio::task::block_in_place;

use super::MediaType;
use crate::error::{ErrorCode, Violation};
use crate::graphql::{self, ErrorExtensions};
use crate::request::{ResponseSize, UnreadResponse};

/// The error of a request that was rejected before it was executed, or whose execution timed out or panicked.
pub struct HttpError {
    status: StatusCode,
    pub violation: Violation,
    /// An additional header of the response, such as `Retry-After`.
    header: Option<(HeaderName, HeaderValue)>,
}

/// Makes the error of a request that is rejected for a violation. The code of the violation decides the status.
impl From<Violation> for HttpError {
    fn from(violation: Violation) -> Self {
        let scheme = HeaderValue::from_static("Bearer realm=\"vivamo\"");
        let retry_after = violation.retry_after_ms().map(|wait| (header::RETRY_AFTER, wait.div_ceil(1000).into()));
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "of the other codes, only INTERNAL occurs here; the rest are codes of field errors"
        )]
        let (status, header) = match violation.code {
            ErrorCode::Unauthenticated => (StatusCode::UNAUTHORIZED, Some((header::WWW_AUTHENTICATE, scheme))),
            ErrorCode::RateLimited => (StatusCode::TOO_MANY_REQUESTS, retry_after),
            // Clients that send the hash of a document instead of the document expect the status 200. They treat any
            // other status as a network failure.
            ErrorCode::PersistedQueryNotSupported => (StatusCode::OK, None),
            ErrorCode::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, retry_after),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, None),
        };
        Self { status, violation, header }
    }
}

/// The body of a response without data.
#[derive(Serialize)]
struct Errors<E> {
    errors: E,
}

/// The error of a request as a whole. The message comes first, because people read it.
#[derive(Serialize)]
struct RequestError {
    message: String,
    extensions: ErrorExtensions,
}

impl HttpError {
    /// Makes the error of a request that the service cannot read or execute: `BAD_REQUEST` with the given status and
    /// message.
    pub fn bad_request(status: StatusCode, message: impl Into<String>) -> Self {
        let violation = Violation::new(ErrorCode::BadRequest).with_message(message);
        Self { status, violation, header: None }
    }

    /// Adds a header that says what the service accepts.
    #[must_use]
    pub fn with_header(self, name: HeaderName, value: &'static str) -> Self {
        Self { header: Some((name, HeaderValue::from_static(value))), ..self }
    }

    pub fn into_response(self, request_id: RequestId) -> Response {
        let Self { status, violation, header } = self;
        let extensions = ErrorExtensions::new(&violation, request_id);
        let errors = Errors { errors: [RequestError { message: violation.message, extensions }] };
        let Ok(body) = serde_json::to_vec(&errors) else {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        };
        let mut response = (status, body).into_response();
        if let Some((name, value)) = header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// Makes the HTTP response from the result of an execution. If a request could not be executed at all, its errors have
/// no path. The response to such a request has no `data`, and the status 400 if the media type allows this status.
pub fn from_graphql(response: async_graphql::Response, media_type: MediaType, size: &ResponseSize) -> Response {
    let is_request_error = response.errors.iter().any(|error| error.path.is_empty()) && response.data == Value::Null;
    let serialize = || {
        let text = if is_request_error {
            serde_json::to_vec(&Errors { errors: &response.errors })
        } else {
            to_json(&response, size.bytes())
        };
        text.map(|mut text| {
            // Frees the unused capacity of the vector, because the text may be in memory for a long time.
            text.shrink_to_fit();
            text
        })
    };
    let text = if size.has_reservation() { block_in_place(serialize) } else { serialize() };
    let Ok(text) = text else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let status = match media_type {
        MediaType::GraphqlResponse if is_request_error => StatusCode::BAD_REQUEST,
        MediaType::GraphqlResponse | MediaType::Json => StatusCode::OK,
    };
    let unread = size.finish(text.len());
    (status, Body::from(Bytes::from_owner(UnreadText { text, _unread: unread }))).into_response()
}

/// Serializes a response. `bytes` is the counted size of its lists and objects.
fn to_json(response: &async_graphql::Response, bytes: usize) -> serde_json::Result<Vec<u8>> {
    // A vector that grows step by step to several MiB leaves its smaller buffers behind. Together they are about as
    // large as the vector, and the allocator returns their memory late.
    let mut text = Vec::with_capacity(bytes + bytes / 16 + 1024);
    text.extend_from_slice(br#"{"data":"#);
    graphql::write_value(&response.data, &mut text)?;
    if !response.extensions.is_empty() {
        text.extend_from_slice(br#","extensions":"#);
        serde_json::to_writer(&mut text, &response.extensions)?;
    }
    if !response.errors.is_empty() {
        text.extend_from_slice(br#","errors":"#);
        serde_json::to_writer(&mut text, &response.errors)?;
    }
    text.push(b'}');
    Ok(text)
}

/// The text of a response. The server drops the text when the last byte is written to the connection, or when the
/// connection is closed.
struct UnreadText {
    text: Vec<u8>,
    _unread: UnreadResponse,
}

impl AsRef<[u8]> for UnreadText {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}
