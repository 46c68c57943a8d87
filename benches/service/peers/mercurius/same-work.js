// Keys that are looked up by their hash, and write operations that validate emails and phones and store the same rows
// as the service: the customer, its link, the search words for each operator of the customer, a history entry with the
// changed values, and the rows of the change feed.
//
// A write takes two round trips. The first reads. The second is one statement that writes everything. If the customer has
// changed since it was read, this statement writes nothing, and the write starts again.
import { createHmac } from 'node:crypto';
import parsePhoneNumber from 'libphonenumber-js/max';
import { LRUCache } from 'lru-cache';
import { v7 as uuid } from 'uuid';
import { CUSTOMER, pool, row, rows, stored } from './database.js';

const { VIVAMO_KEY_SECRET, VIVAMO_PLATFORM_KEY } = process.env;
const ATTEMPTS = 5;
const UNIQUE_VIOLATION = '23505';
// The reader of the feed who reads all changes.
const PLATFORM = '00000000-0000-0000-0000-000000000000';

// Returns the hash of a key as the service computes it. The input is the purpose `api key` and the key, each after its
// length.
function digest(key) {
  const hmac = createHmac('sha256', VIVAMO_KEY_SECRET);
  for (const part of ['api key', key]) {
    const length = Buffer.alloc(8);
    length.writeBigUInt64BE(BigInt(Buffer.byteLength(part)));
    hmac.update(length).update(part);
  }
  return hmac.digest('hex');
}

const platform = digest(VIVAMO_PLATFORM_KEY);
const keys = new LRUCache({ max: 10_000, ttl: 800 });

export async function callerOf(authorization = '') {
  const hash = digest(authorization.slice('Bearer '.length));
  if (hash === platform) return {};
  const cached = keys.get(hash);
  if (cached) return cached;
  const found = await row(pool, 'key', `SELECT operator_id AS operator, api_key.id AS key
    FROM api_key JOIN operator ON operator.id = operator_id
    WHERE hash = decode($1, 'hex') AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()) AND status = 'active'`, hash);
  if (found) keys.set(hash, found);
  return found;
}

// Pages of customers are for the platform key only, because they show the links of all operators.
export const seesAllLinks = ({ operator }) => !operator;

const OWN = `FROM customer_operator JOIN customer ON customer.id = customer_id WHERE operator_id = $1`;

export const findById = ({ operator }, id) => row(pool, 'own-by-id', `SELECT ${CUSTOMER} ${OWN} AND customer_id = $2`, operator, id);

const EMAIL = /^[^\s@]+@[^\s@]+\.[^\s@]+$/;

// The email in the form in which the service stores and compares it.
function canonicalEmail(text) {
  const email = text.trim().toLowerCase();
  if (!EMAIL.test(email)) throw new Error('INVALID_EMAIL');
  return email;
}

// The E.164 form of a number with a country code.
function canonicalPhone(text) {
  const phone = parsePhoneNumber(text);
  if (!phone?.getType()) throw new Error('INVALID_PHONE');
  return phone.number;
}

// Creates or connects a customer.
export async function create(caller, { externalCustomerId, data }) {
  const { email, phone } = data;
  const input = { externalCustomerId, data: { ...data, email: canonicalEmail(email), phone: phone && canonicalPhone(phone) } };
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const created = await tryCreate(caller, input);
    if (created) return created;
  }
  throw new Error('UNAVAILABLE');
}

// Returns undefined if another request has meanwhile changed the customer, or stored a row with the same unique value.
async function tryCreate(caller, { externalCustomerId, data }) {
  const found = await rows(pool, 'existing', `SELECT ${CUSTOMER}, revision, own.customer_id IS NOT NULL AS "isOwn",
      same_id.customer_id IS NOT NULL AS "isTaken"
    FROM (SELECT) AS always
    LEFT JOIN customer ON email = $2 OR phone = $3
    LEFT JOIN customer_operator AS own ON own.operator_id = $1 AND own.customer_id = customer.id
    LEFT JOIN customer_operator AS same_id ON same_id.operator_id = $1 AND same_id.external_customer_id = $4`,
  caller.operator, data.email, data.phone, externalCustomerId);
  if (found[0].isTaken) throw new Error('EXTERNAL_CUSTOMER_ID_TAKEN');
  const known = found.filter(({ id }) => id);
  const own = known.find(({ isOwn }) => isOwn);
  if (own) throw new Error(own.email === data.email ? 'EMAIL_TAKEN' : 'PHONE_TAKEN');
  if (known.length > 1) throw new Error('IDENTITY_CONFLICT');
  const now = new Date();
  const given = { ...data, address: data.address && stored(data.address) };
  try {
    if (!known.length) {
      const customer = { id: uuid(), ...given, version: 1, createdAt: now, updatedAt: now };
      await insert(caller, externalCustomerId, customer);
      return { outcome: 'CREATED', customer };
    }
    const [current] = known;
    const filled = Object.fromEntries(FIELDS.map((field) => [field, current[field] ?? given[field]]));
    const customer = { ...current, ...filled };
    if (changes(current, customer).fields.length) Object.assign(customer, { version: current.version + 1, updatedAt: now });
    return await connect(caller, externalCustomerId, current, customer, now) ? { outcome: 'CONNECTED', customer } : undefined;
  } catch (error) {
    if (error.code !== UNIQUE_VIOLATION) throw error;
  }
}

async function insert({ operator, key }, externalCustomerId, customer) {
  const { fields, before, after } = changes({}, customer);
  await pool.query({
    name: 'insert',
    text: `WITH
      new_customer AS (INSERT INTO customer
        (id, email, phone, first_name, last_name, address, version, created_at, updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, 1, $7, $7)),
      new_link AS (INSERT INTO customer_operator (operator_id, customer_id, external_customer_id, connected_at)
        VALUES ($8, $1, $9, $7)),
      new_words AS (INSERT INTO customer_word (operator_id, customer_id, place, word)
        SELECT $8, $1, * FROM unnest($10::int2[], $11::text[])),
      new_changes AS (INSERT INTO customer_change
        (reader_id, position, id, customer_id, external_customer_id, type, version, changed_fields, own, occurred_at, swept)
        SELECT reader, pg_current_xact_id()::text::bigint + feed_base, $12, $1, external_id, 'created', 1, $17, reader = $8, $7, false
        FROM deployment, (VALUES ($8, $9), ($18, NULL)) AS readers (reader, external_id))
      INSERT INTO customer_event
        (id, customer_id, operator_id, api_key_id, request_id, type, version, before, after, occurred_at)
      VALUES ($12, $1, $8, $13, $14, 'created', 1, $15, $16, $7)`,
    values: [customer.id, customer.email, customer.phone, customer.firstName, customer.lastName, customer.address, customer.updatedAt,
      operator, externalCustomerId, ...columns(wordsOfLink(externalCustomerId, customer)), uuid(), key, uuid(), before, after,
      JSON.stringify(fields), PLATFORM],
  });
}

// Connects an existing customer and writes the fields that were filled. Returns false if the revision has changed.
async function connect({ operator, key }, externalCustomerId, current, customer, now) {
  const { fields, before, after } = changes(current, customer);
  const { rowCount } = await pool.query({
    name: 'connect',
    text: `WITH
      changed AS (UPDATE customer SET phone = $2, first_name = $3, last_name = $4, address = $5, version = $6,
          updated_at = $7, revision = revision + 1
        WHERE id = $1 AND revision = $8 AND age(customer.xmin) >= 0 RETURNING id),
      changed_words AS (INSERT INTO customer_word (operator_id, customer_id, place, word)
        SELECT operator_id, customer_id, new.*
        FROM changed JOIN customer_operator ON customer_id = id, unnest($9::int2[], $10::text[]) AS new
        ON CONFLICT (operator_id, customer_id, place) DO UPDATE SET word = excluded.word),
      new_link AS (INSERT INTO customer_operator (operator_id, customer_id, external_customer_id, connected_at)
        SELECT $11, id, $12, $13 FROM changed),
      new_words AS (INSERT INTO customer_word (operator_id, customer_id, place, word)
        SELECT $11, id, new.* FROM changed, unnest($14::int2[], $15::text[]) AS new),
      new_changes AS (INSERT INTO customer_change
        (reader_id, position, id, customer_id, external_customer_id, type, version, changed_fields, own, occurred_at, swept)
        SELECT reader, pg_current_xact_id()::text::bigint + feed_base, $16, changed.id, external_id, type, $6, $21, reader = $11, $13, false
        FROM changed, deployment,
          (VALUES ($11, $12, 'connected'), ($22, NULL, 'connected')
           UNION ALL SELECT operator_id, external_customer_id, 'updated' FROM customer_operator
           WHERE customer_id = $1 AND $21::jsonb <> '[]') AS readers (reader, external_id, type))
      INSERT INTO customer_event
        (id, customer_id, operator_id, api_key_id, request_id, type, version, before, after, occurred_at)
      SELECT $16, id, $11, $17, $18, 'connected', $6, $19, $20, $13 FROM changed`,
    values: [customer.id, customer.phone, customer.firstName, customer.lastName, customer.address, customer.version, customer.updatedAt,
      current.revision, ...columns(changedWords(current, customer)), operator, externalCustomerId, now,
      ...columns(wordsOfLink(externalCustomerId, customer)), uuid(), key, uuid(), before, after, JSON.stringify(fields), PLATFORM],
  });
  return rowCount === 1;
}

// Changes the first name of one of the operator's customers.
export async function update(caller, { customer: { id, externalCustomerId }, data: { firstName } }) {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const [column, value] = id ? ['customer_id', id] : ['external_customer_id', externalCustomerId];
    const current = await row(pool, `own-by-${column}`, `SELECT ${CUSTOMER}, revision ${OWN} AND ${column} = $2`, caller.operator, value);
    if (!current) throw new Error('CUSTOMER_NOT_FOUND');
    if (current.firstName === firstName) return current;
    const customer = { ...current, firstName, version: current.version + 1, updatedAt: new Date() };
    if (await replaceFirstName(caller, current, customer)) return customer;
  }
  throw new Error('UNAVAILABLE');
}

// Returns false if the revision has changed.
async function replaceFirstName({ operator, key }, current, customer) {
  const { fields, before, after } = changes(current, customer);
  const { rowCount } = await pool.query({
    name: 'replace',
    text: `WITH
      changed AS (UPDATE customer SET first_name = $2, version = $3, updated_at = $4, revision = revision + 1
        WHERE id = $1 AND revision = $5 AND age(customer.xmin) >= 0 RETURNING id),
      words AS (INSERT INTO customer_word (operator_id, customer_id, place, word)
        SELECT operator_id, customer_id, new.*
        FROM changed JOIN customer_operator ON customer_id = id, unnest($6::int2[], $7::text[]) AS new
        ON CONFLICT (operator_id, customer_id, place) DO UPDATE SET word = excluded.word),
      new_changes AS (INSERT INTO customer_change
        (reader_id, position, id, customer_id, external_customer_id, type, version, changed_fields, own, occurred_at, swept)
        SELECT reader, pg_current_xact_id()::text::bigint + feed_base, $8, changed.id, external_id, 'updated', $3, $14, reader = $9, $4, false
        FROM changed, deployment,
          (SELECT operator_id, external_customer_id FROM customer_operator WHERE customer_id = $1 UNION ALL VALUES ($15::uuid, NULL))
          AS readers (reader, external_id))
      INSERT INTO customer_event
        (id, customer_id, operator_id, api_key_id, request_id, type, version, before, after, occurred_at)
      SELECT $8, id, $9, $10, $11, 'updated', $3, $12, $13, $4 FROM changed`,
    values: [customer.id, customer.firstName, customer.version, customer.updatedAt, current.revision,
      ...columns(changedWords(current, customer)), uuid(), operator, key, uuid(), before, after,
      JSON.stringify(fields), PLATFORM],
  });
  return rowCount === 1;
}

// The fields of a customer, by the names that they have in the history.
const FIELDS = ['email', 'firstName', 'lastName', 'phone', 'address'];

// The changed fields, and their values before and after the change.
function changes(before, after) {
  const isChanged = (field) => JSON.stringify(before[field] ?? null) !== JSON.stringify(after[field] ?? null);
  const fields = FIELDS.filter(isChanged);
  const values = (customer) => Object.fromEntries(fields.map((field) => [field, customer[field] ?? null]));
  return { fields, before: values(before), after: values(after) };
}

// Each stored word of a customer has a number, its place. The places of the words of a value start at the index of the
// value, multiplied by this number.
const PLACES_PER_VALUE = 1000;
// The maximum number of stored words of a value. Further words are ignored.
const MAX_WORDS_PER_VALUE = 12;
const placed = (words, index) => words.map((word, place) => [index * PLACES_PER_VALUE + place, word]);

// The words of a new link: those of the external id, then those of the customer.
const wordsOfLink = (externalCustomerId, customer) => [...placed(tokenize(externalCustomerId), -1), ...wordsOfCustomer(customer)];

function wordsOfCustomer({ email, firstName, lastName, phone }) {
  const [localPart, domain] = email.split('@');
  const [first, last] = [tokenize(firstName), tokenize(lastName)];
  return [tokenize(localPart), tokenize(domain), first, last, wordsOfPhone(phone), pairs(first, last)].flatMap(placed);
}

// Each word of the first name together with each word of the last name, except numbers: `&ada lovelace`.
function pairs(firstName, lastName) {
  const pair = (first, last) => (first < last ? `&${first} ${last}` : `&${last} ${first}`);
  const [first, last] = [firstName, lastName].map((words) => words.filter((word) => !/^\d+$/.test(word)));
  return first.flatMap((one) => last.map((other) => pair(one, other))).slice(0, MAX_WORDS_PER_VALUE);
}

// The words that differ between two states of a customer. Null removes the word at a place.
function changedWords(before, after) {
  const [old, now] = [before, after].map((customer) => new Map(wordsOfCustomer(customer)));
  const removed = [...old.keys()].filter((place) => !now.has(place)).map((place) => [place, null]);
  return [...[...now].filter(([place, word]) => old.get(place) !== word), ...removed];
}

const columns = (words) => [words.map(([place]) => place), words.map(([, word]) => word)];

// Splits a text into words without case and accents. Adjacent numbers are joined, so that a search for `20260017` finds
// `2026-0017`, which has the words `20260017` and `0017`.
function tokenize(text) {
  const parts = (text ?? '').normalize('NFKD').replace(/\p{M}/gu, '').toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
  const joined = (part, first) => {
    let word = part;
    for (let next = first + 1; /^\d+$/.test(parts[next - 1]) && /^\d/.test(parts[next] ?? ''); next++) word += parts[next];
    return word;
  };
  return parts.map(joined).slice(0, MAX_WORDS_PER_VALUE);
}

// The digits of a phone with and without the country code, and its last four digits.
function wordsOfPhone(phone) {
  if (!phone) return [];
  const digits = phone.slice(1);
  const national = digits.replace(COUNTRY_CODE, '');
  return [digits, national, `#${national.slice(-4)}`];
}

// The length of a country code follows from its first two digits.
const COUNTRY_CODE = /^(1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]|\d{3})/;
