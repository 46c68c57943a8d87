'use strict';

// The tabs that GraphiQL opens with if the browser has no saved tabs. Each tab has one operation with its variables,
// except the last tab, which has several operations. `tests/clients/graphiql.js` checks the tabs against the schema.

const examples = [
  {
    query: `# Paste your API key into the field above,
# then press the play button.
#
# The other tabs are examples: run and change
# them. This browser keeps your tabs, but not
# your key.
query Viewer {
  viewer {
    environment
    role
    operator {
      id
      name
    }
  }
}
`,
  },
  {
    query: `mutation CreateCustomer($input: CreateCustomerInput!) {
  createCustomer(input: $input) {
    outcome
    matchedBy
    unappliedFields
    warnings {
      code
      message
      inputPath
    }
    customer {
      id
      email
      phone
      firstName
      lastName
      missingFields
      version
    }
  }
}
`,
    variables: {
      input: {
        externalCustomerId: 'user-2',
        data: {
          email: 'grace@example.com',
          phone: '+14155552671',
          firstName: 'Grace',
          lastName: 'Brewster',
        },
      },
    },
  },
  {
    query: `mutation UpdateCustomer($input: UpdateCustomerInput!) {
  updateCustomer(input: $input) {
    warnings {
      code
      message
      inputPath
    }
    customer {
      id
      firstName
      lastName
      version
    }
  }
}
`,
    variables: {
      input: {
        customer: { externalCustomerId: 'user-2' },
        data: { lastName: 'Hopper' },
      },
    },
  },
  {
    query: `query Customer($by: CustomerRef!) {
  customer(by: $by) {
    id
    externalCustomerId
    email
    phone
    firstName
    lastName
    missingFields
    version
  }
}
`,
    variables: { by: { externalCustomerId: 'user-2' } },
  },
  {
    query: `# For the next page, set "after" in the variables
# to the endCursor of this page.
query Search($text: String!, $after: String) {
  customers(
    first: 20
    after: $after
    filter: { search: $text }
  ) {
    totalCount
    pageInfo {
      hasNextPage
      endCursor
    }
    nodes {
      id
      email
      firstName
      lastName
    }
  }
}
`,
    variables: { text: 'grace exam', after: null },
  },
  {
    query: `# For the next page, set "after" in the variables
# to the endCursor of this page.
query Customers(
  $after: String
  $filter: CustomerFilter
  $orderBy: CustomerOrder
) {
  customers(
    first: 20
    after: $after
    filter: $filter
    orderBy: $orderBy
  ) {
    totalCount
    pageInfo {
      hasNextPage
      endCursor
    }
    edges {
      connectedAt
      node {
        id
        email
        missingFields
      }
    }
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
    query: `# Checks the input of createCustomer. Writes nothing.
query ValidateCustomer($input: CreateCustomerInput!) {
  validateCustomer(input: $input) {
    email
    phone
    faults {
      code
      message
      inputPath
    }
    warnings {
      code
      message
      inputPath
    }
  }
}
`,
    variables: {
      input: {
        externalCustomerId: 'user-3',
        data: { email: 'ada+1@example.com', phone: '(415) 555-2671' },
      },
    },
  },
  {
    query: `query History($by: CustomerRef!) {
  customer(by: $by) {
    history {
      nodes {
        type
        occurredAt
        version
        changedFields
        before {
          email
          phone
          firstName
          lastName
        }
        after {
          email
          phone
          firstName
          lastName
        }
      }
    }
  }
}
`,
    variables: { by: { externalCustomerId: 'user-2' } },
  },
  {
    query: `# The operator of your key, and its API keys.
query Operator {
  operator {
    id
    name
    createdAt
    apiKeys {
      id
      name
      prefix
      access
      expiresAt
      lastUsedAt
      revokedAt
    }
  }
}
`,
  },
  {
    query: `# These operations need the platform key.
# The play button asks which one to run.
mutation CreateOperator {
  createOperator(input: { name: "Acme" }) {
    operator {
      id
    }
    apiKey {
      id
    }
    secret
  }
}

mutation CreateApiKey($operator: ID!) {
  createApiKey(
    input: {
      operatorId: $operator
      name: "Dashboard"
      access: READ_ONLY
    }
  ) {
    apiKey {
      id
    }
    secret
  }
}

mutation RevokeApiKey($key: ID!) {
  revokeApiKey(input: { id: $key }) {
    apiKey {
      id
      revokedAt
    }
  }
}

query Operators {
  operators {
    totalCount
    nodes {
      id
      name
    }
  }
}
`,
    variables: { operator: 'op_…', key: 'key_…' },
  },
];
