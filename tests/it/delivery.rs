//! Deliveries of webhooks.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use entity::api_key::Access;
use entity::customer_change;
use entity::customer_event::EventType;
use entity::deployment::Environment;
use entity::value::{CustomerEventId, OperatorId, WebhookId, WebhookUrl};
use entity::webhook::{self, ChangeTypes, Failure};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter, Set, Statement,
    Unchanged,
};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use tempfile::TempDir;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;
use vivamo::graphql::{self, ApiChangeRenderer};
use vivamo::keyed_hash::KeyedHasher;
use vivamo::service::feed_positions::FeedPosition;
use vivamo::service::webhooks::addresses::AddressFilter;
use vivamo::service::webhooks::delivery::{ChangeRenderer, Clock, Deliveries, DeliverySettings};
use vivamo::service::webhooks::sender::{Sender, SenderSettings};
use vivamo::service::webhooks::signature::SigningSecret;
use vivamo::service::{Caller, now};

use support::postgres;
use support::process::vivamo;
use support::proxy::{Cut, Proxy};
use support::receiver::{Receiver, Reply, URL_TOKEN, insert_endpoint};
use support::{Backend, KEY_SECRET, TestApp, TestCaller, both, http_client, logs, run, wait_until};

use crate::cli::usage_error;

/// A process that delivers webhooks of a test, with a clock that the test sets.
struct Process<'a> {
    app: &'a TestApp,
    deliveries: Deliveries,
    clock: Arc<Mutex<DateTime<Utc>>>,
}

/// Sender settings that allow the loopback addresses of the receivers.
fn sender_settings() -> SenderSettings {
    let loopback = AddressFilter::new(vec!["127.0.0.0/8".parse().unwrap()]);
    SenderSettings::new(Environment::Sandbox, loopback)
}

/// Sender settings with a long timeout, for receivers that respond late.
fn patient_settings() -> SenderSettings {
    SenderSettings { timeout: Duration::from_secs(60), ..sender_settings() }
}

/// Settings with the clock of the computer.
fn settings(sender: SenderSettings) -> DeliverySettings {
    DeliverySettings {
        sender: Sender::new(sender).unwrap(),
        renderer: Arc::new(ApiChangeRenderer { hasher: KeyedHasher::new(KEY_SECRET) }),
        clock: Arc::new(now),
    }
}

impl<'a> Process<'a> {
    fn start(app: &'a TestApp) -> Self {
        Self::start_with(app, sender_settings())
    }

    fn start_with(app: &'a TestApp, sender: SenderSettings) -> Self {
        Self::start_at(app, sender, Arc::new(Mutex::new(now())))
    }

    /// Starts another process with the same clock. A delivery sets `next_attempt_at` to the time of its process, so a
    /// process with an earlier clock could not claim the endpoint yet.
    fn start_other(&self, sender: SenderSettings) -> Self {
        Self::start_at(self.app, sender, self.clock.clone())
    }

    fn start_at(app: &'a TestApp, sender: SenderSettings, clock: Arc<Mutex<DateTime<Utc>>>) -> Self {
        let read = clock.clone();
        let settings = DeliverySettings { clock: Arc::new(move || *read.lock().unwrap()), ..settings(sender) };
        Self { app, deliveries: Deliveries::new(app.database.clone(), app.services.clone(), settings), clock }
    }

    fn now(&self) -> DateTime<Utc> {
        *self.clock.lock().unwrap()
    }

    /// Moves the clock forward to the time of the endpoint's next attempt. Does not change a clock that is already
    /// later.
    async fn advance_to_next_attempt(&self, webhook: WebhookId) {
        let next = row(self.app, webhook).await.next_attempt_at;
        let mut clock = self.clock.lock().unwrap();
        *clock = next.max(*clock);
    }

    /// Calls `deliver_due` again and again until `is_done` returns true. Changes can become visible late on PostgreSQL,
    /// because the feed shows a change only after all older transactions have ended, including those of other tests.
    async fn deliver_until(&self, mut is_done: impl AsyncFnMut() -> bool) {
        wait_until("the deliveries end", async || {
            let is_done = is_done().await;
            if !is_done {
                self.deliveries.deliver_due().await.unwrap();
            }
            is_done.then_some(())
        })
        .await;
    }

    /// Calls `deliver_due` until the receiver has got a delivery. Returns the deliveries that the receiver got.
    async fn deliver_to(&self, receiver: &Receiver) -> Vec<support::receiver::Received> {
        let mut received = Vec::new();
        self.deliver_until(async || {
            received.extend(receiver.take());
            !received.is_empty()
        })
        .await;
        received
    }
}

/// Stores an endpoint whose cursor is before the first change.
async fn endpoint(app: &TestApp, operator: &TestCaller, url: &str) -> WebhookId {
    insert_endpoint(&app.database, OperatorId::parse(&operator.operator).unwrap(), url).await
}

async fn row(app: &TestApp, id: WebhookId) -> webhook::Model {
    webhook::Entity::find_by_id(id).one(app.database.reader()).await.unwrap().unwrap()
}

/// Changes the row of an endpoint.
async fn change(app: &TestApp, id: WebhookId, changes: webhook::ActiveModel) {
    let transaction = app.database.begin_write().await.unwrap();
    webhook::ActiveModel { id: Unchanged(id), ..changes }.update(&transaction).await.unwrap();
    transaction.commit().await.unwrap();
}

fn secret(id: WebhookId, version: i32) -> String {
    let secrets = SigningSecret::derive(&KeyedHasher::new(KEY_SECRET), *id.as_uuid(), version);
    secrets.current.to_text().expose_secret().to_owned()
}

/// Creates customers with these numbers. Their external ids have the form `user-<number>`.
async fn create(app: &TestApp, operator: &TestCaller, numbers: std::ops::Range<usize>) {
    for number in numbers {
        app.created(operator, &format!("user-{number}"), json!({ "email": format!("{number}@example.com") })).await;
    }
}

/// The external ids of the customers in the changes, in order.
fn external_ids(changes: &[Value]) -> Vec<String> {
    changes.iter().map(|change| change["externalCustomerId"].as_str().unwrap().to_owned()).collect()
}

const UPDATE: &str =
    "mutation ($input: UpdateWebhookInput!) { result: updateWebhook(input: $input) { webhook { id } } }";

/// Reads the first page of the caller's feed, with all fields of `Change` except `customer`. Deliveries must have the
/// same fields.
async fn read_feed(app: &TestApp, caller: &TestCaller) -> Value {
    let schema: Value = serde_json::from_str(&graphql::introspection().await).unwrap();
    let types = schema["data"]["__schema"]["types"].as_array().unwrap();
    let change = types.iter().find(|kind| kind["name"] == "Change").unwrap();
    let names = change["fields"].as_array().unwrap().iter().map(|field| field["name"].as_str().unwrap());
    let fields: Vec<_> = names.filter(|name| *name != "customer").collect();
    let query = format!("{{ changes {{ cursor changes {{ {} }} }} }}", fields.join(" "));
    app.graphql(caller, &query, json!({})).await.data()["changes"].clone()
}

both!(a_delivery_has_the_changes_of_the_api_and_a_signature, Sandbox, async |app| {
    let (operator, other) = (app.operator("A").await, app.operator("B").await);
    let receiver = Receiver::start().await;
    let webhook = endpoint(app, &operator, &receiver.url).await;
    let data = json!({ "email": "ada@example.com", "firstName": "Ada" });
    app.created(&operator, "1", data.clone()).await;
    app.created(&other, "other", data).await;
    app.updated(&operator, json!({ "externalCustomerId": "1" }), json!({ "phone": "+14155552671" })).await;
    app.updated(&other, json!({ "externalCustomerId": "other" }), json!({ "lastName": "Lovelace" })).await;
    // Waits until all changes are visible, so that the changes arrive in one page.
    app.wait_for_feed().await;
    let feed = read_feed(app, &operator).await;
    assert_eq!(feed["changes"].as_array().unwrap().len(), 3);
    let process = Process::start(app);
    let [delivery] = &process.deliver_to(&receiver).await[..] else { panic!("one delivery") };
    let body = delivery.json();
    assert_eq!(body["type"], "customer.changes");
    assert_eq!(body["timestamp"], feed["changes"][2]["occurredAt"]);
    assert_eq!(body["data"], json!({ "changes": feed["changes"], "cursor": feed["cursor"] }));
    let own: Vec<_> = delivery.changes().iter().map(|change| change["own"].clone()).collect();
    assert_eq!(own, [true, true, false]);
    // The cursor is random, so it may contain any short word.
    assert!(!logs::is_leak(&body["data"]["changes"].to_string()), "{body}");
    assert!(delivery.is_signed_with(&secret(webhook, 1)) && delivery.signatures.len() == 1);
    let library = Webhook::new(&secret(webhook, 1)).unwrap();
    library.verify(&delivery.body, &delivery.headers).unwrap();
    assert_eq!(delivery.headers["content-type"], "application/json");
    assert!(delivery.id.starts_with("msg_") && delivery.headers.get("authorization").is_none());

    assert_eq!(process.deliveries.deliver_due().await.unwrap(), 0);
    let row = row(app, webhook).await;
    assert_eq!((row.last_status, row.failed_attempts, row.lease_until), (Some(204), 0, None));
    assert_eq!((row.sending_position, row.last_failure, row.failing_since), (None, None, None));
    assert_eq!(row.last_attempt_at, Some(process.now()));
    assert!(!app.log().contains(URL_TOKEN));
});

both!(pages_have_at_most_100_changes_and_20_kilobytes, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let receiver = Receiver::start().await;
    endpoint(app, &operator, &receiver.url).await;
    create(app, &operator, 0..120).await;
    let long = "\"".repeat(255);
    for number in 120..140 {
        let id = format!("{number}{}", &long[3..]);
        app.created(&operator, &id, json!({ "email": format!("{number}@example.com") })).await;
    }
    // Changes that become visible one after the other would also be delivered one after the other.
    app.wait_for_feed().await;
    let process = Process::start(app);
    let mut received = Vec::new();
    let count =
        |received: &[support::receiver::Received]| received.iter().map(|page| page.changes().len()).sum::<usize>();
    process
        .deliver_until(async || {
            received.extend(receiver.take());
            count(&received) >= 140
        })
        .await;
    let ids: Vec<_> = received.iter().flat_map(|page| external_ids(&page.changes())).collect();
    assert_eq!(ids.len(), 140);
    assert_eq!(ids[..120], (0..120).map(|number| format!("user-{number}")).collect::<Vec<_>>());
    for page in &received {
        assert!(page.changes().len() <= 100 && page.body.len() <= 20_000, "{}", page.body.len());
    }
    // The next change would have made a page too large. The service counts 500 bytes for the parts of a body that are
    // not changes.
    for pages in received.windows(2) {
        let next = pages[1].changes()[0].to_string().len();
        let is_full = pages[0].changes().len() == 100 || pages[0].body.len() + next + 500 > 20_000;
        assert!(is_full, "{} changes in {} bytes", pages[0].changes().len(), pages[0].body.len());
    }
    let distinct: BTreeSet<_> = received.iter().map(|page| &page.id).collect();
    assert_eq!(distinct.len(), received.len());
});

both!(a_failed_attempt_is_repeated_with_the_same_id_and_body, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let receiver = Receiver::start().await;
    let webhook = endpoint(app, &operator, &receiver.url).await;
    let process = Process::start(app);
    // The timeout is long enough for the request to arrive on a slow machine.
    let impatient = process.start_other(SenderSettings { timeout: Duration::from_secs(10), ..sender_settings() });
    let soon = (process.now() + TimeDelta::hours(1)).format("%a, %d %b %Y %H:%M:%S GMT");
    let status = |status, headers: &str| Reply::Status(status, headers.to_owned());
    // Each reply with its status, its failure, and the shortest and the longest backoff in seconds.
    let cases = [
        (status(500, ""), Some(500), Failure::Status, 5, 6),
        (status(404, ""), Some(404), Failure::Status, 15, 18),
        (status(302, "Location: http://169.254.169.254/\r\n"), Some(302), Failure::Status, 60, 72),
        (status(429, "Retry-After: 1200\r\n"), Some(429), Failure::Status, 1200, 1440),
        (status(503, "Retry-After: 0\r\n"), Some(503), Failure::Status, 5, 6),
        (status(503, &format!("Retry-After: {soon}\r\n")), Some(503), Failure::Status, 60, 4320),
        (status(429, "Retry-After: 99999999\r\n"), Some(429), Failure::Status, 14_400, 17_280),
        (Reply::Hang, None, Failure::Timeout, 7200, 8640),
        (Reply::Drop, None, Failure::Connection, 14_400, 17_280),
        (Reply::SlowHead, None, Failure::Timeout, 14_400, 17_280),
    ];
    create(app, &operator, 0..2).await;
    let mut sent = Vec::new();
    for (attempt, (reply, status, failure, min, max)) in (1..).zip(cases) {
        receiver.plan(reply);
        let sender = if failure == Failure::Timeout { &impatient } else { &process };
        sent.extend(sender.deliver_to(&receiver).await);
        let row = row(app, webhook).await;
        assert_eq!((row.failed_attempts, row.last_status, row.last_failure), (attempt, status, Some(failure)));
        let backoff = (row.next_attempt_at - process.now()).num_seconds();
        assert!((min..=max).contains(&backoff), "attempt {attempt}: {backoff} seconds");
        assert!(row.failing_since.is_some() && row.lease_until.is_none() && row.disabled_at.is_none());
        // A change that is made between two attempts is not added to the repeated delivery.
        create(app, &operator, 10 + sent.len()..11 + sent.len()).await;
        assert_eq!(process.deliveries.deliver_due().await.unwrap(), 0);
        process.advance_to_next_attempt(webhook).await;
    }
    // The later changes come in a page of their own.
    while sent.len() < 12 {
        sent.extend(process.deliver_to(&receiver).await);
    }
    let first = &sent[0];
    for delivery in &sent[..=10] {
        assert_eq!((&delivery.id, &delivery.body), (&first.id, &first.body));
        assert!(delivery.is_signed_with(&secret(webhook, 1)));
    }
    assert!(sent[10].timestamp > first.timestamp);
    assert_ne!(sent[11].id, first.id);
    let row = row(app, webhook).await;
    assert_eq!((row.failed_attempts, row.failing_since, row.last_failure), (0, None, None));
});

both!(a_2xx_response_counts_even_if_its_body_never_ends, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let receiver = Receiver::start().await;
    let webhook = endpoint(app, &operator, &receiver.url).await;
    create(app, &operator, 0..1).await;
    receiver.plan(Reply::EndlessBody);
    let process = Process::start(app);
    process.deliver_to(&receiver).await;
    assert_eq!((row(app, webhook).await.last_status, row(app, webhook).await.failed_attempts), (Some(200), 0));
});

both!(an_endpoint_that_is_gone_is_disabled_at_once, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let receiver = Receiver::start().await;
    let webhook = endpoint(app, &operator, &receiver.url).await;
    create(app, &operator, 0..1).await;
    receiver.plan(Reply::Status(410, String::new()));
    let process = Process::start(app);
    let first = process.deliver_to(&receiver).await.remove(0);
    let disabled = row(app, webhook).await;
    assert_eq!((disabled.disabled_at, disabled.last_status), (Some(process.now()), Some(410)));
    process.advance_to_next_attempt(webhook).await;
    assert_eq!(process.deliveries.deliver_due().await.unwrap(), 0);
    // After the endpoint is enabled again, the endpoint continues at its cursor.
    change(app, webhook, webhook::ActiveModel { disabled_at: Set(None), ..Default::default() }).await;
    assert_eq!(process.deliver_to(&receiver).await.remove(0).id, first.id);
});

both!(an_endpoint_whose_changes_were_deleted_is_disabled, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let receiver = Receiver::start().await;
    let webhook = endpoint(app, &operator, &receiver.url).await;
    let process = Process::start(app);
    create(app, &operator, 0..1).await;
    process.deliver_to(&receiver).await;
    create(app, &operator, 1..4).await;
    app.wait_for_feed().await;
    app.services.feed.sweep(&Caller::Platform, now() + TimeDelta::minutes(1)).await.unwrap();
    // An endpoint is looked at when there is a change to deliver.
    create(app, &operator, 4..5).await;
    app.wait_for_feed().await;

    let enable = async |changes: Value| {
        let mut input = changes;
        input["id"] = json!(webhook.to_string());
        input["enabled"] = json!(true);
        app.graphql(&operator, UPDATE, json!({ "input": input })).await.payload("result");
    };
    // An endpoint that is only enabled again has the same cursor.
    for _ in 0..2 {
        process.advance_to_next_attempt(webhook).await;
        assert_eq!(process.deliveries.deliver_due().await.unwrap(), 1);
        let disabled = row(app, webhook).await;
        assert_eq!((disabled.disabled_at, disabled.last_failure), (Some(process.now()), Some(Failure::CursorExpired)));
        assert!(receiver.take().is_empty());
        enable(json!({})).await;
    }
    let end = app.query(&operator, "{ viewer { changesCursor } }").await["viewer"]["changesCursor"].clone();
    enable(json!({ "deliverFrom": { "cursor": end } })).await;
    process.advance_to_next_attempt(webhook).await;
    create(app, &operator, 5..6).await;
    let [delivery] = &process.deliver_to(&receiver).await[..] else { panic!("one delivery") };
    assert_eq!(external_ids(&delivery.changes()), ["user-5"]);
});

both!(a_repeated_delivery_has_no_external_id_of_a_customer_that_was_erased_meanwhile, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let receiver = Receiver::start().await;
    let webhook = endpoint(app, &operator, &receiver.url).await;
    let process = Process::start(app);
    create(app, &operator, 0..2).await;
    app.wait_for_feed().await;
    receiver.plan(Reply::Status(500, String::new()));
    let first = process.deliver_to(&receiver).await.remove(0);
    assert_eq!(external_ids(&first.changes()), ["user-0", "user-1"]);

    let erased = first.changes()[0]["customerId"].clone();
    let erase = "mutation ($id: ID!) { eraseCustomer(input: { id: $id, reference: \"Case 7\" }) { erasure { id } } }";
    app.graphql(&app.platform(), erase, json!({ "id": erased })).await.payload("eraseCustomer");
    app.wait_for_feed().await;
    process.advance_to_next_attempt(webhook).await;
    let mut received = process.deliver_to(&receiver).await;
    let again = received.remove(0);
    assert_eq!(again.id, first.id);
    let summary = |change: &Value| json!([change["type"], change["externalCustomerId"]]);
    assert_eq!(
        again.changes().iter().map(summary).collect::<Vec<_>>(),
        [json!(["CREATED", null]), json!(["CREATED", "user-1"])]
    );
    // The erasure comes in the next page.
    while received.is_empty() {
        received = process.deliver_to(&receiver).await;
    }
    let changes = received[0].changes();
    assert_eq!((changes.len(), &changes[0]["type"], &changes[0]["customerId"]), (1, &json!("ERASED"), &erased));
});

both!(a_repeated_delivery_that_has_become_larger_has_the_same_changes, Sandbox, async |app| {
    /// The maximum size of the changes of a page, with their commas.
    const MAX_BYTES: usize = 19_500;
    let operator = app.operator("A").await;
    let receiver = Receiver::start().await;
    let webhook = endpoint(app, &operator, &receiver.url).await;
    app.created(&operator, "a", json!({ "email": "a@example.com" })).await;
    app.wait_for_feed().await;
    let size = read_feed(app, &operator).await["changes"][0].to_string().len() + ",".len();
    // The other changes fill the rest of the page completely. Their external ids have three digits, except that the
    // first of them is longer by the rest of the bytes.
    let (rest, other_size) = (MAX_BYTES - size, size + 2);
    let (count, unused) = (rest / other_size, rest % other_size);
    for number in 0..count + 5 {
        let digits = if number == 0 { 3 + unused } else { 3 };
        let data = json!({ "email": format!("{number}@example.com") });
        app.created(&operator, &format!("{number:0digits$}"), data).await;
    }
    app.wait_for_feed().await;
    let process = Process::start(app);
    receiver.plan(Reply::Status(500, String::new()));
    let first = process.deliver_to(&receiver).await.remove(0);
    assert_eq!(first.changes().len(), 1 + count);

    // Null is longer than an external id of one character in quotation marks.
    let erase = "mutation ($id: ID!) { eraseCustomer(input: { id: $id, reference: \"Case 7\" }) { erasure { id } } }";
    let id = json!({ "id": first.changes()[0]["customerId"] });
    app.graphql(&app.platform(), erase, id).await.payload("eraseCustomer");
    process.advance_to_next_attempt(webhook).await;
    let again = process.deliver_to(&receiver).await.remove(0);
    assert_eq!((&again.id, again.changes().len()), (&first.id, 1 + count));
    assert_eq!(again.body.len(), first.body.len() + 1);
    assert!(again.body.len() <= 20_000, "{}", again.body.len());
});

both!(an_endpoint_is_disabled_after_five_days_of_failures, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let receiver = Receiver::start().await;
    let webhook = endpoint(app, &operator, &receiver.url).await;
    create(app, &operator, 0..1).await;
    let process = Process::start(app);
    let (mut attempts, mut failing_since) = (Vec::new(), None);
    while row(app, webhook).await.disabled_at.is_none() {
        process.advance_to_next_attempt(webhook).await;
        receiver.plan(Reply::Status(500, String::new()));
        attempts.extend(process.deliver_to(&receiver).await);
        failing_since = failing_since.or(row(app, webhook).await.failing_since);
        assert!(attempts.len() < 100);
    }
    let disabled = row(app, webhook).await;
    assert_eq!(disabled.failing_since, failing_since);
    assert_eq!(disabled.disabled_at, failing_since.map(|since| since + TimeDelta::days(5)));
    assert!((30..=50).contains(&attempts.len()), "{} attempts", attempts.len());
    assert!(attempts.iter().all(|attempt| attempt.id == attempts[0].id));
    let log = app.log();
    let line =
        log.lines().find(|line| line.contains("webhook endpoint disabled") && line.contains(&webhook.to_string()));
    assert!(line.is_some_and(|line| line.contains(&operator.operator) && line.contains("failing")), "{line:?}");
    assert!(!log.contains(URL_TOKEN));
});

both!(an_endpoint_is_not_disabled_because_no_process_delivered_for_days, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let receiver = Receiver::start().await;
    let webhook = endpoint(app, &operator, &receiver.url).await;
    create(app, &operator, 0..1).await;
    let process = Process::start(app);
    let mut attempts = 0;
    while row(app, webhook).await.disabled_at.is_none() {
        receiver.plan(Reply::Status(500, String::new()));
        attempts += process.deliver_to(&receiver).await.len();
        assert!(attempts < 100);
        if attempts == 1 {
            *process.clock.lock().unwrap() += TimeDelta::days(6);
        }
        // Each failure is followed by the usual backoff, also after the five days.
        let backoff = row(app, webhook).await.next_attempt_at - process.now();
        assert!(attempts == 1 || backoff >= TimeDelta::seconds(15), "{backoff}");
        process.advance_to_next_attempt(webhook).await;
    }
    assert_eq!(attempts, 10);
});

/// Suspends or resumes an operator with the platform key.
async fn set_status(app: &TestApp, operator: &TestCaller, status: &str) {
    let query = "mutation ($input: UpdateOperatorInput!) { updateOperator(input: $input) { operator { status } } }";
    let input = json!({ "id": operator.operator, "status": status });
    app.graphql(&app.platform(), query, json!({ "input": input })).await.payload("updateOperator");
}

both!(changes_of_a_suspension_arrive_after_it_in_their_order, Sandbox, async |app| {
    // A page has at most 100 changes, so these changes need more than one page.
    const CREATED: usize = 110;
    let (operator, other) = (app.operator("A").await, app.operator("B").await);
    let receiver = Receiver::start().await;
    endpoint(app, &operator, &receiver.url).await;
    create(app, &operator, 0..CREATED).await;
    app.wait_for_feed().await;
    let process = Process::start(app);
    // The operator is suspended while the first page is being delivered. The second page is not sent.
    let answer = Arc::new(Notify::new());
    receiver.plan(Reply::After(answer.clone(), 204));
    let suspend_meanwhile = async {
        receiver.wait_for(1).await;
        set_status(app, &operator, "SUSPENDED").await;
        answer.notify_one();
    };
    let (endpoints, ()) = tokio::join!(process.deliveries.deliver_due(), suspend_meanwhile);
    assert_eq!(endpoints.unwrap(), 1);
    let mut sent = receiver.take();
    assert!(sent.len() == 1 && sent[0].changes().len() < CREATED);
    // The platform and another operator change customers of the suspended operator.
    let platform = app.platform();
    let mut ids = Vec::new();
    for number in 0..3 {
        let email = json!({ "email": format!("{number}@example.com"), "lastName": "Lovelace" });
        let connected = app.created(&other, &format!("other-{number}"), email).await;
        ids.push(connected["customer"]["id"].clone());
    }
    for id in ids.iter().rev() {
        app.updated(&platform, json!({ "id": id }), json!({ "firstName": "Ada" })).await;
    }
    app.wait_for_feed().await;
    *process.clock.lock().unwrap() += TimeDelta::days(1);
    assert_eq!(process.deliveries.deliver_due().await.unwrap(), 0);
    assert_eq!(process.start_other(sender_settings()).deliveries.deliver_due().await.unwrap(), 0);
    assert!(receiver.take().is_empty());

    set_status(app, &operator, "ACTIVE").await;
    sent.extend(process.deliver_to(&receiver).await);
    let changes: Vec<_> = sent.iter().flat_map(support::receiver::Received::changes).collect();
    let created = (0..CREATED).map(|number| (format!("user-{number}"), "CREATED", 1));
    let meanwhile = [(0, 2), (1, 2), (2, 2), (2, 3), (1, 3), (0, 3)];
    let meanwhile = meanwhile.map(|(number, version)| (format!("user-{number}"), "UPDATED", version));
    let expected: Vec<_> = created.chain(meanwhile).map(|change| json!(change)).collect();
    let summary = |change: &Value| json!([change["externalCustomerId"], change["type"], change["version"]]);
    assert_eq!(changes.iter().map(summary).collect::<Vec<_>>(), expected);
    assert_eq!(process.deliveries.deliver_due().await.unwrap(), 0);
});

both!(deliveries_are_signed_with_both_secrets_during_a_rotation, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let receiver = Receiver::start().await;
    let webhook = endpoint(app, &operator, &receiver.url).await;
    let process = Process::start(app);
    let until = Some(process.now() + TimeDelta::hours(24));
    let rotated =
        webhook::ActiveModel { secret_version: Set(2), previous_secret_until: Set(until), ..Default::default() };
    change(app, webhook, rotated).await;
    for (hours, old_is_valid) in [(0, true), (23, true), (1, false)] {
        *process.clock.lock().unwrap() += TimeDelta::hours(hours);
        let number = process.now().timestamp() as usize;
        create(app, &operator, number..number + 1).await;
        let delivery = process.deliver_to(&receiver).await.remove(0);
        assert!(delivery.is_signed_with(&secret(webhook, 2)));
        assert_eq!(delivery.is_signed_with(&secret(webhook, 1)), old_is_valid);
        assert!(!delivery.is_signed_with(&secret(webhook, 3)));
    }
});

both!(only_changes_of_the_chosen_types_are_sent, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let receiver = Receiver::start().await;
    let webhook = endpoint(app, &operator, &receiver.url).await;
    let types = ChangeTypes(vec![EventType::Updated, EventType::Disconnected]);
    change(app, webhook, webhook::ActiveModel { types: Set(Some(types)), ..Default::default() }).await;
    create(app, &operator, 0..3).await;
    let process = Process::start(app);
    // The cursor moves over the changes without a delivery.
    process.deliver_until(async || row(app, webhook).await.delivered_position > 0).await;
    while process.deliveries.deliver_due().await.unwrap() > 0 {}
    assert!(receiver.take().is_empty());
    assert_eq!(row(app, webhook).await.last_attempt_at, None);
    app.updated(&operator, json!({ "externalCustomerId": "user-1" }), json!({ "firstName": "Ada" })).await;
    create(app, &operator, 3..5).await;
    let delivery = process.deliver_to(&receiver).await.remove(0);
    assert_eq!(external_ids(&delivery.changes()), ["user-1"]);
    assert_eq!(delivery.changes()[0]["changedFields"], json!(["FIRST_NAME"]));
});

both!(a_change_after_many_changes_of_other_types_is_sent, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let receiver = Receiver::start().await;
    let webhook = endpoint(app, &operator, &receiver.url).await;
    let types = ChangeTypes(vec![EventType::Updated]);
    change(app, webhook, webhook::ActiveModel { types: Set(Some(types)), ..Default::default() }).await;
    create(app, &operator, 0..1).await;
    let created = customer_change::Entity::find()
        .filter(customer_change::Column::ReaderId.eq(OperatorId::parse(&operator.operator).unwrap()))
        .one(app.database.reader())
        .await
        .unwrap()
        .unwrap();
    let copies = (0..1200).map(|_| customer_change::ActiveModel {
        id: Set(CustomerEventId::new()),
        ..created.clone().into_active_model().reset_all()
    });
    let transaction = app.database.begin_write().await.unwrap();
    for batch in copies.collect::<Vec<_>>().chunks(200) {
        customer_change::Entity::insert_many(batch.to_vec()).exec_without_returning(&transaction).await.unwrap();
    }
    transaction.commit().await.unwrap();
    app.updated(&operator, json!({ "externalCustomerId": "user-0" }), json!({ "firstName": "Ada" })).await;
    app.wait_for_feed().await;
    let process = Process::start(app);
    let (deliveries, statements) = app.all_statements_of(process.deliver_to(&receiver)).await;
    assert_eq!(external_ids(&deliveries[0].changes()), ["user-0"]);
    // A read for some types counts as a long read, of which one at a time runs for all deliveries. Without types, it
    // reads no more rows than the page has.
    let reads = statements.iter().filter(|sql| sql.contains("customer_change") && sql.contains("UNION ALL"));
    assert!(reads.count() > 2 && !statements.iter().any(|sql| sql.contains(" AS \"scan\"")), "{statements:#?}");
});

both!(the_result_of_an_attempt_does_not_overwrite_a_changed_endpoint, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let receiver = Receiver::start().await;
    create(app, &operator, 0..1).await;
    let process = Process::start(app);
    let moved = webhook::ActiveModel {
        delivered_position: Set(0),
        sending_position: Set(None),
        sending_id: Set(None),
        ..Default::default()
    };
    let to_created = webhook::ActiveModel {
        types: Set(Some(ChangeTypes(vec![EventType::Created]))),
        sending_position: Set(None),
        sending_id: Set(None),
        ..Default::default()
    };
    let other_url = webhook::ActiveModel {
        url: Set(WebhookUrl::parse(&receiver.url_at("127.0.0.1")).unwrap()),
        ..Default::default()
    };
    for (changes, status) in [(moved.clone(), 204), (moved, 500), (to_created, 204), (other_url.clone(), 410)] {
        let webhook = endpoint(app, &operator, &receiver.url).await;
        let answer = Arc::new(Notify::new());
        receiver.plan(Reply::After(answer.clone(), status));
        let attempt = process.deliver_until(async || row(app, webhook).await.last_attempt_at.is_some());
        let change_meanwhile = async {
            receiver.wait_for(1).await;
            change(app, webhook, changes).await;
            answer.notify_one();
        };
        tokio::join!(attempt, change_meanwhile);
        let row = row(app, webhook).await;
        assert_eq!((row.delivered_position, row.failed_attempts, row.disabled_at), (0, 0, None));
        assert_eq!((row.lease_until, row.last_status), (None, None));
        receiver.take();
        // The page is sent again.
        process.deliver_to(&receiver).await;
        let delete = webhook::Entity::delete_by_id(webhook);
        let transaction = app.database.begin_write().await.unwrap();
        delete.exec(&transaction).await.unwrap();
        transaction.commit().await.unwrap();
    }
});

both!(the_result_of_an_attempt_does_not_overwrite_a_mutation_of_the_endpoint, Sandbox, async |app| {
    const ROTATE: &str = "mutation ($input: RotateWebhookSecretInput!) { result: rotateWebhookSecret(input: $input) { webhook { id } } }";
    const DELETE: &str =
        "mutation ($input: DeleteWebhookInput!) { result: deleteWebhook(input: $input) { webhookId } }";
    let operator = app.operator("A").await;
    let receiver = Receiver::start().await;
    create(app, &operator, 0..3).await;
    app.wait_for_feed().await;
    let feed = read_feed(app, &operator).await;
    let all = external_ids(feed["changes"].as_array().unwrap());
    let process = Process::start(app);
    // Sends a request after the receiver has got a delivery of all changes, and before the receiver answers.
    let during_an_attempt = async |query: &str, changes: Value, status: u16| {
        let webhook = endpoint(app, &operator, &receiver.url).await;
        let answer = Arc::new(Notify::new());
        receiver.plan(Reply::After(answer.clone(), status));
        let send_meanwhile = async {
            receiver.wait_for(1).await;
            let mut input = changes;
            input["id"] = json!(webhook.to_string());
            app.graphql(&operator, query, json!({ "input": input })).await.payload("result");
            answer.notify_one();
        };
        let (endpoints, ()) = tokio::join!(process.deliveries.deliver_due(), send_meanwhile);
        assert_eq!((endpoints.unwrap(), external_ids(&receiver.take()[0].changes())), (1, all.clone()));
        webhook
    };
    let send_all_again = async |webhook| {
        process.advance_to_next_attempt(webhook).await;
        let [again] = &process.deliver_to(&receiver).await[..] else { panic!("one delivery") };
        assert_eq!(external_ids(&again.changes()), all);
    };
    let update = async |webhook: WebhookId, changes: Value| {
        let mut input = changes;
        input["id"] = json!(webhook.to_string());
        app.graphql(&operator, UPDATE, json!({ "input": input })).await.payload("result");
    };
    let delete = async |webhook: WebhookId| {
        let input = json!({ "input": { "id": webhook.to_string() } });
        app.graphql(&operator, DELETE, input).await.payload("result");
    };

    // The request sets the cursor of the endpoint to the start of the feed. The result of the attempt does not move the
    // cursor.
    let rewind = json!({ "deliverFrom": { "time": "2026-11-20T12:00:00Z" } });
    for status in [204, 500, 410] {
        let webhook = during_an_attempt(UPDATE, rewind.clone(), status).await;
        let row = row(app, webhook).await;
        assert_eq!((row.delivered_position, row.failed_attempts, row.disabled_at), (0, 0, None));
        send_all_again(webhook).await;
        delete(webhook).await;
    }
    // The request moves the cursor of the endpoint to the end of the feed. The failure of the attempt does not count.
    let webhook = during_an_attempt(UPDATE, json!({ "deliverFrom": { "cursor": feed["cursor"] } }), 500).await;
    process.advance_to_next_attempt(webhook).await;
    assert_eq!((row(app, webhook).await.failed_attempts, process.deliveries.deliver_due().await.unwrap()), (0, 0));
    delete(webhook).await;
    // The endpoint is disabled. After it is enabled, the page is sent again.
    let webhook = during_an_attempt(UPDATE, json!({ "enabled": false }), 204).await;
    assert_eq!(process.deliveries.deliver_due().await.unwrap(), 0);
    update(webhook, json!({ "enabled": true })).await;
    send_all_again(webhook).await;
    delete(webhook).await;
    // A new secret does not change the result of the attempt.
    let webhook = during_an_attempt(ROTATE, json!({ "overlapHours": 0 }), 204).await;
    assert_eq!((row(app, webhook).await.secret_version, process.deliveries.deliver_due().await.unwrap()), (2, 0));
    // Moves the clock past the time at which the previous secret expired.
    *process.clock.lock().unwrap() = now();
    create(app, &operator, 3..4).await;
    let next = process.deliver_to(&receiver).await.remove(0);
    assert!(next.is_signed_with(&secret(webhook, 2)) && !next.is_signed_with(&secret(webhook, 1)));
    delete(webhook).await;
});

both!(a_failure_does_not_count_if_the_endpoint_was_enabled_during_the_attempt, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let receiver = Receiver::start().await;
    create(app, &operator, 0..1).await;
    let webhook = endpoint(app, &operator, &receiver.url).await;
    let failing_since = |time| webhook::ActiveModel { failing_since: Set(time), ..Default::default() };
    change(app, webhook, failing_since(Some(now() - TimeDelta::days(6)))).await;
    let process = Process::start(app);
    let answer = Arc::new(Notify::new());
    receiver.plan(Reply::After(answer.clone(), 500));
    let attempt = process.deliver_until(async || row(app, webhook).await.last_attempt_at.is_some());
    let enable_meanwhile = async {
        receiver.wait_for(1).await;
        change(app, webhook, failing_since(None)).await;
        answer.notify_one();
    };
    tokio::join!(attempt, enable_meanwhile);
    let row = row(app, webhook).await;
    assert_eq!((row.failing_since, row.failed_attempts, row.disabled_at, row.lease_until), (None, 0, None, None));
});

both!(an_endpoint_can_be_deleted_during_an_attempt, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let receiver = Receiver::start().await;
    create(app, &operator, 0..1).await;
    let webhook = endpoint(app, &operator, &receiver.url).await;
    let process = Process::start(app);
    let answer = Arc::new(Notify::new());
    receiver.plan(Reply::After(answer.clone(), 204));
    let is_gone = async || webhook::Entity::find_by_id(webhook).one(app.database.reader()).await.unwrap().is_none();
    let delete_meanwhile = async {
        receiver.wait_for(1).await;
        let transaction = app.database.begin_write().await.unwrap();
        webhook::Entity::delete_by_id(webhook).exec(&transaction).await.unwrap();
        transaction.commit().await.unwrap();
        answer.notify_one();
    };
    tokio::join!(process.deliver_until(is_gone), delete_meanwhile);
});

both!(a_slow_endpoint_delays_no_other, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let (slow, fast) = (Receiver::start().await, Receiver::start().await);
    let webhook = endpoint(app, &operator, &slow.url).await;
    endpoint(app, &operator, &fast.url).await;
    create(app, &operator, 0..1).await;
    let answer = Arc::new(Notify::new());
    slow.plan(Reply::After(answer.clone(), 204));
    let process = Process::start(app);
    let mut is_delivered = false;
    let deliver = process.deliver_until(async || std::mem::replace(&mut is_delivered, !slow.take().is_empty()));
    let wait = async {
        // Both deliveries arrive before the slow endpoint answers.
        slow.wait_for(1).await;
        fast.wait_for(1).await;
        answer.notify_one();
    };
    tokio::join!(deliver, wait);
    // The slow endpoint has answered before the timeout of the attempt.
    let row = row(app, webhook).await;
    assert_eq!((row.last_status, row.failed_attempts), (Some(204), 0));
});

both!(processes_share_the_endpoints, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let receivers = [Receiver::start().await, Receiver::start().await, Receiver::start().await];
    for receiver in &receivers {
        endpoint(app, &operator, &receiver.url).await;
    }
    create(app, &operator, 0..5).await;
    let one = Process::start(app);
    let other = one.start_other(sender_settings());
    for round in 1..=3 {
        create(app, &operator, round * 10..round * 10 + 5).await;
        let deliver = async |process: &Process| {
            for _ in 0..5 {
                process.deliveries.deliver_due().await.unwrap();
            }
        };
        tokio::join!(deliver(&one), deliver(&other));
    }
    for receiver in &receivers {
        let mut received = Vec::new();
        one.deliver_until(async || {
            received.extend(receiver.take());
            received.iter().map(|page| page.changes().len()).sum::<usize>() >= 20
        })
        .await;
        let ids: Vec<_> = received.iter().flat_map(|page| external_ids(&page.changes())).collect();
        let numbers = [0..5, 10..15, 20..25, 30..35].into_iter().flatten();
        assert_eq!(ids, numbers.map(|number| format!("user-{number}")).collect::<Vec<_>>());
    }
});

/// Resolves names to addresses that change from lookup to lookup. Without answers, no name has an address.
struct Rebinding {
    lookups: AtomicUsize,
    answers: Vec<Vec<&'static str>>,
}

impl Resolve for Rebinding {
    fn resolve(&self, _: Name) -> Resolving {
        let lookup = self.lookups.fetch_add(1, Ordering::Relaxed);
        if self.answers.is_empty() {
            return Box::pin(async { Err("the name has no address".into()) });
        }
        let addresses = self.answers[lookup.min(self.answers.len() - 1)].iter();
        let addresses: Vec<_> = addresses.map(|address| SocketAddr::new(address.parse().unwrap(), 0)).collect();
        Box::pin(async move { Ok(Box::new(addresses.into_iter()) as Addrs) })
    }
}

both!(private_addresses_are_not_reached, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let receiver = Receiver::start().await;
    create(app, &operator, 0..1).await;
    let attempt = async |url: String, answers: Vec<Vec<&'static str>>| {
        let resolver = Arc::new(Rebinding { lookups: AtomicUsize::new(0), answers });
        let settings = SenderSettings::new(Environment::Sandbox, AddressFilter::default());
        let process = Process::start_with(app, SenderSettings { resolver, ..settings });
        let webhook = endpoint(app, &operator, &url).await;
        process.deliver_until(async || row(app, webhook).await.failed_attempts > 0).await;
        let failure = row(app, webhook).await.last_failure.unwrap();
        let transaction = app.database.begin_write().await.unwrap();
        webhook::Entity::delete_by_id(webhook).exec(&transaction).await.unwrap();
        transaction.commit().await.unwrap();
        failure
    };
    for host in ["127.0.0.1", "2130706433", "0x7f.1", "0177.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "localhost", "0"] {
        assert_eq!(attempt(receiver.url_at(host), vec![vec!["8.8.8.8"]]).await, Failure::ForbiddenAddress, "{host}");
    }
    for address in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254", "10.0.0.1", "fd00:ec2::254"] {
        let url = receiver.url_at("name.example");
        assert_eq!(attempt(url, vec![vec![address]]).await, Failure::ForbiddenAddress, "{address}");
    }
    // A name without an address has the same failure. Otherwise operators could find out which names exist in the
    // network of the service.
    assert_eq!(attempt(receiver.url_at("name.invalid"), vec![]).await, Failure::ForbiddenAddress);
    // The name first has an allowed address, at which nothing listens, and then the address of the receiver, which is
    // not allowed. Each connection checks the address that it connects to.
    let (url, allowed) = (receiver.url_at("rebinding.example"), "127.0.0.2");
    let answers = vec![vec![allowed], vec!["127.0.0.1"]];
    let resolver = Arc::new(Rebinding { lookups: AtomicUsize::new(0), answers });
    let filter = AddressFilter::new(vec!["127.0.0.2/32".parse().unwrap()]);
    let settings = SenderSettings { resolver: resolver.clone(), ..SenderSettings::new(Environment::Sandbox, filter) };
    let process = Process::start_with(app, settings);
    let webhook = endpoint(app, &operator, &url).await;
    for (attempts, failure) in [(1, Failure::Connection), (2, Failure::ForbiddenAddress)] {
        process.advance_to_next_attempt(webhook).await;
        process.deliver_until(async || row(app, webhook).await.failed_attempts == attempts).await;
        assert_eq!(row(app, webhook).await.last_failure, Some(failure));
    }
    assert_eq!(resolver.lookups.load(Ordering::Relaxed), 2);
    assert!(receiver.take().is_empty());
});

both!(production_sends_over_https_only, Production, async |app| {
    let operator = app.operator("A").await;
    let receiver = Receiver::start().await;
    create(app, &operator, 0..1).await;
    let settings = SenderSettings { environment: Environment::Production, ..sender_settings() };
    let process = Process::start_with(app, settings);
    let webhook = endpoint(app, &operator, &receiver.url).await;
    process.deliver_until(async || row(app, webhook).await.failed_attempts > 0).await;
    assert!(receiver.take().is_empty());
});

both!(the_background_job_delivers_and_stops, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let receiver = Receiver::start().await;
    let webhook = endpoint(app, &operator, &receiver.url).await;
    let process = Process::start(app);
    // The job polls in real time, although the clock of the process stands still.
    let (stop, stopped) = oneshot::channel::<()>();
    let job = tokio::spawn(process.deliveries.clone().run(async { drop(stopped.await) }));
    create(app, &operator, 0..1).await;
    receiver.wait_for(1).await;
    // After the stop, the job waits for the attempt in progress, and stores the result of the attempt.
    let answer = Arc::new(Notify::new());
    receiver.plan(Reply::After(answer.clone(), 204));
    create(app, &operator, 1..2).await;
    receiver.wait_for(2).await;
    let before = row(app, webhook).await.delivered_position;
    drop(stop);
    answer.notify_one();
    job.await.unwrap();
    let row = row(app, webhook).await;
    assert!(row.delivered_position > before && row.lease_until.is_none());
});

both!(an_endpoint_that_becomes_active_is_claimed_at_the_next_poll, Sandbox, async |app| {
    let (operator, busy) = (app.operator("A").await, app.operator("Busy").await);
    app.created(&operator, "1", json!({ "email": "ada@example.com" })).await;
    app.created(&busy, "1", json!({ "email": "grace@example.com" })).await;
    app.wait_for_feed().await;
    let set_enabled = async |id: WebhookId, is_enabled: bool| {
        let mutation = "mutation ($input: UpdateWebhookInput!) { updateWebhook(input: $input) { webhook { id } } }";
        let input = json!({ "id": id.to_string(), "enabled": is_enabled });
        app.graphql(&operator, mutation, json!({ "input": input })).await.payload("updateWebhook");
    };
    let create_endpoint = async |url: String| {
        let mutation = "mutation ($input: CreateWebhookInput!) { createWebhook(input: $input) { webhook { id } } }";
        let start = json!({ "time": (now() - TimeDelta::hours(1)).to_rfc3339() });
        let input = json!({ "url": url, "deliverFrom": start });
        app.graphql(&operator, mutation, json!({ "input": input })).await.payload("createWebhook");
    };
    for action in ["resume", "enable", "create"] {
        // A process claims endpoints after the end of an attempt, after a poll that finds something, and after 30
        // seconds. The test keeps the attempt for the operator `busy` open until the endpoint of `operator` has its
        // delivery. So a poll must have led to the claim of this endpoint.
        let (busy_receiver, answer) = (Receiver::start().await, Arc::new(Notify::new()));
        busy_receiver.plan(Reply::After(answer.clone(), 204));
        endpoint(app, &busy, &busy_receiver.url).await;
        let receiver = Receiver::start().await;
        let webhook = match action {
            "create" => None,
            _ => Some(endpoint(app, &operator, &receiver.url).await),
        };
        match webhook {
            Some(webhook) if action == "enable" => set_enabled(webhook, false).await,
            Some(_) => set_status(app, &operator, "SUSPENDED").await,
            None => {}
        }
        let resolver = Arc::new(Rebinding { lookups: AtomicUsize::new(0), answers: vec![vec!["127.0.0.1"]] });
        let sender = SenderSettings { resolver, ..patient_settings() };
        // The clock of the process is ahead of the clock of the server that changes the endpoint.
        let clock: Clock = Arc::new(|| now() + TimeDelta::seconds(3));
        let settings = DeliverySettings { clock, ..settings(sender) };
        let deliveries = Deliveries::new(app.database.clone(), app.services.clone(), settings);
        let (stop, stopped) = oneshot::channel::<()>();
        let job = tokio::spawn(deliveries.run(async { drop(stopped.await) }));
        busy_receiver.wait_for(1).await;
        match webhook {
            Some(webhook) if action == "enable" => set_enabled(webhook, true).await,
            Some(_) => set_status(app, &operator, "ACTIVE").await,
            None => create_endpoint(receiver.url_at("name.example")).await,
        }
        timeout(Duration::from_secs(20), receiver.wait_for(1)).await.expect(action);
        answer.notify_one();
        drop(stop);
        job.await.unwrap();
        app.execute("DELETE FROM webhook").await;
    }
});

// On one database only, because the tests of both databases share the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_that_stops_the_deliveries_is_logged() {
    run(Backend::Sqlite, Environment::Sandbox, async |app| {
        let operator = app.operator("A").await;
        let receiver = Receiver::start().await;
        endpoint(app, &operator, &receiver.url).await;
        create(app, &operator, 0..1).await;
        let rename = async |column: &str, new: &str| {
            let sql = format!("ALTER TABLE webhook RENAME COLUMN {column} TO {new}");
            app.execute(&sql).await;
        };
        rename("last_status", "renamed").await;
        let line = "\"job\":\"deliver webhooks\"";
        let is_logged = wait_until("the error is logged", async || app.log().contains(line).then_some(()));
        Process::start(app).deliveries.run(is_logged).await;
        rename("renamed", "last_status").await;
        Process::start(app).deliver_to(&receiver).await;
    })
    .await;
}

both!(an_endpoint_that_cannot_be_read_stops_no_other, Sandbox, async |app| {
    let (a, b) = (app.operator("A").await, app.operator("B").await);
    let (unread, read) = (Receiver::start().await, Receiver::start().await);
    let webhook = endpoint(app, &a, &unread.url).await;
    endpoint(app, &b, &read.url).await;
    app.created(&a, "1", json!({ "email": "ada@example.com" })).await;
    app.created(&b, "1", json!({ "email": "grace@example.com" })).await;
    let set_failure = async |failure: &str| {
        let update = format!("UPDATE webhook SET last_failure = {failure} WHERE operator_id = $1");
        let operator = OperatorId::parse(&a.operator).unwrap().into();
        let backend = app.database.reader().get_database_backend();
        let transaction = app.database.begin_write().await.unwrap();
        transaction.execute_raw(Statement::from_sql_and_values(backend, update, [operator])).await.unwrap();
        transaction.commit().await.unwrap();
    };
    // For example, a newer version has stored a reason that this version does not know.
    set_failure("'unknown'").await;
    let process = Process::start(app);
    process.deliver_to(&read).await;
    assert!(app.log().contains(&format!("\"webhook\":\"{webhook}\",\"cause\"")));
    assert!(unread.take().is_empty());
    // The endpoint is claimed again at the end of its lease.
    set_failure("NULL").await;
    *process.clock.lock().unwrap() += TimeDelta::minutes(2);
    process.deliver_to(&unread).await;
});

both!(an_operator_with_deleted_endpoints_gets_no_further_deliveries_at_the_same_time, Sandbox, async |app| {
    let (a, b) = (app.operator("A").await, app.operator("B").await);
    let (slow, fast) = (Receiver::start().await, Receiver::start().await);
    let answer = Arc::new(Notify::new());
    app.created(&a, "1", json!({ "email": "ada@example.com" })).await;
    app.created(&b, "1", json!({ "email": "grace@example.com" })).await;
    let create_endpoints = async || {
        let mut endpoints = Vec::new();
        for _ in 0..5 {
            slow.plan(Reply::After(answer.clone(), 204));
            endpoints.push(endpoint(app, &a, &slow.url).await);
        }
        endpoints
    };
    create_endpoints().await;
    let sender = SenderSettings { timeout: Duration::from_secs(60), ..sender_settings() };
    let process = Process::start_with(app, sender);
    let (stop, stopped) = oneshot::channel::<()>();
    let job = tokio::spawn(process.deliveries.clone().run(async { drop(stopped.await) }));
    slow.wait_for(5).await;
    app.execute("DELETE FROM webhook").await;
    let endpoints = create_endpoints().await;
    endpoint(app, &b, &fast.url).await;
    // A new change leads to a claim. The endpoints of both operators are due.
    app.created(&b, "2", json!({ "email": "edith@example.com" })).await;
    fast.wait_for(1).await;
    for endpoint in &endpoints {
        assert_eq!(row(app, *endpoint).await.lease_until, None);
    }
    // The new endpoints are claimed as soon as the deliveries to the deleted endpoints have ended.
    wait_until("a new endpoint has its delivery", async || {
        answer.notify_waiters();
        (row(app, endpoints[0]).await.delivered_position > 0).then_some(())
    })
    .await;
    drop(stop);
    answer.notify_waiters();
    drop(slow);
    job.await.unwrap();
});

/// Counts the changes that it renders.
struct CountingRenderer(ApiChangeRenderer, AtomicUsize);

impl ChangeRenderer for CountingRenderer {
    fn change(&self, change: &customer_change::Model) -> Value {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.change(change)
    }

    fn cursor(&self, operator: OperatorId, position: FeedPosition) -> String {
        self.0.cursor(operator, position)
    }
}

both!(each_change_of_a_delivery_is_rendered_once, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let receiver = Receiver::start().await;
    endpoint(app, &operator, &receiver.url).await;
    create(app, &operator, 0..5).await;
    app.wait_for_feed().await;
    let renderer =
        Arc::new(CountingRenderer(ApiChangeRenderer { hasher: KeyedHasher::new(KEY_SECRET) }, AtomicUsize::new(0)));
    let settings = DeliverySettings { renderer: renderer.clone(), ..settings(sender_settings()) };
    let deliveries = Deliveries::new(app.database.clone(), app.services.clone(), settings);
    assert_eq!(deliveries.deliver_due().await.unwrap(), 1);
    assert_eq!(receiver.take().remove(0).changes().len(), 5);
    assert_eq!(renderer.1.load(Ordering::Relaxed), 5);
});

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_whose_result_is_not_stored_leads_to_the_same_delivery() {
    run(Backend::Postgres, Environment::Sandbox, async |app| {
        let operator = app.operator("A").await;
        let receiver = Receiver::start().await;
        let webhook = endpoint(app, &operator, &receiver.url).await;
        create(app, &operator, 0..2).await;
        app.wait_for_feed().await;
        let (proxy, url) = Proxy::before(app.database_url()).await;
        let replica = app.replica(url.into()).await;
        let process = Process::start_with(&replica, patient_settings());
        let answer = Arc::new(Notify::new());
        receiver.plan(Reply::After(answer.clone(), 204));
        let lose_connection = async {
            receiver.wait_for(1).await;
            create(app, &operator, 2..3).await;
            app.wait_for_feed().await;
            proxy.set_trap(Cut::BeforeCommit);
            answer.notify_one();
        };
        let (delivered, ()) = tokio::join!(process.deliveries.deliver_due(), lose_connection);
        assert!(delivered.unwrap() == 1 && !proxy.is_set(Cut::BeforeCommit));
        assert_eq!(row(app, webhook).await.delivered_position, 0);
        // The endpoint is due again at the end of its lease.
        assert_eq!(process.deliveries.deliver_due().await.unwrap(), 0);
        *process.clock.lock().unwrap() += TimeDelta::minutes(1);
        // The lost connection may still hold the lock of the endpoint for a moment.
        wait_until("the endpoint is delivered again", async || {
            (process.deliveries.deliver_due().await.unwrap() == 1).then_some(())
        })
        .await;
        let received = receiver.take();
        assert_eq!(received.iter().map(|page| page.changes().len()).collect::<Vec<_>>(), [2, 2, 1]);
        assert_eq!((&received[0].id, &received[0].body), (&received[1].id, &received[1].body));
        replica.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_do_not_take_the_connections_of_authentication() {
    /// The number of connections that one tenant can take.
    const SHARE: usize = 8;
    run(Backend::Postgres, Environment::Sandbox, async |app| {
        let operator = app.operator("A").await;
        let receiver = Receiver::start().await;
        for _ in 0..SHARE + 4 {
            endpoint(app, &operator, &receiver.url).await;
        }
        create(app, &operator, 0..1).await;
        app.wait_for_feed().await;
        let watcher = app.replica(app.database_url().to_owned()).await;
        let unused_key = app.key(&operator, Access::ReadOnly).await;
        // This trigger waits for a lock without a timeout, so the deliveries keep their connections until the lock is
        // released.
        app.execute(&postgres::waiting_trigger("UPDATE ON webhook", "NEW.sending_position IS NOT NULL")).await;
        let holder = watcher.database.begin_write().await.unwrap();
        holder.execute_unprepared(postgres::LOCK).await.unwrap();
        let process = Process::start(app);
        let authenticate = async {
            watcher.wait_until_blocked(SHARE).await;
            app.query(&unused_key, "{ viewer { __typename } }").await;
            holder.commit().await.unwrap();
        };
        let (delivered, ()) = tokio::join!(process.deliveries.deliver_due(), authenticate);
        assert_eq!((delivered.unwrap(), receiver.take().len()), (SHARE + 4, SHARE + 4));
        watcher.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listen_verifies_and_prints_deliveries() {
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=";
    let folder = TempDir::new().unwrap();
    let mut command = vivamo(folder.path(), &["webhook", "listen", "--port", "0"]);
    let mut process = command.env("VIVAMO_WEBHOOK_SECRET", SECRET).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
    let first = output.next().unwrap();
    let url = first.strip_prefix("Waiting for deliveries on ").unwrap();
    let body = json!({ "type": "customer.changes", "data": { "changes": [] } }).to_string();
    let sign =
        |secret: &str, timestamp| Webhook::new(secret).unwrap().sign("msg_1", timestamp, body.as_bytes()).unwrap();
    let send = async |timestamp: i64, signature: Option<String>| {
        let mut request = http_client().post(url).header("webhook-id", "msg_1").header("webhook-timestamp", timestamp);
        if let Some(signature) = signature {
            request = request.header("webhook-signature", signature);
        }
        request.body(body.clone()).send().await.unwrap().status().as_u16()
    };
    let now = now().timestamp();
    assert_eq!(send(now, Some(sign(SECRET, now))).await, 204);
    let shown: Vec<_> = output.by_ref().take(7).collect();
    assert!(shown[0].ends_with("  verified  msg_1"), "{shown:?}");
    assert_eq!(shown[1..].join("").replace(' ', ""), body);

    let other = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    for (timestamp, signature, reason) in [
        (now, None, "the `webhook-signature` header is missing"),
        (now, Some(sign(other, now)), "msg_1: no signature in `webhook-signature` was made with this secret"),
        (now - 600, Some(sign(SECRET, now - 600)), "msg_1: `webhook-timestamp` is more than five minutes in the past"),
        (
            now + 600,
            Some(sign(SECRET, now + 600)),
            "msg_1: `webhook-timestamp` is more than five minutes in the future",
        ),
    ] {
        assert_eq!(send(timestamp, signature).await, 400);
        let shown = output.next().unwrap();
        assert!(shown.ends_with(&format!("  rejected  {reason}")), "{shown}");
    }
    process.kill().unwrap();
    process.wait().unwrap();
}

#[test]
fn listen_needs_the_secret_of_an_endpoint() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("secret"), "whsec_short\n").unwrap();
    for (variable, value, message) in [
        ("NO_VARIABLE", "", "VIVAMO_WEBHOOK_SECRET (--secret) is required. `createWebhook` returns the secret."),
        ("VIVAMO_WEBHOOK_SECRET", "", "VIVAMO_WEBHOOK_SECRET (--secret) is set but empty"),
        (
            "VIVAMO_WEBHOOK_SECRET",
            "vivamo_sandbox_x",
            "VIVAMO_WEBHOOK_SECRET (--secret) is not the secret of an endpoint",
        ),
        ("VIVAMO_WEBHOOK_SECRET_FILE", "secret", "VIVAMO_WEBHOOK_SECRET (--secret) is not the secret of an endpoint"),
        ("VIVAMO_WEBHOOK_SECRET_FILE", "missing", "Change VIVAMO_WEBHOOK_SECRET_FILE (--secret-file)"),
    ] {
        let message_of = usage_error(vivamo(folder.path(), &["webhook", "listen"]).env(variable, value));
        assert!(message_of.contains(message), "{variable}={value}: {message_of}");
        assert!(!message_of.contains("whsec_short"), "{message_of}");
    }
}
