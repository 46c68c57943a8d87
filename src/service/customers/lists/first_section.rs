//! The first section of a list with a search: the customers that the search most likely means.

use entity::customer;
use entity::value::{EmailAddress, SearchWord};

use super::CustomerList;

/// The customers that come first in a list with a search. The other customers follow, as the second section. Each
/// section is in the order of the customer ids.
#[derive(Clone, Copy)]
pub(super) enum FirstSection<'l> {
    /// The search is an email: the customer with this email, even if some words of the email are not stored.
    WithEmail(&'l EmailAddress),
    /// The search has two words: the customers whose first and last name have these words. The database reads them in
    /// the order of an index, so the first page costs the same even if many customers have each of the words.
    Named(&'l SearchWord),
}

impl FirstSection<'_> {
    /// Returns true if the customer is in this section.
    pub(super) fn contains(self, customer: &customer::Model) -> bool {
        match self {
            Self::WithEmail(email) => customer.email == *email,
            Self::Named(pair) => {
                let full_name = customer.first_name.as_ref().zip(customer.last_name.as_ref());
                full_name.is_some_and(|(first, last)| SearchWord::of_full_name(first, last).contains(pair))
            }
        }
    }
}

impl CustomerList {
    /// The customers that come first in the list. `None` if the list has only one section.
    pub(super) fn first_section(&self) -> Option<FirstSection<'_>> {
        let search = self.filter.search.as_ref()?;
        let with_email = search.email().map(FirstSection::WithEmail);
        // A list of at most one customer has no order.
        let named = search.name_pair().filter(|_| !self.filter.matches_at_most_one());
        with_email.or(named.map(FirstSection::Named))
    }
}
