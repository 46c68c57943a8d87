import graphql from '@graphql-eslint/eslint-plugin';

// No field returns it, since it is what stands in `errors`; this one only the linter sees.
const errors = 'extend type Query { errors: [ErrorExtensions!]! }';

export default [
  {
    files: ['schema.graphql'],
    languageOptions: {
      parser: graphql.parser,
      parserOptions: { graphQLConfig: { schema: ['schema.graphql', errors] } },
    },
    plugins: { '@graphql-eslint': graphql },
    rules: {
      ...graphql.configs['flat/schema-recommended'].rules,
      ...graphql.configs['flat/schema-relay'].rules,
      '@graphql-eslint/strict-id-in-types': [
        'error',
        {
          exceptions: {
            // Places in a list and answers to a request: what they lead to has the id.
            suffixes: ['Connection', 'Edge', 'Payload'],
            types: [
              // The Relay specification says what its fields are.
              'PageInfo',
              // Values: two that are equal are the same.
              'Address',
              'CustomerValues',
              'CustomerWarning',
              // Answers that are kept nowhere, and so are never asked for again.
              'CustomerValidation',
              'ErrorExtensions',
              'Viewer',
            ],
          },
        },
      ],
      // Warnings, names of fields and an operator's keys are few, and always given in full.
      '@graphql-eslint/relay-edge-types': ['error', { listTypeCanWrapOnlyEdgeType: false }],
    },
  },
];
