// The program of docs/api.md that follows the feed prints each change once, also if it is started again. Arguments: the URL of a
// server, and an API key.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtemp, readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as wait } from 'node:timers/promises';

const [url, key] = process.argv.slice(2);

const send = async (query: string, variables = {}) => {
  const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json' };
  const response = await fetch(`${url}/graphql`, { method: 'POST', headers, body: JSON.stringify({ query, variables }) });
  const { data, errors } = (await response.json()) as { data: Record<string, any>; errors?: unknown };
  assert.equal(errors, undefined);
  return data;
};

const create = async (externalCustomerId: string) => {
  const mutation = 'mutation ($input: CreateCustomerInput!) { createCustomer(input: $input) { customer { id } } }';
  const input = { externalCustomerId, data: { email: `${externalCustomerId}@example.com` } };
  return (await send(mutation, { input })).createCustomer.customer.id as string;
};

const file = join(await mkdtemp(join(tmpdir(), 'vivamo-cursor-')), 'cursor');
const seen: string[] = [];
for (const name of ['followed-1', 'followed-2']) {
  const customer = await create(name);
  const follower = spawn('tsx', ['src/follow.ts', url, key, file], { stdio: ['ignore', 'pipe', 'inherit'] });
  const limit = setTimeout(() => follower.kill(), 60_000);
  try {
    let isPrinted = false;
    for await (const line of createInterface(follower.stdout)) {
      const [id, type, customerId, version] = line.split(' ');
      assert(!seen.includes(id), 'a change was printed twice');
      seen.push(id);
      if (customerId !== customer) continue;
      assert.deepEqual([type, version], ['CREATED', '1']);
      isPrinted = true;
      break;
    }
    assert(isPrinted, `the program has not printed the change of ${customer}`);
    // The program stores the cursor of the response that it has printed.
    const { viewer } = await send('{ viewer { changesCursor } }');
    while ((await readFile(file, 'utf8').catch(() => null)) !== viewer.changesCursor) {
      assert(follower.exitCode === null && follower.signalCode === null, 'the program has not stored its cursor');
      await wait(20);
    }
  } finally {
    clearTimeout(limit);
    follower.kill();
  }
}
const { changes } = await send('{ changes { changes { id } } }');
assert.deepEqual(seen.slice(0, changes.changes.length), changes.changes.map((change: { id: string }) => change.id));
console.log(`the program of docs/api.md has followed the feed: ${seen.length} changes`);
