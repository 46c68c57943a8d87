//! The schema: objects, inputs and resolvers by thing. Resolvers parse, make one service call, and wrap its answer.

mod api_key;
mod cursor;
mod customer;
mod customer_input;
mod document_cache;
mod document_limits;
mod errors;
mod history;
mod load_rounds;
mod loader;
mod node;
mod operator;
mod pagination;
mod time;
mod variables;
mod viewer;

pub use document_limits::Operation;
pub use errors::{ErrorExtensions, Rendered, render};

use std::sync::Arc;
use std::time::Duration;

use async_graphql::dataloader::DataLoader;
use async_graphql::{
    Context, EmptySubscription, MergedObject, Request, Response, SDLExportOptions, ServerError, ValidationMode,
};

use entity::value::RequestId;

use crate::keyed_hash::KeyedHash;
use crate::service::{Actor, Services};
use document_cache::{Document, DocumentCache};
use load_rounds::LoadRounds;
use loader::Loader;

/// What can be read. Nothing here changes anything.
#[derive(MergedObject, Default)]
pub struct Query(viewer::ViewerQuery, customer::CustomerQuery, operator::OperatorQuery, node::NodeQuery);

/// What can be changed. Each mutation is done as a whole or not at all.
#[derive(MergedObject, Default)]
pub struct Mutation(customer::CustomerMutation, operator::OperatorMutation, api_key::ApiKeyMutation);

/// Fields in an answer whose pages are all full. A page of 100 customers with 20 operators each has some 12,000.
const MAX_COMPLEXITY: usize = 50_000;

/// The schema over the services, ready to answer.
pub struct Schema {
    validating: Executor,
    /// For documents that the other one has found valid.
    trusting: Executor,
    documents: DocumentCache,
    services: Arc<Services>,
}

type Executor = async_graphql::Schema<Query, Mutation, EmptySubscription>;

/// A request whose document and variables were judged.
pub struct Checked {
    pub operation: Operation,
    document: Arc<Document>,
    request: Request,
}

impl Schema {
    /// Cursors are signed with `hash`.
    pub fn new(services: Arc<Services>, hash: KeyedHash) -> Self {
        let executor = |mode| {
            let limited = builder().limit_depth(15).limit_complexity(MAX_COMPLEXITY).validation_mode(mode);
            limited.data(services.clone()).data(hash.clone()).finish()
        };
        Self {
            validating: executor(ValidationMode::Strict),
            trusting: executor(ValidationMode::Fast),
            documents: DocumentCache::new(),
            services,
        }
    }

    /// Judges a request. What is wrong with it is an answer already.
    pub fn check(&self, request: Request) -> Result<Checked, Box<Response>> {
        let name = request.operation_name.as_deref();
        match self.documents.read(&request.query, name, &request.variables) {
            Ok(document) => {
                let operation = document_limits::operation(&document.parsed, name);
                Ok(Checked { operation, document, request })
            }
            Err(document_limits::Refusal { message, at }) => {
                Err(Box::new(Response::from_errors(vec![ServerError::new(message, at)])))
            }
        }
    }

    /// Executes a request in the name of this caller. What it loads is its own: no row reaches another caller through it.
    pub async fn execute(&self, checked: Checked, request_id: RequestId, actor: Actor) -> Response {
        let Checked { document, mut request, .. } = checked;
        request.set_parsed_query(document.parsed.clone());
        let fetches = LoadRounds::default();
        let added = fetches.clone();
        let loader = Loader { actor, services: self.services.clone() };
        let loader = DataLoader::new(loader, move |fetch| added.add(fetch)).delay(Duration::ZERO);
        let request = request.data(actor).data(request_id).data(loader);
        if document.is_valid() {
            return fetches.during(self.trusting.execute(request)).await;
        }
        let response = fetches.during(self.validating.execute(request)).await;
        // An error without a path is one of the document.
        if response.errors.iter().all(|error| !error.path.is_empty()) {
            document.found_valid();
        }
        response
    }
}

/// The schema as text, as `schema.graphql` holds it.
pub fn sdl() -> String {
    let options = SDLExportOptions::new().include_specified_by().use_space_ident();
    let sdl = builder().finish().sdl_with_options(options);
    let lines: Vec<_> = sdl.trim().lines().map(str::trim_end).collect();
    lines.join("\n") + "\n"
}

/// What the schema says of itself, as JSON.
pub async fn introspection() -> String {
    let answer = builder().finish().execute(include_str!("introspection.graphql")).await;
    serde_json::json!({ "data": answer.data }).to_string()
}

fn builder() -> async_graphql::SchemaBuilder<Query, Mutation, EmptySubscription> {
    async_graphql::Schema::build(Query::default(), Mutation::default(), EmptySubscription)
        .register_output_type::<ErrorExtensions>()
}

fn actor<'c>(context: &Context<'c>) -> &'c Actor {
    context.data_unchecked::<Actor>()
}

fn request_id(context: &Context<'_>) -> RequestId {
    *context.data_unchecked::<RequestId>()
}

fn services<'c>(context: &Context<'c>) -> &'c Services {
    context.data_unchecked::<Arc<Services>>()
}

fn loader<'c>(context: &Context<'c>) -> &'c DataLoader<Loader> {
    context.data_unchecked::<DataLoader<Loader>>()
}
