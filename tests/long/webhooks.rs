//! Webhooks while processes are killed: each change arrives, in order, and a repeated delivery has the same id and the
//! same body.

use std::collections::HashMap;
use std::sync::Arc;

use entity::value::OperatorId;
use entity::{customer_change, webhook};
use futures::future::join_all;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder};
use serde_json::json;
use support::process::vivamo;
use support::receiver::{Received, Receiver, Reply, insert_endpoint};
use support::{Backend, postgres};
use tempfile::TempDir;
use tokio::sync::Notify;

use crate::servers::{Servers, codes};

const ROUNDS: usize = 6;
const WRITERS: usize = 4;
const CREATES_PER_WRITER: usize = 40;

const CREATE: &str = "mutation ($input: CreateCustomerInput!) { createCustomer(input: $input) { outcome } }";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_delivers_every_change() {
    run(Backend::Sqlite, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_delivers_every_change() {
    run(Backend::Postgres, 2).await;
}

async fn run(backend: Backend, processes: usize) {
    let Some(mut servers) = Servers::start(backend, 0).await else { return };
    let folder = TempDir::new().unwrap();
    let start = |servers: &mut Servers| {
        for _ in 0..processes {
            let mut command = vivamo(folder.path(), &["serve"]);
            command.env("VIVAMO_WEBHOOK_NETWORKS", "127.0.0.0/8");
            servers.add_process_with(command);
        }
    };
    start(&mut servers);
    let operator = servers.operator("A").await;
    let receiver = Receiver::start().await;
    let operator_id = OperatorId::parse(&operator.operator).unwrap();
    let webhook = insert_endpoint(&servers.database, operator_id, &receiver.url).await;
    let mut received: Vec<Received> = Vec::new();
    for round in 0..ROUNDS {
        // The processes are killed after the receiver got a delivery. In every second round, the receiver has not
        // answered the delivery.
        let (is_answered, answer) = (round % 2 == 0, Arc::new(Notify::new()));
        receiver.plan(if is_answered { Reply::Status(204, String::new()) } else { Reply::After(answer, 204) });
        let writer = async |writer: usize| {
            for number in 0..CREATES_PER_WRITER {
                let id = format!("{round}-{writer}-{number}");
                let data = json!({ "email": format!("{id}@example.com") });
                let input = json!({ "externalCustomerId": id, "data": data, "idempotencyKey": id });
                let sent = servers.send_until_available(&operator, CREATE, &json!({ "input": input })).await;
                let Ok((_, body)) = sent else { return };
                assert_eq!(codes(&body), Vec::<String>::new());
            }
        };
        let killer = async {
            receiver.wait_for(1).await;
            servers.processes.iter().for_each(|(process, _)| process.kill());
        };
        tokio::join!(join_all((0..WRITERS).map(writer)), killer);
        received.extend(receiver.take());
        servers.processes.clear();
        // Ends the lease that one of the killed processes may still hold.
        postgres::execute(servers.url(), "UPDATE webhook SET lease_until = NULL").await.unwrap();
        start(&mut servers);
    }
    let feed = customer_change::Entity::find()
        .filter(customer_change::Column::ReaderId.eq(operator_id))
        .order_by_asc(customer_change::Column::Position)
        .order_by_asc(customer_change::Column::Id);
    let feed: Vec<_> = feed.all(servers.database.reader()).await.unwrap();
    let expected: Vec<_> = feed.iter().map(|change| change.id.to_string()).collect();
    while distinct_changes(&received).last() != expected.last() {
        receiver.wait_for(1).await;
        received.extend(receiver.take());
    }
    assert_eq!(distinct_changes(&received), expected);
    let mut bodies = HashMap::new();
    for delivery in &received {
        assert_eq!(bodies.entry(&delivery.id).or_insert(&delivery.body), &&delivery.body);
    }
    let row = webhook::Entity::find_by_id(webhook).one(servers.database.reader()).await.unwrap().unwrap();
    assert_eq!(row.disabled_at, None);
    println!("{backend:?}: {} changes in {} deliveries, {} distinct", expected.len(), received.len(), bodies.len());
    assert!(received.len() > bodies.len() && expected.len() > ROUNDS);
    servers.stop().await;
}

/// The ids of the changes, without the deliveries that repeat the previous delivery.
fn distinct_changes(received: &[Received]) -> Vec<String> {
    let mut deliveries: Vec<_> = received.iter().collect();
    deliveries.dedup_by_key(|delivery| &delivery.id);
    let changes = deliveries.into_iter().flat_map(Received::changes);
    changes.map(|change| change["id"].as_str().unwrap().to_owned()).collect()
}
