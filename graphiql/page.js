'use strict';

// Nothing that is typed here outlives the page: neither a key nor a customer.
const kept = new Map();
const storage = {
  get length() {
    return kept.size;
  },
  getItem: (name) => kept.get(name) ?? null,
  setItem: (name, value) => void kept.set(name, value),
  removeItem: (name) => void kept.delete(name),
  clear: () => kept.clear(),
};

const headers = JSON.stringify({ Authorization: 'Bearer YOUR_KEY' }, null, 2);

const customer = '{ id externalCustomerId email phone firstName lastName missingFields version }';

const examples = [
  {
    query: `# Welcome. Put your key into the Headers editor below, then run this.
query Viewer {
  viewer { environment role operator { id name } }
}
`,
  },
  {
    query: `mutation CreateCustomer($input: CreateCustomerInput!) {
  createCustomer(input: $input) {
    outcome
    matchedBy
    unappliedFields
    warnings { code message inputPath }
    customer ${customer}
  }
}
`,
    variables: {
      input: {
        externalCustomerId: 'user-1',
        data: { email: 'ada@example.com', phone: '+14155552671', firstName: 'Ada', lastName: 'Lovelace' },
      },
    },
  },
  {
    query: `mutation UpdateCustomer($input: UpdateCustomerInput!) {
  updateCustomer(input: $input) {
    warnings { code message inputPath }
    customer ${customer}
  }
}
`,
    variables: { input: { customer: { externalCustomerId: 'user-1' }, data: { lastName: 'King' } } },
  },
  {
    query: `query Customer($by: CustomerRef!) {
  customer(by: $by) ${customer}
}
`,
    variables: { by: { externalCustomerId: 'user-1' } },
  },
  {
    query: `query Customers($after: String) {
  customers(first: 20, after: $after) {
    totalCount
    pageInfo { hasNextPage endCursor }
    edges { connectedAt node ${customer} }
  }
}
`,
    variables: { after: null },
  },
];

const tabs = examples.map(({ query, variables }) => ({
  query,
  variables: variables && JSON.stringify(variables, null, 2),
  headers,
}));

// The documentation is there before a key is typed: the schema is no secret, what it holds is.
const send = GraphiQL.createFetcher({ url: '/graphql' });
const introspection = fetch('/graphiql/introspection.json').then((answer) => answer.json());
const fetcher = (request, options) =>
  request.operationName === 'IntrospectionQuery' ? introspection : send(request, options);

ReactDOM.createRoot(document.getElementById('graphiql')).render(
  React.createElement(GraphiQL, {
    fetcher,
    defaultTabs: tabs,
    defaultHeaders: headers,
    defaultEditorToolsVisibility: 'headers',
    shouldPersistHeaders: false,
    inputValueDeprecation: true,
    storage,
  }),
);
