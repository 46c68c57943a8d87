//! Measures the rejection of malicious documents: `cargo bench --bench attacks`.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by a panic")]
#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_graphql::Request;
use entity::deployment::Environment;
use entity::value::RequestId;
use vivamo::database::{self, Database};
use vivamo::graphql;
use vivamo::keyed_hash::KeyedHasher;
use vivamo::request::{OwnerMemory, ProcessMemory, ResponseSize};
use vivamo::service::{Caller, ServiceSettings, Services};

const ROUNDS: usize = 20;
const MAX: Duration = Duration::from_millis(20);

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("vivamo.db").display());
    database::migrate(&url).await.unwrap();
    let database = Database::connect(&url, None).await.unwrap();
    let hasher = KeyedHasher::new("the secret of the benchmark");
    let services = Services::new(&database, ServiceSettings::new(Environment::Sandbox, hasher));
    let mut slowest = Duration::ZERO;
    println!("{:>9}  longest of {ROUNDS} rejections of", "ms");
    for (attack, _, query) in support::attacks::attacks() {
        let mut longest = Duration::ZERO;
        for _ in 0..ROUNDS {
            // A new schema has an empty document cache.
            let schema = graphql::Schema::new(services.clone(), true);
            let request = Request::new(&query);
            let size = Arc::new(ResponseSize::new(ProcessMemory::default(), OwnerMemory::default()));
            let started = Instant::now();
            let answer = match schema.check(Caller::Platform.owner(), request) {
                Ok(checked) => schema.execute(checked, RequestId::new().into(), Caller::Platform, &size).await,
                Err(answer) => *answer,
            };
            longest = longest.max(started.elapsed());
            assert!(!answer.errors.is_empty(), "{attack}");
        }
        println!("{:>9.3}  {attack}, {} bytes", longest.as_secs_f64() * 1000.0, query.len());
        slowest = slowest.max(longest);
    }
    println!("{}", if slowest < MAX { "All took less than 20 ms." } else { "Some took longer than 20 ms." });
}
