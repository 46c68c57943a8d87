//! What resolvers of many rows ask for, fetched together. A loader belongs to one request.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use async_graphql::dataloader;
use entity::value::{ApiKeyId, CustomerId, OperatorId};
use entity::{api_key, customer_event, customer_operator, operator};

use super::api_key::KeysOf;
use super::history::HistoryOf;
use crate::database::pages::{Page, PageRequest};
use crate::error::Error;
use crate::service::customers::{CustomerList, CustomerPage, CustomerView};
use crate::service::{Actor, Services};

pub struct Loader {
    pub actor: Actor,
    pub services: Arc<Services>,
}

impl dataloader::Loader<OperatorId> for Loader {
    type Value = Arc<operator::Model>;
    type Error = Error;

    async fn load(&self, keys: &[OperatorId]) -> Result<HashMap<OperatorId, Arc<operator::Model>>, Error> {
        self.services.operators.find(&self.actor, keys).await
    }
}

impl dataloader::Loader<CustomerPage> for Loader {
    type Value = Page<CustomerView>;
    type Error = Error;

    async fn load(&self, keys: &[CustomerPage]) -> Result<HashMap<CustomerPage, Page<CustomerView>>, Error> {
        Ok(by_key(keys, self.services.customers.pages(&self.actor, keys).await?))
    }
}

/// The lengths of lists.
impl dataloader::Loader<Arc<CustomerList>> for Loader {
    type Value = u64;
    type Error = Error;

    async fn load(&self, keys: &[Arc<CustomerList>]) -> Result<HashMap<Arc<CustomerList>, u64>, Error> {
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

impl dataloader::Loader<HistoryOf> for Loader {
    type Value = Page<customer_event::Model>;
    type Error = Error;

    async fn load(&self, keys: &[HistoryOf]) -> Result<HashMap<HistoryOf, Page<customer_event::Model>>, Error> {
        let lists: Vec<_> = keys.iter().map(|HistoryOf(customer, request)| (*customer, request.clone())).collect();
        Ok(by_key(keys, self.services.history.pages(&self.actor, &lists).await?))
    }
}

impl dataloader::Loader<ApiKeyId> for Loader {
    type Value = api_key::Model;
    type Error = Error;

    async fn load(&self, keys: &[ApiKeyId]) -> Result<HashMap<ApiKeyId, api_key::Model>, Error> {
        self.services.api_keys.find(&self.actor, keys).await
    }
}

impl dataloader::Loader<KeysOf> for Loader {
    type Value = Vec<api_key::Model>;
    type Error = Error;

    async fn load(&self, keys: &[KeysOf]) -> Result<HashMap<KeysOf, Vec<api_key::Model>>, Error> {
        let operators: Vec<_> = keys.iter().map(|KeysOf(operator)| *operator).collect();
        let found = self.services.api_keys.by_operator(&self.actor, &operators).await?;
        Ok(found.into_iter().map(|(operator, keys)| (KeysOf(operator), keys)).collect())
    }
}

fn by_key<K: Clone + Eq + Hash, V>(keys: &[K], values: Vec<V>) -> HashMap<K, V> {
    keys.iter().cloned().zip(values).collect()
}
