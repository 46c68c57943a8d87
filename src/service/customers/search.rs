//! Search by word prefixes: writes the words of each link, and finds the customers of an operator by these words.
//!
//! A search finds a customer if each word of the search is a prefix of one of the customer's words: `ada lov` finds Ada
//! Lovelace. If the search is an email, the customer that has this email comes first in the list. Each link has rows of
//! its own in `customer_word`, so a search reads the words of one operator only. A search with a rare word reads the
//! customers with that word. Other searches check the operator's customers one by one (see [`SearchPlan`]).

use entity::customer_word::Column;
use entity::value::{CustomerId, OperatorId, PersonName, PhoneNumber, QueryWord, SearchQuery, SearchWord};
use entity::{customer, customer_operator, customer_word};
use sea_orm::sea_query::{Alias, BinOper, Expr, ExprTrait, OnConflict, Query, SelectStatement, SimpleExpr};
use sea_orm::{
    ColumnTrait, Condition, DbErr, EntityTrait, IdenStatic, Iterable, QueryFilter, QueryOrder, QuerySelect, QueryTrait,
};

use super::Customers;
use super::rows::{Link, lock_own_customers};
use crate::database::pages::{MAX_WALK, WALK, Walk};
use crate::database::{
    Reader, TransactionError, Work, WriteSet, WriteStatement, delete_listed, insert_from_select, pages, record,
    with_retry,
};
use crate::error::Error;
use crate::service::Actor;

/// A place among the words of a link, and the word at this place. `None` removes the word.
type PlacedWord = (i16, Option<SearchWord>);

/// Writes words of customers for all their operators.
const REPLACE: WriteStatement = WriteStatement {
    name: "replace words",
    columns: || [Column::CustomerId, Column::Place, Column::Word].map(|column| column.as_str()).to_vec(),
    statement: |new| {
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
    multiplies: true,
};

/// Writes words of one link.
const REPLACE_OF_LINK: WriteStatement = WriteStatement {
    name: "replace words of links",
    columns: || Column::iter().map(|column| column.as_str()).collect(),
    statement: |new| {
        let words =
            Query::select().exprs(Column::iter().map(Expr::col)).from(new.clone()).and_where(Expr::cust("TRUE")).take();
        Box::new(insert_from_select::<customer_word::Entity>(words).on_conflict(replace_word()).take())
    },
    must_write_all: false,
    multiplies: false,
};

/// Replaces the word that is stored at the same place.
fn replace_word() -> OnConflict {
    OnConflict::columns([Column::OperatorId, Column::CustomerId, Column::Place]).update_column(Column::Word).to_owned()
}

/// Deletes all words of links.
const REMOVE: WriteStatement = WriteStatement {
    name: "remove words",
    columns: || LINK.map(|column| column.as_str()).to_vec(),
    statement: |new| Box::new(delete_listed::<customer_word::Entity>(new, &LINK)),
    must_write_all: false,
    multiplies: false,
};

const LINK: [Column; 2] = [Column::OperatorId, Column::CustomerId];

/// The work to sort an index entry, as a multiple of the work to count an entry.
const ENTRIES_PER_SORTED_ENTRY: u64 = 4;

/// The work to choose the plan of a search and to run the plan, as a multiple of the work of a query by id. The work
/// for index entries and checked customers is counted separately.
const QUERIES_PER_SEARCH: u64 = 10;

/// The number of places for the words of one value. No value is long enough to have more words.
const PLACES_PER_VALUE: i16 = 1000;

/// A value whose words find the customer.
#[derive(PartialEq, Eq)]
enum Searchable<'c> {
    Text(&'c str),
    Domain(&'c str),
    Phone(&'c PhoneNumber),
    FullName(&'c PersonName, &'c PersonName),
}

/// The searchable values of a customer. The places of a value's words start at the index of the value ×
/// [`PLACES_PER_VALUE`], so the order of the values must not change.
fn searchable(customer: &customer::Model) -> [Option<Searchable<'_>>; 6] {
    [
        Some(Searchable::Text(customer.email.local_part())),
        Some(Searchable::Domain(customer.email.domain())),
        customer.first_name.as_ref().map(|name| Searchable::Text(name.as_str())),
        customer.last_name.as_ref().map(|name| Searchable::Text(name.as_str())),
        customer.phone.as_ref().map(Searchable::Phone),
        customer
            .first_name
            .as_ref()
            .zip(customer.last_name.as_ref())
            .map(|(first, last)| Searchable::FullName(first, last)),
    ]
}

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

/// Returns the words of the searchable value with this index. The words are the same for all operators.
fn words_of_value(index: i16, value: &Option<Searchable<'_>>) -> Vec<PlacedWord> {
    let words = value.iter().flat_map(Searchable::words);
    (index * PLACES_PER_VALUE..).zip(words.map(Some)).collect()
}

/// The words of the external id. Their places are below the places of the words of the customer's values.
fn words_of_link(link: &Link) -> Vec<PlacedWord> {
    let words = SearchWord::tokenize(link.external_customer_id.as_str()).into_iter().map(Some);
    (-PLACES_PER_VALUE..).zip(words).collect()
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
    let values = (0..).zip(searchable(customer));
    let words_of_customer = values.flat_map(|(index, value)| words_of_value(index, &value));
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
pub(super) fn rename(writes: &mut WriteSet, before: &Link, after: &Link) {
    let words = changed_words(&words_of_link(before), &words_of_link(after)).into_iter();
    let (operator, customer) = (after.operator_id, after.customer_id);
    let row = |(place, word): PlacedWord| vec![operator.into(), customer.into(), place.into(), word.into()];
    writes.push(REPLACE_OF_LINK, words.map(row).collect());
}

/// Adds writes for the words that differ between two states of a customer, for all operators.
pub(super) fn change(writes: &mut WriteSet, before: &customer::Model, after: &customer::Model) {
    let values = (0..).zip(searchable(before).into_iter().zip(searchable(after)));
    let changed = values.filter(|(_, (before, after))| before != after);
    let words = changed.flat_map(|(index, (before, after))| {
        changed_words(&words_of_value(index, &before), &words_of_value(index, &after))
    });
    writes.push(REPLACE, words.map(|(place, word)| vec![after.id.into(), place.into(), word.into()]).collect());
}

impl Customers {
    /// Adds words to the links that have none, for example after an upgrade from a version without search.
    pub async fn add_missing_words(&self, actor: &Actor) -> Result<(), Error> {
        actor.require_platform()?;
        let mut last = None;
        loop {
            last = with_retry("customer.words", || self.try_add_missing_words(last)).await?;
            if last.is_none() {
                return Ok(());
            }
        }
    }

    /// Adds words to a batch of links that come after the given link. Returns the last link of the batch, or `None` if
    /// there are no more links.
    async fn try_add_missing_words(
        &self,
        after: Option<(OperatorId, CustomerId)>,
    ) -> Result<Option<(OperatorId, CustomerId)>, TransactionError> {
        use customer_operator::Column::{CustomerId, OperatorId};
        const BATCH: usize = 500;
        let transaction = self.database.begin_write().await?;
        let words = customer_word::Entity::find()
            .select_only()
            .column(Column::Place)
            .filter(Column::OperatorId.into_expr().eq(OperatorId.into_expr()))
            .filter(Column::CustomerId.into_expr().eq(CustomerId.into_expr()));
        let position = Expr::tuple([OperatorId.into_expr(), CustomerId.into_expr()]);
        let without_words = customer_operator::Entity::find()
            .inner_join(customer::Entity)
            .select_also(customer::Entity)
            .filter(Expr::exists(words.into_query()).not())
            .apply_if(after, |links, (operator, customer)| {
                links.filter(position.gt(Expr::tuple([Expr::val(operator), Expr::val(customer)])))
            })
            .order_by_asc(OperatorId)
            .order_by_asc(CustomerId)
            .limit(BATCH as u64);
        let links = lock_own_customers(&transaction, without_words).await?;
        // Concurrent writes of these customers wait for the locks. On PostgreSQL, the statement of such a write does
        // not see the words that this transaction adds, so it would not delete them. The new revision of the customer
        // makes the write fail with a conflict and run again.
        let customers = links.iter().map(|(_, customer)| customer.id);
        let next_revision = customer::Column::Revision.into_expr().add(1);
        let update = customer::Entity::update_many().col_expr(customer::Column::Revision, next_revision);
        update.filter(customer::Column::Id.is_in(customers)).exec(&transaction).await?;
        for (link, customer) in &links {
            let mut writes = WriteSet::new(link.operator_id);
            add(&mut writes, link, customer);
            transaction.write(writes).await?;
        }
        transaction.commit().await?;
        Ok(links.get(BATCH - 1).map(|(link, _)| (link.operator_id, link.customer_id)))
    }
}

/// The plan of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SearchPlan {
    /// The word with this index is the rarest word of the search, and it is rare (see `rare_limit`): sort the customers
    /// that have this word, then check the other words.
    FromRarestWord {
        index: usize,
        /// The number of index entries of the word.
        entries: u64,
    },
    /// No word is rare: check the operator's customers one by one, in the order of their ids, until the page is full.
    ScanInIdOrder,
}

/// The maximum number of index entries (rows of `customer_word`) of a rare word. It limits the number of customers that
/// must be sorted. For a search with one word the limit is lower: if the word is common, many customers have it, so
/// checking the customers one by one soon fills a page.
fn rare_limit(search: &SearchQuery) -> usize {
    if search.words().len() == 1 { 10_000 } else { 100_000 }
}

/// Chooses a plan for each search.
pub(super) async fn plans(reader: &Reader, searches: &[(OperatorId, &SearchQuery)]) -> Result<Vec<SearchPlan>, DbErr> {
    let mut queries = Vec::new();
    for (operator, search) in searches {
        let bound = rare_limit(search) + 1;
        queries.extend(search.words().iter().map(|word| (customers_with(*operator, word), bound)));
    }
    let mut counts = pages::counts(reader, queries).await?.into_iter();
    let plan = |(_, search): &(OperatorId, &SearchQuery)| {
        let counts = counts.by_ref().take(search.words().len());
        let rarest = counts.enumerate().min_by_key(|(_, count)| *count);
        let is_rare = |(_, count): &(usize, u64)| *count <= rare_limit(search) as u64;
        let from_rarest = |(index, entries)| SearchPlan::FromRarestWord { index, entries };
        rarest.filter(is_rare).map_or(SearchPlan::ScanInIdOrder, from_rarest)
    };
    Ok(searches.iter().map(plan).collect())
}

/// Returns the query for the customers that a search checks, and the [`Walk`] with the filters that each customer must
/// match. The query selects the id of the customer and of the operator.
pub(super) fn walk(operator: OperatorId, search: &SearchQuery, plan: SearchPlan) -> (SelectStatement, Walk) {
    let rarest = match plan {
        SearchPlan::FromRarestWord { index, entries } => search.words().get(index).map(|word| (index, word, entries)),
        SearchPlan::ScanInIdOrder => None,
    };
    let columns = [Column::CustomerId, Column::OperatorId];
    let rows = match rarest {
        Some((_, word, _)) => {
            // The limit excludes no row. Without the limit, the databases would not use the index on words. They would
            // read the primary key, which is in the order of the customer ids, to avoid the sort.
            let all = customers_with(operator, word).column(Column::OperatorId).limit(u64::from(u32::MAX)).take();
            Query::select().distinct().columns(columns).from_subquery(all, "all").take()
        }
        None => {
            let mut links = Query::select().columns(columns).from(customer_operator::Entity).take();
            links.and_where(Expr::col(Column::OperatorId).eq(operator)).take()
        }
    };
    let rarest = rarest.map(|(index, _, entries)| (index, entries));
    let others =
        search.words().iter().enumerate().filter(|(index, _)| rarest.is_none_or(|(rarest, _)| rarest != *index));
    let customer = || Expr::col((Alias::new(WALK), Column::CustomerId));
    let mut filters: Vec<_> = others.map(|(_, word)| words_of_customer(operator, customer(), word)).collect();
    if search.words().is_empty() {
        filters.push(Query::select().expr(Expr::cust("NULL")).take());
        return (rows, Walk { filters, max_rows: 0, milestones: &[] });
    }
    record(Work::Query, QUERIES_PER_SEARCH);
    let Some((_, entries)) = rarest else { return (rows, Walk { filters, ..Walk::default() }) };
    // The database sorts all entries before it checks the first entry. It sorts all entries again for each milestone (a
    // row that measures the progress of the walk).
    let milestones: &[usize] = if entries > MAX_WALK as u64 { &[MAX_WALK] } else { &[] };
    record(Work::Entry, entries * ENTRIES_PER_SORTED_ENTRY * (1 + milestones.len() as u64));
    (rows, Walk { filters, max_rows: entries, milestones })
}

/// Returns the condition that the search finds a customer of the operator. Only for lists of at most one customer: for
/// longer lists, a [`Walk`] limits the number of checked customers.
pub(super) fn is_found(operator: OperatorId, search: &SearchQuery) -> Condition {
    let nothing = search.words().is_empty().then(|| Expr::val(1).eq(0));
    let has_word = |word| {
        let words = words_of_customer(operator, customer_operator::Column::CustomerId.into_expr(), word);
        Expr::expr(SimpleExpr::SubQuery(None, Box::new(words.into()))).is_not_null()
    };
    search.words().iter().map(has_word).fold(Condition::all().add_option(nothing), Condition::add)
}

/// Selects a word of one customer that starts with the given word.
fn words_of_customer(operator: OperatorId, customer: SimpleExpr, word: &QueryWord) -> SelectStatement {
    // The concatenation prevents PostgreSQL from using the index on words. PostgreSQL then uses the primary key, and
    // reads only the few words of the customer.
    let text = Column::Word.into_expr().binary(BinOper::Custom("||"), "");
    customer_word::Entity::find()
        .select_only()
        .column(Column::Place)
        .filter(Column::OperatorId.eq(operator))
        .filter(Column::CustomerId.into_expr().eq(customer))
        .filter(starts_with(text, word))
        .limit(1)
        .into_query()
}

/// Selects the customers of an operator that have a word starting with the given word.
fn customers_with(operator: OperatorId, word: &QueryWord) -> SelectStatement {
    customer_word::Entity::find()
        .select_only()
        .column(Column::CustomerId)
        .filter(Column::OperatorId.eq(operator))
        .filter(starts_with(Column::Word.into_expr(), word))
        .into_query()
}

fn starts_with(text: SimpleExpr, word: &QueryWord) -> Condition {
    let ranges = word.prefix_ranges().into_iter();
    let in_range = ranges.map(|range| text.clone().gte(range.start).and(text.clone().lt(range.end)));
    in_range.fold(Condition::any(), Condition::add)
}
