//! What it costs to judge a value: `cargo bench --bench values`.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by a panic")]

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use entity::value::{EmailAddress, LineType, PhoneNumber};
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

/// The whole table; the counter says how many phones a second that makes.
#[divan::bench(sample_count = 10)]
fn read_phones(bencher: Bencher) {
    let phones = phones();
    let count = ItemsCount::new(phones.len());
    bencher.counter(count).bench_local(|| phones.iter().filter(|phone| PhoneNumber::parse(phone).is_ok()).count());
}

/// On one core, and on two at a time: a lock for all would show.
#[divan::bench(sample_count = 10, threads = [1, 2])]
fn read_phones_and_tell_their_lines(bencher: Bencher) {
    let phones = phones();
    let is_mobile = |phone: &&&str| PhoneNumber::parse(phone).is_ok_and(|phone| phone.line_type() == LineType::Mobile);
    bencher.counter(ItemsCount::new(phones.len())).bench(|| {
        // Two who ask in step for the same country are not what a server sees.
        let start = rand::random_range(0..phones.len());
        phones.iter().cycle().skip(start).take(phones.len()).filter(is_mobile).count()
    });
}

#[divan::bench(args = EMAILS)]
fn read_an_email(email: &str) -> Option<EmailAddress> {
    EmailAddress::parse(black_box(email)).ok()
}

#[divan::bench(args = EMAILS)]
fn tell_a_disposable_email(bencher: Bencher, email: &str) {
    let domains = DisposableDomains::new(Vec::new(), Vec::new());
    let email = EmailAddress::parse(email).unwrap();
    bencher.bench_local(|| domains.is_disposable(black_box(&email)));
}
