//! What resolvers of many rows ask for, fetched together. A loader belongs to one request.

use std::collections::HashMap;
use std::hash::Hash;

use async_graphql::dataloader;
use entity::value::{CustomerId, OperatorId};
use entity::{customer_operator, operator};

use crate::error::Error;
use crate::service::customers::{CustomerList, CustomerView};
use crate::service::page::{Page, PageRequest};
use crate::service::{Actor, Services};

pub struct Loader {
    pub actor: Actor,
    pub services: Services,
}

impl dataloader::Loader<OperatorId> for Loader {
    type Value = operator::Model;
    type Error = Error;

    async fn load(&self, keys: &[OperatorId]) -> Result<HashMap<OperatorId, operator::Model>, Error> {
        self.services.operators.find(&self.actor, keys).await
    }
}

impl dataloader::Loader<(CustomerList, PageRequest)> for Loader {
    type Value = Page<CustomerView>;
    type Error = Error;

    async fn load(
        &self,
        keys: &[(CustomerList, PageRequest)],
    ) -> Result<HashMap<(CustomerList, PageRequest), Page<CustomerView>>, Error> {
        Ok(by_key(keys, self.services.customers.pages(&self.actor, keys).await?))
    }
}

/// The lengths of lists.
impl dataloader::Loader<CustomerList> for Loader {
    type Value = u64;
    type Error = Error;

    async fn load(&self, keys: &[CustomerList]) -> Result<HashMap<CustomerList, u64>, Error> {
        Ok(by_key(keys, self.services.customers.counts(&self.actor, keys).await?))
    }
}

/// The links of customers.
impl dataloader::Loader<(CustomerId, PageRequest)> for Loader {
    type Value = Page<customer_operator::Model>;
    type Error = Error;

    async fn load(
        &self,
        keys: &[(CustomerId, PageRequest)],
    ) -> Result<HashMap<(CustomerId, PageRequest), Page<customer_operator::Model>>, Error> {
        Ok(by_key(keys, self.services.customers.operators(&self.actor, keys).await?))
    }
}

fn by_key<K: Clone + Eq + Hash, V>(keys: &[K], values: Vec<V>) -> HashMap<K, V> {
    keys.iter().cloned().zip(values).collect()
}
