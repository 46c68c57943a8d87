//! The carrier lookup, against a fake Twilio that answers, fails, hangs and drops connections.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use entity::deployment::Environment;
use futures::future::join_all;
use sea_orm::{ActiveModelTrait, EntityTrait, Set};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use vivamo::config::{RateLimitSettings, UnknownLinePolicy};
use vivamo::keyed_hash::KeyedHasher;
use vivamo::service::phone_lookup::{CarrierSettings, Twilio, TwilioTimeouts};
use vivamo::service::{ServiceSettings, now};

use support::{Answer, Backend, KEY_SECRET, TestApp, TestCaller, run_on};

/// A Twilio server whose response depends on the last four digits of the number (see [`behaviour`]).
pub struct FakeCarrier {
    pub url: String,
    /// The phone numbers in the requests since the last call of `take_request_count`.
    requests: Arc<watch::Sender<Vec<String>>>,
    /// True if the requests that hang are dropped.
    is_released: Arc<watch::Sender<bool>>,
}

/// The reaction of the fake Twilio to a request.
enum Behaviour {
    Respond {
        status: u16,
        headers: &'static str,
        body: String,
    },
    /// Waits until the test calls `FakeCarrier::release`.
    Hang,
    Drop,
}

fn line_type_response(line_type: Value, error_code: Value) -> Behaviour {
    let line = json!({ "type": line_type, "error_code": error_code, "carrier_name": "Any" });
    let body = json!({ "valid": true, "validation_errors": null, "line_type_intelligence": line, "unknown": 1 });
    Behaviour::Respond { status: 200, headers: "", body: body.to_string() }
}

fn error_response(status: u16, headers: &'static str) -> Behaviour {
    let body = json!({ "code": 20000, "message": "no", "status": status }).to_string();
    Behaviour::Respond { status, headers, body }
}

/// The last digits of a number that is a landline. The fake Twilio responds when the test calls `FakeCarrier::release`.
const REJECTED_LATE: &str = "0037";

fn behaviour(last_four: &str) -> Behaviour {
    let with_type = |line_type: &str| line_type_response(json!(line_type), json!(null));
    let with_error_code = |code: i64| line_type_response(json!(null), json!(code));
    match last_four {
        "0002" => with_type("landline"),
        "0003" => with_type("fixedVoip"),
        "0004" => with_type("nonFixedVoip"),
        "0005" => with_type("tollFree"),
        "0006" => with_type("unknown"),
        "0007" => Behaviour::Respond {
            status: 200,
            headers: "",
            body: json!({ "valid": true, "line_type_intelligence": null }).to_string(),
        },
        "0008" => Behaviour::Respond {
            status: 200,
            headers: "",
            body: json!({ "valid": false, "validation_errors": ["TOO_LONG"], "line_type_intelligence": null })
                .to_string(),
        },
        "0009" => line_type_response(json!(null), json!(null)),
        "0010" => with_type("premium"),
        "0011" => with_error_code(60601),
        "0012" => with_error_code(60608),
        "0013" => with_error_code(60606),
        "0014" => with_error_code(60614),
        "0015" => with_error_code(60607),
        "0016" => with_error_code(60610),
        "0017" => with_error_code(60619),
        "0018" => with_error_code(60626),
        "0020" => error_response(403, ""),
        "0021" => error_response(401, ""),
        "0022" => error_response(429, "Retry-After: 1\r\n"),
        "0023" => error_response(500, ""),
        "0024" => Behaviour::Hang,
        "0025" => Behaviour::Respond { status: 200, headers: "", body: "{\"valid\": tr".into() },
        "0026" => Behaviour::Drop,
        "0027" => with_type("quantumLine"),
        "0028" => error_response(503, "Retry-After: 30\r\n"),
        "0029" => error_response(404, ""),
        "0030" => error_response(302, "Location: http://127.0.0.1:1/\r\n"),
        "0031" => with_type("sharedCost"),
        "0032" => with_type("uan"),
        "0033" => with_type("voicemail"),
        "0034" => with_type("pager"),
        "0035" => with_type("personal"),
        "0036" => error_response(429, "Retry-After: 18446744073709551615\r\n"),
        REJECTED_LATE => with_type("landline"),
        _ => with_type("mobile"),
    }
}

impl FakeCarrier {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let requests = Arc::new(watch::Sender::new(Vec::new()));
        let is_released = Arc::new(watch::Sender::new(false));
        let (recorded, released) = (requests.clone(), is_released.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Self::respond(stream, recorded.clone(), released.subscribe()));
            }
        });
        Self { url, requests, is_released }
    }

    async fn respond(
        stream: TcpStream,
        requests: Arc<watch::Sender<Vec<String>>>,
        mut is_released: watch::Receiver<bool>,
    ) {
        let mut stream = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let path = head.split(' ').nth(1).unwrap();
        let digits = path.strip_prefix("/v2/PhoneNumbers/%2B").unwrap();
        let digits = digits.strip_suffix("?Fields=line_type_intelligence").unwrap();
        requests.send_modify(|requests| requests.push(digits.to_owned()));
        let credentials = format!("Basic {}", BASE64_STANDARD.encode("SKuser:secret"));
        assert!(head.lines().any(|line| line.eq_ignore_ascii_case(&format!("authorization: {credentials}"))), "{head}");
        let last_four = &digits[digits.len() - 4..];
        if last_four == REJECTED_LATE {
            is_released.wait_for(|is_released| *is_released).await.unwrap();
        }
        match behaviour(last_four) {
            Behaviour::Respond { status, headers, body } => {
                let response = format!(
                    "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{headers}Content-Length: {}\r\n\
                     Connection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(response.as_bytes()).await;
            }
            Behaviour::Hang => drop(is_released.wait_for(|is_released| *is_released).await),
            Behaviour::Drop => {}
        }
    }

    /// Drops the requests that hang, and all later ones that would hang. Responds to the requests that wait.
    fn release(&self) {
        self.is_released.send_replace(true);
    }

    /// Returns the number of requests since the last call.
    fn take_request_count(&self) -> usize {
        self.requests.send_replace(Vec::new()).len()
    }

    /// Waits until there have been this many requests since the last call of `take_request_count`.
    async fn wait_for_requests(&self, count: usize) {
        let mut requests = self.requests.subscribe();
        let arrived = requests.wait_for(|requests| requests.len() >= count);
        timeout(Duration::from_secs(60), arrived).await.expect("enough requests").unwrap();
    }
}

/// Limits that are reached only in the test of the limits, even on a slow machine. The total is less than the longest
/// `Retry-After`.
const LONG: TwilioTimeouts = TwilioTimeouts {
    connect: Duration::from_secs(20),
    request: Duration::from_secs(20),
    total: Duration::from_secs(25),
};

fn settings(url: &str, environment: Environment, unknown_lines: UnknownLinePolicy) -> ServiceSettings {
    settings_with_timeouts(url, environment, unknown_lines, LONG)
}

fn settings_with_timeouts(
    url: &str,
    environment: Environment,
    unknown_lines: UnknownLinePolicy,
    timeouts: TwilioTimeouts,
) -> ServiceSettings {
    let twilio = Twilio::new(url.parse().unwrap(), "SKuser".into(), "secret".into(), timeouts).unwrap();
    ServiceSettings {
        carrier: Some(CarrierSettings { lookup: Arc::new(twilio), unknown_lines }),
        ..ServiceSettings::new(environment, KeyedHasher::new(KEY_SECRET))
    }
}

/// Runs a test in the environment `Production` with a fake carrier, on both databases.
async fn with_carrier(test: impl AsyncFn(&TestApp, &FakeCarrier)) {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let carrier = FakeCarrier::start().await;
        let settings = settings(&carrier.url, Environment::Production, UnknownLinePolicy::Refuse);
        let Some(app) = TestApp::start_with(backend, settings).await else { continue };
        run_on(app, async |app| test(app, &carrier).await).await;
    }
}

async fn create(app: &TestApp, caller: &TestCaller, phone: &str) -> Answer {
    app.create(caller, phone, json!({ "email": format!("{}@example.com", &phone[1..]), "phone": phone })).await
}

/// Returns the error codes of a create while the carrier is unreachable. `errors.rs` calls this function in its
/// scenario of `PHONE_LOOKUP_UNAVAILABLE`.
pub async fn codes_of_an_unreachable_carrier(app: &TestApp) -> Vec<String> {
    let backend = if app.is_postgres() { Backend::Postgres } else { Backend::Sqlite };
    let settings = settings("http://127.0.0.1:1/", Environment::Production, UnknownLinePolicy::Refuse);
    let app = TestApp::start_with(backend, settings).await.unwrap();
    let codes = Mutex::new(Vec::new());
    run_on(app, async |app| {
        let answer = create(app, &app.operator("A").await, "+14155552671").await;
        assert_eq!(answer.body["errors"][0]["extensions"]["retryable"], true);
        *codes.lock().unwrap() = answer.codes();
    })
    .await;
    codes.into_inner().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_carrier_response_is_accepted_rejected_or_unavailable() {
    const NOT_MOBILE: &str = "PHONE_NOT_MOBILE";
    const UNAVAILABLE: &str = "PHONE_LOOKUP_UNAVAILABLE";
    with_carrier(async |app, carrier| {
        let operator = app.operator("A").await;
        let cases = [
            ("0001", "", 1),
            ("0002", NOT_MOBILE, 1),
            ("0003", NOT_MOBILE, 1),
            ("0004", NOT_MOBILE, 1),
            ("0005", NOT_MOBILE, 1),
            ("0006", NOT_MOBILE, 1),
            ("0007", NOT_MOBILE, 1),
            ("0008", NOT_MOBILE, 1),
            ("0009", NOT_MOBILE, 1),
            ("0010", NOT_MOBILE, 1),
            ("0011", NOT_MOBILE, 1),
            ("0012", UNAVAILABLE, 3),
            ("0013", UNAVAILABLE, 1),
            ("0014", UNAVAILABLE, 1),
            ("0015", NOT_MOBILE, 1),
            ("0016", NOT_MOBILE, 1),
            ("0017", UNAVAILABLE, 1),
            ("0018", UNAVAILABLE, 3),
            ("0020", UNAVAILABLE, 1),
            ("0021", UNAVAILABLE, 1),
            ("0023", UNAVAILABLE, 3),
            ("0025", UNAVAILABLE, 3),
            ("0026", UNAVAILABLE, 3),
            ("0027", NOT_MOBILE, 1),
            ("0028", UNAVAILABLE, 1),
            ("0029", UNAVAILABLE, 1),
            ("0030", UNAVAILABLE, 1),
            ("0031", NOT_MOBILE, 1),
            ("0032", NOT_MOBILE, 1),
            ("0033", NOT_MOBILE, 1),
            ("0034", NOT_MOBILE, 1),
            ("0035", NOT_MOBILE, 1),
        ];
        for (last_four, code, requests) in cases {
            let answer = create(app, &operator, &format!("+1415555{last_four}")).await;
            let codes = answer.codes();
            assert_eq!(codes, if code.is_empty() { vec![] } else { vec![code.to_owned()] }, "{last_four}");
            assert_eq!(carrier.take_request_count(), requests, "{last_four}");
            if code == NOT_MOBILE {
                answer.assert_rejected("createCustomer", &[(NOT_MOBILE, "input.data.phone")]);
                assert_eq!(
                    answer.message(),
                    "Sorry, this phone number cannot be used. Please use a valid mobile number."
                );
            }
            if code == UNAVAILABLE {
                assert_eq!(answer.body["errors"][0]["extensions"]["retryable"], true, "{last_four}");
            }
        }
        assert_eq!(app.count_rows("customer").await, 1);
        // A long Retry-After is passed on to the client.
        let busy = create(app, &operator, "+14155550028").await;
        assert_eq!(busy.body["errors"][0]["extensions"]["retryAfterMs"], 30_000);
        assert_eq!(create(app, &operator, "+14155550036").await.codes(), [UNAVAILABLE]);
        // If the time in Retry-After is short, the service waits for this time and tries again, within the total
        // timeout.
        carrier.take_request_count();
        assert_eq!(create(app, &operator, "+14155550022").await.codes(), [UNAVAILABLE]);
        assert_eq!(carrier.take_request_count(), 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_line_types_are_accepted_with_the_accept_policy() {
    let carrier = FakeCarrier::start().await;
    let settings = settings(&carrier.url, Environment::Production, UnknownLinePolicy::Accept);
    let app = TestApp::start_with(Backend::Sqlite, settings).await.unwrap();
    run_on(app, async |app| {
        let operator = app.operator("A").await;
        for last_four in ["0006", "0007", "0009", "0011", "0027"] {
            assert_eq!(create(app, &operator, &format!("+1415555{last_four}")).await.codes(), Vec::<String>::new());
        }
        assert_eq!(create(app, &operator, "+14155550002").await.codes(), ["PHONE_NOT_MOBILE"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_request_asks_neither_the_carrier_nor_the_numbering_plans() {
    with_carrier(async |app, carrier| {
        let operator = app.operator("A").await;
        let create = "mutation ($input: CreateCustomerInput!) { createCustomer(input: $input) { replayed outcome } }";
        // The carrier calls this number a mobile line. By the numbering plans, it is a landline.
        let input = |id: &str| {
            let data = json!({ "email": format!("{id}@example.com"), "phone": "+442079460001" });
            json!({ "input": { "externalCustomerId": id, "data": data, "idempotencyKey": id } })
        };
        let created = app.graphql(&operator, create, input("1")).await.payload("createCustomer");
        assert_eq!(created, json!({ "replayed": false, "outcome": "CREATED" }));
        assert_eq!(carrier.take_request_count(), 1);
        // This replica decides by the numbering plans.
        let replica = app.replica(app.database_url().to_owned()).await;
        let repeated = replica.graphql(&operator, create, input("1")).await.payload("createCustomer");
        assert_eq!(repeated, json!({ "replayed": true, "outcome": "CREATED" }));
        assert_eq!(replica.graphql(&operator, create, input("2")).await.codes(), ["PHONE_NOT_MOBILE"]);
        assert_eq!(carrier.take_request_count(), 0);
        replica.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_match_before_a_rejected_phone_uses_a_disclosure() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let carrier = FakeCarrier::start().await;
        let settings = settings(&carrier.url, Environment::Production, UnknownLinePolicy::Refuse);
        let limits = RateLimitSettings { disclosures_per_hour: 1, ..RateLimitSettings::OFF };
        let Some(app) = TestApp::start_with(backend, ServiceSettings { limits, ..settings }).await else { continue };
        run_on(app, async |app| {
            let (own, other) = (app.operator("Own").await, app.operator("Other").await);
            app.created(&other, "1", json!({ "email": "ada@example.com" })).await;
            let create = async |email: &str| {
                let data = json!({ "email": email, "phone": "+14155550002" });
                app.create(&own, "1", data).await.codes()
            };
            assert_eq!(create("nobody@example.com").await, ["PHONE_NOT_MOBILE"]);
            assert_eq!(create("ada@example.com").await, ["PHONE_NOT_MOBILE"]);
            assert_eq!(create("ada@example.com").await, ["RATE_LIMITED"]);
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hanging_carrier_blocks_neither_clients_nor_database_connections() {
    /// The number of lookups that one operator can have at the same time.
    const SHARE: usize = 8;
    const HANGING: usize = 15;
    with_carrier(async |app, carrier| {
        let operator = app.operator("A").await;
        let ended = AtomicUsize::new(0);
        // These are more requests than there are database connections.
        let creates = (0..HANGING).map(|number| format!("+1415{}0024", 200 + number));
        let hanging = join_all(creates.map(async |phone| {
            assert_eq!(create(app, &operator, &phone).await.codes(), ["PHONE_LOOKUP_UNAVAILABLE"]);
            ended.fetch_add(1, Ordering::Relaxed);
        }));
        let others = async {
            carrier.wait_for_requests(SHARE).await;
            // These requests need no lookup, and must not wait for the requests that need one.
            for number in 0..3 {
                let id = format!("other-{number}");
                app.created(&operator, &id, json!({ "email": format!("{id}@example.com") })).await;
            }
            // The requests that waited in vain for a lookup may have ended.
            let ended = ended.load(Ordering::Relaxed);
            assert!(ended <= HANGING - SHARE, "requests without a phone waited for the carrier");
            carrier.release();
        };
        tokio::join!(hanging, others);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_whose_result_is_stored_during_its_lookup_returns_this_result() {
    // The lookup fails, or the carrier rejects the phone.
    for phone in ["+14155550024".to_owned(), format!("+1415555{REJECTED_LATE}")] {
        with_carrier(async |app, carrier| {
            let operator = app.operator("A").await;
            // This server uses no carrier.
            let replica = app.replica(app.database_url().to_owned()).await;
            let query = "mutation ($input: CreateCustomerInput!) { createCustomer(input: $input) { replayed customer { id } } }";
            // The platform knows the person, who is not connected to the operator.
            replica.created(&app.operator("B").await, "1", json!({ "email": "ada@example.com" })).await;
            let data = json!({ "email": "ada@example.com", "phone": phone });
            let input = json!({ "input": { "externalCustomerId": "1", "data": data, "idempotencyKey": "key" } });
            let store = async {
                carrier.wait_for_requests(1).await;
                let stored = replica.graphql(&operator, query, input.clone()).await.payload("createCustomer");
                carrier.release();
                stored
            };
            let (repeated, stored) = tokio::join!(app.graphql(&operator, query, input.clone()), store);
            let log = app.log();
            let is_disclosure = |line: &&str| line.contains("disclosed a match") && line.contains(&operator.operator);
            // Both requests have found the match.
            assert_eq!(log.lines().filter(is_disclosure).count(), 2, "{phone}");
            let repeated = repeated.payload("createCustomer");
            assert_eq!((&stored["replayed"], &repeated["replayed"]), (&json!(false), &json!(true)), "{phone}");
            assert_eq!(stored["customer"], repeated["customer"]);
            replica.stop().await;
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_and_a_lookup_have_time_limits() {
    let TwilioTimeouts { request, total, .. } = TwilioTimeouts::default();
    assert_eq!((request.as_millis(), total.as_millis()), (2000, 2500));
    let second = Duration::from_secs(1);
    for (timeouts, is_repeated) in [
        (TwilioTimeouts { request: second, ..LONG }, true),
        // The lookup ends during its first attempt.
        (TwilioTimeouts { total: second, ..LONG }, false),
    ] {
        let carrier = FakeCarrier::start().await;
        let unknown_lines = UnknownLinePolicy::Refuse;
        let settings = settings_with_timeouts(&carrier.url, Environment::Production, unknown_lines, timeouts);
        let app = TestApp::start_with(Backend::Sqlite, settings).await.unwrap();
        run_on(app, async |app| {
            let operator = app.operator("A").await;
            // The carrier does not respond.
            assert_eq!(create(app, &operator, "+14155550024").await.codes(), ["PHONE_LOOKUP_UNAVAILABLE"]);
            assert_eq!(carrier.take_request_count() > 1, is_repeated);
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_cannot_take_all_carrier_lookups() {
    const LOOKUPS: usize = 20;
    const SHARE: usize = 8;
    with_carrier(async |app, carrier| {
        let (busy, other) = (app.operator("Busy").await, app.operator("Other").await);
        let ended = watch::Sender::new(0);
        let creates = (0..LOOKUPS).map(|number| format!("+1415{}0024", 200 + number));
        let creates = join_all(creates.map(async |phone| {
            let answer = create(app, &busy, &phone).await;
            ended.send_modify(|ended| *ended += 1);
            answer
        }));
        let others = async {
            carrier.wait_for_requests(SHARE).await;
            let answer = create(app, &other, "+14155550001").await;
            let mut ended = ended.subscribe();
            let waited_in_vain = ended.wait_for(|ended| *ended >= LOOKUPS - SHARE);
            timeout(Duration::from_secs(60), waited_in_vain).await.expect("the creates without a lookup end").unwrap();
            let numbers = carrier.requests.borrow().iter().cloned().collect::<HashSet<_>>().len();
            carrier.release();
            (answer.codes(), numbers)
        };
        let (answers, (codes, numbers)) = tokio::join!(creates, others);
        assert_eq!((codes, numbers), (vec![], SHARE + 1));
        assert!(answers.iter().all(|answer| answer.codes() == ["PHONE_LOOKUP_UNAVAILABLE"]));
        // The other creates have waited for the share of the operator.
        let retry_after = |answer: &Answer| answer.body["errors"][0]["extensions"]["retryAfterMs"] == 1000;
        assert!(answers.iter().any(retry_after));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_lookups_of_one_number_share_one_request() {
    with_carrier(async |app, carrier| {
        let mut operators = Vec::new();
        for number in 0..20 {
            operators.push(app.operator(&format!("Operator {number}")).await);
        }
        let data = json!({ "email": "ada@example.com", "phone": "+14155550001" });
        let answers = join_all(operators.iter().map(|operator| app.create(operator, "1", data.clone()))).await;
        let created =
            answers.iter().filter(|answer| answer.body["data"]["createCustomer"]["outcome"] == "CREATED").count();
        assert!(answers.iter().all(|answer| answer.codes().is_empty()));
        assert_eq!((created, carrier.take_request_count()), (1, 1));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn carrier_answers_are_cached_and_failures_are_not() {
    with_carrier(async |app, carrier| {
        let operator = app.operator("A").await;
        app.created(&operator, "1", json!({ "email": "ada@example.com", "phone": "+14155550001" })).await;
        assert_eq!(create(app, &operator, "+14155550002").await.codes(), ["PHONE_NOT_MOBILE"]);
        assert_eq!(create(app, &operator, "+14155550020").await.codes(), ["PHONE_LOOKUP_UNAVAILABLE"]);
        assert_eq!(carrier.take_request_count(), 3);
        // This replica has an empty cache in memory.
        let replica = vivamo::service::Services::new(
            &app.database,
            settings(&carrier.url, Environment::Production, UnknownLinePolicy::Refuse),
        );
        let update = async |phone: &str| {
            let changes = vivamo::service::customers::CustomerChanges {
                customer: Some(vivamo::service::customers::CustomerRef::ExternalCustomerId(
                    entity::value::ExternalCustomerId::parse("1").unwrap(),
                )),
                values: vivamo::service::customers::CustomerPatch {
                    phone: Some(entity::value::PhoneNumber::parse(phone).ok()),
                    ..Default::default()
                },
                ..Default::default()
            };
            let caller = app.services.authenticator.authenticate(&operator.key, None).await.unwrap();
            replica.customers.update(&caller, &entity::value::RequestId::new().into(), changes).await.is_ok()
        };
        app.updated(&operator, json!({ "externalCustomerId": "1" }), json!({ "phone": null })).await;
        assert!(!update("+14155550002").await);
        assert!(update("+14155550001").await);
        assert_eq!(carrier.take_request_count(), 0);
        assert!(!update("+14155550020").await);
        assert_eq!(carrier.take_request_count(), 1);
        // Mobile lines are cached for 30 days, and other lines for 24 hours. The key of a row is a keyed hash of the
        // number.
        let rows = entity::phone_lookup::Entity::find().all(app.database.reader()).await.unwrap();
        assert_eq!(rows.len(), 2);
        for row in rows {
            let hours = (row.expires_at - now()).num_minutes() as f64 / 60.0;
            let expected = if row.line == entity::phone_lookup::CarrierLineType::Mobile { 30.0 * 24.0 } else { 24.0 };
            assert!((hours - expected).abs() < 0.1, "{hours}");
            assert_eq!(row.hash.len(), 32);
            let mut row: entity::phone_lookup::ActiveModel = row.into();
            row.expires_at = Set(now() - chrono::TimeDelta::seconds(1));
            let transaction = app.database.begin_write().await.unwrap();
            row.update(&transaction).await.unwrap();
            transaction.commit().await.unwrap();
        }
        // Numbers whose cached results have expired are looked up again.
        let later = vivamo::service::Services::new(
            &app.database,
            settings(&carrier.url, Environment::Production, UnknownLinePolicy::Refuse),
        );
        let caller = app.services.authenticator.authenticate(&operator.key, None).await.unwrap();
        app.updated(&operator, json!({ "externalCustomerId": "1" }), json!({ "phone": null })).await;
        let changes = vivamo::service::customers::CustomerChanges {
            customer: Some(vivamo::service::customers::CustomerRef::ExternalCustomerId(
                entity::value::ExternalCustomerId::parse("1").unwrap(),
            )),
            values: vivamo::service::customers::CustomerPatch {
                phone: Some(entity::value::PhoneNumber::parse("+14155550001").ok()),
                ..Default::default()
            },
            ..Default::default()
        };
        assert!(later.customers.update(&caller, &entity::value::RequestId::new().into(), changes).await.is_ok());
        assert_eq!(carrier.take_request_count(), 1);
        assert_eq!(vivamo::service::phone_lookup::delete_expired_results(&app.database).await.unwrap(), 1);
        assert_eq!(app.count_rows("phone_lookup").await, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_numbers_that_would_be_stored_are_looked_up() {
    with_carrier(async |app, carrier| {
        let (own, other) = (app.operator("Own").await, app.operator("Other").await);
        app.created(&own, "1", json!({ "email": "ada@example.com", "phone": "+14155550001" })).await;
        app.created(&own, "2", json!({ "email": "grace@example.com" })).await;
        assert_eq!(carrier.take_request_count(), 1);
        let validate =
            "query ($input: CreateCustomerInput!) { validateCustomer(input: $input) { phone faults { code } } }";
        let fresh =
            json!({ "externalCustomerId": "9", "data": { "email": "new@example.com", "phone": "+14155550002" } });
        let valid = app.graphql(&own, validate, json!({ "input": fresh })).await;
        assert_eq!(valid.body["data"]["validateCustomer"], json!({ "phone": "+14155550002", "faults": [] }));
        // These numbers are not looked up: a number that a customer already has, an invalid number, a number that a
        // connect does not store, and a number in a request that is rejected for another reason.
        app.created(&other, "1", json!({ "email": "other@example.com", "phone": "+14155550001" })).await;
        for data in [
            json!({ "email": "no address", "phone": "+14155550002" }),
            json!({ "email": "ada@example.com", "phone": "+14155550002" }),
            json!({ "email": "x@mailinator.com", "phone": "+14155550002" }),
            json!({ "email": "new@example.com", "phone": "+1" }),
        ] {
            assert!(!app.create(&own, "new", data).await.codes().is_empty());
        }
        let third = app.operator("Third").await;
        let connected = app.created(&third, "1", json!({ "email": "ada@example.com", "phone": "+14155550002" })).await;
        assert_eq!(connected["unappliedFields"], json!(["PHONE"]));
        app.updated(
            &own,
            json!({ "externalCustomerId": "1" }),
            json!({ "phone": "(415) 555-0001", "firstName": "Ada" }),
        )
        .await;
        app.updated(&own, json!({ "externalCustomerId": "1" }), json!({ "lastName": "Lovelace" })).await;
        let taken = app.update(&own, json!({ "externalCustomerId": "2" }), json!({ "phone": "+14155550001" })).await;
        assert_eq!(taken.codes(), ["PHONE_TAKEN"]);
        assert_eq!(carrier.take_request_count(), 0);
        // A number is looked up if a connect fills an empty phone, or if an update changes the phone.
        app.created(&third, "2", json!({ "email": "grace@example.com", "phone": "+14155550040" })).await;
        assert_eq!(carrier.take_request_count(), 1);
        app.updated(&own, json!({ "externalCustomerId": "2" }), json!({ "phone": "+14155550041" })).await;
        assert_eq!(carrier.take_request_count(), 1);
    })
    .await;
}

/// The customer that has the number loses the number between the read and the write of a create. The create then has to
/// store the number, which has not been looked up yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retried_create_looks_up_its_number_before_storing_it() {
    with_carrier(async |app, carrier| {
        let (own, other) = (app.operator("Own").await, app.operator("Other").await);
        app.created(&other, "1", json!({ "email": "holder@example.com", "phone": "+14155550001" })).await;
        // Changes the number to a landline number, which the service rejects, and empties the cache of carrier results.
        let sql = "UPDATE customer SET phone = '+14155550002'; DELETE FROM phone_lookup";
        app.execute(sql).await;
        carrier.take_request_count();

        let holder = app.database.begin_write().await.unwrap();
        let remove_phone = "UPDATE customer SET phone = NULL, revision = revision + 1";
        sea_orm::ConnectionTrait::execute_unprepared(&holder, remove_phone).await.unwrap();
        let data = json!({ "email": "new@example.com", "phone": "+14155550002" });
        let create = app.create(&own, "1", data);
        let commit = async {
            app.wait_until_blocked(1).await;
            holder.commit().await.unwrap();
        };
        let (answer, ()) = tokio::join!(create, commit);
        answer.assert_rejected("createCustomer", &[("PHONE_NOT_MOBILE", "input.data.phone")]);
        assert_eq!(carrier.take_request_count(), 1);
        app.rebuild_search_words().await;
        assert_eq!(app.count_rows("customer").await, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sandbox_does_not_use_the_carrier() {
    let carrier = FakeCarrier::start().await;
    let app =
        TestApp::start_with(Backend::Sqlite, settings(&carrier.url, Environment::Sandbox, UnknownLinePolicy::Refuse))
            .await;
    run_on(app.unwrap(), async |app| {
        let operator = app.operator("A").await;
        let created =
            app.created(&operator, "1", json!({ "email": "ada@example.com", "phone": "+442079460018" })).await;
        assert_eq!(created["warnings"][0]["code"], "PHONE_NOT_MOBILE");
        assert_eq!(carrier.take_request_count(), 0);
    })
    .await;
}
