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

const placeholder = 'Bearer YOUR_KEY';
const headers = JSON.stringify({ Authorization: placeholder }, null, 2);

const customer = '{ id externalCustomerId email phone firstName lastName missingFields version }';

const examples = [
  {
    query: `# Welcome. Put your key into the Headers editor
# below, then run this. The other tabs take the
# same key; their values are under Variables.
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
        externalCustomerId: 'user-2',
        data: { email: 'grace@example.com', phone: '+14155552671', firstName: 'Grace', lastName: 'Brewster' },
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
    variables: { input: { customer: { externalCustomerId: 'user-2' }, data: { lastName: 'Hopper' } } },
  },
  {
    query: `query Customer($by: CustomerRef!) {
  customer(by: $by) ${customer}
}
`,
    variables: { by: { externalCustomerId: 'user-2' } },
  },
  {
    query: `query Search($words: String!) {
  customers(first: 20, filter: { search: $words }) {
    edges { node ${customer} }
  }
}
`,
    variables: { words: 'grace exam' },
  },
  {
    query: `query Customers($after: String, $filter: CustomerFilter, $orderBy: CustomerOrder) {
  customers(first: 20, after: $after, filter: $filter, orderBy: $orderBy) {
    totalCount
    pageInfo { hasNextPage endCursor }
    edges { connectedAt node ${customer} }
  }
}
`,
    variables: {
      after: null,
      filter: { missing: ['ADDRESS'] },
      orderBy: { field: 'CONNECTED_AT', direction: 'DESC' },
    },
  },
  {
    query: `query ValidateCustomer($input: CreateCustomerInput!) {
  validateCustomer(input: $input) {
    email
    phone
    faults { code message inputPath }
    warnings { code message inputPath }
  }
}
`,
    variables: {
      input: { externalCustomerId: 'user-3', data: { email: 'ada+1@example.com', phone: '(415) 555-2671' } },
    },
  },
  {
    query: `query History($by: CustomerRef!) {
  customer(by: $by) {
    history {
      edges {
        node {
          type
          occurredAt
          version
          changedFields
          before { email phone firstName lastName }
          after { email phone firstName lastName }
        }
      }
    }
  }
}
`,
    variables: { by: { externalCustomerId: 'user-2' } },
  },
  {
    query: `query Operator {
  operator { id name createdAt apiKeys { id name prefix access expiresAt lastUsedAt revokedAt } }
}

query Operators {
  operators { totalCount edges { node { id name } } }
}

query Node($id: ID!) {
  node(id: $id) { __typename id }
}
`,
    variables: { id: 'cus_…' },
  },
  {
    query: `# These three are for the platform's own key.
mutation CreateOperator {
  createOperator(input: { name: "Acme" }) { operator { id } apiKey { id } secret }
}

mutation CreateApiKey($operator: ID!) {
  createApiKey(input: { operatorId: $operator, name: "Dashboard", access: READ_ONLY }) { apiKey { id } secret }
}

mutation RevokeApiKey($key: ID!) {
  revokeApiKey(input: { id: $key }) { apiKey { id revokedAt } }
}
`,
    variables: { operator: 'op_…', key: 'key_…' },
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

// A key is typed once: a tab that still has the placeholder takes the one that was used last.
let key = placeholder;
const withKey = (options) => {
  const name = Object.keys(options?.headers ?? {}).find((name) => name.toLowerCase() === 'authorization');
  const given = name && options.headers[name];
  if (given !== placeholder) key = given ?? key;
  return given === placeholder ? { ...options, headers: { ...options.headers, [name]: key } } : options;
};

const fetcher = (request, options) =>
  request.operationName === 'IntrospectionQuery' ? introspection : send(request, withKey(options));

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
