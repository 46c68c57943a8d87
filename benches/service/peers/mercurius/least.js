// Keys that are compared as text, and writes that store only the customer and its link.
import { randomUUID } from 'node:crypto';
import { CUSTOMER, pool, row, rows, stored } from './database.js';

const { KEYS, OPERATOR } = process.env;
const keys = new Set(KEYS.split(',').map((key) => `Bearer ${key}`));

export const callerOf = (authorization) => keys.has(authorization) ? { operator: OPERATOR } : undefined;

export const seesAllLinks = () => true;

export const findById = (_, id) => row(pool, 'by-id', `SELECT ${CUSTOMER} FROM customer WHERE id = $1`, id);

export async function create({ operator }, { externalCustomerId, data }) {
  const client = await pool.connect();
  try {
    await client.query('BEGIN');
    if (await row(client, 'taken', 'SELECT 1 FROM customer_operator WHERE operator_id = $1 AND external_customer_id = $2', operator, externalCustomerId)) {
      throw new Error('EXTERNAL_CUSTOMER_ID_TAKEN');
    }
    const known = await row(client, 'known', `SELECT ${CUSTOMER} FROM customer WHERE email = $1 OR phone = $2 LIMIT 1`, data.email, data.phone);
    const customer = known ?? await row(client, 'insert', `INSERT INTO customer
        (id, email, phone, first_name, last_name, address, version, created_at, updated_at)
      VALUES ($1, $2, $3, $4, $5, $6, 1, now(), now()) RETURNING ${CUSTOMER}`,
    randomUUID(), data.email, data.phone, data.firstName, data.lastName, data.address && stored(data.address));
    await rows(client, 'link', `INSERT INTO customer_operator (operator_id, customer_id, external_customer_id, connected_at)
      VALUES ($1, $2, $3, now())`, operator, customer.id, externalCustomerId);
    await client.query('COMMIT');
    return { outcome: known ? 'CONNECTED' : 'CREATED', customer };
  } catch (error) {
    await client.query('ROLLBACK');
    throw error;
  } finally {
    client.release();
  }
}

export const update = (_, { customer, data }) => row(pool, 'update', `UPDATE customer
  SET first_name = $2, version = version + 1, updated_at = now() WHERE id = $1 RETURNING ${CUSTOMER}`, customer.id, data.firstName);
