// A frontend with Apollo Client against a running server: a list of several pages, a form with invalid fields, and a rate
// limit. Arguments: the URL of a server, the URL of a server with a low limit, and an API key.
import assert from 'node:assert/strict';
import { ApolloClient, ApolloLink, CombinedGraphQLErrors, HttpLink, InMemoryCache } from '@apollo/client';
import { ErrorLink } from '@apollo/client/link/error';
import { relayStylePagination } from '@apollo/client/utilities';
import { mergeMap, timer } from 'rxjs';
import { extensions, remedy } from './errors';
import { graphql } from './gql';

const [url, limitedUrl, key] = process.argv.slice(2);

const Customers = graphql(`
  query Customers($after: String) {
    customers(first: 3, after: $after) {
      edges {
        externalCustomerId
        node {
          id
          createdAt
        }
      }
      pageInfo {
        hasNextPage
        endCursor
      }
      totalCount
    }
  }
`);

const CreateCustomer = graphql(`
  mutation CreateCustomer($input: CreateCustomerInput!) {
    createCustomer(input: $input) {
      outcome
      customer {
        id
        missingFields
      }
    }
  }
`);

// Retries a rate-limited request after `retryAfterMs`.
const waits: number[] = [];
const retryLink = new ErrorLink(({ error, operation, forward }) => {
  if (!CombinedGraphQLErrors.is(error)) return;
  const { code, retryAfterMs } = extensions(error.errors[0]);
  if (code !== 'RATE_LIMITED' || retryAfterMs == null) return;
  assert.equal(operation.getContext().response.status, 429);
  waits.push(retryAfterMs);
  return timer(retryAfterMs).pipe(mergeMap(() => forward(operation)));
});

const createClient = (url: string) =>
  new ApolloClient({
    link: ApolloLink.from([retryLink, new HttpLink({ uri: `${url}/graphql`, headers: { authorization: `Bearer ${key}` } })]),
    cache: new InMemoryCache({ typePolicies: { Query: { fields: { customers: relayStylePagination() } } } }),
  });

const client = createClient(url);

// A list that is read page by page, in the order in which the customers were connected.
const names = Array.from({ length: 7 }, (_, number) => `paged-${number}`);
for (const name of names) {
  const { data } = await client.mutate({
    mutation: CreateCustomer,
    variables: { input: { externalCustomerId: name, data: { email: `${name}@example.com` } } },
  });
  assert.equal(data?.createCustomer?.outcome, 'CREATED');
}
const list = client.watchQuery({ query: Customers });
const readShown = async () => {
  const { data } = await client.query({ query: Customers });
  assert(data?.customers);
  return data.customers;
};
let page = await readShown();
const lengths = [page.edges.length];
while (page.pageInfo.hasNextPage) {
  await list.fetchMore({ variables: { after: page.pageInfo.endCursor } });
  page = await readShown();
  lengths.push(page.edges.length);
  assert(lengths.length <= names.length, 'the list has no last page');
}
assert.deepEqual(lengths, [3, 6, 7]);
assert.equal(page.totalCount, 7);
assert.deepEqual(page.edges.map((edge) => edge.externalCustomerId), names);
assert(page.edges.every(({ node }) => !Number.isNaN(Date.parse(node.createdAt))));

// A form: each error names its field.
const rejection = await client
  .mutate({
    mutation: CreateCustomer,
    variables: { input: { externalCustomerId: 'form', data: { email: 'ada@', phone: '12' } } },
  })
  .then(() => assert.fail('the invalid form was accepted'), (error) => error);
assert(CombinedGraphQLErrors.is(rejection));
const fieldErrors = rejection.errors.map((error) => ({ ...extensions(error), message: error.message }));
assert.deepEqual(
  fieldErrors.map(({ code, inputPath }) => [inputPath?.join('.'), code]),
  [
    ['input.data.email', 'INVALID_EMAIL'],
    ['input.data.phone', 'INVALID_PHONE'],
  ],
);
assert(fieldErrors.every(({ code, message }) => remedy(code) === 'correct the field' && message.length > 0));

// A rate limit: the client waits and retries, so every query succeeds.
assert.deepEqual(waits, []);
const limited = createClient(limitedUrl);
for (let sent = 0; waits.length === 0; sent += 1) {
  assert(sent < 1000, 'there is no limit');
  const { data } = await limited.query({ query: Customers, fetchPolicy: 'no-cache' });
  assert.equal(data?.customers?.totalCount, 7);
}
assert(waits.every((wait) => wait > 0 && wait <= 1000), `${waits}`);

console.log(`Apollo Client read ${lengths.length} pages, showed ${fieldErrors.length} errors of a form, and waited ${waits} ms for the rate limit`);
