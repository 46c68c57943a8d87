//! Pages of the links of a customer, for single customers and for all customers of a page.

use std::borrow::Cow;
use std::sync::Arc;

use entity::customer_operator;
use entity::value::CustomerId;
use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter, QueryResult, QueryTrait};

use super::row_reads::{Link, link_at};
use super::{CustomerPage, CustomerPageRequest, CustomerView, Customers};
use crate::database::pages::{self, HasPosition, ListPart, Page, PageRequest, Position, SortKey};
use crate::error::Error;
use crate::service::Caller;

impl Customers {
    /// Returns pages of the links of customers, oldest first. An operator sees only its own link.
    pub async fn link_pages(
        &self,
        caller: &Caller,
        requests: &[(CustomerId, PageRequest)],
    ) -> Result<Vec<Page<Arc<Link>>>, Error> {
        use customer_operator::Column;
        let links = |owner: Condition| {
            let links = customer_operator::Entity::find()
                .filter(owner)
                .apply_if(caller.operator(), |links, own| links.filter(Column::OperatorId.eq(own)));
            ListPart::new(links.into_query(), vec![Column::ConnectedAt.into_expr(), Column::OperatorId.into_expr()])
        };
        let read = |row: &QueryResult| {
            let link = link_at(row, pages::ROW)?;
            Ok((link.customer_id, Arc::new(link)))
        };
        Ok(pages::pages_by_owner(self.database.reader(), requests, Column::CustomerId, links, read).await?)
    }

    /// Adds a page of links to each customer in `pages`. Skips the customers of pages whose requests do not ask for
    /// links.
    pub(super) async fn add_links(
        &self,
        caller: &Caller,
        requests: &[CustomerPageRequest],
        pages: &mut [CustomerPage],
    ) -> Result<(), Error> {
        let mut owners = Vec::new();
        for (request, page) in requests.iter().zip(&*pages) {
            if let Some(links) = &request.links {
                owners.extend(page.customers.rows.iter().map(|row| (row.view.customer.id, links.clone())));
            }
        }
        let mut found = self.link_pages(caller, &owners).await?.into_iter();
        for (request, page) in requests.iter().zip(pages) {
            let Some(links) = &request.links else { continue };
            for row in &mut page.customers.rows {
                // Not copied, because nothing else refers to the view yet.
                Arc::make_mut(&mut row.view).links = found.next().map(|page| (links.clone(), page));
            }
        }
        Ok(())
    }
}

impl CustomerView {
    /// Returns a page of [`Customers::link_pages`] for this customer if no query is needed: an operator sees only its
    /// own link. For the platform, the page may have been read together with the customer.
    pub fn links_in_memory(&self, caller: &Caller, request: &PageRequest) -> Option<Cow<'_, Page<Arc<Link>>>> {
        if let (Some(link), Some(_)) = (&self.link, caller.operator()) {
            // An operator sees only its own link.
            return Some(Cow::Owned(request.of_one(Arc::new(link.clone()))));
        }
        self.links.as_ref().filter(|(read, _)| read == request).map(|(_, page)| Cow::Borrowed(page))
    }
}

impl HasPosition for Link {
    /// The link's position among the links of its customer.
    fn position(&self) -> Position {
        Position { sort_key: SortKey::Time(self.connected_at), id: *self.operator_id.as_uuid() }
    }
}
