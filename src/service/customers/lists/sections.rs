//! The sections of a list. In some lists with a search, the customers that the search most likely means come first.

use entity::value::{EmailAddress, OperatorId, SearchWord};

use super::search::SearchToPlan;
use super::{CustomerList, CustomerPage, CustomerPageRequest, ListedCustomer, SearchPlan};
use crate::database::pages::{Direction, ListRequest, Page, PageRequest, Section};

/// The customers that come first in a list with a search. The other customers follow, as the second section. Each
/// section is in the order of the customer ids.
#[derive(Clone, Copy)]
pub(super) enum FirstSection<'l> {
    /// The search is an email: the customer with this email, also if the email has more words than are stored.
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

/// A request for a page of a list of an operator's customers.
pub(super) struct OwnRequest<'r> {
    pub(super) operator: OperatorId,
    pub(super) request: &'r CustomerPageRequest,
    /// The plan of the list's search. `None` until a plan is chosen, and if the list needs no plan.
    pub(super) plan: Option<SearchPlan>,
    /// The page of the first section of the list, if it was read before the other customers.
    page_of_first_section: Option<Page<ListedCustomer>>,
}

impl<'r> OwnRequest<'r> {
    pub(super) fn new(operator: OperatorId, request: &'r CustomerPageRequest) -> Self {
        Self { operator, request, plan: None, page_of_first_section: None }
    }

    /// The search of the list, if the page needs a plan.
    pub(super) fn search_to_plan(&mut self) -> Option<SearchToPlan<'_>> {
        let search = self.request.list.search_with_plan()?;
        self.request_of_others()?;
        Some(SearchToPlan { operator: self.operator, search, plan: &mut self.plan })
    }

    /// Returns true if the first section is read before a plan is chosen, because it may fill the page.
    pub(super) fn reads_first_section_alone(&self) -> bool {
        let CustomerPageRequest { list, page, .. } = self.request;
        page.direction == Direction::Forward && matches!(list.first_section(), Some(FirstSection::WithNamePair(_)))
    }

    pub(super) fn set_page_of_first_section(&mut self, mut first: Page<ListedCustomer>) {
        let page = &self.request.page;
        // The other customers are not read, so there may be more.
        if first.rows.len() == page.size && page.request_of_section(Section::Others).is_some() {
            first.set_has_more();
        }
        self.page_of_first_section = Some(first);
    }

    /// The request for the customers after the first section. `None` if none of them is between the positions of the
    /// page, or if the page ends in the first section.
    fn request_of_others(&self) -> Option<PageRequest> {
        let CustomerPageRequest { list, page, .. } = self.request;
        if list.first_section().is_none() {
            return Some(page.clone());
        }
        let ends_in_first_section = self.page_of_first_section.as_ref().is_some_and(Page::has_more);
        page.request_of_section(Section::Others).filter(|_| !ends_in_first_section)
    }

    /// The request for the page of a section. `None` if this section need not be read, or has been read.
    pub(super) fn request_of_section(&self, section: Section) -> Option<SectionRequest<'r>> {
        let CustomerPageRequest { list, page, .. } = self.request;
        let (parts, request) = match section {
            Section::First if self.page_of_first_section.is_some() => return None,
            Section::First => {
                (vec![list.part_of_first_section(self.operator)?], page.request_of_section(Section::First)?)
            }
            Section::Others => {
                let request = self.request_of_others()?;
                (list.parts_of_others(self.operator, self.plan.as_ref()), request)
            }
        };
        Some(SectionRequest { list, section, request: ListRequest { parts, request } })
    }

    /// Joins the pages of the requested sections.
    pub(super) fn join_sections(&self, pages: impl Iterator<Item = Page<ListedCustomer>>) -> CustomerPage {
        let mut pages: Vec<_> = self.page_of_first_section.iter().cloned().chain(pages).collect();
        // The page of the first section was read earlier. Since then, the names of a customer may have changed.
        if let [first, others] = pages.as_mut_slice() {
            others.rows.retain(|other| first.rows.iter().all(|row| row.view.customer.id != other.view.customer.id));
        }
        CustomerPage { customers: self.request.page.join_sections(pages), plan: self.plan.clone() }
    }
}

/// A request for a page of a section of a list.
pub(super) struct SectionRequest<'r> {
    pub(super) list: &'r CustomerList,
    pub(super) section: Section,
    pub(super) request: ListRequest,
}
