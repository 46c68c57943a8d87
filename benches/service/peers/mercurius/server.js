// A typical Node server for the operations of the benchmark: Fastify, Mercurius with its JIT, `pg` with named prepared
// statements, and a loader for nested fields. It uses the tables of the service. It has no limits and writes no log.
//
// With `WORK=least` it writes only customers and links, does not check values, and compares keys as text. With
// `WORK=same-work` it looks keys up by their hash, shows an operator only its own customers, validates emails and
// phones, and writes history, search words and the change feed, as the service does.
import Fastify from 'fastify';
import mercurius from 'mercurius';
import { CUSTOMER, pool, row, rows } from './database.js';
import * as least from './least.js';
import * as sameWork from './same-work.js';

const { PORT, WORK } = process.env;
const { callerOf, findById, seesAllLinks, create, update } = { least, 'same-work': sameWork }[WORK];

const schema = `
  type Query { customer(by: CustomerRef!): Customer operator(id: ID!): Operator }
  type Mutation {
    createCustomer(input: CreateCustomerInput!): CreateCustomerPayload
    updateCustomer(input: UpdateCustomerInput!): UpdateCustomerPayload
  }
  type Operator { id: ID! name: String! customers(first: Int!, after: String): CustomerConnection }
  type Customer {
    id: ID! email: String! phone: String firstName: String lastName: String address: Address version: Int!
    createdAt: String! updatedAt: String! operators: CustomerOperatorConnection
  }
  type Address { line1: String! line2: String city: String! region: String postalCode: String country: String! }
  type CustomerConnection { edges: [CustomerEdge!]! pageInfo: PageInfo! }
  type CustomerEdge { node: Customer! }
  type CustomerOperatorConnection { edges: [CustomerOperatorEdge!]! }
  type CustomerOperatorEdge { externalCustomerId: String! node: Operator! }
  type PageInfo { hasNextPage: Boolean! endCursor: String }
  type CreateCustomerPayload { outcome: String! customer: Customer! }
  type UpdateCustomerPayload { customer: Customer! }
  input CustomerRef { id: ID externalCustomerId: String }
  input AddressInput { line1: String! line2: String city: String! region: String postalCode: String country: String! }
  input CustomerDataInput { email: String! phone: String firstName: String lastName: String address: AddressInput }
  input CustomerDataPatch { firstName: String }
  input CreateCustomerInput { externalCustomerId: String! data: CustomerDataInput! }
  input UpdateCustomerInput { customer: CustomerRef! data: CustomerDataPatch! }
`;

async function page({ id }, { first, after }) {
  const start = after ? Buffer.from(after, 'base64url').toString() : '-infinity/00000000-0000-0000-0000-000000000000';
  const [time, last] = start.split('/');
  // If the limit were a parameter, PostgreSQL would plan for many rows.
  const found = await rows(pool, `page-${first}`, `SELECT ${CUSTOMER}, connected_at::text AS place
    FROM customer_operator JOIN customer ON customer.id = customer_id
    WHERE operator_id = $1 AND (connected_at, customer_id) > ($2, $3)
    ORDER BY connected_at, customer_id LIMIT ${first + 1}`, id, time, last);
  const hasNextPage = found.length > first;
  const nodes = found.slice(0, first);
  const end = nodes.at(-1);
  return {
    edges: nodes.map((node) => ({ node })),
    pageInfo: { hasNextPage, endCursor: end ? Buffer.from(`${end.place}/${end.id}`).toString('base64url') : null },
  };
}

const resolvers = {
  Query: {
    customer: (_, { by: { id, externalCustomerId } }, { caller }) => id
      ? findById(caller, id)
      : row(pool, 'by-external-id', `SELECT ${CUSTOMER} FROM customer_operator JOIN customer ON customer.id = customer_id
          WHERE operator_id = $1 AND external_customer_id = $2`, caller.operator, externalCustomerId),
    operator: (_, { id }, { caller }) => seesAllLinks(caller)
      ? row(pool, 'operator', 'SELECT id, name FROM operator WHERE id = $1', id)
      : null,
  },
  Operator: { customers: page },
  Address: { postalCode: (address) => address.postal_code },
  Customer: { createdAt: ({ createdAt }) => createdAt.toISOString(), updatedAt: ({ updatedAt }) => updatedAt.toISOString() },
  Mutation: {
    createCustomer: (_, { input }, { caller }) => create(caller, input),
    updateCustomer: async (_, { input }, { caller }) => ({ customer: await update(caller, input) }),
  },
};

const loaders = {
  Customer: {
    operators: {
      opts: { cache: false },
      async loader(queries) {
        const ids = queries.map(({ obj }) => obj.id);
        const edges = new Map(ids.map((id) => [id, []]));
        const links = await rows(pool, 'links', `SELECT customer_id, external_customer_id AS "externalCustomerId", operator.id, name
          FROM customer_operator JOIN operator ON operator.id = operator_id
          WHERE customer_id = ANY($1) ORDER BY connected_at, operator_id`, ids);
        for (const { customer_id, externalCustomerId, ...node } of links) {
          edges.get(customer_id).push({ externalCustomerId, node });
        }
        return ids.map((id) => ({ edges: edges.get(id) }));
      },
    },
  },
};

const app = Fastify();
app.decorateRequest('caller', null);
app.addHook('onRequest', async (request, reply) => {
  request.caller = await callerOf(request.headers.authorization);
  if (!request.caller) return reply.code(401).send();
});
app.register(mercurius, { schema, resolvers, loaders, jit: 1, context: ({ caller }) => ({ caller }) });
await app.listen({ host: '127.0.0.1', port: Number(PORT) });
