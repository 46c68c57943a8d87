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
  const answer = await response?.json().catch(() => null);
  // For example, the path of the URL is wrong, or a proxy rejects the request.
  if (!answer && response && response.status >= 400 && response.status < 500) throw new Error(`HTTP ${response.status}`);
  const { data, errors } = answer ?? { errors: [{ extensions: { retryable: true } }] };
  if (errors) {
    const { code, inputPath, retryable, retryAfterMs } = errors[0].extensions;
    // Start again with step 1 after CURSOR_EXPIRED, and after INVALID_ARGUMENT with the inputPath ["after"].
    if (!retryable && response?.status !== 408) throw new Error(`${code} ${inputPath}`);
    const pause = retryAfterMs ?? 2_000;
    console.error(`${code ?? response?.status ?? 'no response'}: next attempt in ${pause} ms`);
    await wait(pause);
    continue; // the stored cursor stays
  }
  for (const { id, type, customerId, customer } of data.changes.changes) {
    console.log(id, type, customerId, customer?.version); // process each change, at least once
  }
  await writeFile(file, (after = data.changes.cursor));
  if (!data.changes.hasMore) await wait(2_000);
}
