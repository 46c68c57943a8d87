// PostGraphile 5 with the Amber preset on the tables of the service, for reads. PostGraphile generates the SQL. The server
// compares keys as text, has no limits, and writes no log.
import { createServer } from 'node:http';
import { postgraphile } from 'postgraphile';
import { makePgService } from 'postgraphile/adaptors/pg';
import { grafserv } from 'postgraphile/grafserv/node';
import { PostGraphileAmberPreset } from 'postgraphile/presets/amber';
import { jsonPgSmartTags } from 'postgraphile/utils';

const { DATABASE_URL, KEYS, PORT } = process.env;
const keys = new Set(KEYS.split(',').map((key) => `Bearer ${key}`));

// PostGraphile recognises unique constraints, but not unique indexes.
const uniqueIndexes = jsonPgSmartTags({
  version: 1,
  config: { class: { customer_operator: { tags: { unique: 'operator_id,external_customer_id' } } } },
});

const handle = postgraphile({
  extends: [PostGraphileAmberPreset],
  plugins: [uniqueIndexes],
  pgServices: [makePgService({ connectionString: DATABASE_URL, schemas: ['public'], poolConfig: { max: 10 } })],
  grafserv: { graphiql: false, websockets: false, watch: false, graphqlPath: '/graphql' },
}).createServ(grafserv).createHandler();

createServer((request, response) => {
  if (keys.has(request.headers.authorization)) return handle(request, response);
  response.writeHead(401).end();
}).listen(Number(PORT), '127.0.0.1');
