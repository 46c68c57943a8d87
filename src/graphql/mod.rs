//! The schema: objects, inputs and resolvers by thing. Resolvers parse, make one service call, and wrap its answer.

mod api_key;
mod batch;
mod cursor;
mod customer;
mod customer_input;
mod errors;
mod guard;
mod history;
mod loader;
mod node;
mod operator;
mod pagination;
mod variables;
mod viewer;

pub use errors::{ErrorExtensions, Rendered, render};
pub use guard::Operation;

use std::time::Duration;

use async_graphql::dataloader::DataLoader;
use async_graphql::{Context, EmptySubscription, MergedObject, Request, Response, SDLExportOptions, ServerError};

use entity::value::RequestId;

use crate::keyed_hash::KeyedHash;
use crate::service::{Actor, Services};
use batch::Fetches;
use loader::Loader;

/// What can be read. Nothing here changes anything.
#[derive(MergedObject, Default)]
pub struct Query(viewer::ViewerQuery, customer::CustomerQuery, operator::OperatorQuery, node::NodeQuery);

/// What can be changed. Each mutation is done as a whole or not at all.
#[derive(MergedObject, Default)]
pub struct Mutation(customer::CustomerMutation, operator::OperatorMutation, api_key::ApiKeyMutation);

pub type Schema = async_graphql::Schema<Query, Mutation, EmptySubscription>;

/// Fields in an answer whose pages are all full. A page of 100 customers with 20 operators each has some 12,000.
const MOST_COMPLEXITY: usize = 50_000;

/// The schema over these services. Cursors are signed with `hash`.
pub fn schema(services: Services, hash: KeyedHash) -> Schema {
    builder().data(services).data(hash).limit_depth(15).limit_complexity(MOST_COMPLEXITY).finish()
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

/// Judges the document of a request, and leaves it parsed in the request. What is wrong with it is an answer already.
pub fn check(request: &mut Request) -> Result<Operation, Box<Response>> {
    let checked = guard::parse(&request.query).and_then(|mut document| {
        let name = request.operation_name.as_deref();
        variables::settle(&mut document, name, &request.variables)?;
        let operation = guard::operation(&document, name);
        request.set_parsed_query(document);
        Ok(operation)
    });
    checked
        .map_err(|guard::Refusal { message, at }| Box::new(Response::from_errors(vec![ServerError::new(message, at)])))
}

/// Executes a request that was checked, in the name of this caller. What it loads is its own: no row reaches another
/// caller through it.
pub async fn execute(
    schema: &Schema,
    request: Request,
    request_id: RequestId,
    actor: Actor,
    services: &Services,
) -> Response {
    let fetches = Fetches::default();
    let added = fetches.clone();
    let loader = DataLoader::new(Loader { actor, services: services.clone() }, move |fetch| added.add(fetch));
    let request = request.data(actor).data(request_id).data(loader.delay(Duration::ZERO));
    fetches.during(schema.execute(request)).await
}

fn actor<'c>(context: &Context<'c>) -> &'c Actor {
    context.data_unchecked::<Actor>()
}

fn request_id(context: &Context<'_>) -> RequestId {
    *context.data_unchecked::<RequestId>()
}

fn services<'c>(context: &Context<'c>) -> &'c Services {
    context.data_unchecked::<Services>()
}

fn loader<'c>(context: &Context<'c>) -> &'c DataLoader<Loader> {
    context.data_unchecked::<DataLoader<Loader>>()
}
