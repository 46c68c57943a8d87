//! Deliveries of webhooks.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::json;
use standardwebhooks::Webhook;
use tempfile::TempDir;
use vivamo::service::now;

use support::http_client;
use support::process::vivamo;

use crate::cli::usage_error;

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
        (now, None, "the header `webhook-signature` is missing"),
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
        assert!(shown.ends_with(&format!("  refused  {reason}")), "{shown}");
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
