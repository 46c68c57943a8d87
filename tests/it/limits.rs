//! Rate limits: the cost of requests by key, authentication failures by address, disclosures by operator.

use std::time::{Duration, Instant};

use entity::api_key::Access;
use entity::deployment::Environment;
use entity::value::{DisplayName, OperatorId};
use futures::future::{Either, join_all, select};
use sea_orm::ConnectionTrait;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use vivamo::config::RateLimitSettings;
use vivamo::service::api_keys::NewApiKey;
use vivamo::service::{Caller, RequestInfo};

use support::{Answer, TestApp, TestCaller, both};

const ROLE: &str = "{ viewer { role } }";

async fn replica_with_limits(app: &TestApp, limits: RateLimitSettings) -> TestApp {
    app.replica_with(app.database_url().to_owned(), limits).await
}

fn assert_rate_limited_with_429(answer: &Answer) {
    assert_eq!((answer.status, answer.codes()), (429, vec!["RATE_LIMITED".to_owned()]));
    let extensions = &answer.body["errors"][0]["extensions"];
    assert_eq!(extensions["retryable"], true);
    let wait = extensions["retryAfterMs"].as_u64().unwrap();
    let seconds: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!(wait > 0 && seconds == wait.div_ceil(1000), "{wait} {seconds}");
}

/// Sends a request with an invalid key and with `forwarded` as the `X-Forwarded-For` header.
async fn send_invalid_key(app: &TestApp, forwarded: Option<&str>) -> Answer {
    let mut request =
        app.http.post(format!("{}/graphql", app.url)).bearer_auth("wrong").json(&json!({ "query": ROLE }));
    if let Some(forwarded) = forwarded {
        request = request.header("x-forwarded-for", forwarded);
    }
    Answer::read(request.send().await.unwrap()).await
}

/// Counts the log lines with this message about an operator.
fn count_log_lines(app: &TestApp, operator: &str, message: &str) -> usize {
    app.log().lines().filter(|line| line.contains(operator) && line.contains(message)).count()
}

const KNOWN_CUSTOMERS: usize = 40;
const ATTEMPTS: usize = 200;
const DISCLOSURES: usize = 20;

/// Creates customers of another operator, with the emails `known-0@example.com` and so on.
async fn create_known_customers(app: &TestApp) {
    let other = app.operator("Other").await;
    for number in 0..KNOWN_CUSTOMERS {
        app.created(&other, &number.to_string(), json!({ "email": format!("known-{number}@example.com") })).await;
    }
}

/// Makes one attempt for each of 200 emails. The first 40 emails belong to customers of another operator. Returns the
/// number of attempts that disclosed a match, and the number of rejected attempts.
async fn enumerate_emails(
    replica: &TestApp,
    own: &TestCaller,
    field: &str,
    attempt: impl AsyncFn(usize, String) -> Answer,
) -> (usize, usize) {
    let (mut disclosed, mut rejected) = (0, 0);
    for number in 0..ATTEMPTS {
        let answer = attempt(number, format!("known-{number}@example.com")).await;
        assert_eq!(answer.status, 200);
        match answer.codes().as_slice() {
            [code] if code == "RATE_LIMITED" => {
                assert_eq!(answer.body["data"], json!({ field: null }));
                rejected += 1;
            }
            [code] if code == "EMAIL_TAKEN" => disclosed += 1,
            [] if answer.body["data"][field]["outcome"] == "CONNECTED" => disclosed += 1,
            codes => assert_eq!(codes, Vec::<String>::new()),
        }
    }
    assert_eq!(count_log_lines(replica, &own.operator, "disclosed a match outside the operator"), disclosed);
    assert_eq!(count_log_lines(replica, &own.operator, "disclosure limit reached"), rejected);
    assert!(replica.query(own, ROLE).await["viewer"]["role"] == "OPERATOR");
    (disclosed, rejected)
}

both!(a_key_is_limited_by_the_cost_of_its_requests, Sandbox, async |app| {
    let replica = replica_with_limits(app, RateLimitSettings { cost_per_second: 1, ..RateLimitSettings::OFF }).await;
    let (own, other) = (replica.operator("Own").await, replica.operator("Other").await);
    // The full budget of a key is ten times the cost per second, which is enough for one mutation.
    let created = replica.create(&own, "1", json!({ "email": "ada@example.com" })).await;
    assert_eq!(created.codes(), Vec::<String>::new());
    let rejected = replica.create(&own, "2", json!({ "email": "grace@example.com" })).await;
    assert_rate_limited_with_429(&rejected);
    assert_eq!(replica.count_rows("customer").await, 1);
    // This query costs 1, because it is small and has no list. The key of the other operator has its own budget.
    let three = "{ a: viewer { role } b: viewer { role } c: viewer { role } }";
    let mut statuses = Vec::new();
    while statuses.last() != Some(&429) {
        statuses.push(replica.graphql(&other, three, json!({})).await.status);
    }
    assert!(statuses.len() > 9, "{statuses:?}");
    // A syntax error costs 1 too.
    let third = replica.operator("Third").await;
    let mut statuses = Vec::new();
    while statuses.last() != Some(&429) {
        statuses.push(replica.graphql(&third, "{", json!({})).await.status);
    }
    assert!(statuses.len() > 9, "{statuses:?}");
    replica.stop().await;
});

both!(a_key_with_many_requests_in_flight_waits_for_them, Sandbox, async |app| {
    const MAX_IN_FLIGHT: usize = 64;
    let own = app.operator("Own").await;
    let other_key = app.key(&own, Access::ReadWrite).await;
    // The creates are in flight until the lock is released.
    let holder = app.database.begin_write().await.unwrap();
    if app.is_postgres() {
        holder.execute_unprepared("LOCK TABLE customer IN SHARE MODE").await.unwrap();
    }
    let creates = join_all((0..MAX_IN_FLIGHT).map(async |number| {
        let (id, email) = (number.to_string(), format!("{number}@example.com"));
        app.created(&own, &id, json!({ "email": email })).await
    }));
    let queries = async {
        let waiting = loop {
            let own_query = Box::pin(app.query(&own, ROLE));
            let other_queries = Box::pin(async {
                for _ in 0..20 {
                    app.query(&other_key, ROLE).await;
                }
            });
            if let Either::Right((_, own_query)) = select(own_query, other_queries).await {
                break own_query;
            }
        };
        holder.commit().await.unwrap();
        assert_eq!(waiting.await["viewer"]["role"], "OPERATOR");
    };
    tokio::join!(creates, queries);
});

/// Sends a query and returns `extensions.cost` of its answer.
async fn cost_of(app: &TestApp, caller: &TestCaller, query: &str) -> Value {
    let request = app.http.post(format!("{}/graphql", app.url)).bearer_auth(&caller.key).header("vivamo-cost", "1");
    let answer = Answer::read(request.json(&json!({ "query": query })).send().await.unwrap()).await;
    assert_eq!(answer.codes(), Vec::<String>::new(), "{query}");
    answer.body["extensions"]["cost"].clone()
}

both!(the_cost_of_a_request_measures_its_work, Sandbox, async |app| {
    let replica = replica_with_limits(app, RateLimitSettings { cost_per_second: 1000, ..RateLimitSettings::OFF }).await;
    let own = replica.operator("Own").await;
    for number in 0..20 {
        replica.created(&own, &number.to_string(), json!({ "email": format!("{number}@example.com") })).await;
    }
    let create = "mutation { createCustomer(input: { externalCustomerId: \"new\", data: { email: \"new@example.com\" } }) \
                  { outcome } }";
    let fields = "id email phone firstName lastName version createdAt";
    for (query, requested, used) in [
        ("{ viewer { role } }".to_owned(), 1, 1),
        (format!("{{ customer(by: {{ externalCustomerId: \"7\" }}) {{ {fields} }} }}"), 1, 1),
        (format!("{{ customers {{ nodes {{ {fields} }} }} }}"), 3, 3),
        (format!("{{ customers(first: 100) {{ nodes {{ {fields} }} }} }}"), 11, 3),
        (format!("{{ operator {{ customers(last: 5) {{ nodes {{ {fields} }} totalCount }} }} }}"), 3, 2),
        ("{ customers(filter: { search: \"example\" }) { totalCount nodes { id email } } }".to_owned(), 5, 5),
        ("{ customers(first: 1, filter: { missing: [EMAIL] }) { nodes { id } } }".to_owned(), 2, 1),
        (create.to_owned(), 10, 10),
        // What a condition excludes is not executed.
        (create.replace(" { outcome }", " @skip(if: true) { outcome }"), 1, 1),
        ("{ viewer { role } operators(first: 100) @include(if: false) { totalCount } }".to_owned(), 1, 1),
    ] {
        let cost = cost_of(&replica, &own, &query).await;
        assert_eq!((&cost["requested"], &cost["used"]), (&json!(requested), &json!(used)), "{query}");
    }
    // Each of these counts is a query, and ten queries cost 1.
    let counts: String = (0..30).map(|number| format!("t{number}: totalCount ")).collect();
    let cost = cost_of(&replica, &own, &format!("{{ operators {{ {counts} }} }}")).await;
    assert!(cost["used"].as_i64() >= Some(3), "{cost}");
    // The platform pays for the lookups of customers as an operator does.
    let lookups =
        (0..10).map(|number| format!("c{number}: customer(by: {{ email: \"{number}@example.com\" }}) {{ id }} "));
    let lookups = format!("{{ {} }}", lookups.collect::<String>());
    for caller in [&own, &replica.platform()] {
        assert_eq!(cost_of(&replica, caller, &lookups).await["used"], 3);
    }
    // The budget got back the difference between the estimate and the real cost.
    let available = cost_of(&replica, &own, ROLE).await["available"].as_i64().unwrap();
    assert!(available > 9700, "{available}");
    // A client that does not ask for the cost gets no extensions. Without a limit there is no budget.
    assert_eq!(replica.graphql(&own, ROLE, json!({})).await.body.get("extensions"), None);
    assert_eq!(cost_of(app, &own, ROLE).await, json!({ "requested": 1, "used": 1, "available": null }));
    let log = app.log();
    let line = log.lines().rfind(|line| line.contains(&own.operator) && line.contains("mutation")).unwrap();
    assert!(line.contains("cost_requested") && line.contains("cost_used") && line.contains("cost_available"), "{line}");
    replica.stop().await;
});

both!(the_cost_of_an_update_does_not_reveal_the_number_of_other_operators, Sandbox, async |app| {
    let own = app.operator("Own").await;
    app.created(&own, "1", json!({ "email": "ada@example.com" })).await;
    // Each update writes many words for each operator of the customer.
    let cost_of_updates = async || {
        let mut costs = Vec::new();
        for (name, domain) in [("a b c d e f g h i j k l", "m"), ("n o p q r s t u v w x y", "z")] {
            let local = name.replace(' ', ".");
            let update = format!(
                "mutation {{ updateCustomer(input: {{ customer: {{ externalCustomerId: \"1\" }}, data: {{ \
                 firstName: \"{name}\", lastName: \"{name}\", email: \"{local}@{local}.{domain}.example.com\" }} }}) {{ replayed }} }}"
            );
            costs.push(cost_of(app, &own, &update).await["used"].clone());
        }
        costs
    };
    let alone = cost_of_updates().await;
    for number in 0..20 {
        let other = app.operator(&format!("Other {number}")).await;
        let email = "n.o.p.q.r.s.t.u.v.w.x.y@n.o.p.q.r.s.t.u.v.w.x.y.z.example.com";
        app.created(&other, "1", json!({ "email": email })).await;
    }
    assert_eq!(cost_of_updates().await, alone);
});

both!(a_long_body_costs_more, Sandbox, async |app| {
    const COST_PER_SECOND: u32 = 10;
    let limits = RateLimitSettings { cost_per_second: COST_PER_SECOND, ..RateLimitSettings::OFF };
    let replica = replica_with_limits(app, limits).await;
    let own = replica.operator("Own").await;
    let post =
        || replica.http.post(format!("{}/graphql", replica.url)).bearer_auth(&own.key).header("vivamo-cost", "1");
    let body = |length: usize| json!({ "query": ROLE, "extensions": { "x": "x".repeat(length) } });
    for (length, used) in [(3_000, 1), (10_000, 3), (60_000, 15)] {
        let answer = Answer::read(post().json(&body(length)).send().await.unwrap()).await;
        assert_eq!(answer.body["extensions"]["cost"]["used"], used, "{length}");
    }
    // A malformed body costs the same, so the budget allows at most seven of them.
    let mut malformed = body(60_000).to_string();
    malformed.pop();
    let mut statuses = Vec::new();
    let started = Instant::now();
    while statuses.last() != Some(&429) {
        assert!(started.elapsed() < Duration::from_secs(60), "{statuses:?}");
        let request = post().header("content-type", "application/json").body(malformed.clone());
        statuses.push(Answer::read(request.send().await.unwrap()).await.status);
    }
    let refilled = started.elapsed().as_secs_f64() * f64::from(COST_PER_SECOND);
    assert!(statuses.len() as f64 <= 8.0 + refilled / 14.0, "{statuses:?} {refilled}");
    assert_eq!(statuses[0], 400);
    replica.stop().await;
});

/// A document with a cost of 20.
const TWO_CREATES: &str = "mutation { \
    a: createCustomer(input: { externalCustomerId: \"2\", data: { email: \"2@example.com\" } }) { outcome } \
    b: createCustomer(input: { externalCustomerId: \"3\", data: { email: \"3@example.com\" } }) { outcome } }";

both!(a_rejected_request_costs_nothing_and_an_expensive_one_makes_the_next_wait, Sandbox, async |app| {
    let limits = RateLimitSettings { cost_per_second: 2, ..RateLimitSettings::OFF };
    let replica = replica_with_limits(app, limits).await;
    let own = replica.operator("Own").await;
    replica.created(&own, "1", json!({ "email": "1@example.com" })).await;
    let available = cost_of(&replica, &own, ROLE).await["available"].as_i64().unwrap();
    // The rest of the budget is too small for a request that costs 20.
    for _ in 0..5 {
        assert_rate_limited_with_429(&replica.graphql(&own, TWO_CREATES, json!({})).await);
    }
    let cost = cost_of(&replica, &own, ROLE).await;
    // Only the first request costs 1, because its document was not in the cache.
    assert!(cost["available"].as_i64().unwrap() >= available - 2, "{available} {cost}");
    // A query of ten customers costs more than its estimate.
    let fields = "id externalCustomerId email phone firstName lastName missingFields version createdAt updatedAt \
                  address { line1 line2 city region postalCode country }";
    let aliases: Vec<_> =
        (0..10).map(|n| format!("c{n}: customer(by: {{ externalCustomerId: \"1\" }}) {{ {fields} }}")).collect();
    let ten = format!("{{ {} }}", aliases.join(" "));
    let mut cost = cost_of(&replica, &own, &ten).await;
    while cost["available"].as_i64().unwrap() >= cost["requested"].as_i64().unwrap() {
        cost = cost_of(&replica, &own, &ten).await;
    }
    assert!(cost["used"].as_i64() > cost["requested"].as_i64(), "{cost}");
    let mut next = replica.graphql(&own, &ten, json!({})).await;
    // The budget may have been refilled in the meantime.
    while next.status != 429 {
        next = replica.graphql(&own, &ten, json!({})).await;
    }
    assert_rate_limited_with_429(&next);
    replica.stop().await;
});

both!(a_rejected_request_with_a_new_document_costs_1, Sandbox, async |app| {
    const COST_PER_SECOND: u32 = 2;
    let limits = RateLimitSettings { cost_per_second: COST_PER_SECOND, ..RateLimitSettings::OFF };
    let replica = replica_with_limits(app, limits).await;
    let own = replica.operator("Own").await;
    replica.created(&own, "1", json!({ "email": "1@example.com" })).await;
    let (before, started) = (cost_of(&replica, &own, ROLE).await, Instant::now());
    for number in 0..5 {
        let document = format!("{TWO_CREATES} # {number}");
        assert_rate_limited_with_429(&replica.graphql(&own, &document, json!({})).await);
    }
    let after = cost_of(&replica, &own, ROLE).await;
    let refilled = (started.elapsed().as_secs_f64() * f64::from(COST_PER_SECOND)).ceil() as i64;
    let available = |cost: &Value| cost["available"].as_i64().unwrap();
    assert!(available(&after) <= available(&before) - 6 + refilled, "{before} {after} {refilled}");
    replica.stop().await;
});

both!(an_address_is_limited_by_its_authentication_failures, Sandbox, async |app| {
    let replica =
        replica_with_limits(app, RateLimitSettings { auth_failures_per_minute: 5, ..RateLimitSettings::OFF }).await;
    let own = replica.operator("Own").await;
    for _ in 0..5 {
        assert_eq!(send_invalid_key(&replica, None).await.status, 401);
    }
    assert_rate_limited_with_429(&send_invalid_key(&replica, None).await);
    // Requests with a valid key are not affected.
    assert_eq!(replica.graphql(&own, ROLE, json!({})).await.status, 200);
    // A failure counts for one address of `X-Forwarded-For`: the last one that is not a trusted proxy. The addresses
    // before it are ignored, because a client can invent them.
    for number in 0..5 {
        assert_eq!(
            send_invalid_key(&replica, Some(&format!("198.51.100.{number}, 203.0.113.7, 127.0.0.1"))).await.status,
            401
        );
    }
    assert_rate_limited_with_429(&send_invalid_key(&replica, Some("203.0.113.7")).await);
    assert_eq!(send_invalid_key(&replica, Some("203.0.113.8")).await.status, 401);
    // A port and brackets do not change the address. All IPv6 addresses of a /64 network count as one address.
    assert_rate_limited_with_429(&send_invalid_key(&replica, Some("203.0.113.7:4711")).await);
    for address in ["2001:db8::1", "[2001:db8::2]", "[2001:db8::3]:4711", "2001:db8::4", "2001:db8::5"] {
        assert_eq!(send_invalid_key(&replica, Some(address)).await.status, 401, "{address}");
    }
    assert_rate_limited_with_429(&send_invalid_key(&replica, Some("[2001:db8::6]")).await);
    // The service ignores an unreadable header and all headers before it, so a client cannot choose its address with an
    // earlier header. The request then counts for the address of the connection, which is already over its limit.
    let unreadable = reqwest::header::HeaderValue::from_bytes(b"\xff, 203.0.113.7").unwrap();
    let request =
        replica.http.post(format!("{}/graphql", replica.url)).bearer_auth("wrong").json(&json!({ "query": ROLE }));
    let request = request.header("x-forwarded-for", "203.0.113.99").header("x-forwarded-for", unreadable);
    assert_rate_limited_with_429(&Answer::read(request.send().await.unwrap()).await);
    replica.stop().await;
});

both!(unknown_keys_of_an_address_over_its_limit_share_lookups, Sandbox, async |app| {
    let replica =
        replica_with_limits(app, RateLimitSettings { auth_failures_per_minute: 5, ..RateLimitSettings::OFF }).await;
    let own = replica.operator("Own").await;
    let (read_only, revoked) = (replica.key(&own, Access::ReadOnly).await, replica.key(&own, Access::ReadOnly).await);
    let newest = replica.services.api_keys.list(&Caller::Platform).await.unwrap().pop().unwrap();
    replica.services.api_keys.revoke(&Caller::Platform, &RequestInfo::command_line(), newest.id).await.unwrap();
    // Keys of another deployment are well formed and unknown.
    let elsewhere = app.services_with(Environment::Sandbox, "another secret").api_keys.clone();
    let operator = OperatorId::parse(&own.operator).unwrap();
    let name = DisplayName::parse("elsewhere").unwrap();
    let request = NewApiKey { name, access: Access::ReadWrite, expires_at: None };
    let mut unknown = Vec::new();
    for _ in 0..40 {
        let key =
            elsewhere.create(&Caller::Platform, &RequestInfo::command_line(), operator, request.clone()).await.unwrap();
        unknown.push(TestCaller { key: key.secret.expose_secret().to_owned(), ..own.clone() });
    }
    for (number, caller) in unknown.iter().take(6).enumerate() {
        let answer = replica.graphql(caller, ROLE, json!({})).await;
        assert_eq!(answer.status, if number < 5 { 401 } else { 429 });
    }
    let send = |caller| replica.graphql(caller, ROLE, json!({}));
    let valid = [&own, &read_only];
    let sent_at = Instant::now();
    let callers = unknown.iter().chain(valid).chain([&revoked]).chain(&unknown);
    let (answers, statements) = replica.all_statements_of(join_all(callers.map(send))).await;
    let most = 2 + sent_at.elapsed().as_millis() / 50;
    let lookups = statements.iter().filter(|sql| support::is_key_lookup(sql)).count();
    assert!(lookups > 0 && lookups as u128 <= most, "{lookups} lookups, at most {most}");
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    // A valid key is not rejected, even if it is used for the first time.
    assert_eq!(statuses, [vec![429; 40], vec![200; 2], vec![429; 41]].concat());
    // The limit does not apply to a request from another address.
    let other = replica.http.post(format!("{}/graphql", replica.url)).bearer_auth(&unknown[0].key);
    let other = other.header("x-forwarded-for", "203.0.113.7").json(&json!({ "query": ROLE }));
    assert_eq!(other.send().await.unwrap().status(), 401);
    replica.stop().await;
});

both!(enumerating_emails_with_creates_is_stopped, Sandbox, async |app| {
    create_known_customers(app).await;
    let replica = replica_with_limits(
        app,
        RateLimitSettings { disclosures_per_hour: DISCLOSURES as u32, ..RateLimitSettings::OFF },
    )
    .await;
    let own = replica.operator("Curious").await;
    let attempt = async |number: usize, email: String| {
        replica.create(&own, &format!("guess {number}"), json!({ "email": email })).await
    };
    let (disclosed, rejected) = enumerate_emails(&replica, &own, "createCustomer", attempt).await;
    assert_eq!((disclosed, rejected), (DISCLOSURES, ATTEMPTS - DISCLOSURES));
    // No attempt creates a customer: with a used-up budget, unknown emails are rejected like known emails.
    assert_eq!(replica.count_rows("customer").await, KNOWN_CUSTOMERS as i64);
    // An update that can disclose nothing still works.
    let customer = json!({ "externalCustomerId": "guess 0" });
    replica.updated(&own, customer, json!({ "firstName": "Ada" })).await;
    replica.stop().await;
});

both!(enumerating_emails_with_updates_is_stopped, Sandbox, async |app| {
    create_known_customers(app).await;
    let replica = replica_with_limits(
        app,
        RateLimitSettings { disclosures_per_hour: DISCLOSURES as u32, ..RateLimitSettings::OFF },
    )
    .await;
    let own = replica.operator("Curious").await;
    replica.created(&own, "mine", json!({ "email": "mine@example.com" })).await;
    replica.created(&own, "mine too", json!({ "email": "mine-too@example.com" })).await;
    let customer: Value = json!({ "externalCustomerId": "mine" });
    // An email of the operator's own customer is not a disclosure.
    for _ in 0..DISCLOSURES + 5 {
        let answer = replica.update(&own, customer.clone(), json!({ "email": "mine-too@example.com" })).await;
        assert_eq!(answer.codes(), ["EMAIL_TAKEN"]);
    }
    let attempt =
        async |_: usize, email: String| replica.update(&own, customer.clone(), json!({ "email": email })).await;
    let (disclosed, rejected) = enumerate_emails(&replica, &own, "updateCustomer", attempt).await;
    assert_eq!((disclosed, rejected), (DISCLOSURES, ATTEMPTS - DISCLOSURES));
    // An email that does not change is not looked up.
    replica.updated(&own, customer, json!({ "email": "mine@example.com", "firstName": "Ada" })).await;
    replica.stop().await;
});

both!(each_disclosed_value_counts, Sandbox, async |app| {
    let other = app.operator("Other").await;
    for number in 0..4 {
        let data = json!({ "email": format!("{number}@example.com"), "phone": format!("+1415555267{number}") });
        app.created(&other, &number.to_string(), data).await;
    }
    let replica =
        replica_with_limits(app, RateLimitSettings { disclosures_per_hour: 4, ..RateLimitSettings::OFF }).await;
    let own = replica.operator("Curious").await;
    replica.created(&own, "mine", json!({ "email": "mine@example.com" })).await;
    let both = |email: usize, phone: usize| {
        let (email, phone) = (format!("{email}@example.com"), format!("+1415555267{phone}"));
        json!({ "email": email, "phone": phone })
    };
    let customer = json!({ "externalCustomerId": "mine" });
    assert_eq!(replica.update(&own, customer.clone(), both(0, 1)).await.codes(), ["EMAIL_TAKEN", "PHONE_TAKEN"]);
    assert_eq!(replica.create(&own, "new", both(0, 1)).await.codes(), ["IDENTITY_CONFLICT", "IDENTITY_CONFLICT"]);
    assert_eq!(
        replica.update(&own, customer.clone(), json!({ "email": "2@example.com" })).await.codes(),
        ["RATE_LIMITED"]
    );
    assert_eq!(replica.create(&own, "new", json!({ "email": "nobody@example.com" })).await.codes(), ["RATE_LIMITED"]);
    replica.stop().await;
});

both!(requests_wait_for_reserved_disclosures, Sandbox, async |app| {
    // Each of the requests reserves two disclosures, so half of them wait for the other half.
    let reservation_wait = Duration::from_secs(60);
    let limits = RateLimitSettings { disclosures_per_hour: 4, reservation_wait, ..RateLimitSettings::OFF };
    let replica = replica_with_limits(app, limits).await;
    let own = replica.operator("Fresh").await;
    let creates = (0..4).map(|number| {
        let (id, phone) = (number.to_string(), format!("+1415555{:04}", 2000 + number));
        let (replica, own) = (&replica, &own);
        async move {
            let data = json!({ "email": format!("{id}@example.com"), "phone": phone });
            replica.create(own, &id, data).await.codes()
        }
    });
    let codes: Vec<_> = futures::future::join_all(creates).await.concat();
    assert_eq!(codes, Vec::<String>::new());
    let updates = (0..4).map(|number| {
        let (customer, email) =
            (json!({ "externalCustomerId": number.to_string() }), format!("new-{number}@example.com"));
        let (replica, own) = (&replica, &own);
        async move { replica.update(own, customer, json!({ "email": email })).await.codes() }
    });
    assert_eq!(futures::future::join_all(updates).await.concat(), Vec::<String>::new());
    replica.stop().await;
});

both!(reserved_disclosures_are_not_reported_as_used_up, Sandbox, async |app| {
    let replica =
        replica_with_limits(app, RateLimitSettings { disclosures_per_hour: 1, ..RateLimitSettings::OFF }).await;
    let own = replica.operator("Fresh").await;
    // One of the two requests reserves the budget. This request then waits, because no request can write.
    let writer = app.database.begin_write().await.unwrap();
    if app.is_postgres() {
        writer.execute_unprepared("LOCK TABLE customer IN ACCESS EXCLUSIVE MODE").await.unwrap();
    }
    let create = |id: &'static str| {
        let (replica, own) = (&replica, &own);
        Box::pin(async move { replica.create(own, id, json!({ "email": format!("{id}@example.com") })).await })
    };
    let (rejected, other) = futures::future::select(create("a"), create("b")).await.factor_first();
    assert_eq!(rejected.codes(), ["RATE_LIMITED"]);
    assert_eq!(rejected.body["errors"][0]["extensions"]["retryAfterMs"], 1000);
    assert!(rejected.message().contains("Concurrent requests have reserved"), "{}", rejected.message());
    writer.commit().await.unwrap();
    assert_eq!(other.await.codes(), Vec::<String>::new());
    replica.created(&own, "c", json!({ "email": "c@example.com" })).await;
    replica.stop().await;
});

both!(a_message_says_which_limit_was_reached, Sandbox, async |app| {
    let limits = RateLimitSettings {
        cost_per_second: 1,
        auth_failures_per_minute: 1,
        disclosures_per_hour: 1,
        ..RateLimitSettings::OFF
    };
    let replica = replica_with_limits(app, limits).await;
    let (own, other) = (replica.operator("Own").await, app.operator("Other").await);
    app.created(&other, "1", json!({ "email": "1@example.com" })).await;
    send_invalid_key(&replica, None).await;
    assert!(
        send_invalid_key(&replica, None).await.message().contains("Too many failed authentications from this address")
    );
    replica.created(&own, "1", json!({ "email": "1@example.com" })).await;
    let rejected = replica.create(&own, "2", json!({ "email": "2@example.com" })).await;
    assert!(rejected.message().contains("This API key has reached its cost limit"), "{}", rejected.message());
    let unlimited = RateLimitSettings { disclosures_per_hour: 1, ..RateLimitSettings::OFF };
    let replica_2 = replica_with_limits(app, unlimited).await;
    app.created(&other, "2", json!({ "email": "2@example.com" })).await;
    replica_2.created(&own, "2", json!({ "email": "2@example.com" })).await;
    let rejected = replica_2.create(&own, "3", json!({ "email": "3@example.com" })).await;
    assert!(rejected.message().contains("disclosure budget has too few disclosures left"), "{}", rejected.message());
    replica.stop().await;
    replica_2.stop().await;
});

both!(a_match_before_a_lost_race_uses_a_disclosure, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    for name in ["ada", "grace"] {
        app.created(&other, name, json!({ "email": format!("{name}@example.com") })).await;
    }
    app.created(&own, "mine", json!({ "email": "mine@example.com" })).await;
    let replica =
        replica_with_limits(app, RateLimitSettings { disclosures_per_hour: 1, ..RateLimitSettings::OFF }).await;
    let rename = |from: &str, to: &str| {
        format!("UPDATE customer_operator SET external_customer_id = '{to}' WHERE external_customer_id = '{from}'")
    };
    // The request finds its external id unused, and the person. Then another transaction takes the external id.
    let winner = replica.database.begin_write().await.unwrap();
    winner.execute_unprepared(&rename("mine", "new")).await.unwrap();
    let create = replica.create(&own, "new", json!({ "email": "ada@example.com" }));
    let commit = async {
        replica.wait_until_blocked(1).await;
        winner.commit().await.unwrap();
    };
    let (answer, ()) = tokio::join!(create, commit);
    assert_eq!(answer.codes(), ["EXTERNAL_CUSTOMER_ID_TAKEN"]);
    let next = replica.create(&own, "next", json!({ "email": "grace@example.com" })).await;
    assert_eq!(next.codes(), ["RATE_LIMITED"]);

    let undo = app.database.begin_write().await.unwrap();
    undo.execute_unprepared(&rename("new", "mine")).await.unwrap();
    undo.commit().await.unwrap();
    replica.stop().await;
});

both!(a_match_before_a_failure_uses_a_disclosure, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    for name in ["ada", "grace"] {
        app.created(&other, name, json!({ "email": format!("{name}@example.com") })).await;
    }
    let replica =
        replica_with_limits(app, RateLimitSettings { disclosures_per_hour: 1, ..RateLimitSettings::OFF }).await;
    let rename = async |table: &str, new: &str| {
        app.execute(&format!("ALTER TABLE {table} RENAME TO {new}")).await;
    };
    // The request finds the person, and cannot write the search words.
    rename("customer_word", "renamed").await;
    let answer = replica.create(&own, "new", json!({ "email": "ada@example.com" })).await;
    assert_eq!(answer.codes(), ["INTERNAL"]);
    rename("renamed", "customer_word").await;
    let next = replica.create(&own, "next", json!({ "email": "grace@example.com" })).await;
    assert_eq!(next.codes(), ["RATE_LIMITED"]);
    replica.stop().await;
});

both!(a_match_that_only_the_first_attempt_found_uses_a_disclosure, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    for name in ["ada", "grace"] {
        app.created(&other, name, json!({ "email": format!("{name}@example.com") })).await;
    }
    let replica =
        replica_with_limits(app, RateLimitSettings { disclosures_per_hour: 1, ..RateLimitSettings::OFF }).await;
    // The request finds the person. Then another transaction changes the email of this person.
    let winner = replica.database.begin_write().await.unwrap();
    let change =
        "UPDATE customer SET email = 'moved@example.com', revision = revision + 1 WHERE email = 'ada@example.com'";
    winner.execute_unprepared(change).await.unwrap();
    let create = replica.create(&own, "new", json!({ "email": "ada@example.com" }));
    let commit = async {
        replica.wait_until_blocked(1).await;
        winner.commit().await.unwrap();
    };
    let (answer, ()) = tokio::join!(create, commit);
    assert_eq!(answer.payload("createCustomer")["outcome"], "CREATED");
    let next = replica.create(&own, "next", json!({ "email": "grace@example.com" })).await;
    assert_eq!(next.codes(), ["RATE_LIMITED"]);
    app.rebuild_search_words().await;
    replica.stop().await;
});

both!(a_disconnect_gives_no_disclosures_back, Sandbox, async |app| {
    let replica =
        replica_with_limits(app, RateLimitSettings { disclosures_per_hour: 1, ..RateLimitSettings::OFF }).await;
    let (own, other) = (replica.operator("Curious").await, app.operator("Other").await);
    for name in ["ada", "grace"] {
        app.created(&other, name, json!({ "email": format!("{name}@example.com") })).await;
    }
    let connected = replica.created(&own, "1", json!({ "email": "ada@example.com" })).await;
    assert_eq!(connected["outcome"], "CONNECTED");
    let disconnect = "mutation { disconnectCustomer(input: { customer: { externalCustomerId: \"1\" }, reason: MISTAKE }) \
                      { customerId } }";
    replica.graphql(&own, disconnect, json!({})).await.payload("disconnectCustomer");
    for name in ["grace", "ada"] {
        let answer = replica.create(&own, "1", json!({ "email": format!("{name}@example.com") })).await;
        assert_eq!(answer.codes(), ["RATE_LIMITED"], "{name}");
    }
    replica.stop().await;
});

both!(requests_without_a_disclosure_cost_nothing, Sandbox, async |app| {
    let replica =
        replica_with_limits(app, RateLimitSettings { disclosures_per_hour: 1, ..RateLimitSettings::OFF }).await;
    let own = replica.operator("Own").await;
    for number in 0..10 {
        let id = number.to_string();
        replica.created(&own, &id, json!({ "email": format!("{id}@example.com") })).await;
        assert_eq!(replica.create(&own, &id, json!({ "email": format!("{id}@example.com") })).await.codes().len(), 2);
        let customer = json!({ "externalCustomerId": id });
        replica.updated(&own, customer, json!({ "email": format!("new-{id}@example.com") })).await;
    }
    replica.stop().await;
});
