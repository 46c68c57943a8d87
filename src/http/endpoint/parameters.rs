//! The parameters of a GraphQL request, read from the body of a POST or the URL of a GET.

use std::collections::HashMap;
use std::mem;
use std::time::Duration;

use async_graphql::Variables;
use axum::body::Body;
use axum::extract::Query;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::time::timeout;

use super::HttpError;
use super::media_type::is_json;
use crate::error::{ErrorCode, Violation};
use crate::request::{Work, WorkCounter};

/// The maximum length of a body. A longer body is rejected without being parsed. Even the longest useful request is far
/// shorter.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Reading a body stops after this number of bytes, and the connection is closed.
const MAX_DISCARDED_BYTES: usize = 8 * 1024 * 1024;

/// The parameters of a request. Unknown parameters are ignored, as the specification requires.
pub struct Parameters {
    query: String,
    operation_name: Option<String>,
    variables: Map<String, Value>,
}

impl From<Parameters> for async_graphql::Request {
    fn from(Parameters { query, operation_name, variables }: Parameters) -> Self {
        let mut request = Self::new(query).variables(Variables::from_json(variables.into()));
        request.operation_name = operation_name;
        request
    }
}

impl Parameters {
    /// Reads the parameters from the body of a POST, which must be a JSON object. If the headers are rejected, the body
    /// stays unread in `body`. Waits for the body up to `max_time`. Counts the work to read and parse the body.
    pub async fn from_body(
        headers: &HeaderMap,
        body: &mut Body,
        max_time: Duration,
        work: &WorkCounter,
    ) -> Result<Self, HttpError> {
        const UNSUPPORTED: StatusCode = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        if !is_json(headers) {
            let message = "Send the request as JSON, with the header Content-Type: application/json.";
            return Err(HttpError::bad_request(UNSUPPORTED, message));
        }
        let is_compressed = |encoding: &HeaderValue| !encoding.as_bytes().eq_ignore_ascii_case(b"identity");
        if headers.get_all(header::CONTENT_ENCODING).iter().any(is_compressed) {
            let message = "Send the body uncompressed, without the header Content-Encoding.";
            return Err(HttpError::bad_request(UNSUPPORTED, message).with_header(header::ACCEPT_ENCODING, "identity"));
        }
        let body = timeout(max_time, read_body(mem::take(body), work)).await.map_err(|_| {
            let message = format!("The request body did not arrive within {} seconds.", max_time.as_secs());
            HttpError::bad_request(StatusCode::REQUEST_TIMEOUT, message)
        })??;
        let body = str::from_utf8(&body).map_err(|error| bad_request(&format!("The body is not UTF-8: {error}.")))?;
        let Value::Object(fields) = parse_json("The body", body.trim_start_matches('\u{feff}'))? else {
            return Err(bad_request("The body must be one JSON object. Send each operation in a separate request."));
        };
        Self::from_fields(fields)
    }

    /// Reads the parameters from the query string of a GET, in which `variables` and `extensions` are JSON. Counts the
    /// work to parse the query string.
    pub fn from_url(url: &Uri, work: &WorkCounter) -> Result<Self, HttpError> {
        count_parsing(url.query().map_or(0, str::len), work);
        let parameters = Query::<HashMap<String, String>>::try_from_uri(url);
        let Query(parameters) = parameters.map_err(|error| bad_request(&error.body_text()))?;
        let parse = |(name, text): (String, String)| match name.as_str() {
            "variables" | "extensions" => parse_json(&format!("`{name}`"), &text).map(|value| (name, value)),
            _ => Ok((name, Value::String(text))),
        };
        Self::from_fields(parameters.into_iter().map(parse).collect::<Result<_, _>>()?)
    }

    fn from_fields(mut fields: Map<String, Value>) -> Result<Self, HttpError> {
        let query = take(&mut fields, "query", "a string")?;
        // Some clients send an empty name if the document has only one operation. The empty name counts as no name.
        let operation_name = take(&mut fields, "operationName", "a string")?.filter(|name: &String| !name.is_empty());
        let variables =
            take(&mut fields, "variables", "a JSON object, not a string that contains JSON")?.unwrap_or_default();
        let extensions: Option<Map<_, _>> =
            take(&mut fields, "extensions", "a JSON object, not a string that contains JSON")?;
        match query.filter(|query: &String| !query.is_empty()) {
            Some(query) => Ok(Self { query, operation_name, variables }),
            None if extensions.is_some_and(|extensions| extensions.contains_key("persistedQuery")) => {
                Err(Violation::new(ErrorCode::PersistedQueryNotSupported).into())
            }
            None => Err(bad_request("The request must have a `query`: the GraphQL document.")),
        }
    }
}

/// Counts the work to read and parse parameters of this length.
fn count_parsing(bytes: usize, work: &WorkCounter) {
    /// The length of one [`Work::Parameters`].
    const BYTES: usize = 4 * 1024;
    work.count(Work::Parameters, (bytes / BYTES) as u64);
}

/// Makes the error `BAD_REQUEST` with the status 400.
fn bad_request(message: &str) -> HttpError {
    HttpError::bad_request(StatusCode::BAD_REQUEST, message)
}

/// Parses JSON. The error message names `subject` and does not quote the text.
fn parse_json(subject: &str, text: &str) -> Result<Value, HttpError> {
    serde_json::from_str(text).map_err(|error| bad_request(&format!("{subject} is not valid JSON: {error}.")))
}

/// Takes a parameter out of `fields`. A parameter that is null counts as missing.
fn take<T: DeserializeOwned>(fields: &mut Map<String, Value>, name: &str, kind: &str) -> Result<Option<T>, HttpError> {
    let value = fields.remove(name).unwrap_or_default();
    serde_json::from_value(value).map_err(|_| bad_request(&format!("`{name}` must be {kind}.")))
}

/// Reads the body of a rejected request, for at most `max_time`, and keeps none of it in memory. If the service did not
/// wait for the rest of the body, the connection would close after the response. The next request of the client on this
/// connection would then fail.
pub async fn discard(body: Body, max_time: Duration) {
    let (mut chunks, mut length) = (body.into_data_stream(), 0);
    let read = async {
        while let Some(Ok(chunk)) = chunks.next().await
            && length <= MAX_DISCARDED_BYTES
        {
            length += chunk.len();
        }
    };
    let _ = timeout(max_time, read).await;
}

/// Reads a body. Fails if the body is too long, was cut off or is malformed. If the body is too long, continues to read
/// up to `MAX_DISCARDED_BYTES`. If the reading stopped earlier, the connection would close while the client still
/// sends, and the client would not read the response.
async fn read_body(body: Body, work: &WorkCounter) -> Result<Vec<u8>, HttpError> {
    let too_long = || HttpError::bad_request(StatusCode::PAYLOAD_TOO_LARGE, "The request is longer than 64 KiB.");
    let (mut chunks, mut content, mut length) = (body.into_data_stream(), Vec::new(), 0);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| bad_request("The body was cut off or is malformed."))?;
        length += chunk.len();
        if length <= MAX_BODY_BYTES {
            content.extend_from_slice(&chunk);
        } else if length > MAX_DISCARDED_BYTES {
            break;
        }
    }
    count_parsing(length, work);
    if length <= MAX_BODY_BYTES { Ok(content) } else { Err(too_long()) }
}
