//! The first section of a list with a search: the customers that the search most likely means.

use entity::value::{EmailAddress, SearchWord};

use super::CustomerList;

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
