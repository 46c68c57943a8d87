//! The parameters of a GraphQL request, read from the body of a POST or the URL of a GET.

use axum::body::Body;
use axum::extract::Query;
use axum::http::{HeaderMap, StatusCode, Uri};
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::time::timeout;

use super::media_type::is_json;
use super::{HttpError, REQUEST_TIMEOUT};

/// A longer body is refused without parsing it. The longest useful request is far shorter.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Reading stops after this many bytes; the connection is then closed.
const MAX_DISCARDED_BYTES: usize = 8 * 1024 * 1024;

/// The parameters of a request. Unknown parameters are ignored, as the specification asks. In a URL, `variables` and
/// `extensions` are JSON-encoded objects.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Parameters<Object = Map<String, Value>> {
    pub query: String,
    pub operation_name: Option<String>,
    pub variables: Option<Object>,
    /// Not used, but its shape is checked.
    extensions: Option<Object>,
}

impl Parameters {
    /// Reads the body of a POST: a JSON object.
    pub async fn from_body(headers: &HeaderMap, body: Body) -> Result<Self, HttpError> {
        if !is_json(headers) {
            let message = "Send the request as JSON, with the header Content-Type: application/json.";
            return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, message).into());
        }
        let body = timeout(REQUEST_TIMEOUT, read_body(body))
            .await
            .map_err(|_| (StatusCode::REQUEST_TIMEOUT, "The request did not arrive in time."))?
            .ok_or((StatusCode::PAYLOAD_TOO_LARGE, "The request is longer than 64 KiB, or was cut off."))?;
        let message = "The request must be a JSON object with a string `query`. `operationName`, `variables` and \
                       `extensions` are optional.";
        Ok(serde_json::from_slice(&body).map_err(|_| (StatusCode::BAD_REQUEST, message))?)
    }

    /// Reads the query string of a GET, where `variables` and `extensions` are JSON.
    pub fn from_url(url: &Uri) -> Result<Self, HttpError> {
        let parse = || {
            let Query(Parameters { query, operation_name, variables, extensions }) = Query::try_from_uri(url).ok()?;
            let parse_json = |text: Option<String>| serde_json::from_str(text.as_deref().unwrap_or("null")).ok();
            Some(Self { query, operation_name, variables: parse_json(variables)?, extensions: parse_json(extensions)? })
        };
        let message =
            "The URL must have a `query`. `operationName`, and `variables` and `extensions` as JSON, are optional.";
        Ok(parse().ok_or((StatusCode::BAD_REQUEST, message))?)
    }
}

/// Reads a body. `None` if the body is too long or was cut off. A body that is too long is read all the same, up to a
/// limit: a client whose connection is closed while it sends does not read the response.
async fn read_body(body: Body) -> Option<Vec<u8>> {
    let (mut chunks, mut content, mut length) = (body.into_data_stream(), Vec::new(), 0);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.ok()?;
        length += chunk.len();
        if length <= MAX_BODY_BYTES {
            content.extend_from_slice(&chunk);
        } else if length > MAX_DISCARDED_BYTES {
            return None;
        }
    }
    (length <= MAX_BODY_BYTES).then_some(content)
}
