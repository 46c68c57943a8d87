//! What it costs to judge a value: `cargo bench --bench values`.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by a panic")]

use divan::{Bencher, black_box};
use entity::value::{EmailAddress, PhoneNumber};
use vivamo::service::disposable_domains::DisposableDomains;

fn main() {
    divan::main();
}

/// Mixed regions, one after the other, as no cache likes it.
fn phones() -> Vec<&'static str> {
    let table = include_str!("../entity/tests/data/phones.tsv");
    table.lines().filter_map(|line| line.split('\t').next()).filter(|spelling| spelling.starts_with('+')).collect()
}

const EMAILS: [&str; 4] =
    ["ada@example.com", " Ada.Lovelace@Example.CO.UK", "user@bücher.example", "user@sub.mailinator.com"];

#[divan::bench]
fn read_a_phone(bencher: Bencher) {
    let mut phones = phones().into_iter().cycle();
    bencher.with_inputs(|| phones.next().unwrap()).bench_local_values(|phone| PhoneNumber::parse(black_box(phone)));
}

#[divan::bench]
fn read_a_phone_and_tell_its_line(bencher: Bencher) {
    let mut phones = phones().into_iter().cycle();
    bencher
        .with_inputs(|| phones.next().unwrap())
        .bench_local_values(|phone| PhoneNumber::parse(black_box(phone)).map(|phone| phone.line_type()));
}

/// Two at a time: a global lock would show.
#[divan::bench(threads = 2)]
fn read_a_phone_on_two_cores(bencher: Bencher) {
    let phones = phones();
    bencher
        .with_inputs(|| phones[rand::random_range(0..phones.len())])
        .bench_values(|phone| PhoneNumber::parse(black_box(phone)).map(|phone| phone.line_type()));
}

#[divan::bench(args = EMAILS)]
fn read_an_email(email: &str) -> Option<EmailAddress> {
    EmailAddress::parse(black_box(email)).ok()
}

#[divan::bench(args = EMAILS)]
fn tell_a_disposable_email(bencher: Bencher, email: &str) {
    let domains = DisposableDomains::new(Vec::new(), Vec::new());
    let email = EmailAddress::parse(email).unwrap();
    bencher.bench_local(|| domains.include(black_box(&email)));
}
