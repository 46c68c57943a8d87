import { readFile, writeFile } from 'node:fs/promises';
import { setTimeout as wait } from 'node:timers/promises';

const [url, key, file] = process.argv.slice(2); // in your service: store the cursor in a table
const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json' };
const query = `query ($after: String) {
  changes(after: $after) { changes { id type customerId customer { version missingFields } } cursor hasMore }
}`;

// Without a stored cursor, starts at the oldest stored change. A complete copy needs steps 1 and 2 first.
let after = await readFile(file, 'utf8').catch(() => null);
for (;;) {
  const body = JSON.stringify({ query, variables: { after } });
  const response = await fetch(`${url}/graphql`, { method: 'POST', headers, body }).catch(() => null);
  const { data, errors } = response ? await response.json() : { errors: [{ extensions: { retryable: true } }] };
  if (errors) {
    const { code, retryable, retryAfterMs } = errors[0].extensions;
    if (!retryable) throw new Error(code); // CURSOR_EXPIRED: start again with step 1
    await wait(retryAfterMs ?? 2_000);
    continue; // the stored cursor stays
  }
  for (const { id, type, customerId, customer } of data.changes.changes) {
    console.log(id, type, customerId, customer?.version); // process each change, at least once
  }
  await writeFile(file, (after = data.changes.cursor));
  if (!data.changes.hasMore) await wait(2_000);
}
