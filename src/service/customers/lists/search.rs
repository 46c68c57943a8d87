//! Finds the customers of an operator by word prefixes.
//!
//! A search finds a customer if each word of the search is a prefix of one of the customer's words: `ada lov` finds Ada
//! Lovelace. Some customers come first in the list (see [`FirstSection`](super::sections::FirstSection)).
//! [`SearchPlan`] decides how the database reads the other customers that match. `customers::words` writes the words.

use std::ops::Range;

use entity::customer_word::Column;
use entity::value::{OperatorId, QueryWord, SearchQuery, SearchWord};
use entity::{customer_operator, customer_word};
use sea_orm::sea_query::{Alias, BinOper, Expr, ExprTrait, Query, SelectStatement, SimpleExpr, UnionType};
use sea_orm::{ColumnTrait, Condition, DbErr, EntityTrait, QueryFilter, QuerySelect, QueryTrait, Select};

use crate::database::pages::{MAX_BOUNDED_SCAN, SCAN, Scan};
use crate::database::{Reader, pages, subquery};
use crate::request::{Work, count_work};

/// The work to choose the plan of a search and to run the plan, as a multiple of the work of a query by id. It is
/// recorded for each page, for a page that is read again, and for each count. The work for index entries and checked
/// customers is counted separately.
const QUERIES_PER_SEARCH: u64 = 10;

/// The plan of a search: how the database reads the customers after the first section of the list. It determines the
/// cost of a page, and whether the page may be short: it may have fewer customers than requested although more follow.
/// A client that follows the pages reads the same customers with any plan.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SearchPlan {
    /// The search has one word. Reads the customers with the word itself in the order of their ids, which is the order
    /// of the index. Sorts the customers with other words that match: longer words, and other spellings.
    OneWord {
        /// The number of entries of other words that match.
        others: u64,
    },
    /// The search has several words, and at least one of them has at most [`MAX_SORTED`] entries. Intersects the
    /// customers of the rarest word with the customers of the words that are not much more frequent (see
    /// [`MAX_RATIO`]), and sorts them. Checks the remaining words of each of these customers.
    RarestWords {
        /// The number of entries of each word, in the order of the words. A number above the limit of the count is only
        /// a lower bound. It is still high enough to show that the word is not intersected with the rarest word.
        entries: Vec<u64>,
    },
    /// Checks the operator's customers one by one, in the order of their ids, until the page is full or the [`Scan`]
    /// ends.
    CheckAll,
}

/// The maximum number of entries of other words that a search with one word sorts at first. If there are more, many
/// customers match, and checking the customers one by one usually fills a page sooner (see [`plan_to_sort`]).
const MAX_OTHERS: u64 = MAX_BOUNDED_SCAN;

/// The maximum number of entries that one plan sorts: of all words that are intersected, or of the other words that
/// match a search with one word.
const MAX_SORTED: u64 = 100_000;

/// A word is intersected with the rarest word only if it has at most this many times the entries of the rarest word.
/// Reading the entries of a more frequent word often costs more than looking up the words of the customers that have
/// the rarest word.
const MAX_RATIO: u64 = 3;

impl SearchPlan {
    /// The limits of the counts of index entries. Each count starts again and has a higher limit than the count before
    /// it. Counting ends when the plan is known. Most searches need only the first count.
    fn count_limits(search: &SearchQuery) -> &'static [u64] {
        if search.words().len() == 1 { &[128, MAX_OTHERS] } else { &[64, 1_024, 8_192, MAX_SORTED] }
    }

    /// Returns the queries for the index entries to count.
    fn queries_to_count(operator: OperatorId, search: &SearchQuery) -> Vec<SelectStatement> {
        match search.words() {
            [word] => vec![customers_with_others(operator, word)],
            words => words.iter().map(|word| customers_with(operator, word)).collect(),
        }
    }

    /// Chooses a plan by the numbers of entries, which were counted up to a limit. Returns `None` if the counts do not
    /// decide it.
    fn choose(search: &SearchQuery, counts: &[u64], limit: u64) -> Option<Self> {
        let rarest = *counts.iter().min().filter(|rarest| **rarest <= limit)?;
        if let ([_], [others]) = (search.words(), counts) {
            return Some(Self::OneWord { others: *others });
        }
        let is_intersection_known = counts.iter().all(|count| *count <= limit) || rarest * MAX_RATIO <= limit;
        (is_intersection_known || limit == MAX_SORTED).then(|| Self::RarestWords { entries: counts.to_vec() })
    }
}

/// A search that needs a plan.
pub(super) struct SearchToPlan<'a> {
    /// The operator whose customers the search finds.
    pub(super) operator: OperatorId,
    pub(super) search: &'a SearchQuery,
    /// `None` until a plan is chosen.
    pub(super) plan: &'a mut Option<SearchPlan>,
}

/// Chooses a plan for each search. The plan is [`SearchPlan::CheckAll`] if the counts decide no other plan.
pub(super) async fn plan(reader: &Reader, mut searches: Vec<SearchToPlan<'_>>) -> Result<(), DbErr> {
    choose_plans(reader, &mut searches, SearchPlan::count_limits).await?;
    for search in searches {
        search.plan.get_or_insert(SearchPlan::CheckAll);
    }
    Ok(())
}

/// Chooses better plans for searches with the plan [`SearchPlan::CheckAll`] that did not fill a page. The
/// customers of a search with one word are then sorted if there are at most [`MAX_SORTED`] entries of other words. A
/// search with several words has no better plan. The plan stays `None` if there is no better one.
pub(super) async fn plan_to_sort(reader: &Reader, mut searches: Vec<SearchToPlan<'_>>) -> Result<(), DbErr> {
    choose_plans(reader, &mut searches, |search| if search.words().len() == 1 { &[MAX_SORTED] } else { &[] }).await
}

/// Chooses plans with counts up to the limits of each search. The plan of a search stays `None` if the counts do not
/// decide it.
async fn choose_plans(
    reader: &Reader,
    searches: &mut [SearchToPlan<'_>],
    limits: impl Fn(&SearchQuery) -> &'static [u64],
) -> Result<(), DbErr> {
    for round in 0.. {
        let unplanned = searches.iter_mut().filter(|planned| planned.plan.is_none());
        let unplanned: Vec<_> =
            unplanned.filter_map(|planned| Some((*limits(planned.search).get(round)?, planned))).collect();
        if unplanned.is_empty() {
            break;
        }
        let queries = unplanned.iter().flat_map(|(limit, planned)| {
            let queries = SearchPlan::queries_to_count(planned.operator, planned.search).into_iter();
            queries.map(|query| (query, *limit as usize + 1))
        });
        let mut counts = pages::counts(reader, queries.collect()).await?.into_iter();
        for (limit, planned) in unplanned {
            let counts: Vec<_> = counts.by_ref().take(planned.search.words().len()).collect();
            *planned.plan = SearchPlan::choose(planned.search, &counts, limit);
        }
    }
    Ok(())
}

/// Returns the queries for the customers that a search checks, and for each query the [`Scan`] with the filters that
/// each customer must match. The queries select the id of the customer and of the operator. Records the work of a
/// search.
pub(super) fn scans(operator: OperatorId, search: &SearchQuery, plan: &SearchPlan) -> Vec<(SelectStatement, Scan)> {
    let words = search.words();
    let has_word = |word| matching_word(operator, checked_customer(), word);
    if words.is_empty() {
        let nothing = all_customers(operator).and_where(Expr::val(1).eq(0)).take();
        return vec![(nothing, Scan { max_rows: 0, ..Scan::default() })];
    }
    count_work(Work::Query, QUERIES_PER_SEARCH);
    match plan {
        SearchPlan::OneWord { others } => {
            let word = &words[0];
            let first_spelling = word.first_spelling();
            let itself = customers_with_stored_word(operator, &first_spelling);
            let scan = Scan {
                max_rows: *others,
                sorted_entries: *others,
                not_in_previous: Some(lacks_stored_word(operator, &first_spelling)),
                ..Scan::default()
            };
            vec![(itself, Scan::default()), (in_all_except(&[customers_with_others(operator, word)], None), scan)]
        }
        SearchPlan::RarestWords { entries } => {
            let mut words: Vec<_> = entries.iter().copied().zip(words).collect();
            words.sort();
            let max_rows = words[0].0;
            let (mut queries, mut filters, mut sorted_entries) = (Vec::new(), Vec::new(), 0);
            for (entries, word) in words {
                if entries <= max_rows * MAX_RATIO && sorted_entries + entries <= MAX_SORTED {
                    sorted_entries += entries;
                    queries.push(customers_with(operator, word));
                } else {
                    filters.push(has_word(word));
                }
            }
            // Sorting the entries of the pair is not counted. They are few compared with those of the two words.
            let with_name_pair = search.name_pair().map(|pair| customers_with_stored_word(operator, pair));
            let scan = Scan { filters, max_rows, sorted_entries, ..Scan::default() };
            vec![(in_all_except(&queries, with_name_pair), scan)]
        }
        SearchPlan::CheckAll => {
            let lacks_name_pair = search.name_pair().map(|pair| lacks_stored_word(operator, pair));
            let filters = words.iter().map(has_word).chain(lacks_name_pair).collect();
            vec![(all_customers(operator), Scan { filters, ..Scan::default() })]
        }
    }
}

/// Selects all customers of an operator.
fn all_customers(operator: OperatorId) -> SelectStatement {
    let columns = [customer_operator::Column::CustomerId, customer_operator::Column::OperatorId];
    let links = customer_operator::Entity::find().select_only().columns(columns);
    links.filter(customer_operator::Column::OperatorId.eq(operator)).into_query()
}

/// Selects the customers that all queries select, each customer once, without those that `except` selects. Each query
/// reads the customers in the order of their words, so the database must sort them by id.
fn in_all_except(queries: &[SelectStatement], except: Option<SelectStatement>) -> SelectStatement {
    let columns = [Column::CustomerId, Column::OperatorId];
    let unsorted = |mut query: SelectStatement| {
        // The limit excludes no row. Without the limit, the databases would not use the index on words. They would read
        // the primary key, which is in the order of the customer ids, to avoid the sort.
        let all = query.limit(u64::from(u32::MAX)).take();
        Query::select().columns(columns).from_subquery(all, "all").take()
    };
    let mut customers = queries.iter().cloned().map(unsorted);
    let first = customers.next().unwrap_or_default();
    let in_all = customers.fold(first, |mut all, customers| all.union(UnionType::Intersect, customers).take());
    // Both databases compute `A INTERSECT B EXCEPT C` from left to right.
    let in_all =
        except.into_iter().map(unsorted).fold(in_all, |mut all, except| all.union(UnionType::Except, except).take());
    Query::select().distinct().columns(columns).from_subquery(in_all, "in_all").take()
}

/// Returns a condition on a row of `customer_operator`: the search finds its customer. Only for lists of at most one
/// customer: for longer lists, a [`Scan`] limits the number of checked customers.
pub(super) fn is_found(operator: OperatorId, search: &SearchQuery) -> Condition {
    let nothing = search.words().is_empty().then(|| Expr::val(1).eq(0));
    let has_word = |word| {
        let words = matching_word(operator, customer_operator::Column::CustomerId.into_expr(), word);
        subquery(words).is_not_null()
    };
    search.words().iter().map(has_word).fold(Condition::all().add_option(nothing), Condition::add)
}

/// Selects one row if the customer has a word that matches the given word.
fn matching_word(operator: OperatorId, customer: SimpleExpr, word: &QueryWord) -> SelectStatement {
    // The concatenation prevents PostgreSQL from using the index on words. PostgreSQL then uses the primary key, and
    // reads only the few words of the customer.
    let text = Column::Word.into_expr().binary(BinOper::Custom("||"), "");
    let words = words(operator).column(Column::Place).filter(Column::CustomerId.into_expr().eq(customer));
    words.filter(matches(text, word)).limit(1).into_query()
}

/// Selects one row if the checked customer does not have the stored word, else none.
fn lacks_stored_word(operator: OperatorId, word: &SearchWord) -> SelectStatement {
    let customer = Column::CustomerId.into_expr().eq(checked_customer());
    let with_word = customers(operator, Column::Word.eq(word.clone())).and_where(customer).take();
    Query::select().expr(Expr::val(1)).and_where(Expr::exists(with_word).not()).take()
}

/// The id of the customer that a [`Scan`] checks.
fn checked_customer() -> SimpleExpr {
    Expr::col((Alias::new(SCAN), Column::CustomerId))
}

/// Selects the customers of an operator that have a word which matches the given word.
fn customers_with(operator: OperatorId, word: &QueryWord) -> SelectStatement {
    customers_in(operator, word.prefix_ranges())
}

/// Selects the customers of an operator that have the stored word, each customer once. The database reads them in the
/// order of their ids, which is the order of the index.
pub(super) fn customers_with_stored_word(operator: OperatorId, word: &SearchWord) -> SelectStatement {
    customers(operator, Column::Word.eq(word.clone())).distinct().take()
}

/// Selects the customers of an operator that have another word which matches the given word: a longer word, or another
/// spelling.
fn customers_with_others(operator: OperatorId, word: &QueryWord) -> SelectStatement {
    customers_in(operator, word.ranges_without_first_spelling())
}

/// Selects the customers of an operator that have a word in one of the ranges. Each range is a part of a `UNION ALL`.
/// If the ranges were joined by `OR`, and the query had a low limit, PostgreSQL would read all words of the operator.
fn customers_in(operator: OperatorId, ranges: Vec<Range<String>>) -> SelectStatement {
    let mut customers = ranges.into_iter().map(|range| customers(operator, is_in(Column::Word.into_expr(), range)));
    let first = customers.next().unwrap_or_default();
    customers.fold(first, |mut all, customers| all.union(UnionType::All, customers).take())
}

/// Selects the ids of the customer and of the operator for each word that meets the condition. A customer can be
/// selected several times.
fn customers(operator: OperatorId, condition: SimpleExpr) -> SelectStatement {
    words(operator).columns([Column::CustomerId, Column::OperatorId]).filter(condition).into_query()
}

fn words(operator: OperatorId) -> Select<customer_word::Entity> {
    customer_word::Entity::find().select_only().filter(Column::OperatorId.eq(operator))
}

fn matches(text: SimpleExpr, word: &QueryWord) -> Condition {
    let ranges = word.prefix_ranges().into_iter();
    ranges.fold(Condition::any(), |any, range| any.add(is_in(text.clone(), range)))
}

fn is_in(text: SimpleExpr, range: Range<String>) -> SimpleExpr {
    text.clone().gte(range.start).and(text.lt(range.end))
}
