// The pool, and queries with named prepared statements.
import pg from 'pg';

export const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 10 });

export const CUSTOMER = `customer.id, email, phone, first_name AS "firstName", last_name AS "lastName", address, version,
  created_at AS "createdAt", updated_at AS "updatedAt"`;
export const rows = async (client, name, text, ...values) => (await client.query({ name, text, values })).rows;
export const row = async (...query) => (await rows(...query))[0];

// The address of an input, as it is stored.
export const stored = ({ line1, line2 = null, city, region = null, postalCode = null, country }) =>
  ({ line1, line2, city, region, postal_code: postalCode, country });
