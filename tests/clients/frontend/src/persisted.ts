// Apollo Client and urql with persisted queries switched on. Both clients first send the hash of a document. The
// service stores no documents and rejects the hash, so the clients then send the document itself, and from then on only
// documents. Arguments: the URL of a server and an API key.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { ApolloClient, HttpLink, InMemoryCache } from '@apollo/client';
import { PersistedQueryLink } from '@apollo/client/link/persisted-queries';
import { Client, fetchExchange } from '@urql/core';
import { persistedExchange } from '@urql/exchange-persisted';
import { graphql } from './gql';

const [url, key] = process.argv.slice(2);
const headers = { authorization: `Bearer ${key}` };

const Role = graphql(`
  query Role {
    viewer {
      role
    }
  }
`);

const CreatePersisted = graphql(`
  mutation CreatePersisted($input: CreateCustomerInput!) {
    createCustomer(input: $input) {
      outcome
    }
  }
`);

// The requests since the last assertion, for example `GET hash`.
const sent: string[] = [];
const recordingFetch: typeof fetch = (target, init) => {
  const body = typeof init?.body === 'string' ? JSON.parse(init.body) : Object.fromEntries(new URL(`${target}`).searchParams);
  const parts = [body.query ? 'document' : '', JSON.stringify(body.extensions ?? '').includes('persistedQuery') ? 'hash' : ''];
  sent.push(`${init?.method ?? 'GET'} ${parts.filter(Boolean).join(' and ')}`);
  return fetch(target, init);
};
const assertSent = (...expected: string[]) => assert.deepEqual(sent.splice(0), expected);
const input = (name: string) => ({ input: { externalCustomerId: name, data: { email: `${name}@example.com` } } });

for (const [name, useGETForHashedQueries] of [['apollo-post', false], ['apollo-get', true]] as const) {
  const sha256 = (text: string) => createHash('sha256').update(text).digest('hex');
  const createClient = () =>
    new ApolloClient({
      link: new PersistedQueryLink({ sha256, useGETForHashedQueries }).concat(
        new HttpLink({ uri: `${url}/graphql`, headers, fetch: recordingFetch }),
      ),
      cache: new InMemoryCache(),
      defaultOptions: { query: { fetchPolicy: 'no-cache' } },
    });
  const client = createClient();
  assert.equal((await client.query({ query: Role })).data?.viewer?.role, 'OPERATOR');
  assertSent(useGETForHashedQueries ? 'GET hash' : 'POST hash', 'POST document');
  assert.equal((await client.query({ query: Role })).data?.viewer?.role, 'OPERATOR');
  assertSent('POST document');
  const mutation = await createClient().mutate({ mutation: CreatePersisted, variables: input(name) });
  assert.equal(mutation.data?.createCustomer?.outcome, 'CREATED');
  assertSent('POST hash', 'POST document');
}

for (const [name, method] of [['urql-post', 'POST'], ['urql-get', 'GET']] as const) {
  const preferGetForPersistedQueries = method === 'GET';
  const createClient = () =>
    new Client({
      url: `${url}/graphql`,
      fetch: recordingFetch,
      fetchOptions: { headers },
      preferGetMethod: preferGetForPersistedQueries,
      exchanges: [persistedExchange({ preferGetForPersistedQueries, enableForMutation: true }), fetchExchange],
    });
  const client = createClient();
  assert.equal((await client.query(Role, {}).toPromise()).data?.viewer?.role, 'OPERATOR');
  assertSent(`${method} hash`, `${method} document`);
  assert.equal((await client.query(Role, {}).toPromise()).data?.viewer?.role, 'OPERATOR');
  assertSent(`${method} document`);
  const mutation = await createClient().mutation(CreatePersisted, input(name)).toPromise();
  assert.equal(mutation.data?.createCustomer?.outcome, 'CREATED');
  assertSent('POST hash', 'POST document');
}

console.log('Apollo Client and urql fell back from persisted queries to documents, by POST and by GET');
