//! Access to the data of a request from inside a resolver.

use std::sync::Arc;

use async_graphql::Context;
use entity::value::RequestId;

use crate::service::{Actor, Services};

/// The caller.
pub fn actor<'c>(context: &Context<'c>) -> &'c Actor {
    context.data_unchecked::<Actor>()
}

pub fn request_id(context: &Context<'_>) -> RequestId {
    *context.data_unchecked::<RequestId>()
}

pub fn services<'c>(context: &Context<'c>) -> &'c Services {
    context.data_unchecked::<Arc<Services>>()
}
