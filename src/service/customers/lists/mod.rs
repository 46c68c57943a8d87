//! Lists of customers: pages and counts.
//!
//! | module | contents |
//! | --- | --- |
//! | `filter` | the conditions of a list |
//! | `order` | the order of a list |
//! | `search` | the search by words: its plans, and its queries and filters |
//! | `parts` | the parts of a list, which the database reads |

mod filter;
mod order;
mod parts;
mod search;

pub use filter::{CustomerFilter, TimeRange};
pub use order::{CustomerOrder, CustomerOrderField};
pub use search::SearchPlan;

use std::iter::{self, zip};
use std::sync::Arc;

use entity::value::OperatorId;
use sea_orm::{DbErr, QueryResult};

use super::row_reads::{customer_at, own_customer_at};
use super::{CustomerView, Customers};
use crate::database::pages::{self, Count, ListPage, Page, PageRequest, Position};
use crate::error::Error;
use crate::service::Caller;
use search::SearchToPlan;

/// Selects a page of a list of customers. If `links` is given, each customer comes with that page of its links.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CustomerPageRequest {
    pub list: Arc<CustomerList>,
    pub page: PageRequest,
    pub links: Option<PageRequest>,
}

/// A page of a list of customers.
#[derive(Clone)]
pub struct CustomerPage {
    pub customers: Page<Arc<CustomerView>>,
    /// The plan of the list's search. `None` if the list needs no plan. A count of the same list uses the same plan.
    pub plan: Option<SearchPlan>,
}

/// A page to read of a list of an operator's customers.
struct OwnPage<'r> {
    operator: OperatorId,
    request: &'r CustomerPageRequest,
    /// The plan of the list's search. `None` until a plan is chosen, and if the list needs no plan.
    plan: Option<SearchPlan>,
}

impl OwnPage<'_> {
    /// The search of the list, if it needs a plan.
    fn search_to_plan(&mut self) -> Option<SearchToPlan<'_>> {
        let search = self.request.list.planned_search()?;
        Some(SearchToPlan { operator: self.operator, search, plan: &mut self.plan })
    }
}

/// A list of customers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CustomerList {
    /// The operator whose customers are listed. `None` for all customers, oldest first.
    pub operator: Option<OperatorId>,
    pub filter: CustomerFilter,
    /// The default order in a list of all customers and in a list with a search.
    pub order: CustomerOrder,
}

impl Customers {
    /// Loads pages of lists of customers. In each list, an operator sees only its own customers.
    pub async fn pages(&self, caller: &Caller, requests: &[CustomerPageRequest]) -> Result<Vec<CustomerPage>, Error> {
        let mut all = self.pages_of_all(caller, requests).await?.into_iter();
        let mut own = self.pages_of_operators(caller, requests).await?.into_iter();
        let next = |request: &CustomerPageRequest| {
            let page = match request.list.operator_for(caller) {
                Some(_) => own.next(),
                None => all.next().map(|customers| CustomerPage { customers, plan: None }),
            };
            page.ok_or_else(|| Error::internal("a page of customers is missing"))
        };
        let mut pages: Vec<_> = requests.iter().map(next).collect::<Result<_, _>>()?;
        self.add_links(caller, requests, &mut pages).await?;
        Ok(pages)
    }

    /// Loads only the pages that list all customers.
    async fn pages_of_all(
        &self,
        caller: &Caller,
        requests: &[CustomerPageRequest],
    ) -> Result<Vec<Page<Arc<CustomerView>>>, DbErr> {
        let requests = requests.iter().filter(|request| request.list.operator_for(caller).is_none());
        let pages =
            requests.map(|CustomerPageRequest { list, page, .. }| ListPage::new(list.list_of_all(), page.clone()));
        let read = |row: &QueryResult| Ok(Arc::new(CustomerView::new(customer_at(row, pages::ROW)?, None)));
        let position = |_, view: &Arc<CustomerView>| Position::by_id(*view.customer.id.as_uuid());
        pages::pages(self.database.reader(), pages.collect(), read, position).await
    }

    /// Loads only the pages that list the customers of an operator.
    async fn pages_of_operators(
        &self,
        caller: &Caller,
        requests: &[CustomerPageRequest],
    ) -> Result<Vec<CustomerPage>, DbErr> {
        let own = requests.iter().filter_map(|request| {
            let operator = request.list.operator_for(caller)?;
            Some(OwnPage { operator, request, plan: None })
        });
        let mut own: Vec<_> = own.collect();
        let searches = own.iter_mut().filter_map(OwnPage::search_to_plan).collect();
        search::plan(self.database.reader(), searches).await?;
        let mut pages = self.planned_pages(&own).await?;
        self.read_short_pages_again(&own, &mut pages).await?;
        Ok(pages)
    }

    /// Reads those pages a second time that a search has not filled, if a better plan is found for the search.
    ///
    /// A search that checked customers one by one and did not fill its page probably matches few customers. If another
    /// plan can sort these customers, the page is read with that plan, which fills the page unless the list ends. This
    /// does not hold with further conditions: the second page could be short too.
    async fn read_short_pages_again(&self, own: &[OwnPage<'_>], pages: &mut [CustomerPage]) -> Result<(), DbErr> {
        let is_short = |own: &OwnPage<'_>, page: &CustomerPage| {
            own.plan == Some(SearchPlan::ScanInIdOrder)
                && page.customers.scanned_to.is_some()
                && !own.request.list.filter.has_conditions()
        };
        let short = zip(own, pages).filter(|(own, page)| is_short(own, page));
        let mut short: Vec<_> = short.map(|(own, page)| (OwnPage { plan: None, ..*own }, page)).collect();
        if short.is_empty() {
            return Ok(());
        }
        let searches = short.iter_mut().filter_map(|(own, _)| own.search_to_plan()).collect();
        search::plan_to_sort(self.database.reader(), searches).await?;
        short.retain(|(own, _)| own.plan.is_some());
        let (own, short): (Vec<_>, Vec<_>) = short.into_iter().unzip();
        for (short, sorted) in zip(short, self.planned_pages(&own).await?) {
            *short = sorted;
        }
        Ok(())
    }

    /// Loads pages of lists of the customers of an operator.
    async fn planned_pages(&self, own: &[OwnPage<'_>]) -> Result<Vec<CustomerPage>, DbErr> {
        let pages = own.iter().flat_map(|OwnPage { operator, request, plan }| {
            let CustomerPageRequest { list, page, .. } = request;
            let unbounded = PageRequest { after: None, before: None, ..page.clone() };
            let first = list.searched_customer(*operator).map(|first| (ListPage::new(first, unbounded), list));
            let page = ListPage { parts: list.parts(*operator, plan.as_ref()), request: page.clone() };
            iter::once((page, list)).chain(first)
        });
        let (pages, customer_lists): (Vec<_>, Vec<_>) = pages.unzip();
        let read = |row: &QueryResult| Ok(Arc::new(CustomerView::from(own_customer_at(row, pages::ROW)?)));
        let position = |index: usize, view: &Arc<CustomerView>| customer_lists[index].position(view);
        let mut found = pages::pages(self.database.reader(), pages, read, position).await?.into_iter();
        let found_page = |OwnPage { operator: _, request, plan }: &OwnPage<'_>| {
            let CustomerPageRequest { list, page, .. } = request;
            let mut customers = found.next()?;
            let first = list.searched_email().and_then(|_| found.next()?.rows.into_iter().next());
            if let Some(row) = first {
                page.add_first(&mut customers, list.position(&row), row);
            }
            Some(CustomerPage { customers, plan: plan.clone() })
        };
        Ok(own.iter().filter_map(found_page).collect())
    }

    /// Counts the customers of each list. With the plan that the page of a list used, the count reads the same rows as
    /// the page. An operator sees only its own customers.
    pub async fn counts(
        &self,
        caller: &Caller,
        lists: &[(Arc<CustomerList>, Option<SearchPlan>)],
    ) -> Result<Vec<Count>, Error> {
        let lists = lists.iter().map(|(list, plan)| match list.operator_for(caller) {
            None => vec![list.list_of_all()],
            Some(operator) => {
                let parts = list.parts(operator, plan.as_ref());
                parts.into_iter().chain(list.searched_customer(operator)).collect()
            }
        });
        Ok(pages::list_counts(self.database.reader(), lists.collect()).await?)
    }
}

impl CustomerList {
    /// The operator whose customers the caller sees in this list. `None` for all customers.
    fn operator_for(&self, caller: &Caller) -> Option<OperatorId> {
        caller.operator().or(self.operator)
    }
}
