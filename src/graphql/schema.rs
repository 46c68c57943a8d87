//! The schema and the execution of requests.
//!
//! A request is checked first ([`Schema::check`]): the text of its document, the limits, the arguments and the
//! variables (`document`). Then the request is executed for its caller ([`Schema::execute`]). A document that has
//! passed validation in an earlier request is not validated again while it is in the cache, unless it selects
//! `__schema` or `__type`.

use std::sync::Arc;
use std::time::Duration;

use async_graphql::async_trait::async_trait;
use async_graphql::dataloader::DataLoader;
use async_graphql::extensions::{Extension, ExtensionContext, ExtensionFactory, NextValidation};
use async_graphql::registry::Registry;
use async_graphql::{
    CacheControl, EmptySubscription, MergedObject, OutputType, Request, Response, SDLExportOptions, SchemaBuilder,
    ServerError, ValidationMode, ValidationResult,
};
use entity::value::OperatorId;

use super::context::RequestData;
use super::document::{DocumentCache, ExecutableOperation, OperationSummary, summarise};
use super::errors::ErrorExtensions;
use super::fetch::Loader;
use super::load_rounds::LoadRounds;
use super::resolvers::{audit, changes, customers, erasures, history, node, operators, verification, viewer, webhooks};
use super::time;
use crate::request::ResponseSize;
use crate::service::{Caller, RequestInfo, Services};

/// Read operations. A nullable field is also null if its read fails: `errors` then has an entry with the path of the
/// field.
#[derive(MergedObject, Default)]
struct Query(
    viewer::ViewerQuery,
    customers::CustomerQuery,
    changes::ChangeQuery,
    erasures::ErasureQuery,
    history::HistoryQuery,
    operators::OperatorQuery,
    audit::AuditQuery,
    webhooks::WebhookQuery,
    node::NodeQuery,
);

/// Write operations. Each mutation is applied completely or not at all. The mutations of one request are applied in
/// order, each in its own transaction. If one mutation fails, its field is null, `errors` has an entry with the path of
/// the field, and the others are still applied.
#[derive(MergedObject, Default)]
struct Mutation(
    customers::CustomerMutation,
    verification::VerificationMutation,
    erasures::ErasureMutation,
    operators::OperatorMutation,
    webhooks::WebhookMutation,
);

/// The maximum number of fields in a response whose pages are all full. A page of 100 customers with 20 operators each
/// has about 12,000 fields.
const MAX_COMPLEXITY: usize = 50_000;

const MAX_DEPTH: usize = 15;

type Executor = async_graphql::Schema<Query, Mutation, EmptySubscription>;

pub struct Schema {
    validating: Executor,
    /// Executes documents that `validating` has accepted before, except introspection. Checks the depth and the
    /// complexity again. Federation is enabled, as in `not_validating`.
    checking_limits: Executor,
    /// Executes documents that `validating` has accepted before, except introspection.
    ///
    /// Federation is enabled, because async-graphql otherwise searches all types for federation keys before each root
    /// field, which takes 2% of the server's instructions for a read by id. No request can use the fields of
    /// federation, because `validating` rejects them first. Introspection would show them, so `validating` always
    /// executes it.
    not_validating: Executor,
    documents: DocumentCache,
    services: Arc<Services>,
    writes_json: bool,
}

/// A request whose document and variables have been checked.
pub struct CheckedRequest {
    pub operation: OperationSummary,
    /// True if the document was in the cache, so that the check took little time.
    pub was_cached: bool,
    executable: Arc<ExecutableOperation>,
    request: Request,
}

impl Schema {
    /// If `writes_json` is false, async-graphql resolves all objects, and `json_writer` is not used. The responses are
    /// the same; tests compare them.
    pub fn new(services: Arc<Services>, writes_json: bool) -> Self {
        let builder = || builder().data(services.clone());
        let limited = || builder().limit_depth(MAX_DEPTH).limit_complexity(MAX_COMPLEXITY);
        let mut types = Registry::default();
        Query::create_type_info(&mut types);
        Mutation::create_type_info(&mut types);
        Self {
            validating: limited().finish(),
            checking_limits: limited().validation_mode(ValidationMode::Fast).enable_federation().finish(),
            not_validating: builder().extension(SkipValidation).enable_federation().finish(),
            documents: DocumentCache::new(types),
            services,
            writes_json,
        }
    }

    /// Checks the document and the variables of a request of `owner`. The error is a response that says what is wrong.
    pub fn check(&self, owner: OperatorId, mut request: Request) -> Result<CheckedRequest, Box<Response>> {
        let name = request.operation_name.as_deref();
        let checked = self.documents.checked_operation(owner, &request.query, name, &mut request.variables);
        let (executable, was_cached) = checked.map_err(|error| Box::new(Response::from_errors(vec![error])))?;
        let operation = summarise(&executable.normalised, &request.variables);
        Ok(CheckedRequest { operation, was_cached, executable, request })
    }

    /// Executes a request for a caller. Each request has its own loader, so that no loader passes a row to another
    /// caller.
    pub async fn execute(
        &self,
        checked: CheckedRequest,
        request_info: RequestInfo,
        caller: Caller,
        size: &Arc<ResponseSize>,
    ) -> Response {
        let CheckedRequest { executable, mut request, operation, .. } = checked;
        request.set_parsed_query(executable.normalised.to_document());
        let rounds = LoadRounds::default();
        let pending = rounds.clone();
        let loader = Loader { caller, services: self.services.clone() };
        let loader = DataLoader::new(loader, move |load| pending.add(load)).delay(Duration::ZERO);
        let writes_json = self.writes_json;
        let data = RequestData { caller, info: request_info, response_size: size.clone(), writes_json };
        let request = request.data(data).data(loader);
        let was_valid = executable.is_valid();
        let executor = if !was_valid || operation.introspects {
            &self.validating
        } else if executable.has_variable_page_size {
            &self.checking_limits
        } else {
            &self.not_validating
        };
        // Boxed: the future is large and would be copied several times.
        let mut response = rounds.run(Box::pin(executor.execute(request)), size).await;
        // Errors of fields have a path, errors of the document have none.
        if !was_valid && response.errors.iter().all(|error| !error.path.is_empty()) {
            executable.mark_valid();
        }
        response.errors.iter_mut().for_each(complete_message);
        response
    }
}

/// Skips async-graphql's validation. Even its fast mode looks every field up in the schema, which takes a seventh of
/// the server's instructions for a read by id.
struct SkipValidation;

impl ExtensionFactory for SkipValidation {
    fn create(&self) -> Arc<dyn Extension> {
        Arc::new(SkipValidation)
    }
}

#[async_trait]
impl Extension for SkipValidation {
    async fn validation(
        &self,
        _: &ExtensionContext<'_>,
        _: NextValidation<'_>,
    ) -> Result<ValidationResult, Vec<ServerError>> {
        Ok(ValidationResult { cache_control: CacheControl::default(), complexity: 0, depth: 0 })
    }
}

/// Completes messages of async-graphql: adds the limit that was exceeded, or the format of a `DateTime`.
fn complete_message(error: &mut ServerError) {
    if error.message == "Query is too complex." {
        error.message = format!(
            "The operation may return more than {MAX_COMPLEXITY} fields. Request smaller pages (`first` or `last`) or \
             fewer fields."
        );
    } else if error.message == "Query is nested too deep." {
        error.message = format!("The operation nests more than {MAX_DEPTH} levels of fields.");
    } else if error.message.ends_with("expected type \"DateTime\"") {
        error.message = format!("{}. {}", error.message, time::FORMAT_HINT);
    }
}

/// Returns the schema in the schema definition language: the contents of `schema.graphql`.
pub fn sdl() -> String {
    let options = SDLExportOptions::new().include_specified_by().use_space_ident();
    let sdl = builder().finish().sdl_with_options(options);
    let lines: Vec<_> = sdl.trim().lines().map(str::trim_end).collect();
    lines.join("\n") + "\n"
}

/// Returns the response to the introspection query, as JSON.
pub async fn introspection() -> String {
    let response = builder().finish().execute(include_str!("introspection.graphql")).await;
    serde_json::json!({ "data": response.data }).to_string()
}

fn builder() -> SchemaBuilder<Query, Mutation, EmptySubscription> {
    // Suggestions would compare each unknown name of introspection with all fields of the type. `document::variables`
    // has the suggestions for all other names.
    async_graphql::Schema::build(Query::default(), Mutation::default(), EmptySubscription)
        .disable_suggestions()
        .register_output_type::<ErrorExtensions>()
}
