//! GraphQL over HTTP: authentication, status codes, headers, slow clients, CORS and the log.

use std::io::Read;
use std::time::Duration;

use entity::deployment::Environment;
use flate2::read::GzDecoder;
use futures::future::join_all;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{interval, timeout};

use support::{Answer, Backend, TestApp, TestCaller, Timeouts, both, run, wait_until};

const QUERY: &str = r#"{"query":"{ viewer { role } }"}"#;

fn request(app: &TestApp, caller: &TestCaller, method: Method) -> RequestBuilder {
    app.http.request(method, format!("{}/graphql", app.url)).bearer_auth(&caller.key)
}

async fn send(request: RequestBuilder) -> Answer {
    Answer::read(request.send().await.unwrap()).await
}

both!(requests_without_a_valid_key_are_rejected_before_anything_else, Sandbox, async |app| {
    let url = format!("{}/graphql", app.url);
    for body in [QUERY, "no JSON", "", r#"{"query":"{ __schema { types { name } } }"}"#, r#"{"query":"{{{{"}"#] {
        for authorization in
            [None, Some(""), Some("Bearer"), Some("Bearer "), Some("Bearer x"), Some("Basic eDp5"), Some("x")]
        {
            let mut request = app.http.post(&url).header("content-type", "application/json").body(body);
            if let Some(authorization) = authorization {
                request = request.header("authorization", authorization);
            }
            let (answer, statements) = app.statements_of(send(request)).await;
            assert_eq!((answer.status, answer.codes()), (401, vec!["UNAUTHENTICATED".to_owned()]));
            assert_eq!(answer.headers["www-authenticate"], "Bearer realm=\"vivamo\"");
            assert_eq!(answer.body.get("data"), None);
            assert!(statements.is_empty());
        }
    }
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::PATCH] {
        assert_eq!(send(app.http.request(method, &url)).await.status, 401);
    }
});

both!(each_outcome_has_its_http_status, Sandbox, async |app| {
    let caller = app.operator("A").await;
    let json_type = "application/json";
    let post = || request(app, &caller, Method::POST).header("content-type", json_type);
    let modern = "application/graphql-response+json";
    let broken = r#"{"query":"{"}"#;
    let unknown = r#"{"query":"{ nothing }"}"#;
    for (case, request, status) in [
        ("a query", post().body(QUERY), 200),
        ("unknown keys are ignored", post().body(r#"{"query":"{ viewer { role } }","extra":1}"#), 200),
        (
            "nulls",
            post().body(r#"{"query":"{ viewer { role } }","variables":null,"operationName":null,"extensions":null}"#),
            200,
        ),
        (
            "a media type with parameters",
            request(app, &caller, Method::POST).header("content-type", "Application/JSON; charset=utf-8").body(QUERY),
            200,
        ),
        ("accepts anything", post().header("accept", "text/html, */*;q=0.1").body(QUERY), 200),
        ("syntax error, older media type", post().body(broken), 200),
        ("syntax error", post().header("accept", modern).body(broken), 400),
        ("validation error", post().header("accept", modern).body(unknown), 400),
        (
            "a field error",
            post().header("accept", modern).body(r#"{"query":"{ customers(first: 0) { totalCount } }"}"#),
            200,
        ),
        ("not JSON", post().body("{"), 400),
        ("not an object", post().body("[]"), 400),
        ("a batch", post().body(format!("[{QUERY},{QUERY}]")), 400),
        ("no query", post().body("{}"), 400),
        ("a query that is not a string", post().body(r#"{"query":1}"#), 400),
        ("variables that are not an object", post().body(r#"{"query":"{ viewer { role } }","variables":[]}"#), 400),
        ("a long body", post().body("x".repeat(64 * 1024 + 1)), 413),
        ("no media type", request(app, &caller, Method::POST).body(QUERY), 415),
        ("plain text", request(app, &caller, Method::POST).header("content-type", "text/plain").body(QUERY), 415),
        (
            "a form",
            request(app, &caller, Method::POST)
                .header("content-type", "application/x-www-form-urlencoded")
                .body("query=%7B%7D"),
            415,
        ),
        ("accepts no JSON", post().header("accept", "text/html").body(QUERY), 406),
        ("GET", request(app, &caller, Method::GET).query(&[("query", "{ viewer { role } }")]), 200),
        (
            "GET with variables",
            request(app, &caller, Method::GET).query(&[
                ("query", "query ($n: Int) { customers(first: $n) { totalCount } }"),
                ("variables", "{\"n\":1}"),
                ("operationName", ""),
                ("other", "x"),
            ]),
            200,
        ),
        (
            "GET with variables that are not an object",
            request(app, &caller, Method::GET).query(&[("query", "{ viewer { role } }"), ("variables", "[")]),
            400,
        ),
        ("GET without a query", request(app, &caller, Method::GET), 400),
        ("DELETE", request(app, &caller, Method::DELETE), 405),
        ("PUT", request(app, &caller, Method::PUT).header("content-type", json_type).body(QUERY), 405),
    ] {
        let answer = send(request).await;
        assert_eq!(answer.status, status, "{case}: {}", answer.body);
        assert_eq!(answer.headers["cache-control"], "no-store", "{case}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff", "{case}");
        let content_type = answer.headers["content-type"].to_str().unwrap();
        assert!(content_type.ends_with("json; charset=utf-8"), "{case}: {content_type}");
        assert!(answer.headers["x-request-id"].to_str().unwrap().starts_with("req_"), "{case}");
        // A response has either data or errors, but the response to a field error has both.
        let was_executed = answer.body.get("data").is_some();
        assert!(
            was_executed != answer.body.get("errors").is_some() || case == "a field error",
            "{case}: {}",
            answer.body
        );
        if status == 405 {
            assert_eq!(answer.headers["allow"], "GET, POST", "{case}");
        }
    }
    let modern = send(post().header("accept", modern).body(QUERY)).await;
    assert_eq!(modern.headers["content-type"], "application/graphql-response+json; charset=utf-8");
});

both!(the_accept_header_chooses_the_media_type_by_quality, Sandbox, async |app| {
    let caller = app.operator("A").await;
    let (json, modern) = ("application/json", "application/graphql-response+json");
    for (accept, status, media_type) in [
        ("application/json;q=0.5, application/graphql-response+json", 200, modern),
        ("application/json, application/graphql-response+json;q=0.5", 200, json),
        ("application/json;q=0, */*", 200, modern),
        ("application/json;q=0", 406, json),
        ("application/graphql-response+json;q=0, application/json;q=0.0", 406, json),
    ] {
        let request = request(app, &caller, Method::POST).header("content-type", json).header("accept", accept);
        let answer = send(request.body(QUERY)).await;
        assert_eq!(answer.status, status, "{accept}");
        assert_eq!(answer.headers["content-type"], format!("{media_type}; charset=utf-8"), "{accept}");
    }
});

both!(a_persisted_query_is_rejected_so_that_clients_send_the_document, Sandbox, async |app| {
    let caller = app.operator("A").await;
    let extensions = r#"{"persistedQuery":{"version":1,"sha256Hash":"ecf4edb46db40b5132295c0291d62fb65d6759a9eedfa4d5d612dd5ec54a6b38"}}"#;
    let accept = "application/graphql-response+json, application/json";
    let post = |query: &str| {
        let body = format!(r#"{{{query}"operationName":"Role","variables":{{}},"extensions":{extensions}}}"#);
        let json = request(app, &caller, Method::POST).header("content-type", "application/json");
        json.header("accept", accept).body(body)
    };
    let get = || request(app, &caller, Method::GET).query(&[("operationName", "Role"), ("extensions", extensions)]);
    for (case, request) in [
        ("POST without a query", post("")),
        ("POST with null", post(r#""query":null,"#)),
        ("POST with an empty query", post(r#""query":"","#)),
        ("GET", get()),
        ("GET with variables", get().query(&[("variables", "{}")]).header("accept", accept)),
    ] {
        let answer = send(request).await;
        assert_eq!((answer.status, answer.codes()), (200, vec!["PERSISTED_QUERY_NOT_SUPPORTED".to_owned()]), "{case}");
        // urql compares the message; Apollo Client compares the message or the code.
        assert_eq!((answer.message(), answer.body.get("data")), ("PersistedQueryNotSupported", None), "{case}");
        assert_eq!(answer.headers["cache-control"], "no-store", "{case}");
    }
    // The service ignores a hash that is sent together with a document.
    let query = "query Role { viewer { role } }";
    let with_query = [post(&format!(r#""query":"{query}","#)), get().query(&[("query", query)])];
    for request in with_query {
        assert_eq!(send(request).await.data()["viewer"]["role"], "OPERATOR");
    }
});

both!(a_malformed_request_error_names_the_problem, Sandbox, async |app| {
    let caller = app.operator("A").await;
    let utf16: Vec<u8> = format!("\u{feff}{QUERY}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (body, message) in [
        (b"{\"query\":".to_vec(), "The body is not valid JSON: EOF while parsing a value at line 1 column 9."),
        (b"query { viewer { role } }".to_vec(), "The body is not valid JSON: expected value at line 1 column 1."),
        (
            br#"{"query":"{ a(b: \"\ud83d\") }"}"#.to_vec(),
            "The body is not valid JSON: unexpected end of hex escape at line 1 column 27.",
        ),
        (b"".to_vec(), "The body is not valid JSON: EOF while parsing a value at line 1 column 0."),
        (b"[]".to_vec(), "The body must be one JSON object. Send each operation in a separate request."),
        (b"\"{ viewer }\"".to_vec(), "The body must be one JSON object. Send each operation in a separate request."),
        (b"{}".to_vec(), "The request must have a `query`: the GraphQL document."),
        (br#"{"query":{"viewer":"secret"}}"#.to_vec(), "`query` must be a string."),
        (br#"{"query":"{ a }","operationName":7}"#.to_vec(), "`operationName` must be a string."),
        (
            br#"{"query":"{ a }","variables":"{\"a\":\"secret\"}"}"#.to_vec(),
            "`variables` must be a JSON object, not a string that contains JSON.",
        ),
        (
            br#"{"query":"{ a }","variables":["secret"]}"#.to_vec(),
            "`variables` must be a JSON object, not a string that contains JSON.",
        ),
        (
            br#"{"query":"{ a }","extensions":"{}"}"#.to_vec(),
            "`extensions` must be a JSON object, not a string that contains JSON.",
        ),
        (
            b"{\"query\":\"{ a(b: \\\"Jos\xe9\\\") }\"}".to_vec(),
            "The body is not UTF-8: invalid utf-8 sequence of 1 bytes from index 22.",
        ),
        (utf16, "The body is not UTF-8: invalid utf-8 sequence of 1 bytes from index 0."),
    ] {
        let case = String::from_utf8_lossy(&body).into_owned();
        let request = request(app, &caller, Method::POST).header("content-type", "application/json").body(body);
        let answer = send(request).await;
        assert_eq!((answer.status, answer.codes()), (400, vec!["BAD_REQUEST".to_owned()]), "{case}");
        assert_eq!(answer.message(), message, "{case}");
    }
    for (name, value, message) in [
        ("variables", "[", "`variables` is not valid JSON: EOF while parsing a list at line 1 column 1."),
        ("variables", "\"{}\"", "`variables` must be a JSON object, not a string that contains JSON."),
        ("extensions", "{a:1}", "`extensions` is not valid JSON: key must be a string at line 1 column 2."),
    ] {
        let request = request(app, &caller, Method::GET).query(&[("query", "{ viewer { role } }"), (name, value)]);
        let answer = send(request).await;
        assert_eq!((answer.status, answer.message()), (400, message), "{name}={value}");
    }
});

both!(a_byte_order_mark_is_skipped, Sandbox, async |app| {
    let caller = app.operator("A").await;
    let body = format!("\u{feff}{QUERY}");
    let request = request(app, &caller, Method::POST).header("content-type", "application/json; charset=utf-8");
    assert_eq!(send(request.body(body)).await.data()["viewer"]["role"], "OPERATOR");
});

both!(a_compressed_body_is_rejected_with_the_encoding_to_use, Sandbox, async |app| {
    let caller = app.operator("A").await;
    let post = || request(app, &caller, Method::POST).header("content-type", "application/json").body(QUERY);
    for encoding in ["gzip", "br", "deflate", "zstd", "gzip, identity"] {
        let answer = send(post().header("content-encoding", encoding)).await;
        assert_eq!((answer.status, answer.codes()), (415, vec!["BAD_REQUEST".to_owned()]), "{encoding}");
        assert_eq!(answer.headers["accept-encoding"], "identity", "{encoding}");
        assert!(answer.message().contains("Content-Encoding"), "{}", answer.message());
    }
    for encoding in ["identity", "Identity"] {
        assert_eq!(send(post().header("content-encoding", encoding)).await.status, 200, "{encoding}");
    }
    let twice = post().header("content-encoding", "identity").header("content-encoding", "gzip");
    assert_eq!(send(twice).await.status, 415);
});

both!(files_of_graphiql_are_compressed_if_the_client_accepts_gzip, Sandbox, async |app| {
    let get = async |accepted: Option<&str>| {
        let mut request = app.http.get(format!("{}/graphiql/introspection.json", app.url));
        if let Some(accepted) = accepted {
            request = request.header("accept-encoding", accepted);
        }
        let response = request.send().await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["vary"]),
            (200, &"accept-encoding".parse().unwrap())
        );
        let encoding = response.headers().get("content-encoding").map(|value| value.to_str().unwrap().to_owned());
        (encoding, response.bytes().await.unwrap())
    };
    let (_, plain) = get(None).await;
    assert!(serde_json::from_slice::<Value>(&plain).unwrap()["data"]["__schema"].is_object());
    for accepted in [None, Some(""), Some("br"), Some("gzip;q=0"), Some("gzip; q=0.0, br"), Some("identity")] {
        assert_eq!(get(accepted).await, (None, plain.clone()), "{accepted:?}");
    }
    for accepted in ["gzip", "br, GZIP;q=0.5", "deflate, gzip;q=1.0, *;q=0.5"] {
        let (encoding, compressed) = get(Some(accepted)).await;
        assert_eq!(encoding.as_deref(), Some("gzip"), "{accepted}");
        let mut content = Vec::new();
        GzDecoder::new(&*compressed).read_to_end(&mut content).unwrap();
        assert_eq!(content, plain, "{accepted}");
    }
});

both!(mutations_by_get_are_rejected, Sandbox, async |app| {
    let caller = app.operator("A").await;
    let mutation = "mutation { createCustomer(\
                    input: { externalCustomerId: \"1\", data: { email: \"a@example.com\" } }) { outcome } }";
    let answer = send(request(app, &caller, Method::GET).query(&[("query", mutation)])).await;
    assert_eq!((answer.status, answer.headers["allow"].to_str().unwrap()), (405, "POST"));
    assert_eq!(app.count_rows("customer").await, 0);
});

both!(healthz_checks_the_process_and_readyz_the_database, Sandbox, async |app| {
    let status = async |path: &str| app.http.get(format!("{}{path}", app.url)).send().await.unwrap().status().as_u16();
    assert_eq!((status("/healthz").await, status("/readyz").await), (200, 200));
    // Makes the migrations look as if they were not applied.
    let pending = "DELETE FROM seaql_migrations";
    app.execute(pending).await;
    assert!(not_ready(app).await.contains("lacks migrations"));
    assert_eq!((status("/healthz").await, status("/elsewhere").await), (200, 404));
});

/// Waits until `/readyz` has the status 503, and returns the body. The service keeps the result of a check for one
/// second, so the first responses may have the status 200.
async fn not_ready(app: &TestApp) -> String {
    wait_until("the service is not ready", async || {
        let answer = app.http.get(format!("{}/readyz", app.url)).send().await.unwrap();
        if answer.status() == 503 { answer.text().await.ok() } else { None }
    })
    .await
}

both!(each_request_has_its_own_id, Sandbox, async |app| {
    let caller = app.operator("A").await;
    let first = app.graphql(&caller, "{ nothing }", json!({})).await;
    let second = app.graphql(&caller, "{ nothing }", json!({})).await;
    assert_ne!(first.headers["x-request-id"], second.headers["x-request-id"]);
});

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_are_disconnected_and_do_not_block_others() {
    run(Backend::Sqlite, Environment::Sandbox, async |app| {
        let caller = app.operator("A").await;
        let replica = app.replica_with_timeouts(Timeouts::with_short_heads()).await;
        let address = replica.url.trim_start_matches("http://");
        let mut slow = Vec::new();
        for number in 0..300 {
            let mut connection = TcpStream::connect(address).await.unwrap();
            let first_bytes: [&[u8]; 3] = [b"", b"POST /graphql HTTP/1.1\r\nHost: x\r\nX-Slow: ", b"PO"];
            connection.write_all(first_bytes[number % 3]).await.unwrap();
            slow.push(connection);
        }
        assert_eq!(replica.query(&caller, "{ viewer { role } }").await["viewer"]["role"], "OPERATOR");
        // More bytes do not extend the timeout. The first three connections send one again and again.
        let trickle = async |connection: &mut TcpStream| {
            let (mut reader, mut writer) = connection.split();
            let (mut pace, mut rest) = (interval(Duration::from_millis(100)), Vec::new());
            let send = async {
                loop {
                    pace.tick().await;
                    // Fails when the service has closed the connection, which the reader notices.
                    let _ = writer.write_all(b"x").await;
                }
            };
            tokio::select! {
                _ = reader.read_to_end(&mut rest) => {}
                () = send => {}
            }
        };
        let (trickling, silent) = slow.split_at_mut(3);
        let closed = timeout(Duration::from_secs(60), join_all(trickling.iter_mut().map(trickle))).await;
        assert!(closed.is_ok(), "clients that send a byte at a time were not disconnected");
        for connection in silent {
            let mut rest = Vec::new();
            let _ = timeout(Duration::from_secs(60), connection.read_to_end(&mut rest)).await.unwrap();
        }
        assert_eq!(replica.query(&caller, "{ viewer { role } }").await["viewer"]["role"], "OPERATOR");
        replica.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_head_that_is_too_long_is_rejected_without_a_body() {
    run(Backend::Sqlite, Environment::Sandbox, async |app| {
        // The limit of 64 KiB is checked when the service has filled a buffer, which may be larger. If the whole
        // request is far too long, the status is 431 even if the URL is at fault.
        let (long_url, long) = ("x".repeat(70_000), "x".repeat(200_000));
        let headers: String = (0..101).map(|number| format!("x-{number}: x\r\n")).collect();
        for (query, headers, status) in
            [(&*long_url, String::new(), 414), ("", format!("x-long: {long}\r\n"), 431), ("", headers, 431)]
        {
            let mut client = TcpStream::connect(app.url.trim_start_matches("http://")).await.unwrap();
            let request = format!("GET /graphql?query={query} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
            // The service may close the connection before it has read everything.
            let _ = client.write_all(request.as_bytes()).await;
            let mut response = Vec::new();
            let _ = client.read_to_end(&mut response).await;
            let response = String::from_utf8(response).unwrap();
            assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {response}");
            assert!(response.ends_with("\r\n\r\n"), "{status}: {response}");
        }
        let query = request(app, &app.operator("A").await, Method::GET).query(&[("query", "{ viewer { role } }")]);
        let accepted = (0..50).fold(query, |request, number| request.header(format!("x-{number}"), "x".repeat(1_200)));
        assert_eq!(accepted.send().await.unwrap().status(), 200);
    })
    .await;
}

both!(a_rejected_request_does_not_close_the_connection, Sandbox, async |app| {
    let key = app.operator("A").await.key;
    let json = "application/json";
    for (method, key, accept, content_type, status) in [
        ("POST", "x", json, json, 401),
        ("PUT", &*key, json, json, 405),
        ("POST", &*key, "text/plain", json, 406),
        ("POST", &*key, json, "text/plain", 415),
    ] {
        let head = |connection: &str| {
            format!(
                "{method} /graphql HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nAccept: {accept}\r\n\
                 Content-Type: {content_type}\r\nConnection: {connection}\r\nContent-Length: {}\r\n\r\n",
                QUERY.len()
            )
        };
        let mut client = TcpStream::connect(app.url.trim_start_matches("http://")).await.unwrap();
        for connection in ["keep-alive", "close"] {
            // Like some HTTP libraries, this client sends the head, pauses, and then sends the body. A service that
            // does not wait for the body responds during the pause, and closes the connection.
            client.write_all(head(connection).as_bytes()).await.unwrap();
            let _ = timeout(Duration::from_millis(50), client.readable()).await;
            client.write_all(QUERY.as_bytes()).await.unwrap();
        }
        let mut responses = String::new();
        client.read_to_string(&mut responses).await.unwrap();
        assert_eq!(responses.matches(&format!("HTTP/1.1 {status} ")).count(), 2, "{responses}");
    }
});

#[tokio::test]
async fn a_body_that_does_not_arrive_is_rejected() {
    run(Backend::Sqlite, Environment::Sandbox, async |app| {
        let key = app.operator("A").await.key;
        let replica = app.replica_with_timeouts(Timeouts::deployed()).await;
        let mut client = TcpStream::connect(replica.url.trim_start_matches("http://")).await.unwrap();
        let head = format!(
            "POST /graphql HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n\
             Connection: close\r\nContent-Length: 100\r\n\r\n{{"
        );
        client.write_all(head.as_bytes()).await.unwrap();
        let mut response = String::new();
        client.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 408 ") && response.contains("within 10 seconds"), "{response}");
        replica.stop().await;
    })
    .await;
}

both!(a_malformed_body_is_rejected, Sandbox, async |app| {
    let key = app.operator("A").await.key;
    let mut client = TcpStream::connect(app.url.trim_start_matches("http://")).await.unwrap();
    let request = format!(
        "POST /graphql HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n\
         Connection: close\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    );
    client.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    client.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 400 ") && response.contains("malformed"), "{response}");
});

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_do_not_read_are_disconnected() {
    run(Backend::Sqlite, Environment::Sandbox, async |app| {
        let replica = app.replica_with_timeouts(Timeouts::with_short_responses()).await;
        let address = replica.url.trim_start_matches("http://");
        let requests = "GET /graphql HTTP/1.1\r\nHost: x\r\n\r\n".repeat(500_000);
        let mut client = TcpStream::connect(address).await.unwrap();
        // The responses fill all buffers between the service and the client. The service then waits for the client
        // until the response timeout, and closes the connection.
        let written = timeout(Duration::from_secs(60), client.write_all(requests.as_bytes())).await.unwrap();
        assert!(written.is_err(), "the service read all requests");
        replica.stop().await;
    })
    .await;
}

both!(error_messages_do_not_repeat_values_of_the_wrong_type, Sandbox, async |app| {
    let caller = app.operator("A").await;
    for query in [
        "mutation ($input: CreateCustomerInput!) { createCustomer(input: $input) { outcome } }",
        "query ($input: CreateCustomerInput!) { validateCustomer(input: $input) { email } }",
    ] {
        for data in [
            json!("secret-person@example.com"),
            json!(["secret-person@example.com"]),
            json!({ "email": ["secret-person@example.com"] }),
        ] {
            let answer =
                app.graphql(&caller, query, json!({ "input": { "externalCustomerId": "1", "data": data } })).await;
            assert_eq!(answer.codes(), ["BAD_REQUEST"]);
            assert!(!answer.body.to_string().contains("secret-person"), "{}", answer.body);
        }
    }
    for value in [r#"["secret-person@example.com"]"#, "secret_person"] {
        let query = format!("{{ customers(filter: {{ missing: {value} }}) {{ nodes {{ id }} }} }}");
        let answer = app.graphql(&caller, &query, json!({})).await;
        assert_eq!(answer.codes(), ["BAD_REQUEST"]);
        let text = answer.body.to_string();
        assert!(text.contains("must be one of EMAIL") && !text.contains("secret"), "{text}");
    }
});

both!(a_page_may_send_the_headers_of_its_libraries, Sandbox, async |app| {
    for requested in [
        "authorization,content-type",
        "authorization, content-type, baggage, sentry-trace",
        "traceparent,tracestate",
        "x-apollo-operation-name",
        "authorization,content-type,vivamo-actor",
    ] {
        let preflight = app
            .http
            .request(Method::OPTIONS, format!("{}/graphql", app.url))
            .header("origin", "https://dashboard.example")
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", requested);
        let headers = preflight.send().await.unwrap().headers().clone();
        assert_eq!(headers["access-control-allow-headers"], requested);
        assert_eq!(headers["access-control-allow-origin"], "https://dashboard.example");
        assert_eq!(headers.get("access-control-allow-credentials"), None);
        assert!(headers["vary"].to_str().unwrap().contains("access-control-request-headers"));
    }
});

both!(only_configured_cors_origins_are_allowed, Sandbox, async |app| {
    let caller = app.operator("A").await;
    for (origin, is_configured) in
        [("https://dashboard.example", true), ("https://elsewhere.example", false), ("null", false)]
    {
        let preflight = app
            .http
            .request(Method::OPTIONS, format!("{}/graphql", app.url))
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,content-type");
        let request =
            request(app, &caller, Method::POST).header("origin", origin).header("content-type", "application/json");
        for sent in [preflight.send().await.unwrap(), request.body(QUERY).send().await.unwrap()] {
            let allowed = sent.headers().get("access-control-allow-origin").map(|origin| origin.to_str().unwrap());
            assert_eq!(allowed, is_configured.then_some(origin));
            assert_eq!(sent.headers().get("access-control-allow-credentials"), None);
            // The headers of a response that a page may read. A response to a preflight has nothing to read.
            if let Some(exposed) = sent.headers().get("access-control-expose-headers") {
                assert_eq!(exposed, "x-request-id,retry-after");
            } else {
                assert_eq!(sent.headers().get("x-request-id"), None);
            }
        }
    }
});

both!(each_request_logs_one_line, Sandbox, async |app| {
    let caller = app.operator("A").await;
    let query = "query Dashboard($email: String) { customers(filter: { email: $email }) { edges { cursor } } }";
    for (caller, operator) in [(&caller, &*caller.operator), (&app.platform(), "platform")] {
        let answer = app.graphql(caller, query, json!({ "email": "ada@example.com" })).await;
        let id = answer.headers["x-request-id"].to_str().unwrap();
        let log = app.log();
        let lines: Vec<Value> =
            log.lines().filter(|line| line.contains(id)).map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        let line = &lines[0];
        assert_eq!(
            (&line["operator"], &line["kind"], &line["operation"]),
            (&json!(operator), &json!("query"), &json!("Dashboard"))
        );
        assert_eq!((&line["status"], &line["codes"]), (&json!(200), &json!("")));
        assert!(line["milliseconds"].is_u64());
        if operator == "platform" {
            // No statement looks up the platform key.
            assert_eq!((&line["key"], &line["statements"]), (&Value::Null, &json!(1)));
        } else {
            assert!(line["key"].as_str().unwrap().starts_with("key_"));
        }
    }
});
