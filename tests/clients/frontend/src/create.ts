import { setTimeout as wait } from 'node:timers/promises';

const [url, key, user, email, job] = process.argv.slice(2);
const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json' };
const query = `mutation ($input: CreateCustomerInput!) {
  createCustomer(input: $input) { outcome matchedBy unappliedFields customer { id missingFields } }
}`;
// Store the id of the job before the first attempt. A corrected request is a new job with a new id.
const input = { externalCustomerId: user, data: { email }, idempotencyKey: job };

let internalErrors = 0;
for (let attempt = 0; ; attempt++) {
  const body = JSON.stringify({ query, variables: { input } });
  const response = await fetch(`${url}/graphql`, { method: 'POST', headers, body }).catch(() => null);
  const answer = await response?.json().catch(() => null);
  // For example, the path of the URL is wrong, or a proxy rejects the request.
  if (!answer && response && response.status >= 400 && response.status < 500) throw new Error(`HTTP ${response.status}`);
  const { data, errors } = answer ?? { data: null, errors: null };
  const created = data?.createCustomer;
  if (created) {
    // CONNECTED: the platform knew the person. `matchedBy` and `unappliedFields` say how the record differs.
    console.log(created.outcome, created.customer.id);
    break;
  }
  const { code, inputPath, customerId, retryable, retryAfterMs } = errors?.[0].extensions ?? { retryable: true };
  if (retryable || response?.status === 408 || (code === 'INTERNAL' && internalErrors++ === 0)) {
    const pause = retryAfterMs ?? 1_000 * 2 ** Math.min(attempt, 5);
    console.error(`${code ?? response?.status ?? 'no response'}: next attempt in ${pause} ms`);
    await wait(pause);
    continue;
  }
  // One customer of yours has the email and all other values that are taken: this person is already your customer.
  const isSameEmail = errors.some((error: any) => error.extensions.code === 'EMAIL_TAKEN');
  if (!isSameEmail || errors.some((error: any) => error.extensions.customerId !== customerId)) {
    throw new Error(`${code} ${inputPath}`);
  }
  console.log('EXISTING', customerId);
  break;
}
