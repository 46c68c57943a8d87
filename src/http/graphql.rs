//! `/graphql`, by the GraphQL over HTTP specification: who calls comes first, then the shape of the request, then
//! the request itself.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_graphql::{Response as Answer, Variables};
use async_graphql_axum::GraphQLResponse;
use axum::body::Body;
use axum::extract::{self, Query};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use entity::value::RequestId;
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;
use tracing::Instrument;

use super::State;
use super::connections::Peer;
use crate::database::RunToCompletion;
use crate::error::{Error, ErrorCode, Violation};
use crate::graphql::{self, ErrorExtensions, Operation, Rendered};
use crate::service::Actor;

/// Longer bodies are refused unparsed. The longest useful request is far shorter.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Nobody sends more than this by mistake.
const MAX_DISCARDED_BYTES: usize = 8 * 1024 * 1024;

/// How long a request may take to arrive, and then to be answered. Statements are given up before that; this is for a
/// database that has gone silent.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The media types that an answer can have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MediaType {
    GraphqlResponse,
    Json,
}

/// What a client sends. Keys that are not known are ignored, as the specification asks.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Parameters {
    query: String,
    #[serde(default)]
    operation_name: Option<String>,
    #[serde(default)]
    variables: Option<serde_json::Map<String, serde_json::Value>>,
    #[serde(default)]
    #[expect(dead_code, reason = "its shape is checked")]
    extensions: Option<serde_json::Map<String, serde_json::Value>>,
}

/// A request that is answered before it is executed.
struct Refusal {
    status: StatusCode,
    violation: Violation,
    message: String,
    header: Option<(HeaderName, HeaderValue)>,
}

pub async fn handle(extract::State(state): extract::State<State>, request: Request<Body>) -> Response {
    let started = Instant::now();
    let request_id = RequestId::new();
    let media_type = accepted(request.headers()).unwrap_or(MediaType::Json);
    let mut about = About::default();
    let span = tracing::info_span!("request", %request_id);
    let (mut response, codes) = match answer(&state, request, request_id, &mut about).instrument(span).await {
        Ok(Rendered { response, codes }) => (respond(response, media_type), codes),
        Err(refusal) => {
            let codes = vec![refusal.violation.code];
            (refuse(refusal, request_id), codes)
        }
    };
    response.headers_mut().insert(header::CONTENT_TYPE, media_type.header());
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(id) = HeaderValue::from_str(&request_id.to_string()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    let elapsed = started.elapsed();
    about.log(request_id, response.status(), &codes, elapsed);
    response
}

/// What is told of a request: who sent it and what it was, never what it said.
#[derive(Default)]
struct About {
    caller: Option<Actor>,
    operation: Option<Operation>,
    statements: Arc<AtomicUsize>,
}

impl About {
    fn log(&self, request_id: RequestId, status: StatusCode, codes: &[ErrorCode], elapsed: Duration) {
        let (operator, key) = match self.caller {
            Some(Actor::Operator { id, key, .. }) => (Some(id.to_string()), Some(key.to_string())),
            Some(Actor::Platform) => (Some("platform".to_owned()), None),
            None => (None, None),
        };
        let operation = self.operation.as_ref();
        let kind = operation.map_or("none", |operation| operation.kind);
        tracing::info!(
            %request_id,
            operator,
            key,
            kind,
            operation = operation.and_then(|operation| operation.name.as_deref()),
            status = status.as_u16(),
            codes = codes.iter().map(|code| code.name()).collect::<Vec<_>>().join(","),
            milliseconds = elapsed.as_millis() as u64,
            statements = self.statements.load(Ordering::Relaxed),
            "request"
        );
        let code = codes.first().map_or("OK", |code| code.name());
        metrics::counter!("vivamo_requests_total", "kind" => kind, "code" => code).increment(1);
        metrics::histogram!("vivamo_request_duration_seconds", "kind" => kind).record(elapsed);
    }
}

async fn answer(
    state: &State,
    request: Request<Body>,
    request_id: RequestId,
    about: &mut About,
) -> Result<Rendered, Refusal> {
    let (parts, body) = request.into_parts();
    let actor = authenticate(state, &parts, request_id, about).await?;
    about.caller = Some(actor);
    // Reading it costs something already.
    state.services.limits.spend(&actor, 1).map_err(too_many)?;
    if ![Method::GET, Method::POST].contains(&parts.method) {
        return Err(method_not_allowed("GET, POST", "Send the request with POST."));
    }
    if accepted(&parts.headers).is_none() {
        return Err(Refusal::new(
            StatusCode::NOT_ACCEPTABLE,
            "The answer is application/graphql-response+json or application/json: accept one of them.",
        ));
    }
    let is_get = parts.method == Method::GET;
    let parameters =
        if is_get { parameters_of_url(&parts.uri) } else { parameters_of_body(&parts.headers, body).await }?;

    let mut request = async_graphql::Request::new(parameters.query);
    request.operation_name = parameters.operation_name;
    if let Some(variables) = parameters.variables {
        request = request.variables(Variables::from_json(variables.into()));
    }
    let checked = state.schema.check(request);
    if is_get && checked.as_ref().is_ok_and(|checked| checked.operation.kind == "mutation") {
        return Err(method_not_allowed("POST", "Send mutations with POST."));
    }
    let executed = match checked {
        Ok(checked) => {
            let cost = checked.operation.cost;
            about.operation = Some(checked.operation.clone());
            state.services.limits.spend(&actor, cost.saturating_sub(1)).map_err(too_many)?;
            let executing = state.clone();
            let execution = async move { executing.schema.execute(checked, request_id, actor).await };
            finished(request_id, about, execution).await?
        }
        Err(refused) => *refused,
    };
    Ok(graphql::render(executed, request_id))
}

async fn parameters_of_body(headers: &HeaderMap, body: Body) -> Result<Parameters, Refusal> {
    if !is_json(headers) {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "Send the request as JSON, with the header Content-Type: application/json.",
        ));
    }
    let body = timeout(REQUEST_TIMEOUT, read(body))
        .await
        .map_err(|_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "The request did not arrive in time."))?;
    let body = body.ok_or_else(|| {
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "The request is longer than 64 KiB, or was cut off.")
    })?;
    serde_json::from_slice(&body).map_err(|_| {
        Refusal::new(
            StatusCode::BAD_REQUEST,
            "The request must be a JSON object with a text `query` and, if need be, `operationName`, `variables` and \
             `extensions`.",
        )
    })
}

/// A body, if it is not too long. What is too long is taken all the same, up to a point: a client that is cut off while it
/// sends does not read why.
async fn read(body: Body) -> Option<Vec<u8>> {
    let (mut body, mut kept, mut length) = (body.into_data_stream(), Vec::new(), 0);
    while let Some(chunk) = body.next().await {
        let chunk = chunk.ok()?;
        length += chunk.len();
        if length <= MAX_BODY_BYTES {
            kept.extend_from_slice(&chunk);
        } else if length > MAX_DISCARDED_BYTES {
            return None;
        }
    }
    (length <= MAX_BODY_BYTES).then_some(kept)
}

/// The same in a URL, where `variables` and `extensions` are texts of JSON.
fn parameters_of_url(uri: &Uri) -> Result<Parameters, Refusal> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct OfUrl {
        query: String,
        operation_name: Option<String>,
        variables: Option<String>,
        extensions: Option<String>,
    }
    let read = || {
        let OfUrl { query, operation_name, variables, extensions } = Query::try_from_uri(uri).ok()?.0;
        let map = |text: Option<String>| serde_json::from_str(text.as_deref().unwrap_or("null")).ok();
        Some(Parameters { query, operation_name, variables: map(variables)?, extensions: map(extensions)? })
    };
    read().ok_or_else(|| {
        Refusal::new(
            StatusCode::BAD_REQUEST,
            "The URL must have a `query` and, if need be, an `operationName`, and `variables` and `extensions` as JSON.",
        )
    })
}

fn method_not_allowed(allowed: &'static str, message: &str) -> Refusal {
    Refusal {
        header: Some((header::ALLOW, HeaderValue::from_static(allowed))),
        ..Refusal::new(StatusCode::METHOD_NOT_ALLOWED, message)
    }
}

/// What becomes of some work on the database, if it comes to an end before the client's patience does.
async fn finished<T: Send + 'static>(
    request_id: RequestId,
    about: &About,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, Refusal> {
    match timeout(REQUEST_TIMEOUT, RunToCompletion::new(about.statements.clone(), work)).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(_)) => Err(Refusal::of(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Internal)),
        Err(_) => {
            tracing::error!(%request_id, "request took too long");
            Err(Refusal::of(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable))
        }
    }
}

async fn authenticate(state: &State, parts: &Parts, request_id: RequestId, about: &About) -> Result<Actor, Refusal> {
    let unauthenticated = || match state.services.limits.record_auth_failure(client_address(state, parts)) {
        Ok(()) => Refusal {
            header: Some((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"vivamo\""))),
            ..Refusal::of(StatusCode::UNAUTHORIZED, ErrorCode::Unauthenticated)
        },
        Err(violation) => too_many(violation),
    };
    let key = parts
        .headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, key)| key.trim())
        .ok_or_else(unauthenticated)?;
    if let Some(actor) = state.services.api_keys.cached_actor(key) {
        return Ok(actor);
    }
    let (services, key) = (state.services.clone(), key.to_owned());
    let authenticated = finished(request_id, about, async move { services.api_keys.authenticate(&key).await }).await?;
    authenticated.map_err(|error| match error {
        Error::Rejected(_) => unauthenticated(),
        Error::Failed { code, cause } => {
            tracing::error!(%request_id, code = code.name(), cause, "authentication failed");
            let is_outage = code == ErrorCode::Unavailable;
            let status = if is_outage { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::INTERNAL_SERVER_ERROR };
            Refusal::of(status, code)
        }
    })
}

/// Where a request comes from: the last address on its way that is not one of our own proxies.
fn client_address(state: &State, parts: &Parts) -> IpAddr {
    let is_trusted =
        |address: &IpAddr| state.trusted_proxies.iter().any(|network| network.contains(&address.to_canonical()));
    let Some(Peer(peer)) = parts.extensions.get() else { return Ipv4Addr::UNSPECIFIED.into() };
    if !is_trusted(peer) {
        return *peer;
    }
    // What cannot be read ends the walk: whoever wrote what stands before it is not known.
    let lines: Vec<_> = parts.headers.get_all("x-forwarded-for").iter().map(|value| value.to_str().ok()).collect();
    let lines = lines.into_iter().rev().map_while(|line| line);
    let mut hops = lines.flat_map(|line| line.rsplit(',')).map_while(address);
    hops.find(|hop| !is_trusted(hop)).unwrap_or(*peer)
}

/// An address as proxies write it: alone, in brackets, or with a port.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    text.parse().ok().or_else(with_port).or_else(in_brackets)
}

fn too_many(violation: Violation) -> Refusal {
    let seconds = violation.retry_after.unwrap_or_default().as_secs() + 1;
    let (status, message) = (StatusCode::TOO_MANY_REQUESTS, violation.message());
    Refusal { status, violation, message, header: Some((header::RETRY_AFTER, seconds.into())) }
}

/// The best media type that the client accepts; `None` if it accepts neither.
fn accepted(headers: &HeaderMap) -> Option<MediaType> {
    let mut accept = headers.get_all(header::ACCEPT).iter().peekable();
    if accept.peek().is_none() {
        return Some(MediaType::Json);
    }
    accept.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).find_map(|range| {
        match essence(range).as_str() {
            "application/graphql-response+json" => Some(MediaType::GraphqlResponse),
            "application/json" | "application/*" | "*/*" => Some(MediaType::Json),
            _ => None,
        }
    })
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|value| essence(value) == "application/json")
}

/// A media type without its parameters.
fn essence(media_type: &str) -> String {
    media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

impl MediaType {
    fn header(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::GraphqlResponse => "application/graphql-response+json; charset=utf-8",
            Self::Json => "application/json; charset=utf-8",
        })
    }

    /// The status of an answer to a request that could not be executed at all.
    fn status_of_request_error(self) -> StatusCode {
        match self {
            Self::GraphqlResponse => StatusCode::BAD_REQUEST,
            // Clients of the older media type take another status for a fault of the network.
            Self::Json => StatusCode::OK,
        }
    }
}

fn respond(answer: Answer, media_type: MediaType) -> Response {
    // An error without a path is one of the request; then there is no data, not even null.
    let is_request_error = answer.errors.iter().any(|error| error.path.is_empty());
    if is_request_error && answer.data == async_graphql::Value::Null {
        let body = json!({ "errors": answer.errors });
        return (media_type.status_of_request_error(), body.to_string()).into_response();
    }
    GraphQLResponse::from(answer).into_response()
}

fn refuse(refusal: Refusal, request_id: RequestId) -> Response {
    let Refusal { status, violation, message, header } = refusal;
    let extensions = ErrorExtensions::new(&violation, request_id);
    let mut response =
        (status, json!({ "errors": [{ "message": message, "extensions": extensions }] }).to_string()).into_response();
    if let Some((name, value)) = header {
        response.headers_mut().insert(name, value);
    }
    response
}

impl Refusal {
    /// The request itself is at fault.
    fn new(status: StatusCode, message: &str) -> Self {
        let violation = Violation::new(ErrorCode::BadRequest);
        Self { status, violation, message: message.to_owned(), header: None }
    }

    fn of(status: StatusCode, code: ErrorCode) -> Self {
        Self { status, violation: Violation::new(code), message: code.to_string(), header: None }
    }
}
