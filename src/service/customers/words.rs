//! Writes the search words of each link: the words of its customer, and the words of its external id.
//!
//! Each link has its own rows in `customer_word`, so a search reads the words of one operator only. If a value of a
//! customer changes, its words change for all operators of the customer.

use std::iter::zip;

use entity::customer_word::Column;
use entity::value::{PersonName, PhoneNumber, SearchWord};
use entity::{customer, customer_operator, customer_word};
use sea_orm::sea_query::{Expr, ExprTrait, OnConflict, Query};
use sea_orm::{ColumnTrait, IdenStatic, Iterable};

use super::row_reads::Link;
use crate::database::{WriteSet, WriteStatement, delete_in_cte, insert_from_cte, insert_from_select};

/// A place among the words of a link, and the word at this place. `None` removes the word.
type PlacedWord = (i16, Option<SearchWord>);

/// Writes words of customers for all their operators.
const REPLACE: WriteStatement = WriteStatement {
    name: "replace words",
    columns: || [Column::CustomerId, Column::Place, Column::Word].map(|column| column.as_str()).to_vec(),
    build: |new, _| {
        let new_value = |column| Expr::col((new.clone(), column));
        let links = Query::select()
            .expr(customer_operator::Column::OperatorId.into_expr())
            .exprs([Column::CustomerId, Column::Place, Column::Word].map(new_value))
            .from(new.clone())
            .inner_join(
                customer_operator::Entity,
                customer_operator::Column::CustomerId.into_expr().eq(new_value(Column::CustomerId)),
            )
            .and_where(Expr::cust("TRUE"))
            .take();
        Box::new(insert_from_select::<customer_word::Entity>(links).on_conflict(replace_word()).take())
    },
    must_write_all: false,
};

/// Writes words of one link.
const REPLACE_OF_LINK: WriteStatement = WriteStatement {
    name: "replace words of links",
    columns: || Column::iter().map(|column| column.as_str()).collect(),
    build: |new, _| Box::new(insert_from_cte::<customer_word::Entity>(new).on_conflict(replace_word()).take()),
    must_write_all: false,
};

/// Replaces the word that is stored at the same place.
fn replace_word() -> OnConflict {
    OnConflict::columns([Column::OperatorId, Column::CustomerId, Column::Place]).update_column(Column::Word).to_owned()
}

/// Deletes all words of links.
const REMOVE: WriteStatement = WriteStatement {
    name: "remove words",
    columns: || LINK.map(|column| column.as_str()).to_vec(),
    build: |new, _| Box::new(delete_in_cte::<customer_word::Entity>(new, &LINK)),
    must_write_all: false,
};

const LINK: [Column; 2] = [Column::OperatorId, Column::CustomerId];

/// A value whose words find the customer.
#[derive(PartialEq, Eq)]
enum Searchable<'c> {
    Text(&'c str),
    Domain(&'c str),
    Phone(&'c PhoneNumber),
    FullName(&'c PersonName, &'c PersonName),
}

/// The place of the first word of a value, and the value. The further words have the places after it. A value has at
/// most 24 words: 12, and 12 more of the Unicode form of an email domain.
type PlacedValue<'c> = (i16, Option<Searchable<'c>>);

/// The searchable values of a customer.
fn searchable(customer: &customer::Model) -> [PlacedValue<'_>; 6] {
    let full_name = customer.first_name.as_ref().zip(customer.last_name.as_ref());
    // The places are stored, so they must not change.
    [
        (0, Some(Searchable::Text(customer.email.local_part()))),
        (1000, Some(Searchable::Domain(customer.email.domain()))),
        (2000, customer.first_name.as_ref().map(|name| Searchable::Text(name.as_str()))),
        (3000, customer.last_name.as_ref().map(|name| Searchable::Text(name.as_str()))),
        (4000, customer.phone.as_ref().map(Searchable::Phone)),
        (5000, full_name.map(|(first, last)| Searchable::FullName(first, last))),
    ]
}

/// The place of the first word of the external id. Stored, like the places in [`searchable`].
const EXTERNAL_ID_PLACE: i16 = -1000;

impl Searchable<'_> {
    fn words(&self) -> Vec<SearchWord> {
        match self {
            Self::Text(text) => SearchWord::tokenize(text),
            Self::Domain(domain) => {
                let unicode = idna::domain_to_unicode(domain).0;
                let unicode_words = if unicode == *domain { Vec::new() } else { SearchWord::tokenize(&unicode) };
                [SearchWord::tokenize(domain), unicode_words].concat()
            }
            Self::Phone(phone) => SearchWord::of_phone(phone),
            Self::FullName(first, last) => SearchWord::of_full_name(first, last),
        }
    }
}

/// Returns the words of a searchable value. The words are the same for all operators.
fn words_of_value((first_place, value): &PlacedValue<'_>) -> Vec<PlacedWord> {
    let words = value.iter().flat_map(Searchable::words);
    (*first_place..).zip(words.map(Some)).collect()
}

/// The words of the external id.
fn words_of_link(link: &Link) -> Vec<PlacedWord> {
    let words = SearchWord::tokenize(link.external_customer_id.as_str()).into_iter().map(Some);
    (EXTERNAL_ID_PLACE..).zip(words).collect()
}

/// Returns the words to write when the words `old` are replaced by the words `new`. A place that no longer has a word
/// gets null.
fn changed_words(old: &[PlacedWord], new: &[PlacedWord]) -> Vec<PlacedWord> {
    let removed = old.get(new.len()..).unwrap_or_default().iter().map(|(place, _)| (*place, None));
    let added = new.iter().filter(|word| !old.contains(word)).cloned();
    removed.chain(added).collect()
}

/// Adds the words of a new link to the writes.
pub(super) fn add(writes: &mut WriteSet, link: &Link, customer: &customer::Model) {
    let words_of_customer = searchable(customer).into_iter().flat_map(|value| words_of_value(&value));
    let (operator_id, customer_id) = (link.operator_id, link.customer_id);
    let row = |(place, word)| customer_word::Model { operator_id, customer_id, place, word };
    writes.insert(words_of_link(link).into_iter().chain(words_of_customer).map(row));
}

/// Removes the words of links.
pub(super) fn remove(writes: &mut WriteSet, links: &[Link]) {
    let key = |link: &Link| vec![link.operator_id.into(), link.customer_id.into()];
    writes.push(REMOVE, links.iter().map(key).collect());
}

/// Adds writes for the words that differ between two external ids of a link.
pub(super) fn change_external_id(writes: &mut WriteSet, before: &Link, after: &Link) {
    let words = changed_words(&words_of_link(before), &words_of_link(after)).into_iter();
    let (operator, customer) = (after.operator_id, after.customer_id);
    let row = |(place, word): PlacedWord| vec![operator.into(), customer.into(), place.into(), word.into()];
    writes.push(REPLACE_OF_LINK, words.map(row).collect());
}

/// Adds writes for the words that differ between two states of a customer, for all operators.
pub(super) fn change(writes: &mut WriteSet, before: &customer::Model, after: &customer::Model) {
    let changed = zip(searchable(before), searchable(after)).filter(|(before, after)| before != after);
    let words = changed.flat_map(|(before, after)| changed_words(&words_of_value(&before), &words_of_value(&after)));
    writes.push(REPLACE, words.map(|(place, word)| vec![after.id.into(), place.into(), word.into()]).collect());
}
