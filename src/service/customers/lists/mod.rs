//! Lists of customers: pages and counts.
//!
//! | module | contents |
//! | --- | --- |
//! | `filter` | the conditions of a list |
//! | `order` | the order of a list |
//! | `first_section` | the customers that come first in a list with a search |
//! | `search` | the search by words: its plans, and its queries and filters |
//! | `parts` | the parts of a list, which the database reads |

mod filter;
mod first_section;
mod order;
mod parts;
mod search;

pub use filter::{CustomerFilter, TimeRange};
pub use order::{CustomerOrder, CustomerOrderField};
pub use search::SearchPlan;

use std::iter::zip;
use std::sync::Arc;

use entity::value::OperatorId;
use sea_orm::{DbErr, QueryResult};

use super::row_reads::{customer_at, own_customer_at};
use super::{CustomerView, Customers};
use crate::database::pages::{self, Count, Direction, ListPage, Page, PageRequest, Position, Section};
use crate::error::Error;
use crate::service::Caller;
use first_section::FirstSection;
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
    /// The page of the first section of the list, if it was read before the other customers.
    first: Option<Page<Arc<CustomerView>>>,
}

impl OwnPage<'_> {
    /// The search of the list, if it needs a plan.
    fn search_to_plan(&mut self) -> Option<SearchToPlan<'_>> {
        let search = self.request.list.planned_search()?;
        Some(SearchToPlan { operator: self.operator, search, plan: &mut self.plan })
    }

    /// Returns true if the page is complete without the other customers, because the first section fills it, or because
    /// a scan of the first section ended early.
    fn is_complete(&self) -> bool {
        let is_complete = |first: &Page<_>| first.rows.len() == self.request.page.size || first.scanned_to.is_some();
        self.first.as_ref().is_some_and(is_complete)
    }

    /// The page of the customers after the first section. `None` if the page has no such customers.
    fn page_of_others(&self) -> Option<ListPage> {
        let CustomerPageRequest { list, page, .. } = self.request;
        let request = match list.first_section() {
            Some(_) if self.is_complete() => return None,
            Some(_) => page.of_section(Section::Others)?,
            None => page.clone(),
        };
        Some(ListPage { parts: list.parts(self.operator, self.plan.as_ref()), request })
    }

    /// The page of the first section to read. `None` if the list or the page has no such section.
    fn page_of_first_section(&self) -> Option<ListPage> {
        let CustomerPageRequest { list, page, .. } = self.request;
        let part = list.part_of_first_section(self.operator, list.first_section()?);
        Some(ListPage::new(part, page.of_section(Section::First)?))
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
            Some(OwnPage { operator, request, plan: None, first: None })
        });
        let mut own: Vec<_> = own.collect();
        self.read_named_customers(&mut own).await?;
        let searches = own.iter_mut().filter(|own| !own.is_complete());
        let searches = searches.filter_map(OwnPage::search_to_plan).collect();
        search::plan(self.database.reader(), searches).await?;
        let mut pages = self.planned_pages(&own).await?;
        self.read_short_pages_again(&own, &mut pages).await?;
        Ok(pages)
    }

    /// Reads the customers whose names were searched, if a page starts with them. If they fill the page, the other
    /// customers are not searched.
    async fn read_named_customers(&self, own: &mut [OwnPage<'_>]) -> Result<(), DbErr> {
        let starts_with_named = |own: &&mut OwnPage<'_>| {
            let CustomerPageRequest { list, page, .. } = own.request;
            page.direction == Direction::Forward && matches!(list.first_section(), Some(FirstSection::Named(_)))
        };
        let own = own.iter_mut().filter(starts_with_named);
        let (pages, own): (Vec<_>, Vec<_>) = own.filter_map(|own| Some((own.page_of_first_section()?, own))).unzip();
        let lists: Vec<_> = own.iter().map(|own| &own.request.list).collect();
        for (own, first) in zip(own, self.sections(pages, &lists).await?) {
            own.first = Some(first);
        }
        Ok(())
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
        let mut short: Vec<_> = short.map(|(own, page)| (OwnPage { plan: None, first: None, ..*own }, page)).collect();
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

    /// Loads pages of lists of the customers of an operator, and adds the first sections that were read before.
    async fn planned_pages(&self, own: &[OwnPage<'_>]) -> Result<Vec<CustomerPage>, DbErr> {
        let (mut sections, mut lists, mut is_read) = (Vec::new(), Vec::new(), Vec::new());
        for own in own {
            let first = if own.first.is_none() { own.page_of_first_section() } else { None };
            let pages = [first, own.page_of_others()];
            is_read.push(pages.each_ref().map(Option::is_some));
            for page in pages.into_iter().flatten() {
                sections.push(page);
                lists.push(&own.request.list);
            }
        }
        let mut found = self.sections(sections, &lists).await?.into_iter();
        let page = |(own, is_read): (&OwnPage<'_>, [bool; 2])| {
            let [first, others] = is_read.map(|is_read| if is_read { found.next() } else { None });
            let mut customers = own.request.page.join_sections(first.or(own.first.clone()), others);
            if own.is_complete() {
                customers.set_has_more();
            }
            CustomerPage { customers, plan: own.plan.clone() }
        };
        Ok(zip(own, is_read).map(page).collect())
    }

    /// Loads pages of sections of lists. `lists` has the list of each page.
    async fn sections(
        &self,
        pages: Vec<ListPage>,
        lists: &[&Arc<CustomerList>],
    ) -> Result<Vec<Page<Arc<CustomerView>>>, DbErr> {
        let read = |row: &QueryResult| Ok(Arc::new(CustomerView::from(own_customer_at(row, pages::ROW)?)));
        let position = |index: usize, view: &Arc<CustomerView>| lists[index].position_in_section(view);
        pages::pages(self.database.reader(), pages, read, position).await
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
            Some(SearchToPlan { operator: (*operator)?, search: list.planned_search()?, plan })
        });
        search::plan(self.database.reader(), searches.collect()).await?;
        let parts = lists.iter().map(|(list, operator, plan)| match *operator {
            None => vec![list.list_of_all()],
            Some(operator) => {
                let first = list.first_section().map(|first| list.part_of_first_section(operator, first));
                list.parts(operator, plan.as_ref()).into_iter().chain(first).collect()
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
