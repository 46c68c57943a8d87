//! The batch loader of one request: each implementation answers all keys of one kind with one service call.
//!
//! A loader belongs to one request and one caller, so a row that one caller loads never reaches another.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use async_graphql::dataloader;
use entity::value::{ApiKeyId, CustomerId, OperatorId};
use entity::{api_key, customer_event, customer_operator, operator};

use crate::database::pages::{Page, PageRequest};
use crate::error::Error;
use crate::service::customers::{CustomerList, CustomerPage, CustomerView};
use crate::service::{Actor, Services};

pub struct Loader {
    pub actor: Actor,
    pub services: Arc<Services>,
}

/// Key of a page of the operators that a customer is connected to.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct OperatorsOfCustomer(pub CustomerId, pub PageRequest);

/// Key of a page of a customer's history.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HistoryOfCustomer(pub CustomerId, pub PageRequest);

/// Key of all API keys of an operator.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ApiKeysOfOperator(pub OperatorId);

impl dataloader::Loader<OperatorId> for Loader {
    type Value = Arc<operator::Model>;
    type Error = Error;

    async fn load(&self, keys: &[OperatorId]) -> Result<HashMap<OperatorId, Self::Value>, Error> {
        self.services.operators.find(&self.actor, keys).await
    }
}

impl dataloader::Loader<CustomerPage> for Loader {
    type Value = Page<CustomerView>;
    type Error = Error;

    async fn load(&self, keys: &[CustomerPage]) -> Result<HashMap<CustomerPage, Self::Value>, Error> {
        Ok(by_key(keys, self.services.customers.pages(&self.actor, keys).await?))
    }
}

/// Loads the lengths of lists.
impl dataloader::Loader<Arc<CustomerList>> for Loader {
    type Value = u64;
    type Error = Error;

    async fn load(&self, keys: &[Arc<CustomerList>]) -> Result<HashMap<Arc<CustomerList>, u64>, Error> {
        Ok(by_key(keys, self.services.customers.counts(&self.actor, keys).await?))
    }
}

impl dataloader::Loader<OperatorsOfCustomer> for Loader {
    type Value = Page<customer_operator::Model>;
    type Error = Error;

    async fn load(&self, keys: &[OperatorsOfCustomer]) -> Result<HashMap<OperatorsOfCustomer, Self::Value>, Error> {
        let lists: Vec<_> = keys.iter().map(|key| (key.0, key.1.clone())).collect();
        Ok(by_key(keys, self.services.customers.operators(&self.actor, &lists).await?))
    }
}

impl dataloader::Loader<HistoryOfCustomer> for Loader {
    type Value = Page<customer_event::Model>;
    type Error = Error;

    async fn load(&self, keys: &[HistoryOfCustomer]) -> Result<HashMap<HistoryOfCustomer, Self::Value>, Error> {
        let lists: Vec<_> = keys.iter().map(|key| (key.0, key.1.clone())).collect();
        Ok(by_key(keys, self.services.customers.histories(&self.actor, &lists).await?))
    }
}

impl dataloader::Loader<ApiKeyId> for Loader {
    type Value = api_key::Model;
    type Error = Error;

    async fn load(&self, keys: &[ApiKeyId]) -> Result<HashMap<ApiKeyId, api_key::Model>, Error> {
        self.services.api_keys.find(&self.actor, keys).await
    }
}

impl dataloader::Loader<ApiKeysOfOperator> for Loader {
    type Value = Vec<api_key::Model>;
    type Error = Error;

    async fn load(&self, keys: &[ApiKeysOfOperator]) -> Result<HashMap<ApiKeysOfOperator, Self::Value>, Error> {
        let operators: Vec<_> = keys.iter().map(|key| key.0).collect();
        let keys_by_operator = self.services.api_keys.by_operator(&self.actor, &operators).await?;
        Ok(keys_by_operator.into_iter().map(|(operator, keys)| (ApiKeysOfOperator(operator), keys)).collect())
    }
}

/// Pairs each key with its value; both are in the same order.
fn by_key<K: Clone + Eq + Hash, V>(keys: &[K], values: Vec<V>) -> HashMap<K, V> {
    keys.iter().cloned().zip(values).collect()
}
