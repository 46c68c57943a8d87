// The receiver of docs/api.md gets the delivery of a new customer. Arguments: the URL of a server that may reach this machine, and
// an API key.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { createInterface } from 'node:readline';

const [url, key] = process.argv.slice(2);

const send = async (query: string, variables: object) => {
  const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json' };
  const response = await fetch(`${url}/graphql`, { method: 'POST', headers, body: JSON.stringify({ query, variables }) });
  const { data, errors } = (await response.json()) as { data: Record<string, any>; errors?: unknown };
  assert.equal(errors, undefined);
  return data;
};

// The port is below the range from which the system takes the local ports of connections, one of which could otherwise use
// it before the receiver does.
const isFree = async (port: number) => {
  const probe = createServer().listen(port, '127.0.0.1');
  const isListening = await once(probe, 'listening').then(() => true, () => false);
  if (isListening) await once(probe.close(), 'close');
  return isListening;
};
let port = 20_000 + (process.pid % 12_000);
while (!(await isFree(port))) port += 1;

const create = 'mutation ($input: CreateWebhookInput!) { createWebhook(input: $input) { secret webhook { id } } }';
const { createWebhook } = await send(create, { input: { url: `http://127.0.0.1:${port}/` } });
const env = { ...process.env, PORT: String(port), VIVAMO_WEBHOOK_SECRET: createWebhook.secret };
const receiver = spawn('tsx', ['src/receive.ts'], { env, stdio: ['ignore', 'pipe', 'inherit'] });
const limit = setTimeout(() => receiver.kill(), 60_000);
try {
  const mutation = 'mutation ($input: CreateCustomerInput!) { createCustomer(input: $input) { customer { id } } }';
  const input = { externalCustomerId: 'webhook-1', data: { email: 'webhook-1@example.com' } };
  const { createCustomer } = await send(mutation, { input });
  const expected = `CREATED ${createCustomer.customer.id} webhook-1`;
  let isPrinted = false;
  for await (const line of createInterface(receiver.stdout)) {
    isPrinted = line === expected;
    if (isPrinted) break;
  }
  assert(isPrinted, `the receiver has not printed: ${expected}`);
  console.log(`the receiver of docs/api.md has verified and printed: ${expected}`);
} finally {
  clearTimeout(limit);
  receiver.kill();
}
const remove = 'mutation ($input: DeleteWebhookInput!) { deleteWebhook(input: $input) { webhookId } }';
await send(remove, { input: { id: createWebhook.webhook.id } });
