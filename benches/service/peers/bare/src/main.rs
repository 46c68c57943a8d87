//! A minimal server with axum and async-graphql for the operations of the benchmark: handwritten SQL, prepared and
//! pipelined statements, cached documents. It has no limits and writes no log.
//!
//! With `WORK=least` it writes only customers and links, does not check values, and compares keys as text. With
//! `WORK=same-work` it looks keys up by their hash, shows an operator only its own customers, validates emails and
//! phones, and writes history, search words and the change feed, as the service does.

mod keys;
mod least;
mod same_work;
mod values;

use std::collections::HashMap;
use std::env::var;
use std::sync::{Arc, RwLock};

use async_graphql::parser::parse_query;
use async_graphql::parser::types::ExecutableDocument;
use async_graphql::{
    Context, EmptySubscription, Enum, ID, InputObject, Object, Request, Response, Result, Schema, SimpleObject,
    ValidationMode,
};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::post;
use axum::serve::ListenerExt;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use keys::{TestCaller, Keys};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_postgres::types::{Json, ToSql};
use tokio_postgres::{NoTls, Row};
use uuid::Uuid;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CUSTOMER: &str = "customer.id, customer.email, customer.phone, customer.first_name, customer.last_name, \
                        customer.address, customer.version, customer.created_at, customer.updated_at";

#[derive(Clone, Debug, SimpleObject, InputObject, Serialize, Deserialize)]
#[graphql(input_name = "AddressInput")]
struct Address {
    line1: String,
    line2: Option<String>,
    city: String,
    region: Option<String>,
    postal_code: Option<String>,
    country: String,
}

#[derive(Clone, SimpleObject)]
struct Customer {
    id: Uuid,
    email: String,
    phone: Option<String>,
    first_name: Option<String>,
    last_name: Option<String>,
    address: Option<Address>,
    version: i32,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    /// The operators of the customer. Empty unless the customer is part of a page.
    operators: CustomerOperatorConnection,
}

impl From<&Row> for Customer {
    fn from(row: &Row) -> Self {
        Self {
            id: row.get(0),
            email: row.get(1),
            phone: row.get(2),
            first_name: row.get(3),
            last_name: row.get(4),
            address: row.get::<_, Option<Json<Address>>>(5).map(|address| address.0),
            version: row.get(6),
            created_at: row.get(7),
            updated_at: row.get(8),
            operators: CustomerOperatorConnection::default(),
        }
    }
}

#[derive(Clone, Default, SimpleObject)]
struct CustomerOperatorConnection {
    edges: Vec<Link>,
}

#[derive(Clone, SimpleObject)]
struct Link {
    external_customer_id: String,
    node: LinkedOperator,
}

#[derive(Clone, SimpleObject)]
struct LinkedOperator {
    id: Uuid,
    name: String,
}

struct Operator(Uuid);

#[derive(SimpleObject)]
struct CustomerEdge {
    node: Customer,
}

#[derive(SimpleObject)]
struct PageInfo {
    has_next_page: bool,
    end_cursor: Option<String>,
}

#[derive(SimpleObject)]
struct CustomerConnection {
    edges: Vec<CustomerEdge>,
    page_info: PageInfo,
}

#[derive(InputObject)]
struct CustomerRef {
    id: Option<Uuid>,
    external_customer_id: Option<String>,
}

#[derive(InputObject)]
struct CustomerDataInput {
    email: String,
    phone: Option<String>,
    first_name: Option<String>,
    last_name: Option<String>,
    address: Option<Address>,
}

#[derive(InputObject)]
struct CreateCustomerInput {
    external_customer_id: String,
    data: CustomerDataInput,
}

#[derive(InputObject)]
struct CustomerDataPatch {
    first_name: Option<String>,
}

#[derive(InputObject)]
struct UpdateCustomerInput {
    customer: CustomerRef,
    data: CustomerDataPatch,
}

#[derive(Clone, Copy, PartialEq, Eq, Enum)]
enum Outcome {
    Created,
    Connected,
}

#[derive(SimpleObject)]
struct CreateCustomerPayload {
    outcome: Outcome,
    customer: Customer,
}

#[derive(SimpleObject)]
struct UpdateCustomerPayload {
    customer: Customer,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    Least,
    Same,
}

#[derive(Clone)]
struct Database {
    pool: Pool,
    work: Work,
}

impl Database {
    async fn customer(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Option<Customer>> {
        let client = self.pool.get().await?;
        let statement = client.prepare_cached(sql).await?;
        Ok(client.query_opt(&statement, values).await?.as_ref().map(Customer::from))
    }
}

struct Query;

#[Object]
impl Query {
    async fn customer(&self, context: &Context<'_>, by: CustomerRef) -> Result<Option<Customer>> {
        let database = context.data::<Database>()?;
        let operator = context.data::<TestCaller>()?.operator;
        let own = format!(
            "SELECT {CUSTOMER} FROM customer_operator JOIN customer ON customer.id = customer_id WHERE operator_id = $1"
        );
        match (by.id, database.work) {
            (Some(id), Work::Least) => {
                database.customer(&format!("SELECT {CUSTOMER} FROM customer WHERE id = $1"), &[&id]).await
            }
            (Some(id), Work::Same) => {
                database.customer(&format!("{own} AND customer_id = $2"), &[&operator, &id]).await
            }
            (None, _) => {
                let sql = format!("{own} AND external_customer_id = $2");
                database.customer(&sql, &[&operator, &by.external_customer_id]).await
            }
        }
    }

    /// Finds an operator. With `WORK=same-work`, only the platform key finds an operator, because the page of an
    /// operator's customers shows the links of all operators.
    async fn operator(&self, context: &Context<'_>, id: ID) -> Result<Option<Operator>> {
        let is_platform = context.data::<TestCaller>()?.operator.is_nil();
        let may_see = context.data::<Database>()?.work == Work::Least || is_platform;
        Ok(if may_see { Some(Operator(Uuid::parse_str(&id)?)) } else { None })
    }
}

#[Object]
impl Operator {
    async fn customers(
        &self,
        context: &Context<'_>,
        first: usize,
        after: Option<String>,
    ) -> Result<CustomerConnection> {
        let (time, last) = match after {
            Some(cursor) => read(&cursor).ok_or("invalid cursor")?,
            None => (DateTime::UNIX_EPOCH, Uuid::nil()),
        };
        // If the limit were a parameter, PostgreSQL would plan for many rows.
        let sql = format!(
            "WITH page AS (SELECT customer_id, connected_at FROM customer_operator \
                 WHERE operator_id = $1 AND (connected_at, customer_id) > ($2, $3) \
                 ORDER BY connected_at, customer_id LIMIT {}) \
             SELECT {CUSTOMER}, page.connected_at, link.external_customer_id, operator.id, operator.name \
             FROM page JOIN customer ON customer.id = page.customer_id \
             JOIN customer_operator AS link ON link.customer_id = customer.id \
             JOIN operator ON operator.id = link.operator_id \
             ORDER BY page.connected_at, customer.id, link.connected_at, link.operator_id",
            first + 1
        );
        let client = context.data::<Database>()?.pool.get().await?;
        let statement = client.prepare_cached(&sql).await?;
        let mut found: Vec<(DateTime<Utc>, Customer)> = Vec::with_capacity(first + 1);
        for row in client.query(&statement, &[&self.0, &time, &last]).await? {
            if found.last().is_none_or(|(_, customer)| customer.id != row.get::<_, Uuid>(0)) {
                found.push((row.get(9), (&row).into()));
            }
            let node = LinkedOperator { id: row.get(11), name: row.get(12) };
            let link = Link { external_customer_id: row.get(10), node };
            found.last_mut().ok_or("no customer")?.1.operators.edges.push(link);
        }
        let has_next_page = found.len() > first;
        found.truncate(first);
        let end_cursor = found.last().map(|(time, customer)| cursor(*time, customer.id));
        let edges = found.into_iter().map(|(_, node)| CustomerEdge { node }).collect();
        Ok(CustomerConnection { edges, page_info: PageInfo { has_next_page, end_cursor } })
    }
}

fn cursor(time: DateTime<Utc>, id: Uuid) -> String {
    BASE64_URL_SAFE_NO_PAD.encode([&time.timestamp_micros().to_be_bytes()[..], id.as_bytes()].concat())
}

fn read(cursor: &str) -> Option<(DateTime<Utc>, Uuid)> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let (time, id) = bytes.split_at_checked(8)?;
    let time = DateTime::from_timestamp_micros(i64::from_be_bytes(time.try_into().ok()?))?;
    Some((time, Uuid::from_slice(id).ok()?))
}

struct Mutation;

#[Object]
impl Mutation {
    async fn create_customer(
        &self,
        context: &Context<'_>,
        input: CreateCustomerInput,
    ) -> Result<CreateCustomerPayload> {
        let (database, caller) = (context.data::<Database>()?, *context.data::<TestCaller>()?);
        let client = database.pool.get().await?;
        match database.work {
            // A task runs to its end even if the client disconnects. Otherwise the connection would go back to the pool
            // in the middle of the transaction.
            Work::Least => tokio::spawn(async move { least::create(&client, caller.operator, &input).await }).await?,
            Work::Same => same_work::create(&client, caller, input).await,
        }
    }

    async fn update_customer(
        &self,
        context: &Context<'_>,
        input: UpdateCustomerInput,
    ) -> Result<UpdateCustomerPayload> {
        let (database, caller) = (context.data::<Database>()?, *context.data::<TestCaller>()?);
        let client = database.pool.get().await?;
        let UpdateCustomerInput { customer, data: CustomerDataPatch { first_name } } = input;
        let customer = match database.work {
            Work::Least => least::update(&client, customer.id, first_name).await?,
            Work::Same => same_work::update(&client, caller, &customer, first_name).await?,
        };
        Ok(UpdateCustomerPayload { customer: customer.ok_or("CUSTOMER_NOT_FOUND")? })
    }
}

type Api = Schema<Query, Mutation, EmptySubscription>;

struct Server {
    /// Validates and executes new documents.
    strict: Api,
    /// Executes cached documents.
    fast: Api,
    documents: RwLock<HashMap<String, ExecutableDocument>>,
    keys: Keys,
}

impl Server {
    async fn execute(&self, mut request: Request) -> Response {
        if let Some(document) = self.cached(&request.query) {
            request.set_parsed_query(document);
            return self.fast.execute(request).await;
        }
        let query = request.query.clone();
        let response = self.strict.execute(request).await;
        if response.is_ok() {
            let document = parse_query(&query).unwrap();
            self.documents.write().unwrap().insert(query, document);
        }
        response
    }

    fn cached(&self, query: &str) -> Option<ExecutableDocument> {
        self.documents.read().unwrap().get(query).cloned()
    }
}

async fn answer(State(server): State<Arc<Server>>, headers: HeaderMap, body: Bytes) -> impl IntoResponse {
    let key = headers.get(header::AUTHORIZATION).and_then(|key| key.to_str().ok());
    let Some(caller) = server.keys.caller(key.unwrap_or_default()).await else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    let Ok(request) = serde_json::from_slice::<Request>(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let body = serde_json::to_vec(&server.execute(request.data(caller)).await).unwrap();
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

#[tokio::main]
async fn main() {
    let manager = Manager::from_config(
        var("DATABASE_URL").unwrap().parse().unwrap(),
        NoTls,
        ManagerConfig { recycling_method: RecyclingMethod::Fast },
    );
    let pool = Pool::builder(manager).max_size(10).build().unwrap();
    let (work, keys) = match var("WORK").unwrap().as_str() {
        "least" => (Work::Least, Keys::plain()),
        "same-work" => (Work::Same, Keys::hashed(pool.clone())),
        _ => panic!("WORK is `least` or `same-work`"),
    };
    let database = Database { pool, work };
    let schema =
        |mode| Schema::build(Query, Mutation, EmptySubscription).data(database.clone()).validation_mode(mode).finish();
    let server = Server {
        strict: schema(ValidationMode::Strict),
        fast: schema(ValidationMode::Fast),
        documents: RwLock::default(),
        keys,
    };
    let app = Router::new().route("/graphql", post(answer)).with_state(Arc::new(server));
    let listener = TcpListener::bind(("127.0.0.1", var("PORT").unwrap().parse().unwrap())).await.unwrap();
    let listener = listener.tap_io(|connection| connection.set_nodelay(true).unwrap());
    axum::serve(listener, app).await.unwrap();
}
