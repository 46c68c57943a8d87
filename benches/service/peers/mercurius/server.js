// A typical Node server for the operations of the benchmark: Fastify, Mercurius with its JIT, `pg` with named prepared
// statements, and a loader for nested fields. It uses the same tables, and has no history, idempotency, limits or log.
import { randomUUID } from 'node:crypto';
import Fastify from 'fastify';
import mercurius from 'mercurius';
import pg from 'pg';

const { DATABASE_URL, PORT, KEYS, OPERATOR } = process.env;
const keys = new Set(KEYS.split(',').map((key) => `Bearer ${key}`));
const pool = new pg.Pool({ connectionString: DATABASE_URL, max: 10 });

const CUSTOMER = `customer.id, email, phone, first_name AS "firstName", last_name AS "lastName", address, version,
  created_at AS "createdAt", updated_at AS "updatedAt"`;
const rows = async (client, name, text, ...values) => (await client.query({ name, text, values })).rows;
const row = async (...query) => (await rows(...query))[0];

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

async function create(_, { input: { externalCustomerId, data } }) {
  const client = await pool.connect();
  try {
    await client.query('BEGIN');
    if (await row(client, 'taken', 'SELECT 1 FROM customer_operator WHERE operator_id = $1 AND external_customer_id = $2', OPERATOR, externalCustomerId)) {
      throw new Error('EXTERNAL_CUSTOMER_ID_TAKEN');
    }
    const known = await row(client, 'known', `SELECT ${CUSTOMER} FROM customer WHERE email = $1 OR phone = $2 LIMIT 1`, data.email, data.phone);
    const { line1, line2 = null, city, region = null, postalCode = null, country } = data.address;
    const customer = known ?? await row(client, 'insert', `INSERT INTO customer
        (id, email, phone, first_name, last_name, address, version, created_at, updated_at)
      VALUES ($1, $2, $3, $4, $5, $6, 1, now(), now()) RETURNING ${CUSTOMER}`,
    randomUUID(), data.email, data.phone, data.firstName, data.lastName, { line1, line2, city, region, postal_code: postalCode, country });
    await rows(client, 'link', `INSERT INTO customer_operator (operator_id, customer_id, external_customer_id, connected_at)
      VALUES ($1, $2, $3, now())`, OPERATOR, customer.id, externalCustomerId);
    await client.query('COMMIT');
    return { outcome: known ? 'CONNECTED' : 'CREATED', customer };
  } catch (error) {
    await client.query('ROLLBACK');
    throw error;
  } finally {
    client.release();
  }
}

const resolvers = {
  Query: {
    customer: (_, { by: { id, externalCustomerId } }) => id
      ? row(pool, 'by-id', `SELECT ${CUSTOMER} FROM customer WHERE id = $1`, id)
      : row(pool, 'by-external-id', `SELECT ${CUSTOMER} FROM customer_operator JOIN customer ON customer.id = customer_id
          WHERE operator_id = $1 AND external_customer_id = $2`, OPERATOR, externalCustomerId),
    operator: (_, { id }) => row(pool, 'operator', 'SELECT id, name FROM operator WHERE id = $1', id),
  },
  Operator: { customers: page },
  Address: { postalCode: (address) => address.postal_code },
  Customer: { createdAt: ({ createdAt }) => createdAt.toISOString(), updatedAt: ({ updatedAt }) => updatedAt.toISOString() },
  Mutation: {
    createCustomer: create,
    updateCustomer: async (_, { input: { customer, data } }) => ({
      customer: await row(pool, 'update', `UPDATE customer SET first_name = $2, version = version + 1, updated_at = now()
        WHERE id = $1 RETURNING ${CUSTOMER}`, customer.id, data.firstName),
    }),
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
app.addHook('onRequest', async (request, reply) => {
  if (!keys.has(request.headers.authorization)) return reply.code(401).send();
});
app.register(mercurius, { schema, resolvers, loaders, jit: 1 });
await app.listen({ host: '127.0.0.1', port: Number(PORT) });
