//! Write operations that store only the customer and its link.

use async_graphql::Result;
use deadpool_postgres::Object as Client;
use futures_util::future::{try_join, try_join3};
use tokio_postgres::types::{Json, ToSql};
use uuid::Uuid;

use crate::{CUSTOMER, CreateCustomerInput, CreateCustomerPayload, Customer, Outcome};

/// Creates or connects a customer in two round trips: begin and read, then insert and commit.
pub async fn create(client: &Client, operator: Uuid, input: &CreateCustomerInput) -> Result<CreateCustomerPayload> {
    let created = try_create(client, operator, input).await;
    if created.is_err() {
        client.batch_execute("ROLLBACK").await?;
    }
    created
}

async fn try_create(client: &Client, operator: Uuid, input: &CreateCustomerInput) -> Result<CreateCustomerPayload> {
    let CreateCustomerInput { external_customer_id, data } = input;
    let taken = "SELECT FROM customer_operator WHERE operator_id = $1 AND external_customer_id = $2";
    let known = format!("SELECT {CUSTOMER} FROM customer WHERE email = $1 OR phone = $2 LIMIT 1");
    let insert = format!(
        "INSERT INTO customer (id, email, phone, first_name, last_name, address, version, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, 1, now(), now()) RETURNING {CUSTOMER}"
    );
    let link = "INSERT INTO customer_operator (operator_id, customer_id, external_customer_id, connected_at) \
                VALUES ($1, $2, $3, now())";
    let (taken, known) = try_join(client.prepare_cached(taken), client.prepare_cached(&known)).await?;
    let (insert, link) = try_join(client.prepare_cached(&insert), client.prepare_cached(link)).await?;

    let (_, taken, known) = try_join3(
        client.batch_execute("BEGIN"),
        client.query_opt(&taken, &[&operator, external_customer_id]),
        client.query_opt(&known, &[&data.email, &data.phone]),
    )
    .await?;
    if taken.is_some() {
        return Err("EXTERNAL_CUSTOMER_ID_TAKEN".into());
    }
    let known = known.as_ref().map(Customer::from);
    let id = known.as_ref().map_or_else(Uuid::now_v7, |known| known.id);
    let outcome = if known.is_some() { Outcome::Connected } else { Outcome::Created };
    let address = data.address.as_ref().map(Json);
    let customer = async {
        match known {
            Some(known) => Ok(known),
            None => {
                let values: [&(dyn ToSql + Sync); 6] =
                    [&id, &data.email, &data.phone, &data.first_name, &data.last_name, &address];
                Ok(Customer::from(&client.query_one(&insert, &values).await?))
            }
        }
    };
    let values: [&(dyn ToSql + Sync); 3] = [&operator, &id, external_customer_id];
    let link = client.execute(&link, &values);
    let (customer, _, _) = try_join3(customer, link, client.batch_execute("COMMIT")).await?;
    Ok(CreateCustomerPayload { outcome, customer })
}

pub async fn update(client: &Client, id: Option<Uuid>, first_name: Option<String>) -> Result<Option<Customer>> {
    let sql = format!(
        "UPDATE customer SET first_name = $2, version = version + 1, updated_at = now() WHERE id = $1 \
         RETURNING {CUSTOMER}"
    );
    let statement = client.prepare_cached(&sql).await?;
    Ok(client.query_opt(&statement, &[&id, &first_name]).await?.as_ref().map(Customer::from))
}
