import type { GraphQLFormattedError } from 'graphql';
import type { ErrorCode, ErrorExtensions } from './gql/schema';

/** The extensions of an error. Every error of the API has them. */
export const extensions = (error: GraphQLFormattedError) => error.extensions as ErrorExtensions;

export type Remedy =
  | 'correct the field'
  | 'use the customer' // with the id `extensions.customerId`, if it is the same person; otherwise correct the field
  | 'delete an endpoint'
  | 'reload'
  | 'read all customers again'
  | 'retry'
  | 'retry once, then report'
  | 'request access'
  | 'report';

/** The action that the user can take after an error. The compiler requires every known code here. Unknown codes are reported. */
export function remedy(code: ErrorCode): Remedy {
  switch (code) {
    case 'INVALID_EXTERNAL_CUSTOMER_ID':
    case 'INVALID_EMAIL':
    case 'INVALID_PHONE':
    case 'INVALID_NAME':
    case 'INVALID_ADDRESS':
    case 'INVALID_URL':
    case 'DISPOSABLE_EMAIL':
    case 'PLUS_SUFFIX_EMAIL':
    case 'PHONE_NOT_MOBILE':
    case 'IDENTITY_CONFLICT':
      return 'correct the field';
    case 'EXTERNAL_CUSTOMER_ID_TAKEN':
    case 'EMAIL_TAKEN':
    case 'PHONE_TAKEN':
      return 'use the customer';
    case 'TOO_MANY_WEBHOOKS':
      return 'delete an endpoint';
    case 'VERSION_CONFLICT':
    case 'CUSTOMER_NOT_FOUND':
    case 'OPERATOR_NOT_FOUND':
    case 'API_KEY_NOT_FOUND':
    case 'WEBHOOK_NOT_FOUND':
      return 'reload';
    case 'CURSOR_EXPIRED':
      return 'read all customers again';
    case 'PHONE_LOOKUP_UNAVAILABLE':
    case 'RATE_LIMITED':
    case 'UNAVAILABLE':
      return 'retry';
    case 'UNAUTHENTICATED':
    case 'FORBIDDEN':
      return 'request access';
    case 'INVALID_ARGUMENT':
    case 'IDEMPOTENCY_KEY_REUSED':
    case 'RESPONSE_TOO_LARGE':
    case 'BAD_REQUEST':
    case 'PERSISTED_QUERY_NOT_SUPPORTED':
      return 'report';
    case 'INTERNAL':
      return 'retry once, then report';
    default: {
      const unknown: never = code;
      console.error(`unknown code ${unknown}`);
      return 'report';
    }
  }
}
