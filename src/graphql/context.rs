//! Access to the data of a request from inside a resolver.

use std::sync::Arc;

use async_graphql::{Context, ContextBase};

use crate::error::Error;
use crate::request::ResponseSize;
use crate::service::{Caller, RequestInfo, Services};

/// The data of a request that resolvers use, except the loader (`fetch::loader`).
pub struct RequestData {
    pub caller: Caller,
    pub info: RequestInfo,
    /// The size of the response until now.
    pub response_size: Arc<ResponseSize>,
    /// False if async-graphql must resolve all objects.
    pub writes_json: bool,
}

pub fn request_data<'c, T>(context: &ContextBase<'c, T>) -> &'c RequestData {
    context.data_unchecked::<RequestData>()
}

/// The caller.
pub fn caller<'c, T>(context: &ContextBase<'c, T>) -> &'c Caller {
    &request_data(context).caller
}

pub fn request_info<'c>(context: &Context<'c>) -> &'c RequestInfo {
    &request_data(context).info
}

/// The services and the caller, if the caller is the platform. Fails with `FORBIDDEN` for other callers. A resolver
/// calls this function before it parses its input, so that `FORBIDDEN` takes precedence over violations of the input.
pub fn require_platform<'c>(context: &Context<'c>) -> Result<(&'c Services, &'c Caller), Error> {
    let caller = caller(context);
    caller.require_platform()?;
    Ok((services(context), caller))
}

/// The services and the caller, if the caller may write. Fails with `FORBIDDEN` for a read-only key. A resolver calls
/// this function before it parses its input, so that `FORBIDDEN` takes precedence over violations of the input.
pub fn require_writer<'c>(context: &Context<'c>) -> Result<(&'c Services, &'c Caller), Error> {
    let caller = caller(context);
    caller.require_write()?;
    Ok((services(context), caller))
}

pub fn services<'c, T>(context: &ContextBase<'c, T>) -> &'c Services {
    context.data_unchecked::<Arc<Services>>()
}
