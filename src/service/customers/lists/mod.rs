//! Lists of customers: pages and counts.
//!
//! | module | contents |
//! | --- | --- |
//! | `filter` | the conditions of a list |
//! | `order` | the order of a list |
//! | `search` | the search by words: its plans, and its queries and filters |
//! | `parts` | the parts of a list, which the database reads |
//! | `sections` | the customers that come first in a list with a search, and a page of them and of the others |

mod filter;
mod order;
mod parts;
mod search;
mod sections;

pub use filter::{CustomerFilter, TimeRange};
pub use order::{CustomerOrder, CustomerOrderField};
pub use search::SearchPlan;

use std::iter::zip;
use std::sync::Arc;

use entity::value::OperatorId;
use sea_orm::{DbErr, QueryResult};

use super::row_reads::{customer_at, own_customer_at};
use super::{CustomerView, Customers};
use crate::database::pages::{self, Count, HasPosition, ListRequest, Page, PageRequest, Position, Section};
use crate::error::Error;
use crate::service::Caller;
use search::SearchToPlan;
use sections::{OwnRequest, SectionRequest};

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
    pub customers: Page<ListedCustomer>,
    /// The plan of the list's search, which a count of the same list also uses. `None` if the page was read without
    /// one.
    pub plan: Option<SearchPlan>,
}

/// A customer in a list.
#[derive(Clone)]
pub struct ListedCustomer {
    pub view: Arc<CustomerView>,
    position: Position,
}

impl HasPosition for ListedCustomer {
    fn position(&self) -> Position {
        self.position.clone()
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
    ) -> Result<Vec<Page<ListedCustomer>>, DbErr> {
        let requests = requests.iter().filter(|request| request.list.operator_for(caller).is_none());
        let pages =
            requests.map(|CustomerPageRequest { list, page, .. }| ListRequest::new(list.part_of_all(), page.clone()));
        let read = |row: &QueryResult| {
            let customer = customer_at(row, pages::ROW)?;
            let position = Position::by_id(*customer.id.as_uuid());
            Ok(ListedCustomer { view: Arc::new(CustomerView::new(customer, None)), position })
        };
        let position = |_, customer: &ListedCustomer| customer.position();
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
            Some(OwnRequest::new(operator, request))
        });
        let mut own: Vec<_> = own.collect();
        self.read_first_sections(&mut own).await?;
        let searches = own.iter_mut().filter_map(OwnRequest::search_to_plan).collect();
        search::plan(self.database.reader(), searches).await?;
        let mut pages = self.planned_pages(&own).await?;
        self.read_short_pages_again(&own, &mut pages).await?;
        Ok(pages)
    }

    /// Reads the first sections of pages that they may fill. If the first section fills a page, the other customers of
    /// the list are not searched.
    async fn read_first_sections(&self, own: &mut [OwnRequest<'_>]) -> Result<(), DbErr> {
        let own = own.iter_mut().filter(|own| own.reads_first_section_alone());
        let (requests, own): (Vec<_>, Vec<_>) =
            own.filter_map(|own| Some((own.request_of_section(Section::First)?, own))).unzip();
        for (own, first) in zip(own, self.sections(requests).await?) {
            own.set_page_of_first_section(first);
        }
        Ok(())
    }

    /// Reads those pages a second time that a search has not filled, if a better plan is found for the search.
    ///
    /// A search that checked customers one by one and did not fill its page probably matches few customers. If another
    /// plan can sort these customers, the page is read with that plan, which fills the page unless the list ends. This
    /// does not hold with further conditions: the second page could be short too.
    async fn read_short_pages_again(&self, own: &[OwnRequest<'_>], pages: &mut [CustomerPage]) -> Result<(), DbErr> {
        let is_short = |own: &OwnRequest<'_>, page: &CustomerPage| {
            own.plan == Some(SearchPlan::CheckAll)
                && page.customers.scanned_to.is_some()
                && !own.request.list.filter.has_conditions()
        };
        let short = zip(own, pages).filter(|(own, page)| is_short(own, page));
        let mut short: Vec<_> = short.map(|(own, page)| (OwnRequest::new(own.operator, own.request), page)).collect();
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
    async fn planned_pages(&self, own: &[OwnRequest<'_>]) -> Result<Vec<CustomerPage>, DbErr> {
        let (mut requests, mut counts) = (Vec::new(), Vec::new());
        for own in own {
            let sections = [Section::First, Section::Others];
            let sections: Vec<_> = sections.into_iter().filter_map(|section| own.request_of_section(section)).collect();
            counts.push(sections.len());
            requests.extend(sections);
        }
        let mut pages = self.sections(requests).await?.into_iter();
        Ok(zip(own, counts).map(|(own, count)| own.join_sections(pages.by_ref().take(count))).collect())
    }

    /// Loads pages of sections.
    async fn sections(&self, requests: Vec<SectionRequest<'_>>) -> Result<Vec<Page<ListedCustomer>>, DbErr> {
        let read = |row: &QueryResult| Ok(Arc::new(CustomerView::from(own_customer_at(row, pages::ROW)?)));
        let split = |SectionRequest { list, section, request }| ((list, section), request);
        let (lists, requests): (Vec<(&CustomerList, _)>, Vec<_>) = requests.into_iter().map(split).unzip();
        let position = |index: usize, view: &Arc<CustomerView>| {
            let (list, section) = lists[index];
            list.position(view, section)
        };
        let pages = pages::pages(self.database.reader(), requests, read, position).await?.into_iter();
        let listed = |(index, page): (usize, Page<_>)| {
            page.map(|view| ListedCustomer { position: position(index, &view), view })
        };
        Ok(pages.enumerate().map(listed).collect())
    }

    /// Counts the customers of each list. With the plan that the page of a list used, the count reads the same rows as
    /// the page. If the page needed no plan, the count chooses one. An operator sees only its own customers.
    pub async fn counts(
        &self,
        caller: &Caller,
        lists: &[(Arc<CustomerList>, Option<SearchPlan>)],
    ) -> Result<Vec<Count>, Error> {
        let mut lists: Vec<_> =
            lists.iter().map(|(list, plan)| (list, list.operator_for(caller), plan.clone())).collect();
        let unplanned = lists.iter_mut().filter(|(_, _, plan)| plan.is_none());
        let searches = unplanned.filter_map(|(list, operator, plan)| {
            Some(SearchToPlan { operator: (*operator)?, search: list.search_with_plan()?, plan })
        });
        search::plan(self.database.reader(), searches.collect()).await?;
        let parts = lists.iter().map(|(list, operator, plan)| match *operator {
            None => vec![list.part_of_all()],
            Some(operator) => {
                let first_section = list.part_of_first_section(operator);
                list.parts_of_others(operator, plan.as_ref()).into_iter().chain(first_section).collect()
            }
        });
        Ok(pages::list_counts(self.database.reader(), parts.collect()).await?)
    }
}

impl CustomerList {
    /// The operator whose customers the caller sees in this list. `None` for all customers.
    fn operator_for(&self, caller: &Caller) -> Option<OperatorId> {
        caller.operator().or(self.operator)
    }
}
