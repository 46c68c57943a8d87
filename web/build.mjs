// Fills dist/ with the files that the binary serves. build.rs runs this script as `npm run build`, after `npm ci`.
import { cpSync } from 'node:fs';

const files = {
  'graphiql/index.html': 'graphiql/index.html',
  'graphiql/examples.js': 'graphiql/examples.js',
  'graphiql/page.css': 'graphiql/page.css',
  'graphiql/page.js': 'graphiql/page.js',
  'graphiql/react.js': 'node_modules/react/umd/react.production.min.js',
  'graphiql/react-dom.js': 'node_modules/react-dom/umd/react-dom.production.min.js',
  'graphiql/graphiql.js': 'node_modules/graphiql/graphiql.min.js',
  'graphiql/graphiql.css': 'node_modules/graphiql/graphiql.min.css',
};
for (const [target, source] of Object.entries(files)) cpSync(source, `dist/${target}`);
