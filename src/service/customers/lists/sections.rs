//! The sections of a list. In some lists with a search, the customers that the search most likely means come first.

use entity::value::{EmailAddress, OperatorId, SearchWord};

use super::search::SearchToPlan;
use super::{CustomerList, CustomerPage, CustomerPageRequest, ListedCustomer, SearchPlan};
use crate::database::pages::{ListPage, Page, PageRequest, Section};

/// The customers that come first in a list with a search. The other customers follow, as the second section. Each
/// section is in the order of the customer ids.
#[derive(Clone, Copy)]
pub(super) enum FirstSection<'l> {
    /// The search is an email: the customer with this email, even if some words of the email are not stored.
    WithEmail(&'l EmailAddress),
    /// The search has two words: the customers whose first and last name have these words. The database reads them in
    /// the order of an index, so a page of them costs the same even if many customers have each of the words.
    WithNamePair(&'l SearchWord),
}

impl CustomerList {
    /// The customers that come first in the list. `None` if the list has only one section.
    pub(super) fn first_section(&self) -> Option<FirstSection<'_>> {
        let search = self.filter.search.as_ref()?;
        let with_email = search.email().map(FirstSection::WithEmail);
        // A list of at most one customer has no order.
        let name_pair = search.name_pair().filter(|_| !self.filter.matches_at_most_one());
        with_email.or(name_pair.map(FirstSection::WithNamePair))
    }
}

/// A page to read of a list of an operator's customers.
pub(super) struct OwnPage<'r> {
    pub(super) operator: OperatorId,
    pub(super) request: &'r CustomerPageRequest,
    /// The plan of the list's search. `None` until a plan is chosen, and if the list needs no plan.
    pub(super) plan: Option<SearchPlan>,
    /// The page of the first section of the list, if it was read before the other customers.
    pub(super) first_section: Option<Page<ListedCustomer>>,
}

impl<'r> OwnPage<'r> {
    pub(super) fn new(operator: OperatorId, request: &'r CustomerPageRequest) -> Self {
        Self { operator, request, plan: None, first_section: None }
    }

    /// The search of the list, if the page needs a plan.
    pub(super) fn search_to_plan(&mut self) -> Option<SearchToPlan<'_>> {
        self.request_of_others()?;
        let search = self.request.list.planned_search()?;
        Some(SearchToPlan { operator: self.operator, search, plan: &mut self.plan })
    }

    /// The page of the customers after the first section. `None` if they are not read: if none of them is between the
    /// positions of the page, if the first section fills the page, or if a scan of the first section ended early.
    fn request_of_others(&self) -> Option<PageRequest> {
        let CustomerPageRequest { list, page, .. } = self.request;
        if list.first_section().is_none() {
            return Some(page.clone());
        }
        page.of_section(Section::Others).filter(|_| !self.is_filled_by_first_section())
    }

    fn is_filled_by_first_section(&self) -> bool {
        let is_filled = |first: &Page<_>| first.rows.len() == self.request.page.size || first.scanned_to.is_some();
        self.first_section.as_ref().is_some_and(is_filled)
    }

    /// The page of a section to read. `None` if it is not necessary to read this section.
    pub(super) fn page_of_section(&self, section: Section) -> Option<SectionPage<'r>> {
        let CustomerPageRequest { list, page, .. } = self.request;
        let (parts, request) = match section {
            Section::First if self.first_section.is_some() => return None,
            Section::First => (vec![list.part_of_first_section(self.operator)?], page.of_section(Section::First)?),
            Section::Others => {
                let request = self.request_of_others()?;
                (list.parts(self.operator, self.plan.as_ref()), request)
            }
        };
        Some(SectionPage { list, section, page: ListPage { parts, request } })
    }

    /// Joins the pages of the sections. `None` if a section was not read.
    pub(super) fn join_sections(
        &self,
        first: Option<Page<ListedCustomer>>,
        others: Option<Page<ListedCustomer>>,
    ) -> CustomerPage {
        let CustomerPageRequest { list: _, page, .. } = self.request;
        let mut customers = page.join_sections(first.or(self.first_section.clone()), others);
        // The other customers were not read, so there may be some.
        if self.is_filled_by_first_section() && page.of_section(Section::Others).is_some() {
            customers.set_has_more();
        }
        CustomerPage { customers, plan: self.plan.clone() }
    }
}

/// A page to read of a section of a list.
pub(super) struct SectionPage<'r> {
    pub(super) list: &'r CustomerList,
    pub(super) section: Section,
    pub(super) page: ListPage,
}
