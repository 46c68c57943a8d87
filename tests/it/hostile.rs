//! Malicious requests: the service keeps running. The service rejects most of these requests before it runs any
//! statement, and stops building a response that becomes too large.

use std::sync::Arc;
use std::time::Duration;

use entity::api_key::Access;
use entity::value::{DisplayName, EmailAddress, ExternalCustomerId, OperatorId, RequestId};
use futures::future::join_all;
use sea_orm::{ConnectionTrait, Statement};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use vivamo::error::{Error, ErrorCode};
use vivamo::request::{OwnerMemory, ProcessMemory, RequestContext, ResponseSize, Tenant, run_to_completion};
use vivamo::service::customers::{CreateOutcome, CustomerChanges, CustomerDraft, CustomerPatch, CustomerRef};
use vivamo::service::{Caller, RequestInfo};

use support::attacks::attacks;
use support::{TestApp, TestCaller, Timeouts, both};

// Each inner list is one part of a UNION, and SQLite limits the number of parts in a statement.
both!(the_largest_nested_pages_are_answered, Sandbox, async |app| {
    let operator = app.operator("A").await;
    for number in 0..100 {
        app.created(&operator, &number.to_string(), json!({ "email": format!("{number}@example.com") })).await;
    }
    let roots: String = (0..10)
        .map(|n| {
            let page = format!("{}: {}", if n % 2 == 0 { "first" } else { "last" }, n / 2 + 1);
            format!(
                "r{n}: customers(first: 100) {{ edges {{ node {{ operators({page}) {{ edges {{ cursor }} }} }} }} }} "
            )
        })
        .collect();
    let answer = app.graphql(&app.platform(), &format!("{{ {roots} }}"), json!({})).await;
    assert_eq!(answer.body.get("errors"), None);
});

both!(a_known_document_may_not_ask_for_too_many_fields, Sandbox, async |app| {
    let operator = app.operator("A").await.operator;
    let page = "nodes { id name status createdAt customers(first: 2) { nodes { id email version } } }";
    for document in [
        format!(
            "query ($size: Int) {{ customers(first: $size) {{ nodes {{ operators(first: $size) {{ {page} }} }} }} }}"
        ),
        format!(
            "query ($size: Int = 9) {{ customers(last: $size) {{ nodes {{ operators(last: $size) {{ {page} }} }} }} }}"
        ),
        format!(
            "query ($size: Int) {{ customers(first: 100) {{ nodes {{ ... on Customer {{ all: operators(first: $size) {{ \
             {page} }} }} }} }} }}"
        ),
        format!(
            "query ($size: Int) {{ customers(first: 100) {{ nodes {{ ...Operators }} }} }} \
             fragment Operators on Customer {{ operators(first: $size) {{ {page} }} }}"
        ),
        format!(
            "query ($size: Int) {{ node(id: \"{operator}\") {{ ...Customers }} }} \
             fragment Customers on Operator {{ customers(first: 100) {{ nodes {{ operators(first: $size) {{ {page} }} }} }} }}"
        ),
    ] {
        // In the first request, the document is new. In the other requests, it is in the cache.
        for (size, is_accepted) in [(2, true), (100, false), (1, true)] {
            let answer = app.graphql(&app.platform(), &document, json!({ "size": size })).await;
            assert_eq!(answer.codes().is_empty(), is_accepted, "{document} {size}");
            if !is_accepted {
                let message = "The operation may return more than 50000 fields. Request smaller pages (`first` or \
                               `last`) or fewer fields.";
                assert_eq!(answer.body["errors"][0]["message"], message);
            }
        }
    }
});

both!(attacks_are_rejected_and_the_service_keeps_running, Sandbox, async |app| {
    let caller = app.operator("A").await;
    for (attack, message, query) in attacks() {
        let (answer, statements) = app.statements_of(app.graphql(&caller, &query, json!({}))).await;
        assert!([200, 413].contains(&answer.status), "{attack}: {}", answer.status);
        let codes = answer.codes();
        assert!(!codes.is_empty() && codes.iter().all(|code| code == "BAD_REQUEST"), "{attack}: {codes:?}");
        assert!(answer.message().contains(message), "{attack}: {}", answer.message());
        assert!(codes.len() <= 50, "{attack}");
        assert!(answer.body.get("data").is_none() && answer.body.to_string().len() < 20_000, "{attack}");
        assert_eq!(statements, Vec::<String>::new(), "{attack}");
    }
    for (attack, body) in
        [("5 MB", "x".repeat(5_000_000)), ("a line of 550 KB", format!("{{\"query\":\"{}\"}}", "x".repeat(550_000)))]
    {
        let request = app.http.post(format!("{}/graphql", app.url)).bearer_auth(&caller.key);
        let answer = request.header("content-type", "application/json").body(body).send().await.unwrap();
        assert_eq!(answer.status(), 413, "{attack}");
    }
    // Overlong UTF-8 is not valid JSON.
    let overlong = [b"{\"query\":\"{ viewer { role ".as_slice(), &[0xc0, 0xaf], b" } }\"}"].concat();
    let request = app.http.post(format!("{}/graphql", app.url)).bearer_auth(&caller.key);
    let answer = request.header("content-type", "application/json").body(overlong).send().await.unwrap();
    assert_eq!(answer.status(), 400);
    assert_eq!(app.count_rows("customer").await, 0);
    assert_eq!(app.query(&caller, "{ viewer { role } }").await["viewer"]["role"], "OPERATOR");
});

const LONG_ADDRESSES: usize = 40;

/// Selects the customers of the operator again below each customer. If the customers have long addresses, the response
/// would have 5 MB.
pub const LARGE_RESPONSE: &str = "{ customers(first: 40) { nodes { operators(first: 1) { nodes { \
    customers(first: 40) { nodes { id address { line1 line2 city region } } } } } } } }";

/// An address of 3,200 bytes.
fn long_address() -> Value {
    let line = "𝕏".repeat(200);
    json!({ "line1": line, "line2": line, "city": line, "region": line, "country": "US" })
}

/// Creates customers with [long addresses](long_address).
pub async fn create_long_addresses(app: &TestApp, operator: &TestCaller) {
    let address = long_address();
    let create = async |number: usize| {
        let data = json!({ "email": format!("long-{number}@example.com"), "address": address });
        app.created(operator, &format!("long-{number}"), data).await;
    };
    join_all((0..LONG_ADDRESSES).map(create)).await;
}

both!(a_response_that_grows_too_large_is_not_built, Sandbox, async |app| {
    let operator = app.operator("A").await;
    create_long_addresses(app, &operator).await;
    let page = "{ customers(first: 100) { nodes { address { line1 line2 city region } } } }";
    assert_eq!(app.query(&operator, page).await["customers"]["nodes"].as_array().unwrap().len(), LONG_ADDRESSES);

    let answer = app.graphql(&operator, LARGE_RESPONSE, json!({})).await;
    assert_eq!(answer.body["data"], json!({ "customers": null }));
    assert!(answer.codes().iter().all(|code| code == "RESPONSE_TOO_LARGE"), "{:?}", answer.codes());
    assert_eq!(answer.body["errors"][0]["extensions"]["retryable"], false);
    assert_eq!(answer.body["errors"][0]["path"][0], "customers");
    // The field `viewer` was complete before the list became too large, so the response has its value.
    let with_viewer = LARGE_RESPONSE.replacen('{', "{ viewer { role }", 1);
    let answer = app.graphql(&operator, &with_viewer, json!({})).await;
    assert_eq!(answer.body["data"], json!({ "viewer": { "role": "OPERATOR" }, "customers": null }));
});

/// Sends a query, reads only the first bytes of the response, and returns the connection.
async fn start_reading(server: &TestApp, caller: &TestCaller, query: &str) -> TcpStream {
    let body = json!({ "query": query }).to_string();
    let (key, length) = (&caller.key, body.len());
    let request = format!(
        "POST /graphql HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut client = socket.connect(server.url.trim_start_matches("http://").parse().unwrap()).await.unwrap();
    client.write_all(request.as_bytes()).await.unwrap();
    client.read_exact(&mut [0; 64]).await.unwrap();
    client
}

both!(a_response_that_repeats_a_few_rows_needs_memory_too, Sandbox, async |app| {
    let operator = app.operator("A").await;
    let address = long_address();
    app.created(&operator, "1", json!({ "email": "ada@example.com", "address": address })).await;
    let update = "mutation ($name: String) { updateCustomer(input: { customer: { externalCustomerId: \"1\" }, \
                  data: { firstName: $name } }) { replayed } }";
    for number in 0..37 {
        app.graphql(&operator, update, json!({ "name": format!("Ada {number}") })).await.data();
    }
    app.wait_for_feed().await;
    // The response has 38 times 31 copies of the address.
    let addresses = (0..30).map(|n| format!("a{n}: address {{ line1 line2 city region }} ")).collect::<String>();
    let page = format!("{{ changes {{ customer {{ address {{ line1 line2 city region }} {addresses} }} }} }}");
    let query = format!("{{ changes(first: 38) {page} }}");
    assert_eq!(app.query(&operator, &query).await["changes"]["changes"].as_array().unwrap().len(), 38);
    let unread = join_all((0..4).map(|_| start_reading(app, &operator, &query))).await;
    assert_eq!(app.graphql(&operator, &query, json!({})).await.codes(), ["UNAVAILABLE"]);
    drop(unread);
});

both!(a_stored_result_needs_no_memory_for_large_responses, Sandbox, async |app| {
    let operator = app.operator("A").await;
    create_long_addresses(app, &operator).await;
    let address = long_address();
    let data = json!({ "email": "ada@example.com", "address": address });
    let input = json!({ "externalCustomerId": "stored", "data": data, "idempotencyKey": "key" });
    let create = "mutation ($input: CreateCustomerInput!) { createCustomer(input: $input) { replayed } }";
    app.graphql(&operator, create, json!({ "input": input })).await.data();
    let send = async |number: usize, entries: usize| {
        let query = "mutation ($input: CreateCustomerInput!, $name: String, $entries: Int!) { \
            update: updateCustomer(input: { customer: { externalCustomerId: \"stored\" }, data: { firstName: $name } }) { \
                customer { history(first: $entries) { nodes { id } } } } \
            stored: createCustomer(input: $input) { replayed } }";
        let name = format!("{number} {}", "李".repeat(90));
        app.graphql(&operator, query, json!({ "input": input, "name": name, "entries": entries })).await
    };
    for number in 0..90 {
        assert_eq!(send(number, 1).await.data()["stored"]["replayed"], true);
    }
    let query = LARGE_RESPONSE.replacen("40", "30", 1);
    let unread = join_all((0..4).map(|_| start_reading(app, &operator, &query))).await;
    // Reads more and more entries, until there is no memory for them. The customer is larger than an entry, so one of
    // these requests has memory for the entries, and would have none for the customer.
    let mut entries = 1;
    loop {
        let answer = send(89, entries).await;
        assert_eq!(answer.body["data"]["stored"]["replayed"], true, "{}", answer.body);
        if answer.body["data"]["update"]["customer"]["history"].is_null() {
            assert_eq!(answer.codes(), ["UNAVAILABLE"]);
            break;
        }
        entries += 1;
        assert!(entries <= 100);
    }
    drop(unread);
});

both!(a_client_that_reads_a_few_bytes_at_a_time_does_not_keep_its_memory, Sandbox, async |app| {
    let operator = app.operator("A").await;
    create_long_addresses(app, &operator).await;
    let replica = app.replica_with_timeouts(Timeouts::with_short_responses()).await;
    // The responses have nearly the maximum size. Four such responses use nearly all memory of an operator, so a fifth
    // response must wait, also with another key of the operator.
    let query = LARGE_RESPONSE.replacen("40", "30", 1);
    // This server gives its clients two minutes, so the fifth response waits in vain.
    let unread = join_all((0..4).map(|_| start_reading(app, &operator, &query))).await;
    let second_key = app.key(&operator, Access::ReadOnly).await;
    for caller in [&operator, &second_key] {
        let answer = app.graphql(caller, &query, json!({})).await;
        assert_eq!(answer.codes(), ["UNAVAILABLE"]);
        assert!(answer.message().starts_with("Too many large responses"), "{}", answer.message());
    }
    // The database checks the rows of a list before it is known that there is no memory for the response.
    let scan = "{ customers(first: 25, filter: { missing: [PHONE] }) { nodes { address { line1 } } } }";
    let request = app.http.post(format!("{}/graphql", app.url)).bearer_auth(&operator.key).header("vivamo-cost", "1");
    let answer: Value = request.json(&json!({ "query": scan })).send().await.unwrap().json().await.unwrap();
    assert_eq!(answer["errors"][0]["extensions"]["code"], "UNAVAILABLE", "{answer}");
    assert!(answer["extensions"]["cost"]["used"].as_u64().unwrap() > 100, "{answer}");
    drop(unread);

    let started = Semaphore::new(0);
    let read_slowly = async || {
        let mut client = start_reading(&replica, &operator, &query).await;
        started.add_permits(1);
        loop {
            let _ = client.read(&mut [0; 64]).await;
            // This request makes a pause between two reads.
            replica.query(&operator, "{ viewer { role } }").await;
        }
    };
    let read_at_once = async {
        let _ = started.acquire_many(4).await.unwrap();
        replica.graphql(&operator, &query, json!({})).await
    };
    tokio::select! {
        _ = join_all((0..4).map(|_| read_slowly())) => {}
        answer = read_at_once => assert_eq!(answer.codes(), Vec::<String>::new()),
    }
    replica.stop().await;
});

both!(a_write_does_not_reveal_a_customer_by_the_size_of_its_lookups, Sandbox, async |app| {
    let other = app.operator("Other").await;
    app.created(&other, "1", json!({ "email": "known@example.com", "phone": "+14155552671" })).await;
    let name = DisplayName::parse("Own").unwrap();
    let (own, key) =
        app.services.operators.create(&Caller::Platform, &RequestInfo::command_line(), name).await.unwrap();
    let caller =
        Caller::Operator { id: own.id, key: key.row.id, access: Access::ReadWrite, disclosures_per_hour: None };
    // The rows of the response have reached the limit already, so that no row may be added.
    let size = Arc::new(ResponseSize::new(ProcessMemory::default(), OwnerMemory::default()));
    let mut rows = size.rows();
    while rows.add(1000).is_ok() {}
    rows.keep();
    let context =
        || RequestContext { tenant: Tenant::Operator(own.id), response: Some(size.clone()), ..Default::default() };
    let id = |id: &str| Some(ExternalCustomerId::parse(id).unwrap());
    let email = |email: &str| Some(EmailAddress::parse(email).unwrap());
    for (number, (given, outcome)) in
        [("unknown@example.com", CreateOutcome::Created), ("known@example.com", CreateOutcome::Connected)]
            .into_iter()
            .enumerate()
    {
        let services = app.services.clone();
        let draft =
            CustomerDraft { external_customer_id: id(&number.to_string()), email: email(given), ..Default::default() };
        let create = async move {
            services
                .customers
                .create(&caller, &RequestId::new().into(), draft)
                .await
                .map(|created| created.details.outcome)
        };
        let created = run_to_completion(context(), Duration::from_secs(20), create).await.unwrap().unwrap();
        assert_eq!(created.map_err(|error| format!("{error:?}")), Ok(outcome), "{given}");
    }
    app.created(&other, "2", json!({ "email": "taken@example.com" })).await;
    let services = app.services.clone();
    let update = async move {
        let customer = id("0").map(CustomerRef::ExternalCustomerId);
        let values = CustomerPatch { email: EmailAddress::parse("taken@example.com").ok(), ..Default::default() };
        let changes = CustomerChanges { customer, values, ..Default::default() };
        services.customers.update(&caller, &RequestId::new().into(), changes).await.map(|_| ())
    };
    let updated = run_to_completion(context(), Duration::from_secs(20), update).await.unwrap().unwrap();
    assert!(updated.as_ref().is_err_and(|error| error.has(ErrorCode::EmailTaken)), "{updated:?}");
});

both!(rows_that_make_a_response_too_large_are_not_read, Sandbox, async |app| {
    let size = Arc::new(ResponseSize::new(ProcessMemory::default(), OwnerMemory::default()));
    let read = async |rows: u32| {
        let text = if app.is_postgres() { "repeat('x', 10000)" } else { "hex(zeroblob(5000))" };
        let sql = format!(
            "WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < {rows}) \
             SELECT {text} AS text FROM number"
        );
        let reader = app.database.reader().clone();
        let statement = Statement::from_string(reader.get_database_backend(), sql);
        let tenant = Tenant::Operator(OperatorId::new());
        let context = RequestContext { tenant, response: Some(size.clone()), ..Default::default() };
        let query = async move { reader.query_all_raw(statement).await.map(|rows| rows.len()).map_err(Error::from) };
        run_to_completion(context, Duration::from_secs(20), query).await.unwrap().unwrap()
    };
    assert_eq!(read(400).await.unwrap(), 400);
    assert!(size.has_reservation());
    assert_eq!(read(400).await.unwrap(), 400);
    assert!(read(400).await.unwrap_err().has(ErrorCode::ResponseTooLarge));
    // The connections can be used again.
    assert_eq!(app.count_rows("customer").await, 0);
});
