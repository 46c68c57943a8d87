//! The `/graphql` endpoint, as the GraphQL over HTTP specification defines it.
//!
//! A request passes these steps. The first step that rejects the request determines the response. This response is an
//! [`HttpError`], or a GraphQL response with errors if the document or its variables are rejected.
//!
//! 1. Read the API key ([`authentication`]). Without a valid key, the response has only the error `UNAUTHENTICATED` or
//!    `RATE_LIMITED`.
//! 2. Charge a cost of 1 to the rate limit of the key.
//! 3. Check the method and the `Accept` header ([`MediaType`]).
//! 4. If the key has too many requests in flight, wait ([`InFlight`]).
//! 5. Read the query, its variables and the name of its operation ([`Parameters`]).
//! 6. Read the `Vivamo-Actor` header, which names a staff member ([`actor_header`]).
//! 7. Check the document ([`Schema::check`](crate::graphql::Schema::check)), reject a mutation that was sent by GET,
//!    and charge the rest of the estimated cost to the rate limit. If the budget is too small, give the cost of 1 from
//!    step 2 back, but only if the document was in the cache and the parameters are shorter than 4 KiB. Otherwise,
//!    charge the work until now.
//! 8. Execute the document. If the client disconnects, the execution continues. Afterwards, replace the charged
//!    estimate by the cost of the work, which is at least the minimum cost of the document.
//! 9. Render the errors ([`graphql::render_errors`]) and choose the status ([`response`]).
//!
//! Each request leaves one line in the log and is counted in the metrics ([`RequestLog`]), also if the client
//! disconnects before the response.

mod actor_header;
mod authentication;
mod in_flight;
mod media_type;
mod parameters;
mod request_log;
mod response;

use std::sync::Arc;
use std::time::Duration;

use async_graphql::value;
use axum::body::Body;
use axum::extract;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use axum::response::Response;
use entity::value::RequestId;
use tokio::time::timeout;
use tracing::Instrument;

use super::State;
use crate::error::{ErrorCode, Violation};
use crate::graphql::{self, CheckedRequest, OperationSummary, RenderedResponse};
use crate::request::{RequestContext, ResponseSize, Work, WorkCounter, run_to_completion};
use crate::service::limits::{Cost, CostCharge};
use crate::service::{Caller, RequestInfo, cost};
pub use in_flight::InFlight;
use in_flight::Slot;
use media_type::MediaType;
use parameters::Parameters;
use request_log::RequestLog;
pub use request_log::register_counters;
use response::HttpError;

/// The maximum time for the database work of a mutation of the platform. It is longer, because the erasure of a
/// customer with millions of history entries takes minutes.
const PLATFORM_MUTATION_TIMEOUT: Duration = Duration::from_secs(300);

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The request header that asks for the cost. If the header has the value 1, the response to an executed request has
/// the cost in its extensions.
const COST_HEADER: HeaderName = HeaderName::from_static("vivamo-cost");

/// A request that has passed steps 1 to 4, so its body may be read.
struct AdmittedRequest {
    caller: Caller,
    charge: CostCharge,
    slot: Slot,
    media_type: MediaType,
    /// True if the response has the cost in its extensions.
    shows_cost: bool,
}

/// The result of a request.
struct Outcome {
    /// The codes of the errors in the response.
    codes: Vec<ErrorCode>,
    response: Response,
    /// 0 if the request was not executed.
    cost: Cost,
}

impl Outcome {
    fn from_error(error: HttpError, request_id: RequestId) -> Self {
        Self { codes: vec![error.violation.code], response: error.into_response(request_id), cost: Cost::default() }
    }

    /// Renders the errors of a GraphQL response, and chooses the status (step 9).
    fn from_graphql(
        response: async_graphql::Response,
        is_mutation: bool,
        cost: Cost,
        request_id: RequestId,
        media_type: MediaType,
        size: &ResponseSize,
    ) -> Self {
        let RenderedResponse { response, codes } = graphql::render_errors(response, is_mutation, request_id);
        Self { codes, response: response::from_graphql(response, media_type, size), cost }
    }
}

pub async fn handle(extract::State(state): extract::State<State>, request: Request<Body>) -> Response {
    let request_id = RequestId::new();
    let mut log = RequestLog::start(request_id);
    let accepted = MediaType::accepted_by(request.headers());
    let media_type = accepted.unwrap_or(MediaType::Json);
    let span = tracing::debug_span!("request", %request_id);
    let (parts, mut body) = request.into_parts();
    let outcome = match process(&state, &parts, &mut body, accepted, &mut log).instrument(span).await {
        Ok(outcome) => outcome,
        Err(error) => {
            parameters::discard(body, state.timeouts.rejected_body).await;
            Outcome::from_error(error, request_id)
        }
    };
    let Outcome { codes, mut response, cost } = outcome;
    response.headers_mut().insert(header::CONTENT_TYPE, media_type.content_type());
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(id) = HeaderValue::from_str(&request_id.to_string()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    log.cost = cost;
    log.write(response.status(), &codes);
    response
}

/// Reads and checks a request (steps 1 to 7), then executes it. The caller discards a `body` that was not read.
async fn process(
    state: &State,
    parts: &Parts,
    body: &mut Body,
    accepted: Option<MediaType>,
    log: &mut RequestLog,
) -> Result<Outcome, HttpError> {
    let mut admitted = admit(state, parts, accepted, log).await?;
    let is_get = parts.method == Method::GET;
    let parameters = if is_get {
        Parameters::from_url(&parts.uri, &log.work)
    } else {
        Parameters::from_body(&parts.headers, body, state.timeouts.request, &log.work).await
    }?;
    let info = RequestInfo { id: log.request_id, actor: actor_header::read(&parts.headers)?, os_user: None };
    let checked = match state.schema.check(admitted.caller.owner(), parameters.into()) {
        Ok(checked) => checked,
        Err(response) => {
            let AdmittedRequest { media_type, slot, .. } = &admitted;
            let size = &slot.response_size;
            return Ok(Outcome::from_graphql(*response, false, Cost::default(), info.id, *media_type, size));
        }
    };
    if is_get && checked.operation.is_mutation {
        return Err(method_not_allowed("POST", "Send mutations with POST."));
    }
    log.operation = Some(checked.operation.clone());
    let was_cheap = checked.was_cached && log.work.get(Work::Parameters) == 0;
    admitted.charge.raise_to(checked.operation.cost.estimated, was_cheap)?;
    if checked.operation.introspects {
        // The size of other responses is counted while they are built, and they wait when they become large. The lists
        // of the introspection are not counted.
        admitted.slot.response_size.wait_for_memory().await.map_err(Violation::from)?;
    }
    execute(state, admitted, checked, info, log.work.clone()).await
}

/// Authenticates a request, checks its headers, and waits for a slot of its key (steps 1 to 4).
async fn admit(
    state: &State,
    parts: &Parts,
    accepted: Option<MediaType>,
    log: &mut RequestLog,
) -> Result<AdmittedRequest, HttpError> {
    let caller = authentication::authenticate(state, parts, log).await?;
    log.caller = Some(caller);
    let charge = state.services.limits.charge(&caller, log.work.clone())?;
    if ![Method::GET, Method::POST].contains(&parts.method) {
        return Err(method_not_allowed("GET, POST", "Send the request with POST."));
    }
    let Some(media_type) = accepted else {
        let message = "The response is application/graphql-response+json or application/json. Accept one of them.";
        return Err(HttpError::bad_request(StatusCode::NOT_ACCEPTABLE, message));
    };
    let shows_cost = parts.headers.get(COST_HEADER).is_some_and(|value| value == "1");
    let slot = state.in_flight.enter(&caller, state.timeouts.slot).await?;
    Ok(AdmittedRequest { caller, charge, slot, media_type, shows_cost })
}

/// Executes the document of a request, and makes the response (steps 8 and 9). Not an `async` function: its future
/// would contain the request, which would be copied once more.
fn execute(
    state: &State,
    admitted: AdmittedRequest,
    checked: CheckedRequest,
    info: RequestInfo,
    work: Arc<WorkCounter>,
) -> impl Future<Output = Result<Outcome, HttpError>> {
    let AdmittedRequest { caller, charge, slot, media_type, shows_cost } = admitted;
    let OperationSummary { is_mutation, is_sequential, cost: estimate, .. } = checked.operation;
    let is_of_platform = caller.operator().is_none();
    let work_timeout = if is_mutation && is_of_platform { PLATFORM_MUTATION_TIMEOUT } else { state.timeouts.work };
    let context = RequestContext {
        tenant: caller.tenant(),
        work: work.clone(),
        response: Some(slot.response_size.clone()),
        is_sequential,
        running: Some(state.running.token()),
    };
    let (shared, request_id) = (state.clone(), info.id);
    // Boxed: the future is large and would be copied several times.
    let execution = Box::pin(async move {
        // If the client disconnects, the request stays in flight until its execution ends.
        let Slot { response_size: size, .. } = &slot;
        let mut response = shared.schema.execute(checked, info, caller, size).await;
        let used = cost::cost_of_request(&work, estimate.fields, graphql::count_values(&response.data));
        let cost = charge.settle(used.max(estimate.minimum));
        if shows_cost {
            let Cost { requested, used, available } = cost;
            let extension = value!({ "requested": requested, "used": used, "available": available });
            response.extensions.insert("cost".to_owned(), extension);
        }
        Outcome::from_graphql(response, is_mutation, cost, request_id, media_type, size)
    });
    run_database_work(state, request_id, context, work_timeout, execution)
}

fn method_not_allowed(allowed: &'static str, message: &str) -> HttpError {
    HttpError::bad_request(StatusCode::METHOD_NOT_ALLOWED, message).with_header(header::ALLOW, allowed)
}

/// Runs database work, and counts its statements. If the work takes longer than the timeout of a request, the caller
/// gets an error and the work continues until `work_timeout`.
async fn run_database_work<T: Send + 'static>(
    state: &State,
    request_id: RequestId,
    context: RequestContext,
    work_timeout: Duration,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, HttpError> {
    match timeout(state.timeouts.request, run_to_completion(context, work_timeout, work)).await {
        Ok(Ok(Ok(output))) => Ok(output),
        Ok(Err(_panic)) => {
            tracing::error!(%request_id, "request panicked: the line `panic` before this line has the place");
            Err(Violation::new(ErrorCode::Internal).into())
        }
        Ok(Ok(Err(_elapsed))) | Err(_elapsed) => {
            tracing::error!(%request_id, "request timed out");
            Err(Violation::new(ErrorCode::Unavailable).into())
        }
    }
}
