//! The `/graphql` endpoint, by the GraphQL over HTTP specification.
//!
//! A request passes these steps; the first that refuses it makes the response, an [`HttpError`]:
//!
//! 1. Read the API key ([`authentication`]). Without a valid key a request learns nothing else.
//! 2. Take 1 from the rate limit of the key.
//! 3. Check the method and the `Accept` header ([`MediaType`]).
//! 4. Read the query, its variables and the name of its operation ([`Parameters`]).
//! 5. Check the document ([`Schema::check`](crate::graphql::Schema::check)), and take the rest of its cost from the rate limit.
//! 6. Execute it, to completion even if the client disconnects.
//! 7. Render the errors ([`graphql::render`]) and choose the status ([`response`]).
//!
//! Each request leaves one line in the log and is counted in the metrics ([`RequestLog`]).

mod authentication;
mod media_type;
mod parameters;
mod request_log;
mod response;

use std::time::{Duration, Instant};

use async_graphql::Variables;
use axum::body::Body;
use axum::extract;
use axum::http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use axum::response::Response;
use entity::value::RequestId;
use tokio::time::timeout;
use tracing::Instrument;

use super::State;
use crate::database::RunToCompletion;
use crate::error::ErrorCode;
use crate::graphql::{self, Rendered};
use media_type::MediaType;
use parameters::Parameters;
use request_log::RequestLog;
use response::HttpError;

/// The time a request may take to arrive, and then to be executed. Statements have a shorter timeout; this one is for a
/// database that does not answer at all.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub async fn handle(extract::State(state): extract::State<State>, request: Request<Body>) -> Response {
    let started = Instant::now();
    let request_id = RequestId::new();
    let accepted = MediaType::accepted_by(request.headers());
    let media_type = accepted.unwrap_or(MediaType::Json);
    let mut log = RequestLog::default();
    let span = tracing::info_span!("request", %request_id);
    let (mut response, codes) =
        match process(&state, request, accepted.is_some(), request_id, &mut log).instrument(span).await {
            Ok(Rendered { response, codes }) => (response::from_graphql(response, media_type), codes),
            Err(error) => {
                let codes = vec![error.violation.code];
                (error.into_response(request_id), codes)
            }
        };
    response.headers_mut().insert(header::CONTENT_TYPE, media_type.content_type());
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(id) = HeaderValue::from_str(&request_id.to_string()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    log.write(request_id, response.status(), &codes, started.elapsed());
    response
}

async fn process(
    state: &State,
    request: Request<Body>,
    is_response_acceptable: bool,
    request_id: RequestId,
    log: &mut RequestLog,
) -> Result<Rendered, HttpError> {
    let (parts, body) = request.into_parts();
    let actor = authentication::authenticate(state, &parts, request_id, log).await?;
    log.caller = Some(actor);
    state.services.limits.spend(&actor, 1).map_err(HttpError::too_many_requests)?;
    if ![Method::GET, Method::POST].contains(&parts.method) {
        return Err(HttpError::method_not_allowed("GET, POST", "Send the request with POST."));
    }
    if !is_response_acceptable {
        return Err(HttpError::new(
            StatusCode::NOT_ACCEPTABLE,
            "The response is application/graphql-response+json or application/json. Accept one of them.",
        ));
    }
    let is_get = parts.method == Method::GET;
    let parameters =
        if is_get { Parameters::from_url(&parts.uri) } else { Parameters::from_body(&parts.headers, body).await }?;

    let mut request = async_graphql::Request::new(parameters.query);
    request.operation_name = parameters.operation_name;
    if let Some(variables) = parameters.variables {
        request = request.variables(Variables::from_json(variables.into()));
    }
    let checked = state.schema.check(request);
    if is_get && checked.as_ref().is_ok_and(|checked| checked.operation.kind == "mutation") {
        return Err(HttpError::method_not_allowed("POST", "Send mutations with POST."));
    }
    let response = match checked {
        Ok(checked) => {
            let cost = checked.operation.cost;
            log.operation = Some(checked.operation.clone());
            state.services.limits.spend(&actor, cost.saturating_sub(1)).map_err(HttpError::too_many_requests)?;
            let state = state.clone();
            let execution = async move { state.schema.execute(checked, request_id, actor).await };
            run_to_completion(request_id, log, execution).await?
        }
        Err(response) => *response,
    };
    Ok(graphql::render(response, request_id))
}

/// Runs database work, and counts its statements. If it takes longer than [`REQUEST_TIMEOUT`], the caller gets an error and the
/// work goes on.
async fn run_to_completion<T: Send + 'static>(
    request_id: RequestId,
    log: &RequestLog,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, HttpError> {
    match timeout(REQUEST_TIMEOUT, RunToCompletion::new(log.statements.clone(), work)).await {
        Ok(Ok(output)) => Ok(output),
        Ok(Err(_panic)) => Err(HttpError::from_code(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Internal)),
        Err(_elapsed) => {
            tracing::error!(%request_id, "request timed out");
            Err(HttpError::from_code(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable))
        }
    }
}
