//! Finding customers by the beginnings of words. Every link has its own words, so that an operator's search costs what
//! its own customers cost.

use entity::customer_word::Column;
use entity::value::{CustomerId, OperatorId, PhoneNumber, SearchQuery, SearchWord};
use entity::{customer, customer_operator, customer_word};
use sea_orm::sea_query::{Alias, BinOper, Expr, ExprTrait, LockType, OnConflict, Query, SelectStatement, SimpleExpr};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DbErr, EntityTrait, IdenStatic, JoinType, Order, QueryFilter, QueryOrder,
    QuerySelect, QueryTrait, SelectTwo,
};

use super::Customers;
use super::rows::Link;
use crate::database::pages;
use crate::database::{Dml, TransactionError, WriteBatch, WriteStatement, insert_from_select, with_retry};
use crate::error::Error;
use crate::service::Actor;

/// A word and its place among those of a link; `None`: there is no word there any more.
type Placed = (i16, Option<SearchWord>);

/// WriteBatch the words of customers for all their operators.
const REPLACE: WriteStatement = WriteStatement {
    name: "replace words",
    columns: || [Column::CustomerId, Column::Place, Column::Word].map(|column| column.as_str()).to_vec(),
    statement: |new| {
        let of = |column| Expr::col((new.clone(), column));
        let links = Query::select()
            .expr(customer_operator::Column::OperatorId.into_expr())
            .exprs([Column::CustomerId, Column::Place, Column::Word].map(of))
            .from(new.clone())
            .inner_join(
                customer_operator::Entity,
                customer_operator::Column::CustomerId.into_expr().eq(of(Column::CustomerId)),
            )
            .and_where(Expr::cust("TRUE"))
            .take();
        let unless_placed = OnConflict::columns([Column::OperatorId, Column::CustomerId, Column::Place])
            .update_column(Column::Word)
            .to_owned();
        Dml::Insert(insert_from_select::<customer_word::Entity>(links).on_conflict(unless_placed).take())
    },
    must_write_all: false,
};

/// How many words a value may have: none is long enough for more.
const PLACES: i16 = 1000;

/// The values of a customer that are found by their words.
fn values(customer: &customer::Model) -> [Option<Value<'_>>; 5] {
    [
        Some(Value::Text(customer.email.local_part())),
        Some(Value::Domain(customer.email.domain())),
        customer.first_name.as_ref().map(|name| Value::Text(name.as_str())),
        customer.last_name.as_ref().map(|name| Value::Text(name.as_str())),
        customer.phone.as_ref().map(Value::Phone),
    ]
}

#[derive(PartialEq, Eq)]
enum Value<'c> {
    Text(&'c str),
    Domain(&'c str),
    Phone(&'c PhoneNumber),
}

impl Value<'_> {
    fn words(&self) -> Vec<SearchWord> {
        match self {
            Self::Text(text) => SearchWord::tokenize(text),
            Self::Domain(domain) => {
                let in_unicode = idna::domain_to_unicode(domain).0;
                let in_unicode = if in_unicode == *domain { Vec::new() } else { SearchWord::tokenize(&in_unicode) };
                [SearchWord::tokenize(domain), in_unicode].concat()
            }
            Self::Phone(phone) => phone.international_and_national_digits().map(SearchWord::tokenize).concat(),
        }
    }
}

/// The words of a customer's value, which is the one with this number, alike for all operators.
fn words_of(number: i16, value: &Option<Value<'_>>) -> Vec<Placed> {
    let words = value.iter().flat_map(Value::words);
    (number * PLACES..).zip(words.map(Some)).collect()
}

/// The words of a link alone. Their places come before those of the customer's values.
fn words_of_link(link: &Link) -> Vec<Placed> {
    let id = SearchWord::tokenize(link.external_customer_id.as_str());
    (-PLACES..).zip(id.into_iter().map(Some)).collect()
}

/// WriteBatch the words of a new link.
pub(super) fn add(writes: &mut WriteBatch, link: &Link, customer: &customer::Model) {
    let of_customer = (0..).zip(values(customer)).flat_map(|(number, value)| words_of(number, &value));
    let (operator_id, customer_id) = (link.operator_id, link.customer_id);
    let row = |(place, word)| customer_word::Model { operator_id, customer_id, place, word };
    writes.insert(words_of_link(link).into_iter().chain(of_customer).map(row));
}

/// WriteBatch the words that a customer has otherwise than before, for all operators.
pub(super) fn change(writes: &mut WriteBatch, before: &customer::Model, after: &customer::Model) {
    let both = (0..).zip(values(before).into_iter().zip(values(after)));
    let changed = both.filter(|(_, (before, after))| before != after);
    let words = changed.flat_map(|(number, (before, after))| {
        let (old, new) = (words_of(number, &before), words_of(number, &after));
        let gone = old.get(new.len()..).unwrap_or_default().iter().map(|(place, _)| (*place, None));
        let come = new.iter().filter(|word| !old.contains(word)).cloned();
        gone.chain(come).collect::<Vec<_>>()
    });
    writes.push(REPLACE, words.map(|(place, word)| vec![after.id.into(), place.into(), word.into()]).collect());
}

impl Customers {
    /// Gives words to the links that have none, as after an upgrade from a version that kept none; answers how many.
    pub async fn add_missing_words(&self, actor: &Actor) -> Result<u64, Error> {
        const BATCH: u64 = 500;
        actor.require_platform()?;
        let (mut added, mut last) = (0, None);
        loop {
            let (rows, end) = with_retry("customer.words", || self.try_add_missing_words(last, BATCH)).await?;
            added += rows;
            if rows < BATCH {
                return Ok(added);
            }
            last = end;
        }
    }

    async fn try_add_missing_words(
        &self,
        after: Option<(OperatorId, CustomerId)>,
        most: u64,
    ) -> Result<(u64, Option<(OperatorId, CustomerId)>), TransactionError> {
        use customer_operator::Column::{CustomerId, OperatorId};
        let transaction = self.database.begin_write().await?;
        let of_this = customer_word::Entity::find()
            .select_only()
            .column(customer_word::Column::Place)
            .filter(customer_word::Column::OperatorId.into_expr().eq(OperatorId.into_expr()))
            .filter(customer_word::Column::CustomerId.into_expr().eq(CustomerId.into_expr()));
        let at = Expr::tuple([OperatorId.into_expr(), CustomerId.into_expr()]);
        let mut without = customer_operator::Entity::find()
            .inner_join(customer::Entity)
            .select_also(customer::Entity)
            .filter(Expr::exists(of_this.into_query()).not())
            .apply_if(after, |links, (operator, customer)| {
                links.filter(at.gt(Expr::tuple([Expr::val(operator), Expr::val(customer)])))
            })
            .order_by_asc(OperatorId)
            .order_by_asc(CustomerId)
            .limit(most);
        // Whoever changes one of them meanwhile waits, and changes the words too.
        QuerySelect::query(&mut without).lock_with_tables(LockType::Update, [customer::Entity]);
        let links = without.all(&transaction).await?;
        for (link, customer) in &links {
            if let Some(customer) = customer {
                let mut writes = WriteBatch::new(link.operator_id);
                add(&mut writes, link, customer);
                transaction.write(writes).await?;
            }
        }
        transaction.commit().await?;
        let last = links.last().map(|(link, _)| (link.operator_id, link.customer_id));
        Ok((links.len() as u64, last))
    }
}

/// How a search goes about it.
pub(super) enum Plan {
    /// The word with this number is rare: whoever has it is sorted, and then asked for the others.
    Lead(usize),
    /// No word is rare: the operator's customers are asked one after the other, until there are enough.
    Walk,
}

/// How many customers with a word count as few. Sorting them is the price of a lead; with a single word, walking past the
/// others soon costs less.
fn few(search: &SearchQuery) -> usize {
    if search.words().len() == 1 { 10_000 } else { 100_000 }
}

/// Decides on a plan for each search.
pub(super) async fn plans(
    connection: &impl ConnectionTrait,
    searches: &[(OperatorId, &SearchQuery)],
) -> Result<Vec<Plan>, DbErr> {
    let some = |operator, word, search| (having(operator, word), Some(few(search) + 1));
    let words = searches
        .iter()
        .flat_map(|(operator, search)| search.words().iter().map(move |word| some(*operator, word, search)));
    let mut counts = pages::counts(connection, words.collect()).await?.into_iter();
    let plan = |(_, search): &(OperatorId, &SearchQuery)| {
        let counts = counts.by_ref().take(search.words().len());
        let rarest = counts.enumerate().min_by_key(|(_, count)| *count);
        rarest.filter(|(_, count)| *count <= few(search) as u64).map_or(Plan::Walk, |(number, _)| Plan::Lead(number))
    };
    Ok(searches.iter().map(plan).collect())
}

/// Limits the customers of an operator to those who are found, in the order of their ids.
pub(super) fn find(
    mut customers: SelectTwo<customer_operator::Entity, customer::Entity>,
    operator: OperatorId,
    search: &SearchQuery,
    plan: Plan,
) -> SelectStatement {
    let query = QuerySelect::query(&mut customers);
    let lead = match plan {
        Plan::Lead(number) => Some(number),
        Plan::Walk => None,
    };
    for (number, word) in search.words().iter().enumerate() {
        if lead == Some(number) {
            let found = Alias::new("found");
            // The limit keeps the databases from taking another index for the sake of the order.
            let rows = Query::select()
                .distinct()
                .column(customer_word::Column::CustomerId)
                .from_subquery(having(operator, word).limit(u64::from(u32::MAX)).take(), "all")
                .order_by(customer_word::Column::CustomerId, Order::Asc)
                .take();
            let is_found = Expr::col((found.clone(), customer_word::Column::CustomerId))
                .equals((customer_operator::Entity, customer_operator::Column::CustomerId));
            query.join_subquery(JoinType::InnerJoin, rows, found, is_found);
        } else {
            let has = word_of(operator, customer_operator::Column::CustomerId.into_expr(), word);
            // An EXISTS would be planned together with the rest, by what the database thinks of how common words are.
            query.and_where(Expr::expr(SimpleExpr::SubQuery(None, Box::new(has.into()))).is_not_null());
        }
    }
    if search.words().is_empty() {
        query.and_where(Expr::val(1).eq(0));
    }
    query.take()
}

/// The same as a condition, for counting.
pub(super) fn is_found(operator: OperatorId, search: &SearchQuery) -> Condition {
    let words = search.words().iter();
    let has = words.map(|word| customer_operator::Column::CustomerId.in_subquery(having(operator, word)));
    let nobody = search.words().is_empty().then(|| Expr::val(1).eq(0));
    has.fold(Condition::all().add_option(nobody), Condition::add)
}

/// A word of one customer that begins so.
fn word_of(operator: OperatorId, customer: SimpleExpr, word: &SearchWord) -> SelectStatement {
    // As the outcome of an operator it is looked for among the customer's words, and not among all that begin so.
    let text = customer_word::Column::Word.into_expr().binary(BinOper::Custom("||"), "");
    customer_word::Entity::find()
        .select_only()
        .column(customer_word::Column::Place)
        .filter(customer_word::Column::OperatorId.eq(operator))
        .filter(customer_word::Column::CustomerId.into_expr().eq(customer))
        .filter(begins(text, word))
        .limit(1)
        .into_query()
}

/// The customers of an operator with a word that begins so.
fn having(operator: OperatorId, word: &SearchWord) -> SelectStatement {
    customer_word::Entity::find()
        .select_only()
        .column(customer_word::Column::CustomerId)
        .filter(customer_word::Column::OperatorId.eq(operator))
        .filter(begins(customer_word::Column::Word.into_expr(), word))
        .into_query()
}

fn begins(text: SimpleExpr, word: &SearchWord) -> Condition {
    let ranges = word.prefix_ranges().into_iter();
    let in_range = ranges.map(|range| text.clone().gte(range.start).and(text.clone().lt(range.end)));
    in_range.fold(Condition::any(), Condition::add)
}
