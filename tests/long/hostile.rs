//! Repeated malicious requests: the memory of the process does not continue to grow.

use serde_json::json;

use crate::servers::{Servers, codes};
use support::Backend;
use support::attacks::attacks;

const ROUNDS: usize = 100;

/// The resident memory of a process in KiB.
fn resident_memory(id: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn attacks_do_not_leak_memory() {
    let servers = Servers::start(Backend::Sqlite, 1).await.unwrap();
    let operator = servers.operator("A").await;
    let id = servers.processes[0].0.id();
    let mut early = 0;
    for round in 0..ROUNDS {
        for (attack, _, query) in attacks() {
            let (_, answer) = servers.send(&operator, &query, &json!({})).await.unwrap();
            let codes = codes(&answer);
            assert!(!codes.is_empty() && codes.iter().all(|code| code == "BAD_REQUEST"), "{attack}: {codes:?}");
        }
        if round == ROUNDS / 4 {
            early = resident_memory(&id);
        }
    }
    let late = resident_memory(&id);
    println!("{early} KiB after {} rounds of attacks, {late} KiB after {ROUNDS}", ROUNDS / 4);
    assert!(late < early + 8 * 1024, "{early} KiB, then {late} KiB");
    assert_eq!(
        servers.send(&operator, "{ viewer { role } }", &json!({})).await.unwrap().1["data"]["viewer"]["role"],
        "OPERATOR"
    );
    servers.stop().await;
}
