//! A GraphQL response as a client receives it, with checks that name the line of the test that sent the request.

use std::collections::BTreeSet;
use std::panic::Location;
use std::sync::LazyLock;

use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use vivamo::graphql;

#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// The parsed body, or null if the body is not JSON.
    pub body: Value,
    /// The line of the test that sent the request, and the variables that were sent, for assertion messages.
    context: String,
}

impl Answer {
    /// Reads a response. Checks that no internals leak and that each error has the documented shape.
    #[track_caller]
    pub fn read(response: reqwest::Response) -> impl Future<Output = Self> {
        Self::read_with_context(Location::caller().to_string(), response)
    }

    pub(crate) async fn read_with_context(context: String, response: reqwest::Response) -> Self {
        const INTERNALS: [&str; 8] =
            ["SELECT", "INSERT", "SQLSTATE", "SQLite", "constraint", "customer_operator", "panicked", ".rs"];
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        for internal in INTERNALS {
            assert!(!text.contains(internal), "{context}: the answer contains {internal:?}: {text}");
        }
        // The data has random keys and cursors, which may contain these short words.
        let errors = if body.is_null() { text.clone() } else { body["errors"].to_string() };
        for internal in ["sqlx", "src/"] {
            assert!(!errors.contains(internal), "{context}: the errors contain {internal:?}: {text}");
        }
        for error in body["errors"].as_array().into_iter().flatten() {
            assert_error_shape(error, &headers);
        }
        // People read the message, so it comes first.
        let is_rejected = text.starts_with(r#"{"errors""#);
        assert!(!is_rejected || text.starts_with(r#"{"errors":[{"message":"#), "{context}: {text}");
        Self { status, headers, body, context }
    }

    /// Asserts that the mutation succeeded, and returns its payload.
    #[track_caller]
    pub fn payload(&self, mutation: &str) -> Value {
        self.data()[mutation].clone()
    }

    /// Asserts that there are no errors, and returns `data`.
    #[track_caller]
    pub fn data(&self) -> &Value {
        let is_without_errors = self.body.is_object() && self.body.get("errors").is_none();
        assert!(is_without_errors, "{}: expected no errors: {} {}", self.context, self.status, self.body);
        &self.body["data"]
    }

    /// Asserts that the request was rejected with exactly these codes and input paths, and that its only field is null.
    #[track_caller]
    pub fn assert_rejected(&self, field: &str, expected: &[(&str, &str)]) {
        let (context, body) = (&self.context, &self.body);
        assert_eq!(self.status, 200, "{context}: {body}");
        assert_eq!(body["data"], json!({ field: null }), "{context}: {body}");
        assert_eq!(self.errors(), errors(expected), "{context}: {body}");
    }

    /// The code and the input path of each error, sorted.
    pub fn errors(&self) -> Vec<(String, String)> {
        let errors = self.body["errors"].as_array().cloned().unwrap_or_default();
        let mut errors: Vec<_> = errors
            .iter()
            .map(|error| {
                let path = error["extensions"]["inputPath"].as_array().cloned().unwrap_or_default();
                let path: Vec<_> = path.iter().map(|part| part.as_str().unwrap().to_owned()).collect();
                (error["extensions"]["code"].as_str().unwrap().to_owned(), path.join("."))
            })
            .collect();
        errors.sort();
        errors
    }

    pub fn codes(&self) -> Vec<String> {
        self.errors().into_iter().map(|(code, _)| code).collect()
    }

    /// The message of the first error.
    #[track_caller]
    pub fn message(&self) -> &str {
        self.body["errors"][0]["message"].as_str().unwrap()
    }
}

/// Codes and input paths in the form of [`Answer::errors`].
pub fn errors(errors: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut errors: Vec<_> = errors.iter().map(|(code, path)| ((*code).to_owned(), (*path).to_owned())).collect();
    errors.sort();
    errors
}

fn assert_error_shape(error: &Value, headers: &HeaderMap) {
    static CODES: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
        let sdl = graphql::sdl();
        let values = sdl.split("enum ErrorCode {").nth(1).unwrap().split('}').next().unwrap();
        let is_value = |line: &&str| !line.is_empty() && line.chars().all(|c| c.is_ascii_uppercase() || c == '_');
        values.lines().map(str::trim).filter(is_value).map(str::to_owned).collect()
    });
    let extensions = error["extensions"].as_object().unwrap_or_else(|| panic!("no extensions: {error}"));
    for name in extensions.keys() {
        assert!(
            ["code", "inputPath", "retryable", "retryAfterMs", "customerId", "requestId"].contains(&name.as_str()),
            "{error}"
        );
    }
    let code = extensions["code"].as_str().unwrap();
    assert!(CODES.contains(code), "unknown code: {error}");
    let is_retryable = ["UNAVAILABLE", "PHONE_LOOKUP_UNAVAILABLE", "RATE_LIMITED"].contains(&code);
    assert_eq!(extensions["retryable"], is_retryable, "{error}");
    assert!(is_retryable || extensions.get("retryAfterMs").is_none(), "{error}");
    let is_taken = ["EMAIL_TAKEN", "PHONE_TAKEN", "EXTERNAL_CUSTOMER_ID_TAKEN"].contains(&code);
    assert!(is_taken || extensions.get("customerId").is_none(), "{error}");
    assert_eq!(extensions["requestId"].as_str(), headers.get("x-request-id").map(|id| id.to_str().unwrap()), "{error}");
    let message = error["message"].as_str().unwrap();
    assert!(!message.is_empty() && message.len() < 1000, "{error}");
}
