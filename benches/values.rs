//! Measures the parsing and checking of values: `cargo bench --bench values`.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by a panic")]

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use entity::value::{EmailAddress, LineType, PhoneNumber};
use vivamo::service::disposable_domains::DisposableDomains;

fn main() {
    divan::main();
}

/// Phone numbers of all regions: first region by region, then in random order.
fn phones() -> Vec<&'static str> {
    let table = include_str!("../entity/tests/data/phones.tsv");
    table.lines().filter_map(|line| line.split('\t').next()).filter(|spelling| spelling.starts_with('+')).collect()
}

const EMAILS: [&str; 4] =
    ["ada@example.com", " Ada.Lovelace@Example.CO.UK", "user@bücher.example", "user@sub.mailinator.com"];

/// Parses all numbers. The counter shows numbers per second.
#[divan::bench(sample_count = 10)]
fn parse_phones(bencher: Bencher) {
    let phones = phones();
    let count = ItemsCount::new(phones.len());
    bencher.counter(count).bench_local(|| phones.iter().filter(|phone| PhoneNumber::parse(phone).is_ok()).count());
}

/// Parses all numbers and finds their line types, on one thread and on two threads, to show contention.
#[divan::bench(sample_count = 10, threads = [1, 2])]
fn parse_phones_and_find_line_types(bencher: Bencher) {
    let phones = phones();
    let is_mobile = |phone: &&&str| PhoneNumber::parse(phone).is_ok_and(|phone| phone.line_type() == LineType::Mobile);
    bencher.counter(ItemsCount::new(phones.len())).bench(|| {
        // The start is random, so that the threads do not process the same region at the same time.
        let start = rand::random_range(0..phones.len());
        phones.iter().cycle().skip(start).take(phones.len()).filter(is_mobile).count()
    });
}

#[divan::bench(args = EMAILS)]
fn parse_email(email: &str) -> Option<EmailAddress> {
    EmailAddress::parse(black_box(email)).ok()
}

#[divan::bench(args = EMAILS)]
fn check_disposable_email(bencher: Bencher, email: &str) {
    let domains = DisposableDomains::new(Vec::new(), Vec::new());
    let email = EmailAddress::parse(email).unwrap();
    bencher.bench_local(|| domains.is_disposable(black_box(&email)));
}
