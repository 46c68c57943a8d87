//! The one way out for errors: whatever failed, the client reads entries of one shape.

use async_graphql::{ErrorExtensionValues, Response, ServerError, SimpleObject, Value};
use serde::Serialize;

use entity::value::RequestId;

use crate::error::{Error, ErrorCode, Violation};

/// The `extensions` of every entry in `errors`.
#[derive(Clone, Debug, Serialize, SimpleObject)]
#[serde(rename_all = "camelCase")]
pub struct ErrorExtensions {
    /// What went wrong.
    #[serde(serialize_with = "name")]
    pub code: ErrorCode,
    /// Where in the field's arguments the fault lies, such as `["input", "data", "email"]`. Left out where no one
    /// argument is at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_path: Option<Vec<String>>,
    /// Whether the same request may succeed when it is sent again.
    pub retryable: bool,
    /// How long to wait before that, in milliseconds. Left out where it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<i32>,
    /// The id of the request, such as `req_01h455vb4pex5vsknk084sn02q`. Name it when you report a problem.
    pub request_id: String,
}

fn name<S: serde::Serializer>(code: &ErrorCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(code.name())
}

impl ErrorExtensions {
    pub fn new(violation: &Violation, request_id: RequestId) -> Self {
        let path = violation.input_path();
        Self {
            code: violation.code,
            input_path: (!path.is_empty()).then(|| path.iter().map(ToString::to_string).collect()),
            retryable: violation.code.is_retryable(),
            retry_after_ms: violation.retry_after.map(|wait| i32::try_from(wait.as_millis()).unwrap_or(i32::MAX)),
            request_id: request_id.to_string(),
        }
    }
}

/// Keeps our error beside the framework's, for [`render`] to find.
impl From<Error> for async_graphql::Error {
    fn from(error: Error) -> Self {
        let mut carrier = Self::new("");
        carrier.source = Some(std::sync::Arc::new(error));
        carrier
    }
}

/// A document can have as many faults as fields: nobody reads more than the first.
const MAX_ERRORS: usize = 50;

/// An answer whose errors are fit to be read, and their codes for the log.
pub struct Rendered {
    pub response: Response,
    pub codes: Vec<ErrorCode>,
}

/// Puts the errors of an answer into words for the client, and what the client must not see into the log.
pub fn render(mut response: Response, request_id: RequestId) -> Rendered {
    let mut codes = Vec::new();
    let errors = std::mem::take(&mut response.errors);
    for error in errors.into_iter().take(MAX_ERRORS) {
        for violation in violations(&error, request_id) {
            codes.push(violation.code);
            let message = match &error.source {
                None => shortened(&error.message),
                Some(_) => violation.message(),
            };
            let mut entry = ServerError::new(message, None);
            entry.locations.clone_from(&error.locations);
            entry.path.clone_from(&error.path);
            entry.extensions = Some(extensions(&ErrorExtensions::new(&violation, request_id)));
            response.errors.push(entry);
        }
    }
    Rendered { response, codes }
}

fn violations(error: &ServerError, request_id: RequestId) -> Vec<Violation> {
    let Some(source) = &error.source else {
        // The framework's own: syntax, validation, limits, values of the wrong type.
        return vec![Violation::new(ErrorCode::BadRequest)];
    };
    match source.downcast_ref::<Error>() {
        Some(Error::Rejected(violations)) => violations.clone(),
        Some(Error::Failed { code, cause }) => {
            tracing::error!(%request_id, code = code.name(), cause, "request failed");
            vec![Violation::new(*code)]
        }
        None => {
            tracing::error!(%request_id, "request failed with an error of a foreign kind");
            vec![Violation::new(ErrorCode::Internal)]
        }
    }
}

/// The framework quotes the document in some messages, and in some the value that it found.
fn shortened(message: &str) -> String {
    const MOST: usize = 300;
    let message = message.split(", found ").next().unwrap_or_default();
    match message.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.to_owned(),
    }
}

fn extensions(extensions: &ErrorExtensions) -> ErrorExtensionValues {
    let mut values = ErrorExtensionValues::default();
    if let Ok(Value::Object(fields)) = async_graphql::to_value(extensions) {
        for (name, value) in fields {
            values.set(name, value);
        }
    }
    values
}
