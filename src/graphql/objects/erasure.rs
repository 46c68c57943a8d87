//! `Erasure` and the list of erasures.

use async_graphql::connection::EmptyFields;
use async_graphql::{Context, ID, Object, SimpleObject};
use entity::erasure;
use entity::value::ErasureId;

use crate::database::pages::HasPosition;
use crate::error::Error;
use crate::graphql::context::{caller, require_platform, services};
use crate::graphql::cursor::{Cursor, Cursors, ListId};
use crate::graphql::json_writer::WriteJson;
use crate::graphql::pagination::{Connection, Edge, PageArguments};
use crate::graphql::time::Time;

pub struct Erasure(pub erasure::Model);

impl Erasure {
    /// Returns the receipt, or `None` if it does not exist or the caller may not see it.
    pub async fn find(context: &Context<'_>, id: ErasureId) -> Result<Option<Self>, Error> {
        Ok(services(context).customers.find_erasure(caller(context), id).await?.map(Self))
    }
}

/// Receipt for the erasure of a customer. Contains no personal data.
#[Object]
impl Erasure {
    /// Global id, for example `era_01h455vb4pex5vsknk084sn02q`.
    pub async fn id(&self) -> ID {
        self.0.id.to_string().into()
    }

    /// Id that the customer had. `customerEvents` returns the history of this customer, without values.
    async fn customer_id(&self) -> ID {
        self.0.customer_id.to_string().into()
    }

    /// Time of the erasure.
    async fn erased_at(&self) -> Time {
        Time(self.0.erased_at)
    }

    /// Reference that the platform gave to the erasure.
    async fn reference(&self) -> &str {
        self.0.reference.as_str()
    }

    /// Id of the request that erased the customer, as in the `x-request-id` response header. For a command: the id of
    /// the command run.
    async fn request_id(&self) -> String {
        self.0.request_id.to_string()
    }

    /// Number of operators that the customer was connected to when it was erased.
    async fn operators(&self) -> i32 {
        self.0.operators
    }

    /// Number of history entries that the customer had. Their values are null now.
    async fn entries(&self) -> i32 {
        self.0.entries
    }
}

pub type ErasureConnection = Connection<ErasureEdge>;

/// A receipt in a list.
#[derive(SimpleObject)]
pub struct ErasureEdge {
    /// Cursor of this receipt, for `after` and `before`.
    cursor: Cursor,
    /// The receipt.
    node: Erasure,
}

impl ErasureConnection {
    /// Reads a page of the receipts.
    pub async fn load(context: &Context<'_>, arguments: PageArguments) -> Result<Self, Error> {
        let (services, caller) = require_platform(context)?;
        let cursors = Cursors::new(context, ListId::Erasures);
        let page = services.customers.erasures(caller, arguments.parse(Some(&cursors))?).await?;
        let edge = |cursor, row| ErasureEdge { cursor, node: Erasure(row) };
        Ok(Self::new(page, &cursors, HasPosition::position, EmptyFields, edge))
    }
}

impl Edge for ErasureEdge {
    type Node = Erasure;

    fn node(&self) -> &Erasure {
        &self.node
    }
}

impl WriteJson for Erasure {}
