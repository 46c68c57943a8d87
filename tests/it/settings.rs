//! Settings of `vivamo serve` change what a server does, and the metrics count it.

use std::path::Path;

use entity::deployment::Environment;
use serde_json::{Value, json};
use support::process::{Running, vivamo};
use support::{Answer, Backend, KEY_SECRET, TestApp, TestCaller, http_client, run};
use tempfile::TempDir;

const CREATE: &str = "mutation ($input: CreateCustomerInput!) { createCustomer(input: $input) { outcome } }";

/// A server with these settings on the database of a test, and its metrics.
struct Server {
    process: Running,
    url: String,
    metrics: String,
}

impl Server {
    fn start(app: &TestApp, folder: &Path, settings: &[(&str, &str)]) -> Self {
        let mut serve = vivamo(folder, &["serve"]);
        serve.env("DATABASE_URL", app.database_url()).env("VIVAMO_KEY_SECRET", KEY_SECRET);
        let (process, url, metrics) = Running::start_with_metrics(serve.envs(settings.iter().copied()));
        Self { process, url, metrics }
    }

    async fn graphql(&self, caller: &TestCaller, query: &str, variables: Value) -> Answer {
        let body = json!({ "query": query, "variables": variables });
        let request = http_client().post(format!("{}/graphql", self.url)).bearer_auth(&caller.key).json(&body);
        Answer::read(request.send().await.unwrap()).await
    }

    async fn create(&self, caller: &TestCaller, id: &str, data: Value) -> Answer {
        self.graphql(caller, CREATE, json!({ "input": { "externalCustomerId": id, "data": data } })).await
    }

    async fn status(&self, path: &str) -> u16 {
        http_client().get(format!("{}{path}", self.url)).send().await.unwrap().status().as_u16()
    }

    async fn assert_metrics(&self, series: &[&str]) {
        let shown = http_client().get(&self.metrics).send().await.unwrap().text().await.unwrap();
        for series in series {
            assert!(shown.lines().any(|line| line == *series), "{series}: {shown}");
        }
    }
}

#[tokio::test]
async fn disclosures_and_the_requests_that_their_limit_rejects_are_counted() {
    run(Backend::Sqlite, Environment::Sandbox, async |app| {
        let (known, own) = (app.operator("Known").await, app.operator("Own").await);
        for (id, phone) in [("a", "+14155552671"), ("b", "+14155552672"), ("c", "+14155552673")] {
            app.created(&known, id, json!({ "email": format!("{id}@example.com"), "phone": phone })).await;
        }
        let folder = TempDir::new().unwrap();
        let server = Server::start(app, folder.path(), &[("VIVAMO_DISCLOSURES_PER_HOUR", "4")]);
        let connected = server.create(&own, "a", json!({ "email": "a@example.com" })).await;
        assert_eq!(connected.payload("createCustomer")["outcome"], "CONNECTED");
        let both = json!({ "email": "b@example.com", "phone": "+14155552673" });
        assert_eq!(server.create(&own, "b", both.clone()).await.codes(), ["IDENTITY_CONFLICT"; 2]);
        let update = "mutation { updateCustomer(input: {customer: {externalCustomerId: \"a\"}, \
                      data: {email: \"c@example.com\"}}) { customer { id } } }";
        assert_eq!(server.graphql(&own, update, json!({})).await.codes(), ["EMAIL_TAKEN"]);
        // The budget is used up.
        assert_eq!(server.create(&own, "b", both).await.codes(), ["RATE_LIMITED"]);
        server
            .assert_metrics(&[
                "vivamo_disclosures_total{kind=\"connected\"} 1",
                "vivamo_disclosures_total{kind=\"identity_conflict\"} 2",
                "vivamo_disclosures_total{kind=\"taken_on_update\"} 1",
                "vivamo_disclosures_total{kind=\"rejected_create\"} 0",
                "vivamo_rate_limited_total{limit=\"disclosures\"} 1",
                "vivamo_rate_limited_total{limit=\"cost\"} 0",
                "vivamo_requests_total{kind=\"mutation\",code=\"IDENTITY_CONFLICT\"} 1",
            ])
            .await;
        server.process.stop();
    })
    .await;
}

#[tokio::test]
async fn the_cost_of_requests_is_limited_and_counted() {
    run(Backend::Sqlite, Environment::Sandbox, async |app| {
        let own = app.operator("Own").await;
        let folder = TempDir::new().unwrap();
        // The budget of a key is ten times this setting, and a mutation costs at least 10.
        let server = Server::start(app, folder.path(), &[("VIVAMO_COST_PER_SECOND", "1")]);
        server.create(&own, "a", json!({ "email": "a@example.com" })).await.payload("createCustomer");
        let rejected = server.create(&own, "b", json!({ "email": "b@example.com" })).await;
        assert_eq!((rejected.status, rejected.codes()), (429, vec!["RATE_LIMITED".to_owned()]));
        server
            .assert_metrics(&[
                "vivamo_rate_limited_total{limit=\"cost\"} 1",
                "vivamo_rate_limited_total{limit=\"disclosures\"} 0",
                "vivamo_cost_total{kind=\"query\"} 0",
                "vivamo_requests_total{kind=\"mutation\",code=\"OK\"} 1",
            ])
            .await;
        server.process.stop();
    })
    .await;
}

#[tokio::test]
async fn graphiql_can_be_switched_off() {
    run(Backend::Sqlite, Environment::Sandbox, async |app| {
        let folder = TempDir::new().unwrap();
        for (setting, status) in [("true", 200), ("false", 404)] {
            let server = Server::start(app, folder.path(), &[("VIVAMO_GRAPHIQL", setting)]);
            assert_eq!(server.status("/graphiql").await, status);
            assert_eq!(server.status("/graphiql/introspection.json").await, status);
            server.process.stop();
        }
    })
    .await;
}
