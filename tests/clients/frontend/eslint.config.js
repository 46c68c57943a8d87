import graphql from '@graphql-eslint/eslint-plugin';

// `ErrorExtensions` describes the `extensions` of an error in a response, so no field returns this type. The field
// `Query.errors` exists only for the linter.
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
            // Connections, edges and payloads have no id. The records in them, for example customers, have one.
            suffixes: ['Connection', 'Edge', 'Payload'],
            types: [
              // The Relay specification defines the fields of PageInfo.
              'PageInfo',
              // Value objects.
              'Address',
              'CustomerValues',
              'CustomerWarning',
              // Results that are not stored.
              'ChangeFeed',
              'CustomerValidation',
              'ErrorExtensions',
              'Viewer',
            ],
          },
        },
      ],
      // The rule would report `Change.changedFields` as a field that repeats the name of its type.
      '@graphql-eslint/no-typename-prefix': 'off',
      // Short lists that are always complete are not connections: warnings, field names, the keys of an operator.
      '@graphql-eslint/relay-edge-types': ['error', { listTypeCanWrapOnlyEdgeType: false }],
    },
  },
];
