//! How much a caller may ask for in a time.

use serde_json::{Value, json};
use vivamo::service::LimitSettings;

use support::{Answer, Caller, TestApp, both};

const ROLE: &str = "{ viewer { role } }";

async fn limited(app: &TestApp, limits: LimitSettings) -> TestApp {
    app.replica_with(app.database_url().to_owned(), limits).await
}

fn assert_refused_as_a_whole(answer: &Answer) {
    assert_eq!((answer.status, answer.codes()), (429, vec!["RATE_LIMITED".to_owned()]));
    let extensions = &answer.body["errors"][0]["extensions"];
    assert_eq!(extensions["retryable"], true);
    let wait = extensions["retryAfterMs"].as_u64().unwrap();
    let seconds: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!(wait > 0 && seconds * 1000 > wait && seconds * 1000 <= wait + 1000, "{wait} {seconds}");
}

/// A request with a wrong key that has come this way.
async fn auth_failure(app: &TestApp, forwarded: Option<&str>) -> Answer {
    let mut request =
        app.http.post(format!("{}/graphql", app.url)).bearer_auth("wrong").json(&json!({ "query": ROLE }));
    if let Some(forwarded) = forwarded {
        request = request.header("x-forwarded-for", forwarded);
    }
    Answer::read(request.send().await.unwrap()).await
}

/// What the log says of an operator.
fn logged(operator: &str, what: &str) -> usize {
    let log = support::logs::read();
    log.lines().filter(|line| line.contains(operator) && line.contains(what)).count()
}

const KNOWN: usize = 40;
const TRIED: usize = 1000;
const TOLD: usize = 20;

/// People whom the platform knows, each by email and every other by phone too.
async fn known_people(app: &TestApp) {
    let other = app.operator("Other").await;
    for number in 0..KNOWN {
        app.created(&other, &number.to_string(), json!({ "email": format!("known-{number}@example.com") })).await;
    }
}

/// Tries many emails, of which the first are known, until all are tried; how often it was told something, and refused.
async fn pry(
    curious: &TestApp,
    own: &Caller,
    field: &str,
    attempt: impl AsyncFn(usize, String) -> Answer,
) -> (usize, usize) {
    let (mut told, mut refused) = (0, 0);
    for number in 0..TRIED {
        let answer = attempt(number, format!("known-{number}@example.com")).await;
        assert_eq!(answer.status, 200);
        match answer.codes().as_slice() {
            [code] if code == "RATE_LIMITED" => {
                assert_eq!(answer.body["data"], json!({ field: null }));
                refused += 1;
            }
            [code] if code == "EMAIL_TAKEN" => told += 1,
            [] if answer.body["data"][field]["outcome"] == "CONNECTED" => told += 1,
            codes => assert_eq!(codes, Vec::<String>::new()),
        }
    }
    assert_eq!(logged(&own.operator, "disclosed a match outside the operator"), told);
    assert_eq!(logged(&own.operator, "disclosure limit reached"), refused);
    assert!(curious.query(own, ROLE).await["viewer"]["role"] == "OPERATOR");
    (told, refused)
}

both!(a_key_spends_no_more_than_it_may, Sandbox, async |app| {
    let limited = limited(app, LimitSettings { cost_per_second: 1, ..LimitSettings::OFF }).await;
    let (own, other) = (limited.operator("Own").await, limited.operator("Other").await);
    // Ten are saved up: a mutation costs them all.
    let created = limited.create(&own, "1", json!({ "email": "ada@example.com" })).await;
    assert_eq!(created.codes(), Vec::<String>::new());
    let refused = limited.create(&own, "2", json!({ "email": "grace@example.com" })).await;
    assert_refused_as_a_whole(&refused);
    assert_eq!(limited.count_rows("customer").await, 1);
    // Each field at the root of a query is one; the other operator has its own.
    let three = "{ a: viewer { role } b: viewer { role } c: viewer { role } }";
    for _ in 0..3 {
        assert_eq!(limited.graphql(&other, three, json!({})).await.status, 200);
    }
    assert_refused_as_a_whole(&limited.graphql(&other, three, json!({})).await);
    // What is no document costs as well.
    let third = limited.operator("Third").await;
    let mut statuses = Vec::new();
    for _ in 0..12 {
        statuses.push(limited.graphql(&third, "{", json!({})).await.status);
    }
    assert_eq!((statuses[0], statuses[11]), (200, 429), "{statuses:?}");
    limited.stop().await;
});

both!(an_address_comes_with_wrong_keys_no_more_than_it_may, Sandbox, async |app| {
    let limited = limited(app, LimitSettings { auth_failures_per_minute: 5, ..LimitSettings::OFF }).await;
    let own = limited.operator("Own").await;
    for _ in 0..5 {
        assert_eq!(auth_failure(&limited, None).await.status, 401);
    }
    assert_refused_as_a_whole(&auth_failure(&limited, None).await);
    // Whoever has a key is not affected.
    assert_eq!(limited.graphql(&own, ROLE, json!({})).await.status, 200);
    // What a proxy that is trusted says counts; what was said to it before does not.
    for number in 0..5 {
        assert_eq!(
            auth_failure(&limited, Some(&format!("198.51.100.{number}, 203.0.113.7, 127.0.0.1"))).await.status,
            401
        );
    }
    assert_refused_as_a_whole(&auth_failure(&limited, Some("203.0.113.7")).await);
    assert_eq!(auth_failure(&limited, Some("203.0.113.8")).await.status, 401);
    // With a port and in brackets it is the same address.
    assert_refused_as_a_whole(&auth_failure(&limited, Some("203.0.113.7:4711")).await);
    for address in ["2001:db8::1", "[2001:db8::2]", "[2001:db8::3]:4711", "2001:db8::4", "2001:db8::5"] {
        assert_eq!(auth_failure(&limited, Some(address)).await.status, 401, "{address}");
    }
    assert_refused_as_a_whole(&auth_failure(&limited, Some("[2001:db8::6]")).await);
    // What cannot be read hides nobody behind what was said before it.
    let unreadable = reqwest::header::HeaderValue::from_bytes(b"\xff, 203.0.113.7").unwrap();
    let request =
        limited.http.post(format!("{}/graphql", limited.url)).bearer_auth("wrong").json(&json!({ "query": ROLE }));
    let request = request.header("x-forwarded-for", "203.0.113.99").header("x-forwarded-for", unreadable);
    assert_refused_as_a_whole(&Answer::read(request.send().await.unwrap()).await);
    limited.stop().await;
});

both!(a_thousand_emails_tried_through_creates_are_stopped, Sandbox, async |app| {
    known_people(app).await;
    let curious = limited(app, LimitSettings { disclosures_per_hour: TOLD as u32, ..LimitSettings::OFF }).await;
    let own = curious.operator("Curious").await;
    let attempt = async |number: usize, email: String| {
        curious.create(&own, &format!("guess {number}"), json!({ "email": email })).await
    };
    let (told, refused) = pry(&curious, &own, "createCustomer", attempt).await;
    assert_eq!((told, refused), (TOLD, TRIED - TOLD));
    // Those whom nobody knows are refused alike, and nothing of them is written.
    assert_eq!(curious.count_rows("customer").await, KNOWN as i64);
    // A change that asks about nobody is made.
    let customer = json!({ "externalCustomerId": "guess 0" });
    curious.updated(&own, customer, json!({ "firstName": "Ada" })).await;
    curious.stop().await;
});

both!(a_thousand_emails_tried_through_updates_are_stopped, Sandbox, async |app| {
    known_people(app).await;
    let curious = limited(app, LimitSettings { disclosures_per_hour: TOLD as u32, ..LimitSettings::OFF }).await;
    let own = curious.operator("Curious").await;
    curious.created(&own, "mine", json!({ "email": "mine@example.com" })).await;
    curious.created(&own, "mine too", json!({ "email": "mine-too@example.com" })).await;
    let customer: Value = json!({ "externalCustomerId": "mine" });
    // That one of its own customers has it is no news.
    for _ in 0..TOLD + 5 {
        let answer = curious.update(&own, customer.clone(), json!({ "email": "mine-too@example.com" })).await;
        assert_eq!(answer.codes(), ["EMAIL_TAKEN"]);
    }
    let attempt =
        async |_: usize, email: String| curious.update(&own, customer.clone(), json!({ "email": email })).await;
    let (told, refused) = pry(&curious, &own, "updateCustomer", attempt).await;
    assert_eq!((told, refused), (TOLD, TRIED - TOLD));
    curious.stop().await;
});

both!(each_value_that_is_told_of_counts, Sandbox, async |app| {
    let other = app.operator("Other").await;
    for number in 0..4 {
        let data = json!({ "email": format!("{number}@example.com"), "phone": format!("+1415555267{number}") });
        app.created(&other, &number.to_string(), data).await;
    }
    let curious = limited(app, LimitSettings { disclosures_per_hour: 4, ..LimitSettings::OFF }).await;
    let own = curious.operator("Curious").await;
    curious.created(&own, "mine", json!({ "email": "mine@example.com" })).await;
    let both = |one: usize, other: usize| json!({ "email": format!("{one}@example.com"), "phone": format!("+1415555267{other}") });
    let customer = json!({ "externalCustomerId": "mine" });
    assert_eq!(curious.update(&own, customer.clone(), both(0, 1)).await.codes(), ["EMAIL_TAKEN", "PHONE_TAKEN"]);
    assert_eq!(curious.create(&own, "new", both(0, 1)).await.codes(), ["IDENTITY_CONFLICT", "IDENTITY_CONFLICT"]);
    assert_eq!(
        curious.update(&own, customer.clone(), json!({ "email": "2@example.com" })).await.codes(),
        ["RATE_LIMITED"]
    );
    assert_eq!(curious.create(&own, "new", json!({ "email": "nobody@example.com" })).await.codes(), ["RATE_LIMITED"]);
    curious.stop().await;
});

both!(what_tells_of_nobody_costs_nothing, Sandbox, async |app| {
    let careful = limited(app, LimitSettings { disclosures_per_hour: 1, ..LimitSettings::OFF }).await;
    let own = careful.operator("Own").await;
    for number in 0..10 {
        let id = number.to_string();
        careful.created(&own, &id, json!({ "email": format!("{id}@example.com") })).await;
        assert_eq!(careful.create(&own, &id, json!({ "email": format!("{id}@example.com") })).await.codes().len(), 2);
        let customer = json!({ "externalCustomerId": id });
        careful.updated(&own, customer, json!({ "email": format!("new-{id}@example.com") })).await;
    }
    careful.stop().await;
});
