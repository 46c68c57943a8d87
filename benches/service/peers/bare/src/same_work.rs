//! Write operations that store the same rows as the service: the customer, its link, the search words for each operator
//! of the customer, a history entry with the changed values, and the rows of the change feed.
//!
//! A write takes two round trips. The first reads. The second is one statement that writes everything. If the customer
//! has changed since it was read, this statement writes nothing, and the write starts again.

use std::collections::BTreeMap;

use async_graphql::Result;
use chrono::{DateTime, SubsecRound, Utc};
use deadpool_postgres::Object as Client;
use serde_json::{Map, Value, json};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{Json, ToSql};
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;
use uuid::Uuid;

use crate::keys::TestCaller;
use crate::values;
use crate::{CUSTOMER, CreateCustomerInput, CreateCustomerPayload, Customer, CustomerRef, Outcome};

const ATTEMPTS: usize = 5;

/// The reader of the feed who reads all changes.
const PLATFORM: Uuid = Uuid::nil();

/// Creates or connects a customer.
pub async fn create(client: &Client, caller: TestCaller, mut input: CreateCustomerInput) -> Result<CreateCustomerPayload> {
    input.data.email = values::email(&input.data.email)?;
    input.data.phone = input.data.phone.as_deref().map(values::phone).transpose()?;
    let input = &input;
    for _ in 0..ATTEMPTS {
        if let Some(created) = try_create(client, caller, input).await? {
            return Ok(created);
        }
    }
    Err("UNAVAILABLE".into())
}

/// Returns `None` if another request has meanwhile changed the customer, or stored a row with the same unique value.
async fn try_create(
    client: &Client,
    caller: TestCaller,
    input: &CreateCustomerInput,
) -> Result<Option<CreateCustomerPayload>> {
    let CreateCustomerInput { external_customer_id, data } = input;
    // The tables are joined to a constant row, so that the external id is found even if no customer is found.
    let sql = format!(
        "SELECT {CUSTOMER}, customer.revision, own.customer_id IS NOT NULL, same_id.customer_id IS NOT NULL \
         FROM (SELECT) AS always \
         LEFT JOIN customer ON email = $2 OR phone = $3 \
         LEFT JOIN customer_operator AS own ON own.operator_id = $1 AND own.customer_id = customer.id \
         LEFT JOIN customer_operator AS same_id ON same_id.operator_id = $1 AND same_id.external_customer_id = $4"
    );
    let statement = client.prepare_cached(&sql).await?;
    let values: [&(dyn ToSql + Sync); 4] = [&caller.operator, &data.email, &data.phone, external_customer_id];
    let rows = client.query(&statement, &values).await?;
    if rows.iter().any(|row| row.get(11)) {
        return Err("EXTERNAL_CUSTOMER_ID_TAKEN".into());
    }
    let known: Vec<_> = rows.iter().filter(|row| row.get::<_, Option<Uuid>>(0).is_some()).collect();
    if let Some(own) = known.iter().find(|row| row.get(10)) {
        let has_email = own.get::<_, &str>(1) == data.email;
        return Err(if has_email { "EMAIL_TAKEN" } else { "PHONE_TAKEN" }.into());
    }
    let now = now();
    let (outcome, customer, written) = match known.as_slice() {
        [] => {
            let customer = new_customer(input, now);
            let written = insert(client, caller, external_customer_id, &customer).await;
            (Outcome::Created, customer, written)
        }
        [row] => {
            let current = Customer::from(*row);
            let customer = filled(current.clone(), input, now);
            let written = connect(client, caller, external_customer_id, &current, row.get(9), &customer).await;
            (Outcome::Connected, customer, written)
        }
        _ => return Err("IDENTITY_CONFLICT".into()),
    };
    match written {
        Ok(is_written) => Ok(is_written.then_some(CreateCustomerPayload { outcome, customer })),
        Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn new_customer(input: &CreateCustomerInput, now: DateTime<Utc>) -> Customer {
    let data = &input.data;
    Customer {
        id: Uuid::now_v7(),
        email: data.email.clone(),
        phone: data.phone.clone(),
        first_name: data.first_name.clone(),
        last_name: data.last_name.clone(),
        address: data.address.clone(),
        version: 1,
        created_at: now,
        updated_at: now,
        operators: Default::default(),
    }
}

/// Returns the customer with the given values in its empty fields.
fn filled(mut customer: Customer, input: &CreateCustomerInput, now: DateTime<Utc>) -> Customer {
    let data = &input.data;
    let before = values(&customer);
    customer.phone = customer.phone.or_else(|| data.phone.clone());
    customer.first_name = customer.first_name.or_else(|| data.first_name.clone());
    customer.last_name = customer.last_name.or_else(|| data.last_name.clone());
    customer.address = customer.address.or_else(|| data.address.clone());
    if values(&customer) != before {
        customer.version += 1;
        customer.updated_at = now;
    }
    customer
}

async fn insert(
    client: &Client,
    caller: TestCaller,
    external_customer_id: &str,
    customer: &Customer,
) -> Result<bool, tokio_postgres::Error> {
    let sql = "WITH \
         new_customer AS (INSERT INTO customer \
             (id, email, phone, first_name, last_name, address, version, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, $5, $6, 1, $7, $7)), \
         new_link AS (INSERT INTO customer_operator (operator_id, customer_id, external_customer_id, connected_at) \
             VALUES ($8, $1, $9, $7)), \
         new_words AS (INSERT INTO customer_word (operator_id, customer_id, place, word) \
             SELECT $8, $1, * FROM unnest($10::int2[], $11::text[])), \
         new_changes AS (INSERT INTO customer_change (reader_id, position, id, customer_id, external_customer_id, \
                 type, version, changed_fields, own, occurred_at, swept) \
             SELECT reader, pg_current_xact_id()::text::bigint + feed_base, $12, $1, external_id, 'created', 1, $17, \
                 reader = $8, $7, false \
             FROM deployment, (VALUES ($8, $9), ($18, NULL)) AS readers (reader, external_id)) \
         INSERT INTO customer_event \
             (id, customer_id, operator_id, api_key_id, request_id, type, version, before, after, occurred_at) \
         VALUES ($12, $1, $8, $13, $14, 'created', 1, $15, $16, $7)";
    let (places, words) = columns(words_of_link(external_customer_id, customer));
    let Changes { fields, before, after } = changes(None, customer);
    let values: [&(dyn ToSql + Sync); 18] = [
        &customer.id,
        &customer.email,
        &customer.phone,
        &customer.first_name,
        &customer.last_name,
        &customer.address.as_ref().map(Json),
        &customer.updated_at,
        &caller.operator,
        &external_customer_id,
        &places,
        &words,
        &Uuid::now_v7(),
        &caller.key,
        &Uuid::now_v7(),
        &before,
        &after,
        &fields,
        &PLATFORM,
    ];
    let statement = client.prepare_cached(sql).await?;
    Ok(client.execute(&statement, &values).await? == 1)
}

/// Connects an existing customer and writes the fields that were filled. Returns false if the revision has changed.
async fn connect(
    client: &Client,
    caller: TestCaller,
    external_customer_id: &str,
    current: &Customer,
    revision: i32,
    customer: &Customer,
) -> Result<bool, tokio_postgres::Error> {
    let sql = "WITH \
         changed AS (UPDATE customer SET phone = $2, first_name = $3, last_name = $4, address = $5, version = $6, \
                 updated_at = $7, revision = revision + 1 \
             WHERE id = $1 AND revision = $8 AND age(customer.xmin) >= 0 RETURNING id), \
         changed_words AS (INSERT INTO customer_word (operator_id, customer_id, place, word) \
             SELECT operator_id, customer_id, new.* \
             FROM changed JOIN customer_operator ON customer_id = id, unnest($9::int2[], $10::text[]) AS new \
             ON CONFLICT (operator_id, customer_id, place) DO UPDATE SET word = excluded.word), \
         new_link AS (INSERT INTO customer_operator (operator_id, customer_id, external_customer_id, connected_at) \
             SELECT $11, id, $12, $13 FROM changed), \
         new_words AS (INSERT INTO customer_word (operator_id, customer_id, place, word) \
             SELECT $11, id, new.* FROM changed, unnest($14::int2[], $15::text[]) AS new), \
         new_changes AS (INSERT INTO customer_change (reader_id, position, id, customer_id, external_customer_id, \
                 type, version, changed_fields, own, occurred_at, swept) \
             SELECT reader, pg_current_xact_id()::text::bigint + feed_base, $16, changed.id, external_id, type, $6, $21, \
                 reader = $11, $13, false \
             FROM changed, deployment, \
                 (VALUES ($11, $12, 'connected'), ($22, NULL, 'connected') \
                  UNION ALL SELECT operator_id, external_customer_id, 'updated' FROM customer_operator \
                  WHERE customer_id = $1 AND $21::jsonb <> '[]') AS readers (reader, external_id, type)) \
         INSERT INTO customer_event \
             (id, customer_id, operator_id, api_key_id, request_id, type, version, before, after, occurred_at) \
         SELECT $16, id, $11, $17, $18, 'connected', $6, $19, $20, $13 FROM changed";
    let (changed_places, changed_words) = columns(changed_words(current, customer));
    let (places, words) = columns(words_of_link(external_customer_id, customer));
    let Changes { fields, before, after } = changes(Some(current), customer);
    let values: [&(dyn ToSql + Sync); 22] = [
        &customer.id,
        &customer.phone,
        &customer.first_name,
        &customer.last_name,
        &customer.address.as_ref().map(Json),
        &customer.version,
        &customer.updated_at,
        &revision,
        &changed_places,
        &changed_words,
        &caller.operator,
        &external_customer_id,
        &now(),
        &places,
        &words,
        &Uuid::now_v7(),
        &caller.key,
        &Uuid::now_v7(),
        &before,
        &after,
        &fields,
        &PLATFORM,
    ];
    let statement = client.prepare_cached(sql).await?;
    Ok(client.execute(&statement, &values).await? == 1)
}

/// Changes the first name of one of the operator's customers.
pub async fn update(
    client: &Client,
    caller: TestCaller,
    reference: &CustomerRef,
    first_name: Option<String>,
) -> Result<Option<Customer>> {
    for _ in 0..ATTEMPTS {
        let Some((current, revision)) = find(client, caller, reference).await? else { return Ok(None) };
        if current.first_name == first_name {
            return Ok(Some(current));
        }
        let mut customer = current.clone();
        customer.first_name.clone_from(&first_name);
        customer.version += 1;
        customer.updated_at = now();
        if replace_first_name(client, caller, &current, revision, &customer).await? {
            return Ok(Some(customer));
        }
    }
    Err("UNAVAILABLE".into())
}

/// Finds one of the operator's customers, with its revision.
async fn find(client: &Client, caller: TestCaller, reference: &CustomerRef) -> Result<Option<(Customer, i32)>> {
    let (column, value): (_, &(dyn ToSql + Sync)) = match &reference.id {
        Some(id) => ("customer_id", id),
        None => ("external_customer_id", &reference.external_customer_id),
    };
    let sql = format!(
        "SELECT {CUSTOMER}, customer.revision FROM customer_operator JOIN customer ON customer.id = customer_id \
         WHERE operator_id = $1 AND {column} = $2"
    );
    let statement = client.prepare_cached(&sql).await?;
    let row = client.query_opt(&statement, &[&caller.operator, value]).await?;
    Ok(row.map(|row| (Customer::from(&row), row.get(9))))
}

/// Returns false if the revision has changed.
async fn replace_first_name(
    client: &Client,
    caller: TestCaller,
    current: &Customer,
    revision: i32,
    customer: &Customer,
) -> Result<bool> {
    let sql = "WITH \
         changed AS (UPDATE customer SET first_name = $2, version = $3, updated_at = $4, revision = revision + 1 \
             WHERE id = $1 AND revision = $5 AND age(customer.xmin) >= 0 RETURNING id), \
         words AS (INSERT INTO customer_word (operator_id, customer_id, place, word) \
             SELECT operator_id, customer_id, new.* \
             FROM changed JOIN customer_operator ON customer_id = id, unnest($6::int2[], $7::text[]) AS new \
             ON CONFLICT (operator_id, customer_id, place) DO UPDATE SET word = excluded.word), \
         new_changes AS (INSERT INTO customer_change (reader_id, position, id, customer_id, external_customer_id, \
                 type, version, changed_fields, own, occurred_at, swept) \
             SELECT reader, pg_current_xact_id()::text::bigint + feed_base, $8, changed.id, external_id, 'updated', $3, \
                 $14, reader = $9, $4, false \
             FROM changed, deployment, \
                 (SELECT operator_id, external_customer_id FROM customer_operator WHERE customer_id = $1 \
                  UNION ALL VALUES ($15::uuid, NULL)) \
                 AS readers (reader, external_id)) \
         INSERT INTO customer_event \
             (id, customer_id, operator_id, api_key_id, request_id, type, version, before, after, occurred_at) \
         SELECT $8, id, $9, $10, $11, 'updated', $3, $12, $13, $4 FROM changed";
    let (places, words) = columns(changed_words(current, customer));
    let Changes { fields, before, after } = changes(Some(current), customer);
    let values: [&(dyn ToSql + Sync); 15] = [
        &customer.id,
        &customer.first_name,
        &customer.version,
        &customer.updated_at,
        &revision,
        &places,
        &words,
        &Uuid::now_v7(),
        &caller.operator,
        &caller.key,
        &Uuid::now_v7(),
        &before,
        &after,
        &fields,
        &PLATFORM,
    ];
    let statement = client.prepare_cached(sql).await?;
    Ok(client.execute(&statement, &values).await? == 1)
}

/// Returns the current time with the precision of PostgreSQL.
fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(6)
}

/// The values of a customer, by the names that they have in the history.
fn values(customer: &Customer) -> [(&'static str, Value); 5] {
    [
        ("email", json!(customer.email)),
        ("firstName", json!(customer.first_name)),
        ("lastName", json!(customer.last_name)),
        ("phone", json!(customer.phone)),
        ("address", json!(customer.address)),
    ]
}

/// The changed fields, and their values before and after the change.
struct Changes {
    fields: Json<Vec<&'static str>>,
    before: Json<Map<String, Value>>,
    after: Json<Map<String, Value>>,
}

fn changes(before: Option<&Customer>, after: &Customer) -> Changes {
    let nothing = values(after).map(|(name, _)| (name, Value::Null));
    let pairs = before.map_or(nothing, values).into_iter().zip(values(after));
    let changed: Vec<_> = pairs.filter(|(old, new)| old != new).collect();
    let fields = changed.iter().map(|((name, _), _)| *name).collect();
    let named = changed.into_iter().map(|((name, old), (_, new))| ((name.to_owned(), old), (name.to_owned(), new)));
    let (before, after) = named.unzip();
    Changes { fields: Json(fields), before: Json(before), after: Json(after) }
}

/// The search words of a link. Each word has a place: a number that no other word of the link has. `None` removes the
/// word at a place.
type Words = Vec<(i16, Option<String>)>;

/// The places of the words of a value start at a multiple of this number.
const PLACES_PER_VALUE: i16 = 1000;

/// The maximum number of stored words of a value. Further words are ignored.
const MAX_WORDS_PER_VALUE: usize = 12;

/// The words of a new link: those of the external id, then those of the customer.
fn words_of_link(external_customer_id: &str, customer: &Customer) -> Words {
    let words_of_id = (-PLACES_PER_VALUE..).zip(tokenize(external_customer_id));
    words_of_id.chain(words_of_customer(customer)).map(|(place, word)| (place, Some(word))).collect()
}

fn words_of_customer(customer: &Customer) -> BTreeMap<i16, String> {
    let (local_part, domain) = customer.email.split_once('@').unwrap_or_default();
    let name = |name: &Option<String>| name.as_deref().map(tokenize).unwrap_or_default();
    let (first_name, last_name) = (name(&customer.first_name), name(&customer.last_name));
    let phone = customer.phone.as_deref().map(words_of_phone).unwrap_or_default();
    let pairs = pairs(&first_name, &last_name);
    let values = [tokenize(local_part), tokenize(domain), first_name, last_name, phone, pairs];
    (0..).zip(values).flat_map(|(index, words)| (index * PLACES_PER_VALUE..).zip(words)).collect()
}

/// The words that differ between two states of a customer.
fn changed_words(before: &Customer, after: &Customer) -> Words {
    let (old, mut new) = (words_of_customer(before), words_of_customer(after));
    let removed: Vec<_> = old.keys().filter(|place| !new.contains_key(place)).map(|place| (*place, None)).collect();
    new.retain(|place, word| old.get(place) != Some(word));
    new.into_iter().map(|(place, word)| (place, Some(word))).chain(removed).collect()
}

fn columns(words: Words) -> (Vec<i16>, Vec<Option<String>>) {
    words.into_iter().unzip()
}

/// Splits a string into words without case and accents. Adjacent numbers are joined, so that a search for `20260017`
/// finds `2026-0017`, which has the words `20260017` and `0017`.
fn tokenize(text: &str) -> Vec<String> {
    let folded: String = text.nfkd().filter(|char| !is_combining_mark(*char)).flat_map(char::to_lowercase).collect();
    let parts: Vec<_> = folded.split(|char: char| !char.is_alphanumeric()).filter(|part| !part.is_empty()).collect();
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let word = |first: usize| {
        let joined = parts[first..]
            .windows(2)
            .take_while(|pair| is_number(pair[0]) && pair[1].starts_with(|char: char| char.is_ascii_digit()));
        joined.fold(parts[first].to_owned(), |word, pair| word + pair[1])
    };
    (0..parts.len()).map(word).take(MAX_WORDS_PER_VALUE).collect()
}

/// Each word of the first name together with each word of the last name, except numbers: `&ada lovelace`.
fn pairs(first_name: &[String], last_name: &[String]) -> Vec<String> {
    let pair = |first: &String, last: &String| format!("&{} {}", first.min(last), first.max(last));
    let is_name = |word: &&String| !word.bytes().all(|byte| byte.is_ascii_digit());
    let last_name: Vec<_> = last_name.iter().filter(is_name).collect();
    let pairs = first_name.iter().filter(is_name).flat_map(|first| last_name.iter().map(move |last| pair(first, last)));
    pairs.take(MAX_WORDS_PER_VALUE).collect()
}

/// The digits of a phone with and without the country code, and its last four digits.
fn words_of_phone(phone: &str) -> Vec<String> {
    let digits = phone.trim_start_matches('+');
    let national = &digits[country_code_length(digits).min(digits.len())..];
    let last_four = &national[national.len().saturating_sub(4)..];
    vec![digits.to_owned(), national.to_owned(), format!("#{last_four}")]
}

/// The length of a country code follows from its first two digits.
fn country_code_length(digits: &str) -> usize {
    match digits.as_bytes() {
        [b'1' | b'7', ..] => 1,
        [b'2', b'0' | b'7', ..]
        | [b'3', b'0'..=b'4' | b'6' | b'9', ..]
        | [b'4', b'0' | b'1' | b'3'..=b'9', ..]
        | [b'5', b'1'..=b'8', ..]
        | [b'6', b'0'..=b'6', ..]
        | [b'8', b'1' | b'2' | b'4' | b'6', ..]
        | [b'9', b'0'..=b'5' | b'8', ..] => 2,
        _ => 3,
    }
}
