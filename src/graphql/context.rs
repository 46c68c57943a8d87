//! Access to the data of a request from inside a resolver.

use std::sync::Arc;

use crate::service::{Actor, AdminOrigin, RequestInfo, Services};
use async_graphql::Context;

/// The caller.
pub fn actor<'c>(context: &Context<'c>) -> &'c Actor {
    context.data_unchecked::<Actor>()
}

pub fn request_info<'c>(context: &Context<'c>) -> &'c RequestInfo {
    context.data_unchecked::<RequestInfo>()
}

/// The origin of an administrative change that this request makes.
pub fn admin_origin(context: &Context<'_>) -> AdminOrigin {
    AdminOrigin::Request { request: request_info(context).clone(), key: actor(context).key() }
}

pub fn services<'c>(context: &Context<'c>) -> &'c Services {
    context.data_unchecked::<Arc<Services>>()
}
