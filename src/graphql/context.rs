//! Access to the data of a request from inside a resolver.

use std::sync::Arc;

use crate::service::{Actor, AdminOrigin, RequestInfo, Services};
use async_graphql::{Context, ContextBase};

/// The caller.
pub fn actor<'c, T>(context: &ContextBase<'c, T>) -> &'c Actor {
    context.data_unchecked::<Actor>()
}

pub fn request_info<'c>(context: &Context<'c>) -> &'c RequestInfo {
    context.data_unchecked::<RequestInfo>()
}

/// The origin of an administrative change that this request makes.
pub fn admin_origin(context: &Context<'_>) -> AdminOrigin {
    AdminOrigin::Request { request: request_info(context).clone(), key: actor(context).key() }
}

pub fn services<'c, T>(context: &ContextBase<'c, T>) -> &'c Services {
    context.data_unchecked::<Arc<Services>>()
}
