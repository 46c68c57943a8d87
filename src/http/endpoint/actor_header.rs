//! The `Vivamo-Actor` header: the staff member on whose behalf a caller sends a request.

use axum::http::{HeaderMap, HeaderName, StatusCode};
use entity::value::ActorName;

use super::HttpError;

const ACTOR: HeaderName = HeaderName::from_static("vivamo-actor");

/// Returns the staff member, or `None` if the request has no `Vivamo-Actor` header. Fails if the header is malformed.
/// The message does not quote the header, because the header may contain a name.
pub fn read(headers: &HeaderMap) -> Result<Option<ActorName>, HttpError> {
    let mut lines = headers.get_all(ACTOR).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    let malformed = |reason: &str| {
        HttpError::bad_request(StatusCode::BAD_REQUEST, format!("The header Vivamo-Actor is not valid: {reason}."))
    };
    if lines.next().is_some() {
        return Err(malformed("it was sent more than once"));
    }
    let name = str::from_utf8(line.as_bytes()).map_err(|_| malformed("it is not UTF-8"))?;
    ActorName::parse(name).map(Some).map_err(|reason| malformed(&format!("it {reason}")))
}
