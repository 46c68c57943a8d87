//! Checks after every test: the rows are consistent, no operator has received another operator's customers, and the log
//! contains no personal data.

use std::collections::{BTreeMap, BTreeSet};

use entity::customer_event::EventType;
use entity::value::{EmailAddress, OperatorId, PhoneNumber, SearchWord};
use entity::{customer, customer_event, customer_operator, customer_word};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder};
use serde_json::Value as Json;

use crate::TestApp;

/// The rules. Each rule has a statement that counts the rows that break it.
const RULES: [(&str, &str); 15] = [
    (
        "customers without a link that were not disconnected",
        "SELECT COUNT(*) AS n FROM customer c WHERE NOT EXISTS \
         (SELECT 1 FROM customer_operator l WHERE l.customer_id = c.id) AND NOT EXISTS \
         (SELECT 1 FROM customer_event e WHERE e.customer_id = c.id AND e.type = 'disconnected')",
    ),
    ("customers with the same email", "SELECT COUNT(*) - COUNT(DISTINCT email) AS n FROM customer"),
    ("customers with the same phone", "SELECT COUNT(phone) - COUNT(DISTINCT phone) AS n FROM customer"),
    (
        "customers whose version is not that of their last event",
        "SELECT COUNT(*) AS n FROM customer c WHERE c.version <> \
         (SELECT MAX(e.version) FROM customer_event e WHERE e.customer_id = c.id)",
    ),
    (
        "customers whose version is not 1 plus the number of events that changed a value",
        "SELECT COUNT(*) AS n FROM customer c WHERE c.version <> 1 + (SELECT COUNT(*) FROM customer_event e \
         WHERE e.customer_id = c.id AND e.before <> e.after \
         AND e.type NOT IN ('created', 'disconnected', 'external_customer_id_changed'))",
    ),
    (
        "customers without exactly one event of their creation",
        "SELECT COUNT(*) AS n FROM customer c WHERE 1 <> \
         (SELECT COUNT(*) FROM customer_event e WHERE e.customer_id = c.id AND e.type = 'created')",
    ),
    (
        "links for which connections minus disconnections is not 1",
        "SELECT COUNT(*) AS n FROM customer_operator l WHERE 1 <> (SELECT COUNT(*) FROM customer_event e \
         WHERE e.customer_id = l.customer_id AND e.operator_id = l.operator_id \
         AND e.type IN ('created', 'connected')) - (SELECT COUNT(*) FROM customer_event e \
         WHERE e.customer_id = l.customer_id AND e.disconnected_operator_id = l.operator_id)",
    ),
    (
        "search words without a link",
        "SELECT COUNT(*) AS n FROM customer_word w WHERE NOT EXISTS (SELECT 1 FROM customer_operator l \
         WHERE l.operator_id = w.operator_id AND l.customer_id = w.customer_id)",
    ),
    ("idempotency keys without a stored result", "SELECT COUNT(*) AS n FROM idempotency_key WHERE result IS NULL"),
    (
        "erasures that left rows of the customer, or not exactly one event of the erasure",
        "SELECT COUNT(*) AS n FROM erasure e WHERE EXISTS (SELECT 1 FROM customer c WHERE c.id = e.customer_id) \
         OR EXISTS (SELECT 1 FROM customer_operator l WHERE l.customer_id = e.customer_id) \
         OR EXISTS (SELECT 1 FROM customer_word w WHERE w.customer_id = e.customer_id) OR 1 <> \
         (SELECT COUNT(*) FROM customer_event v WHERE v.customer_id = e.customer_id AND v.type = 'erased')",
    ),
    (
        "verified phones of customers without a phone",
        "SELECT COUNT(*) AS n FROM customer WHERE phone IS NULL AND phone_verified_at IS NOT NULL",
    ),
    (
        "history entries without exactly one row of the platform in the feed",
        "SELECT COUNT(*) AS n FROM customer_event e WHERE 1 <> (SELECT COUNT(*) FROM customer_change c \
         WHERE c.id = e.id AND c.reader_id NOT IN (SELECT id FROM operator)) \
         AND NOT EXISTS (SELECT 1 FROM customer_change s WHERE s.swept)",
    ),
    (
        "changes of a customer that are not in the order of its versions",
        "SELECT COUNT(*) AS n FROM (SELECT version, LAG(version) OVER \
         (PARTITION BY reader_id, customer_id ORDER BY position, id) AS previous FROM customer_change) c \
         WHERE version < previous",
    ),
    (
        "external ids in the feed of an erased customer",
        "SELECT COUNT(*) AS n FROM customer_change c JOIN erasure e ON c.customer_id = e.customer_id \
         WHERE c.external_customer_id IS NOT NULL AND c.type <> 'erased'",
    ),
    ("versions below 1", "SELECT COUNT(*) AS n FROM customer WHERE version < 1"),
];

/// A request of an operator and its answer, as text.
pub(crate) struct Exchange {
    pub operator: String,
    pub request: String,
    pub answer: String,
}

pub(crate) async fn check(app: &TestApp) {
    for (rule, sql) in RULES {
        assert_eq!(app.select_number(sql).await, 0, "{rule}");
    }
    check_search_words(app).await;
    check_disclosures(app).await;
    crate::logs::assert_clean();
}

/// Asserts that the stored search words are the words of the current values.
async fn check_search_words(app: &TestApp) {
    let reader = app.database.reader();
    let links = customer_operator::Entity::find().find_also_related(customer::Entity).all(reader).await.unwrap();
    let mut expected = BTreeSet::new();
    for (link, customer) in links {
        let customer = customer.unwrap();
        let (first, last) = (&customer.first_name, &customer.last_name);
        let names = [first, last].map(|name| name.as_ref().map_or("", |name| name.as_str()));
        let full_name = first.as_ref().zip(last.as_ref()).map(|(first, last)| SearchWord::of_full_name(first, last));
        let phone = customer.phone.as_ref().map(SearchWord::of_phone);
        let (local, domain) = customer.email.as_str().rsplit_once('@').unwrap();
        let unicode_domain = idna::domain_to_unicode(domain).0;
        let email = [local, domain, &unicode_domain];
        let external_id = [link.external_customer_id.as_str()];
        let texts = external_id.into_iter().chain(names).chain(email);
        for word in texts.flat_map(SearchWord::tokenize).chain(full_name.into_iter().chain(phone).flatten()) {
            expected.insert((link.operator_id.to_string(), link.customer_id.to_string(), word));
        }
    }
    let rows = customer_word::Entity::find().all(reader).await.unwrap();
    let stored: BTreeSet<_> = rows
        .into_iter()
        .filter_map(|row| Some((row.operator_id.to_string(), row.customer_id.to_string(), row.word?)))
        .collect();
    assert!(stored == expected, "the search words differ from the words of the customers' values");
}

/// Asserts that each email and phone in the answers to an operator was in the operator's requests, or was a value of a
/// customer while this customer was connected to the operator.
async fn check_disclosures(app: &TestApp) {
    let exchanges = app.take_exchanges();
    let mut allowed: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for Exchange { operator, request, .. } in &exchanges {
        let allowed = allowed.entry(operator).or_default();
        allowed.extend(values(&request.to_lowercase()).map(str::to_owned));
        for part in request.split('"') {
            let email = EmailAddress::parse(part).map(|email| email.as_str().to_owned());
            let phone = PhoneNumber::parse(part).map(|phone| phone.as_str().to_owned());
            allowed.extend([email, phone].into_iter().flatten());
        }
    }
    for (operator, allowed) in &mut allowed {
        let own = customer_event::Column::OperatorId.eq(OperatorId::parse(operator).unwrap());
        let reader = app.database.reader();
        // Finds the customers through the history, because some may be disconnected by now.
        let own = customer_event::Entity::find().filter(own).all(reader).await.unwrap();
        let is_link =
            |event: &&customer_event::Model| matches!(event.r#type, EventType::Created | EventType::Connected);
        let ids: BTreeSet<_> = own.iter().filter(is_link).map(|event| event.customer_id).collect();
        let events = customer_event::Entity::find()
            .filter(customer_event::Column::CustomerId.is_in(ids))
            .order_by_asc(customer_event::Column::CustomerId)
            .order_by_asc(customer_event::Column::Version)
            .order_by_asc(customer_event::Column::Id);
        let events = events.all(reader).await.unwrap();
        for events in events.chunk_by(|one, next| one.customer_id == next.customer_id) {
            allowed.extend(values_while_connected(operator, events));
        }
    }
    for Exchange { operator, request, answer } in &exchanges {
        // The schema's documentation and a message contain example emails and phones.
        if answer.contains("__schema") {
            continue;
        }
        for value in values(&answer.replace("local@domain.tld", "")) {
            assert!(
                allowed[operator.as_str()].contains(value),
                "{value} belongs to another operator's customer: {request} was answered {answer}"
            );
        }
    }
}

/// The emails and phones that a customer had while it was connected to the operator, by its whole history.
fn values_while_connected(operator: &str, events: &[customer_event::Model]) -> BTreeSet<String> {
    let is_own = |id: Option<OperatorId>| id.is_some_and(|id| id.to_string() == operator);
    let (mut current, mut is_connected, mut found) = (BTreeMap::new(), false, BTreeSet::new());
    for event in events {
        for field in ["email", "phone"] {
            match event.after.0.get(field) {
                Some(Json::String(value)) => drop(current.insert(field, value.clone())),
                Some(_) => drop(current.remove(field)),
                None => {}
            }
        }
        let is_connect = matches!(event.r#type, EventType::Created | EventType::Connected);
        is_connected |= is_connect && is_own(event.operator_id);
        is_connected &= !is_own(event.disconnected_operator_id);
        if is_connected {
            found.extend(current.values().cloned());
        }
    }
    found
}

/// The emails and phones in a JSON text.
fn values(json: &str) -> impl Iterator<Item = &str> {
    let is_email_or_phone = |part: &&str| part.contains('@') || (part.starts_with('+') && part.len() > 7);
    json.split(['"', ' ', '\\']).filter(is_email_or_phone)
}
