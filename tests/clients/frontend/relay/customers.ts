// Uses everything that Relay requires of a schema: connections, refetching by node id, and a mutation whose result is
// appended to a connection.
import { graphql } from 'relay-runtime';

export const list = graphql`
  fragment customers_list on Query
  @argumentDefinitions(first: { type: "Int", defaultValue: 20 }, after: { type: "String" })
  @refetchable(queryName: "customersListPageQuery") {
    customers(first: $first, after: $after) @connection(key: "customers_list_customers") {
      edges {
        node {
          id
          email
          ...customers_history
        }
      }
    }
  }
`;

export const history = graphql`
  fragment customers_history on Customer
  @argumentDefinitions(last: { type: "Int", defaultValue: 20 }, before: { type: "String" })
  @refetchable(queryName: "customersHistoryPageQuery") {
    history(last: $last, before: $before) @connection(key: "customers_history_history") {
      edges {
        node {
          occurredAt
        }
      }
    }
  }
`;

export const query = graphql`
  query customersQuery {
    ...customers_list
  }
`;

export const create = graphql`
  mutation customersCreateMutation($input: CreateCustomerInput!, $connections: [ID!]!) {
    createCustomer(input: $input) {
      customer @appendNode(connections: $connections, edgeTypeName: "CustomerEdge") {
        id
        email
      }
    }
  }
`;
