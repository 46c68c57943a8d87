//! Disconnects a customer from an operator.

use entity::customer_event::DisconnectReason;
use entity::operator;
use entity::value::{CustomerId, IdempotencyKey, OperatorId};
use sea_orm::{ActiveEnum, EntityTrait};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{CustomerRef, Customers, FoundOrReplay, Prepared, Replayable, change_rows};
use crate::database::{OptimisticWrite, TransactionError};
use crate::error::{Error, ErrorCode, InputField, Violation};
use crate::service::idempotency::IdempotentRequest;
use crate::service::{Caller, Origin, RequestInfo};

/// A request to disconnect a customer.
#[derive(Clone, Debug)]
pub struct DisconnectRequest {
    pub customer: CustomerRef,
    pub reason: DisconnectReason,
    /// The operator to disconnect from, if the platform sends the request.
    pub operator: Option<OperatorId>,
    pub idempotency_key: Option<IdempotencyKey>,
}

/// The result of [`Customers::disconnect`]. It has only the id, because the caller may not see the customer any more.
#[derive(Clone, Copy, Debug)]
pub struct Disconnected {
    pub customer: CustomerId,
    /// True if this is the stored result of an earlier request with the same idempotency key.
    pub replayed: bool,
}

impl Customers {
    /// Disconnects a customer from the caller's operator. If the platform calls, disconnects the customer from the
    /// given operator. The customer stays, even if it is connected to no operator any more.
    pub async fn disconnect(
        &self,
        caller: &Caller,
        request: &RequestInfo,
        disconnect: DisconnectRequest,
    ) -> Result<Disconnected, Error> {
        let origin = &caller.authorize_write(request)?;
        let idempotent =
            &IdempotentRequest::new(&self.hasher, origin, &disconnect.idempotency_key, || disconnect.canonical_json());
        let prepare = |attempt| self.prepare_disconnect(attempt, origin, idempotent, &disconnect);
        self.run_write("customer.disconnect", origin, idempotent, prepare).await
    }

    async fn prepare_disconnect(
        &self,
        attempt: OptimisticWrite,
        origin: &Origin,
        idempotent: &IdempotentRequest,
        disconnect: &DisconnectRequest,
    ) -> Result<Prepared<Disconnected>, TransactionError> {
        let not_found = || Violation::of(ErrorCode::CustomerNotFound, InputField::Customer);
        // The input of the platform always has an operator.
        let operator = origin.caller().operator().or(disconnect.operator).ok_or_else(not_found)?;
        let found = match self.find_own_or_replay(&attempt, operator, idempotent, &disconnect.customer).await? {
            FoundOrReplay::Found(found) => found,
            FoundOrReplay::Replay(stored) => return Ok(Prepared::Replay(stored)),
        };
        let Some(own) = found else {
            // Only the platform names an operator.
            let is_known =
                disconnect.operator.is_none() || operator::Entity::find_by_id(operator).one(&attempt).await?.is_some();
            let operator_not_found = || Violation::of(ErrorCode::OperatorNotFound, InputField::OperatorId);
            return Err(if is_known { not_found() } else { operator_not_found() }.into());
        };
        let writes = change_rows::disconnected(origin, &own.customer, &own.link, disconnect.reason);
        let result = Disconnected { customer: own.customer.id, replayed: false };
        Ok(Prepared::Write { attempt, writes, new_phone: None, result })
    }
}

/// The stored form of [`Disconnected`].
#[derive(Serialize, Deserialize)]
pub(super) struct StoredDisconnect {
    customer: uuid::Uuid,
}

impl Replayable for Disconnected {
    type Stored = StoredDisconnect;

    fn to_stored(&self) -> impl Serialize {
        StoredDisconnect { customer: *self.customer.as_uuid() }
    }

    async fn replay(_: &Customers, _: &Origin, stored: StoredDisconnect) -> Result<Self, TransactionError> {
        Ok(Self { customer: stored.customer.into(), replayed: true })
    }
}

impl DisconnectRequest {
    /// Returns the request as JSON. The JSON of two requests is equal if and only if the requests have the same values.
    fn canonical_json(&self) -> String {
        let Self { customer, reason, operator, idempotency_key: _ } = self;
        let operator = operator.map(|operator| operator.to_string());
        let customer = customer.canonical_json();
        let reason = reason.to_value();
        json!({ "disconnectCustomer": { "customer": customer, "operatorId": operator, "reason": reason } }).to_string()
    }
}

#[cfg(test)]
mod tests {
    use entity::value::ExternalCustomerId;

    use super::*;

    #[test]
    fn the_canonical_json_of_a_disconnect_does_not_change() {
        let mut disconnect = DisconnectRequest {
            customer: CustomerRef::ExternalCustomerId(ExternalCustomerId::parse("user-1").unwrap()),
            reason: DisconnectReason::NotThisPerson,
            operator: None,
            idempotency_key: None,
        };
        let own = r#"{"disconnectCustomer":{"customer":{"externalCustomerId":"user-1"},"operatorId":null,"reason":"not_this_person"}}"#;
        assert_eq!(disconnect.canonical_json(), own);
        disconnect.operator = OperatorId::parse("op_01h455vb4pex5vsknk084sn02q");
        for (reason, name) in [
            (DisconnectReason::NotThisPerson, "not_this_person"),
            (DisconnectReason::Ended, "ended"),
            (DisconnectReason::Mistake, "mistake"),
        ] {
            disconnect.reason = reason;
            let all = format!(
                r#"{{"disconnectCustomer":{{"customer":{{"externalCustomerId":"user-1"}},"operatorId":"op_01h455vb4pex5vsknk084sn02q","reason":"{name}"}}}}"#
            );
            assert_eq!(disconnect.canonical_json(), all);
        }
    }

    #[test]
    fn the_stored_result_of_a_disconnect_does_not_change() {
        let stored = json!({ "customer": "00000000-0000-0000-0000-000000000007" });
        assert_eq!(json!(StoredDisconnect { customer: uuid::Uuid::from_u128(7) }), stored);
    }
}
