//! Concurrent creates that combine the same emails and phones in different ways. The creates of a round may wait for
//! rows of each other, but no client receives a deadlock error.

use std::collections::BTreeMap;

use futures::future::join_all;
use sea_orm::{EntityTrait, PaginatorTrait};
use serde_json::json;

use crate::servers::{Servers, codes};
use support::Backend;

const ROUNDS: usize = 200;

const CREATE: &str =
    "mutation ($input: CreateCustomerInput!) { createCustomer(input: $input) { outcome customer { id email phone } } }";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn creates_with_swapped_values_connect_or_conflict() {
    let Some(servers) = Servers::start(Backend::Postgres, 2).await else { return };
    let mut operators = Vec::new();
    for number in 0..4 {
        operators.push(servers.operator(&format!("Operator {number}")).await);
    }
    let mut outcomes: BTreeMap<String, usize> = BTreeMap::new();
    for round in 0..ROUNDS {
        let email = |number: usize| format!("{number}-{round}@example.com");
        let phone = |number: usize| format!("+1415555{:04}", 2 * round + number);
        // Combines each email with each phone.
        let pairs = [(0, 0), (1, 1), (0, 1), (1, 0)];
        let creates = pairs.iter().zip(&operators).map(|(&(email_number, phone_number), operator)| {
            let data = json!({ "email": email(email_number), "phone": phone(phone_number) });
            let id = round.to_string();
            let input = json!({ "externalCustomerId": id, "data": data, "idempotencyKey": id });
            let servers = &servers;
            async move { servers.send_until_available(operator, CREATE, &json!({ "input": input })).await.unwrap() }
        });
        let answers: Vec<_> = join_all(creates).await.into_iter().map(|(_, answer)| answer).collect();
        let mut created = 0;
        for answer in &answers {
            let outcome = match answer["data"]["createCustomer"]["outcome"].as_str() {
                Some(outcome) => outcome.to_owned(),
                None => codes(answer).join("+"),
            };
            assert!(
                ["CREATED", "CONNECTED", "IDENTITY_CONFLICT+IDENTITY_CONFLICT"].contains(&outcome.as_str()),
                "{answer}"
            );
            created += usize::from(outcome == "CREATED");
            *outcomes.entry(outcome).or_default() += 1;
        }
        // The create that is applied first makes a customer. The create with the other email and the other phone may
        // make a second customer.
        assert!(created == 1 || created == 2, "{answers:?}");
    }
    println!("{ROUNDS} rounds: {outcomes:?}");
    let customers = entity::customer::Entity::find().count(servers.database.reader()).await.unwrap();
    assert_eq!(customers, outcomes["CREATED"] as u64);
    servers.stop().await;
}
