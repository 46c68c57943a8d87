//! What several requests of an operator write at the same moment is one statement of PostgreSQL, and yet each has its own
//! outcome. All of them are sent in one turn here, which clients cannot arrange.

use entity::deployment::Environment;
use entity::value::{
    Address, AddressParts, EmailAddress, ExternalCustomerId, IdempotencyKey, PersonName, PhoneNumber, RequestId,
};
use futures::future::{join, join_all};
use sea_orm::ActiveValue::Set;
use sea_orm::ConnectionTrait;
use serde_json::{Value, json};
use vivamo::error::Error;
use vivamo::service::Actor;
use vivamo::service::customers::{CustomerChanges, NewCustomer, Outcome, OwnCustomerRef};

use support::proxy::{Cut, Proxy};
use support::{Backend, Caller, TestApp, both, run};

async fn actor(app: &TestApp, caller: &Caller) -> Actor {
    app.services.api_keys.authenticate(&caller.key).await.unwrap()
}

fn new(id: &str, email: &str) -> NewCustomer {
    NewCustomer {
        external_customer_id: Some(ExternalCustomerId::parse(id).unwrap()),
        email: Some(EmailAddress::parse(email).unwrap()),
        ..Default::default()
    }
}

fn changes(id: &str) -> CustomerChanges {
    let id = ExternalCustomerId::parse(id).unwrap();
    CustomerChanges { customer: Some(OwnCustomerRef::ExternalCustomerId(id)), ..Default::default() }
}

fn name(name: &str) -> Option<PersonName> {
    Some(PersonName::parse(name).unwrap())
}

fn code(error: &Error) -> String {
    match error {
        Error::Rejected(violations) => {
            violations.iter().map(|violation| violation.code.name()).collect::<Vec<_>>().join("+")
        }
        Error::Failed { code, .. } => code.name().to_owned(),
    }
}

async fn create(app: &TestApp, actor: &Actor, new: NewCustomer) -> String {
    match app.services.customers.create(actor, RequestId::new(), new).await {
        Ok(created) if created.replayed => "REPLAYED".to_owned(),
        Ok(created) => if created.outcome == Outcome::Created { "CREATED" } else { "CONNECTED" }.to_owned(),
        Err(error) => code(&error),
    }
}

async fn update(app: &TestApp, actor: &Actor, changes: CustomerChanges) -> String {
    match app.services.customers.update(actor, RequestId::new(), changes).await {
        Ok(updated) => format!("VERSION {}", updated.view.customer.version),
        Err(error) => code(&error),
    }
}

/// How many statements are sent for so many requests that look once and write once each.
fn together(app: &TestApp, alone: usize) -> usize {
    if app.is_postgres() { 2 } else { alone }
}

async fn found(app: &TestApp, caller: &Caller, search: &str) -> Vec<Value> {
    let query =
        "query ($search: String!) { customers(first: 10, filter: { search: $search }) { edges { node { email } } } }";
    let answer = app.graphql(caller, query, json!({ "search": search })).await;
    let edges = answer.body["data"]["customers"]["edges"].as_array().unwrap().clone();
    edges.iter().map(|edge| edge["node"]["email"].clone()).collect()
}

both!(creates_of_one_operator_are_written_at_once, Sandbox, async |app| {
    let (own, other) = (app.operator("Own").await, app.operator("Other").await);
    app.created(&other, "1", json!({ "email": "known@example.com" })).await;
    app.created(&other, "2", json!({ "email": "known2@example.com", "firstName": "Known", "phone": "+14155550009" }))
        .await;
    let actor = actor(app, &own).await;
    let parts = AddressParts {
        line1: "1 Main St".into(),
        line2: None,
        city: "Springfield".into(),
        region: None,
        postal_code: None,
        country: "US".into(),
    };
    let address = Address::parse(parts).unwrap();
    let full = NewCustomer {
        phone: Some(PhoneNumber::parse("+14155550001").unwrap()),
        first_name: name("Ada"),
        last_name: name("King Noel"),
        address: Some(address),
        ..new("a", "ada@example.com")
    };
    let creates = [
        full,
        new("b", "grace@example.com"),
        NewCustomer { last_name: name("Lamarr"), ..new("c", "hedy@example.com") },
    ];
    let (outcomes, sent) = app.statements_of(join_all(creates.map(|new| create(app, &actor, new)))).await;
    assert_eq!(outcomes, ["CREATED"; 3]);
    assert_eq!(sent.len(), together(app, 15), "{sent:#?}");
    // Those who connect a customer write otherwise than those who create one.
    let connects =
        [NewCustomer { first_name: name("Knew"), ..new("d", "known@example.com") }, new("e", "known2@example.com")];
    let outcomes = join_all(connects.map(|new| create(app, &actor, new))).await;
    assert_eq!(outcomes, ["CONNECTED"; 2]);

    let customer = async |id: &str| app.customer(&own, json!({ "externalCustomerId": id })).await;
    let ada = customer("a").await;
    assert_eq!(
        (&ada["email"], &ada["phone"], &ada["lastName"]),
        (&json!("ada@example.com"), &json!("+14155550001"), &json!("King Noel"))
    );
    assert_eq!(ada["address"]["city"], "Springfield");
    let grace = customer("b").await;
    assert_eq!(
        (&grace["email"], &grace["phone"], &grace["address"]),
        (&json!("grace@example.com"), &Value::Null, &Value::Null)
    );
    assert_eq!(customer("c").await["lastName"], "Lamarr");
    assert_eq!(
        (customer("d").await["firstName"].clone(), customer("d").await["version"].clone()),
        (json!("Knew"), json!(2))
    );
    assert_eq!(
        (customer("e").await["firstName"].clone(), customer("e").await["version"].clone()),
        (json!("Known"), json!(1))
    );
    for (search, emails) in [
        ("noel", &["ada@example.com"][..]),
        ("lamarr", &["hedy@example.com"]),
        ("known", &["known@example.com", "known2@example.com"]),
        ("knew", &["known@example.com"]),
    ] {
        assert_eq!(found(app, &own, search).await, emails, "{search}");
    }
    assert_eq!(found(app, &other, "knew").await, ["known@example.com"]);
    assert_eq!(app.number("SELECT COUNT(DISTINCT request_id) AS n FROM customer_event").await, 7);
    assert_eq!(app.number("SELECT COUNT(*) AS n FROM customer_event WHERE version = 1 AND type = 'created'").await, 5);
});

both!(updates_of_one_operator_are_written_at_once, Sandbox, async |app| {
    let own = app.operator("Own").await;
    for (number, (id, first_name)) in [("a", "Ada Augusta"), ("b", "Grace"), ("c", "Hedy")].into_iter().enumerate() {
        let (email, phone) = (format!("{id}@example.com"), format!("+1415555000{number}"));
        app.created(&own, id, json!({ "email": email, "firstName": first_name, "lastName": "Of", "phone": phone }))
            .await;
    }
    let actor = actor(app, &own).await;
    let asked = [
        CustomerChanges { first_name: Set(name("Byron")), ..changes("a") },
        CustomerChanges { first_name: Set(None), phone: Set(None), ..changes("b") },
        CustomerChanges { first_name: Set(name("Hedy Eva Maria")), ..changes("c") },
    ];
    let (outcomes, sent) = app.statements_of(join_all(asked.map(|changes| update(app, &actor, changes)))).await;
    assert_eq!(outcomes, ["VERSION 2"; 3]);
    assert_eq!(sent.len(), together(app, 12), "{sent:#?}");
    let customer = async |id: &str| {
        let customer = app.customer(&own, json!({ "externalCustomerId": id })).await;
        [&customer["firstName"], &customer["phone"], &customer["lastName"]].map(Clone::clone)
    };
    assert_eq!(customer("a").await, [json!("Byron"), json!("+14155550000"), json!("Of")]);
    assert_eq!(customer("b").await, [Value::Null, Value::Null, json!("Of")]);
    assert_eq!(customer("c").await, [json!("Hedy Eva Maria"), json!("+14155550002"), json!("Of")]);
    for (search, emails) in
        [("byron", &["a@example.com"][..]), ("augusta", &[]), ("grace", &[]), ("hedy maria", &["c@example.com"])]
    {
        assert_eq!(found(app, &own, search).await, emails, "{search}");
    }
});

both!(those_who_stand_in_the_way_fail_alone, Sandbox, async |app| {
    let own = app.operator("Own").await;
    app.created(&own, "a", json!({ "email": "a@example.com" })).await;
    let actor = actor(app, &own).await;
    let creates = [
        new("1", "1@example.com"),
        new("2", "same@example.com"),
        new("3", "same@example.com"),
        new("4", "4@example.com"),
        new("4", "5@example.com"),
    ];
    let mut outcomes = join_all(creates.map(|new| create(app, &actor, new))).await;
    assert_eq!(outcomes.remove(0), "CREATED");
    outcomes.sort();
    assert_eq!(outcomes, ["CREATED", "CREATED", "EMAIL_TAKEN", "EXTERNAL_CUSTOMER_ID_TAKEN"]);
    assert_eq!(app.number("SELECT COUNT(*) AS n FROM customer").await, 4);
    assert_eq!(app.number("SELECT COUNT(*) AS n FROM customer_event").await, 4);
    // Two change the same customer.
    let asked = [
        CustomerChanges { first_name: Set(name("Ada")), ..changes("1") },
        CustomerChanges { first_name: Set(name("Ada")), ..changes("a") },
        CustomerChanges { last_name: Set(name("King")), ..changes("a") },
    ];
    let mut outcomes = join_all(asked.map(|changes| update(app, &actor, changes))).await;
    outcomes.sort();
    assert_eq!(outcomes, ["VERSION 2", "VERSION 2", "VERSION 3"]);
    let customer = app.customer(&own, json!({ "externalCustomerId": "a" })).await;
    assert_eq!((&customer["firstName"], &customer["lastName"]), (&json!("Ada"), &json!("King")));
    // One of them expected another version.
    let asked = [
        CustomerChanges { expected_version: Some(3), first_name: Set(name("Eva")), ..changes("a") },
        CustomerChanges { expected_version: Some(3), first_name: Set(name("Eve")), ..changes("a") },
    ];
    let mut outcomes = join_all(asked.map(|changes| update(app, &actor, changes))).await;
    outcomes.sort();
    assert_eq!(outcomes, ["VERSION 4", "VERSION_CONFLICT"]);
});

both!(operators_write_apart, Sandbox, async |app| {
    let (a, b) = (app.operator("A").await, app.operator("B").await);
    let (a, b) = (actor(app, &a).await, actor(app, &b).await);
    let creates = [(&a, "1"), (&b, "2"), (&a, "3"), (&b, "4")];
    let creates = creates.map(|(actor, id)| create(app, actor, new(id, &format!("{id}@example.com"))));
    let (outcomes, sent) = app.statements_of(join_all(creates)).await;
    assert_eq!(outcomes, ["CREATED"; 4]);
    // One look on PostgreSQL, and a write for each of them.
    assert_eq!(sent.len(), if app.is_postgres() { 3 } else { 20 }, "{sent:#?}");
});

both!(each_keeps_its_key, Sandbox, async |app| {
    let own = app.operator("Own").await;
    let actor = actor(app, &own).await;
    let keyed = |id: &str, key: &str| NewCustomer {
        idempotency_key: Some(IdempotencyKey::parse(key).unwrap()),
        ..new(id, &format!("{id}@example.com"))
    };
    let creates = || [keyed("1", "one"), keyed("2", "two"), keyed("3", "three")].map(|new| create(app, &actor, new));
    let (outcomes, sent) = app.statements_of(join_all(creates())).await;
    assert_eq!(outcomes, ["CREATED"; 3]);
    assert_eq!(sent.len(), together(app, 18), "{sent:#?}");
    assert_eq!(join_all(creates()).await, ["REPLAYED"; 3]);
    // The same request several times at once.
    let again = ["four", "four", "five", "four"].map(|key| create(app, &actor, keyed(key, key)));
    let mut outcomes = join_all(again).await;
    outcomes.sort();
    assert_eq!(outcomes, ["CREATED", "CREATED", "REPLAYED", "REPLAYED"]);
    // Keys whose time is over.
    let expire = app.database.begin_write().await.unwrap();
    let long_ago = if app.is_postgres() { "now() - interval '1 second'" } else { "'2000-01-01 00:00:00+00:00'" };
    expire.execute_unprepared(&format!("UPDATE idempotency_key SET expires_at = {long_ago}")).await.unwrap();
    expire.commit().await.unwrap();
    let others = ["one", "two"].map(|key| create(app, &actor, keyed(&format!("other-{key}"), key)));
    assert_eq!(join_all(others).await, ["CREATED"; 2]);
    assert_eq!(app.number("SELECT COUNT(*) AS n FROM idempotency_key").await, 5);
});

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_the_database_refuses_fails_alone() {
    run(Backend::Postgres, Environment::Sandbox, async |app| {
        let own = app.operator("Own").await;
        let actor = actor(app, &own).await;
        let refuse = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                      IF NEW.email LIKE 'bad%' THEN RAISE EXCEPTION 'no'; END IF; RETURN NEW; END $$; \
                      CREATE TRIGGER refuse BEFORE INSERT ON customer FOR EACH ROW EXECUTE FUNCTION refuse()";
        support::postgres::execute(app.database_url(), refuse).await.unwrap();
        let creates = ["a", "bad", "c"].map(|id| create(app, &actor, new(id, &format!("{id}@example.com"))));
        assert_eq!(join_all(creates).await, ["CREATED", "INTERNAL", "CREATED"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_to_wait_waits_alone() {
    run(Backend::Postgres, Environment::Sandbox, async |app| {
        let own = app.operator("Own").await;
        for id in ["a", "b", "c"] {
            app.created(&own, id, json!({ "email": format!("{id}@example.com") })).await;
        }
        let actor = actor(app, &own).await;
        let keyed = |id: &str| NewCustomer {
            idempotency_key: Some(IdempotencyKey::parse(id).unwrap()),
            ..new(id, &format!("{id}@example.com"))
        };
        assert_eq!(create(app, &actor, keyed("e")).await, "CREATED");
        let over = "UPDATE idempotency_key SET expires_at = now() - interval '1 second'";
        support::postgres::execute(app.database_url(), over).await.unwrap();

        let holder = app.database.begin_write().await.unwrap();
        holder.execute_unprepared("SELECT 1 FROM customer WHERE email = 'b@example.com' FOR UPDATE").await.unwrap();
        holder.execute_unprepared("SELECT 1 FROM idempotency_key FOR UPDATE").await.unwrap();
        let rename = |id: &str| update(app, &actor, CustomerChanges { first_name: Set(name("Ada")), ..changes(id) });
        let again = NewCustomer { idempotency_key: keyed("e").idempotency_key, ..new("f", "f@example.com") };
        let others = async {
            let updates = join_all(["a", "c"].map(rename));
            let outcomes = join(updates, join_all(["d", "g"].map(|id| create(app, &actor, keyed(id))))).await;
            holder.commit().await.unwrap();
            outcomes
        };
        let held = join(Box::pin(rename("b")), Box::pin(create(app, &actor, again)));
        let (held, (updates, creates)) = join(held, others).await;
        assert_eq!((held.0.as_str(), held.1.as_str()), ("VERSION 2", "CREATED"));
        assert_eq!((updates, creates), (vec!["VERSION 2".to_owned(); 2], vec!["CREATED".to_owned(); 2]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_gives_up_in_the_middle_leaves_the_others_in_no_doubt() {
    run(Backend::Postgres, Environment::Sandbox, async |app| {
        let own = app.operator("Own").await;
        let actor = actor(app, &own).await;
        // Several that are written together would not wait for a row for as long as this takes.
        let wait = "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                    PERFORM set_config('lock_timeout', '0', true); PERFORM pg_advisory_xact_lock(1); RETURN NEW; END $$; \
                    CREATE TRIGGER wait BEFORE INSERT ON customer FOR EACH ROW EXECUTE FUNCTION wait()";
        support::postgres::execute(app.database_url(), wait).await.unwrap();
        let holder = app.database.begin_write().await.unwrap();
        holder.execute_unprepared("SELECT pg_advisory_xact_lock(1)").await.unwrap();
        let (mut first, mut second) =
            ["1", "2"].map(|id| Box::pin(create(app, &actor, new(id, &format!("{id}@example.com"))))).into();
        // The first writes for both.
        let both = join(&mut first, &mut second);
        futures::future::select(both, Box::pin(app.until_so_many_wait_for_a_lock(1))).await;
        drop(first);
        holder.commit().await.unwrap();
        assert_eq!(second.await, "UNAVAILABLE");
    })
    .await;
}

/// The service loses its database in the moment in which it commits what several requests have written.
async fn commit_of_several_that_is_cut(cut: Cut) {
    run(Backend::Postgres, Environment::Sandbox, async |app| {
        let own = app.operator("Own").await;
        let (proxy, url) = Proxy::before(app.database_url()).await;
        let replica = app.replica(url.into()).await;
        let actor = actor(&replica, &own).await;
        let keyed = |id: &str| NewCustomer {
            idempotency_key: Some(IdempotencyKey::parse(id).unwrap()),
            ..new(id, &format!("{id}@example.com"))
        };
        let creates = || ["1", "2", "3"].map(|id| create(&replica, &actor, keyed(id)));
        proxy.set_trap(cut);
        let outcomes = join_all(creates()).await;
        assert!(!proxy.is_set(cut), "nobody committed");
        let (at_first, again) =
            if cut == Cut::AfterCommit { ("REPLAYED", "REPLAYED") } else { ("UNAVAILABLE", "CREATED") };
        assert_eq!(outcomes, [at_first; 3]);
        assert_eq!(join_all(creates()).await, [again; 3]);
        assert_eq!(app.number("SELECT COUNT(*) AS n FROM customer").await, 3);
        replica.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_that_are_cut_before_the_commit_leave_nothing_behind() {
    commit_of_several_that_is_cut(Cut::BeforeCommit).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_that_are_cut_after_the_commit_are_made_good_by_their_keys() {
    commit_of_several_that_is_cut(Cut::AfterCommit).await;
}
