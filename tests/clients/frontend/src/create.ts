import { setTimeout as wait } from 'node:timers/promises';

const [url, key, user, email] = process.argv.slice(2);
const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json' };
const query = `mutation ($input: CreateCustomerInput!) {
  createCustomer(input: $input) { outcome matchedBy unappliedFields customer { id missingFields } }
}`;
// The key belongs to this job, so each retry of the job has the same key.
const input = { externalCustomerId: user, data: { email }, idempotencyKey: `create-${user}` };

for (let attempt = 0; ; ) {
  const body = JSON.stringify({ query, variables: { input } });
  const response = await fetch(`${url}/graphql`, { method: 'POST', headers, body }).catch(() => null);
  const { data, errors } = response ? await response.json() : { data: null, errors: null };
  const created = data?.createCustomer;
  if (created) {
    // CONNECTED: the platform knew the person. `matchedBy` and `unappliedFields` say how the record differs.
    console.log(created.outcome, created.customer.id);
    break;
  }
  const { code, inputPath, customerId, retryable, retryAfterMs } = errors?.[0].extensions ?? { retryable: true };
  if (retryable) {
    await wait(retryAfterMs ?? 1_000 * 2 ** Math.min(attempt++, 5));
    continue;
  }
  // All errors name the same customer of yours: this person is already your customer.
  if (!customerId || errors.some((error: any) => error.extensions.customerId !== customerId)) {
    throw new Error(`${code} ${inputPath}`);
  }
  console.log('EXISTING', customerId);
  break;
}
