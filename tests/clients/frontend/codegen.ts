import type { CodegenConfig } from '@graphql-codegen/cli';

const config: CodegenConfig = {
  schema: 'schema.graphql',
  documents: 'src/**/*.{ts,tsx}',
  ignoreNoDocuments: true,
  config: { scalars: { DateTime: 'string' }, strictScalars: true, enumsAsTypes: true, useTypeImports: true },
  generates: {
    'src/gql/': { preset: 'client' },
    'src/gql/schema.ts': { plugins: ['typescript'] },
  },
};
export default config;
