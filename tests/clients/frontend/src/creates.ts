// The program of docs/api.md that creates a customer prints the same result if it is repeated, and finds an existing customer.
// Arguments: the URL of a server, and an API key.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';

const [url, key] = process.argv.slice(2);
const create = (user: string, email: string) =>
  execFileSync('tsx', ['src/create.ts', url, key, user, email, `create-${user}`], { encoding: 'utf8', stdio: 'pipe' }).trim();

const created = create('created-1', 'created@example.com');
assert.match(created, /^CREATED cus_/);
assert.equal(create('created-1', 'created@example.com'), created);
assert.equal(create('created-2', 'Created@example.com'), created.replace('CREATED', 'EXISTING'));
assert.throws(() => create('created-3', 'created@'), /INVALID_EMAIL input,data,email/);
console.log('the program of docs/api.md has created a customer');
