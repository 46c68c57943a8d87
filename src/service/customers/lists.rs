//! Lists of customers and of their operators: filters, orders, pages and counts.

use std::sync::Arc;

use async_graphql::Enum;
use chrono::{DateTime, Utc};
use entity::value::{CustomerId, EmailAddress, ExternalCustomerId, OperatorId, PhoneNumber, SearchQuery};
use entity::{customer, customer_operator};
use sea_orm::sea_query::{Expr, ExprTrait, SimpleExpr};
use sea_orm::{
    ColumnTrait, Condition, EntityName, EntityTrait, IdenStatic, Iterable, QueryFilter, QueryResult, QuerySelect,
    QueryTrait, Select, SelectTwo,
};

use super::rows::{LINK_COLUMNS, customer_at, link_at, of_operator};
use super::search::{self, Plan};
use super::{CustomerField, CustomerView, Customers};
use crate::database::pages::{self, JoinedTable, Key, List, Page, PageRequest, Position, Positioned};
use crate::error::Error;
use crate::service::Actor;

/// Which customers a list holds: those of whom all of this holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CustomerFilter {
    /// Of an operator's list alone, which is in the order of the customers' ids then.
    pub search: Option<SearchQuery>,
    pub email: Option<EmailAddress>,
    pub phone: Option<PhoneNumber>,
    pub external_customer_id: Option<ExternalCustomerId>,
    /// Values that the customer lacks, all of them.
    pub missing: Vec<CustomerField>,
    pub created_at: TimeRange,
    /// Of the link, where there is one.
    pub connected_at: TimeRange,
}

/// From one time on, that included, until another, that not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TimeRange {
    pub from: Option<DateTime<Utc>>,
    pub before: Option<DateTime<Utc>>,
}

/// What an operator's list is sorted by: what never changes, so that cursors stay where they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CustomerOrder {
    pub field: CustomerOrderField,
    pub descending: bool,
}

/// A column to sort customers by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Enum)]
pub enum CustomerOrderField {
    /// When the customer was connected to the operator.
    #[default]
    ConnectedAt,
    /// The operator's id for the customer, compared byte by byte.
    ExternalCustomerId,
}

/// A page of a list of customers, and of each of them a page of its operators, where that is asked for.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CustomerPage {
    pub list: Arc<CustomerList>,
    pub request: PageRequest,
    pub operators: Option<PageRequest>,
}

/// A list of customers: those of an operator, or all of the platform's, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CustomerList {
    pub operator: Option<OperatorId>,
    pub filter: CustomerFilter,
    /// Of an operator's list alone, and not of a search.
    pub order: CustomerOrder,
}

impl Customers {
    /// Pages of lists of customers, each as far as the caller may see it.
    pub async fn pages(&self, actor: &Actor, pages: &[CustomerPage]) -> Result<Vec<Page<CustomerView>>, Error> {
        let reads = self.database.reader();
        let searches: Vec<_> = pages
            .iter()
            .filter_map(|page| Some((page.list.seen_by(actor)?, page.list.filter.search.as_ref()?)))
            .collect();
        let mut plans = search::plans(reads, &searches).await?.into_iter();
        let (mut of_all, mut of_operators, mut sorted) = (Vec::new(), Vec::new(), Vec::new());
        for CustomerPage { list, request, .. } in pages {
            let Some(operator) = list.seen_by(actor) else {
                let columns = vec![customer::Column::Id.into_expr()];
                let rows = all(&list.filter).into_query();
                of_all.push((List { rows, columns, descending: false, beside: None }, request.clone()));
                continue;
            };
            let (rows, beside) = match &list.filter.search {
                Some(search) => {
                    let customers = of_operator_with(operator, &list.filter);
                    (search::find(customers, operator, search, plans.next().unwrap_or(Plan::Walk)), None)
                }
                None if list.filter.of_customer().is_empty() => {
                    (links_with(operator, &list.filter).into_query(), Some(customers_beside_links()))
                }
                None => (of_operator_with(operator, &list.filter).into_query(), None),
            };
            let list_of_rows = List { rows, columns: list.columns(), descending: list.order.descending, beside };
            of_operators.push((list_of_rows, request.clone()));
            sorted.push(list);
        }
        let read = |row: &QueryResult| Ok(CustomerView::new(customer_at(row, pages::ROW)?, None));
        let position = |_, view: &CustomerView| Position { key: Key::None, id: *view.customer.id.as_uuid() };
        let mut of_all = pages::pages(reads, of_all, read, position).await?.into_iter();
        let read = |row: &QueryResult| {
            let link = link_at(row, pages::ROW)?;
            Ok(CustomerView::new(customer_at(row, pages::ROW + LINK_COLUMNS)?, Some(link)))
        };
        let position = |number: usize, view: &CustomerView| sorted[number].position(view);
        let mut of_operators = pages::pages(reads, of_operators, read, position).await?.into_iter();
        let next = |page: &CustomerPage| match page.list.seen_by(actor) {
            None => of_all.next(),
            Some(_) => of_operators.next(),
        };
        let mut found: Vec<_> = pages.iter().filter_map(next).collect();
        let wanting = || pages.iter().zip(&found).filter_map(|(page, found)| Some((page.operators.as_ref()?, found)));
        let of_each = |(request, found): (&PageRequest, &Page<CustomerView>)| {
            found.rows.iter().map(|view| (view.customer.id, request.clone())).collect::<Vec<_>>()
        };
        let wanted: Vec<_> = wanting().flat_map(of_each).collect();
        if !wanted.is_empty() {
            let mut operators = self.operators(actor, &wanted).await?.into_iter();
            for (page, found) in pages.iter().zip(&mut found) {
                let Some(request) = &page.operators else { continue };
                for view in &mut found.rows {
                    view.operators = operators.next().map(|operators| (request.clone(), operators));
                }
            }
        }
        Ok(found)
    }

    /// How many customers the lists hold, each as far as the caller may see it.
    pub async fn counts(&self, actor: &Actor, lists: &[Arc<CustomerList>]) -> Result<Vec<u64>, Error> {
        let queries = lists.iter().map(|list| match list.seen_by(actor) {
            None => all(&list.filter).select_only().column(customer::Column::Id).into_query(),
            Some(operator) => links_with(operator, &list.filter)
                .select_only()
                .column(customer_operator::Column::CustomerId)
                .into_query(),
        });
        Ok(pages::counts(self.database.reader(), queries.map(|query| (query, None)).collect()).await?)
    }

    /// Pages of the operators that customers are connected to, oldest link first, each as far as the caller may see it.
    pub async fn operators(
        &self,
        actor: &Actor,
        lists: &[(CustomerId, PageRequest)],
    ) -> Result<Vec<Page<customer_operator::Model>>, Error> {
        let links = |of: Condition| {
            let links = customer_operator::Entity::find()
                .filter(of)
                .apply_if(actor.operator(), |links, own| links.filter(customer_operator::Column::OperatorId.eq(own)));
            let columns = vec![
                customer_operator::Column::ConnectedAt.into_expr(),
                customer_operator::Column::OperatorId.into_expr(),
            ];
            List { rows: links.into_query(), columns, descending: false, beside: None }
        };
        let owner = customer_operator::Column::CustomerId;
        if let [(_, request), ..] = lists
            && request.is_at_an_end()
            && lists.iter().all(|(_, other)| other == request)
        {
            let owners = pages::padded(lists.iter().map(|(customer, _)| *customer).collect());
            let number = owners.len();
            let all = links(owner.is_in(owners).into());
            let read = |row: &QueryResult| {
                let link = link_at(row, pages::ROW)?;
                Ok((link.customer_id, link))
            };
            let pages = pages::pages_of_owners(self.database.reader(), number, all, owner.into_expr(), request, read);
            let mut pages = pages.await?;
            let page =
                |(customer, _): &(CustomerId, _)| pages.remove(customer).unwrap_or_else(|| request.page(Vec::new()));
            return Ok(lists.iter().map(page).collect());
        }
        let queries = lists.iter().map(|(customer, request)| (links(owner.eq(*customer).into()), request.clone()));
        let read = |row: &QueryResult| link_at(row, pages::ROW);
        Ok(pages::pages(self.database.reader(), queries.collect(), read, |_, row| row.position()).await?)
    }
}

impl CustomerList {
    /// The operator whose customers the list holds when this caller looks at it; `None`: all customers.
    fn seen_by(&self, actor: &Actor) -> Option<OperatorId> {
        actor.operator().or(self.operator)
    }

    /// A customer's place in the list.
    pub fn position(&self, view: &CustomerView) -> Position {
        let key = match (&view.link, &self.filter.search, self.order.field) {
            (None, _, _) | (_, Some(_), _) => Key::None,
            (Some(link), None, CustomerOrderField::ConnectedAt) => Key::Time(link.connected_at),
            (Some(link), None, CustomerOrderField::ExternalCustomerId) => {
                Key::Text(link.external_customer_id.as_str().to_owned())
            }
        };
        Position { key, id: *view.customer.id.as_uuid() }
    }

    /// The columns of the positions in an operator's list.
    fn columns(&self) -> Vec<SimpleExpr> {
        let id = customer_operator::Column::CustomerId.into_expr();
        match (&self.filter.search, self.order.field) {
            (Some(_), _) => vec![id],
            (None, CustomerOrderField::ConnectedAt) => vec![customer_operator::Column::ConnectedAt.into_expr(), id],
            (None, CustomerOrderField::ExternalCustomerId) => {
                vec![customer_operator::Column::ExternalCustomerId.into_expr()]
            }
        }
    }
}

/// A link's place among those of its customer.
impl Positioned for customer_operator::Model {
    fn position(&self) -> Position {
        Position { key: Key::Time(self.connected_at), id: *self.operator_id.as_uuid() }
    }
}

fn of_operator_with(
    operator: OperatorId,
    filter: &CustomerFilter,
) -> SelectTwo<customer_operator::Entity, customer::Entity> {
    of_operator(operator).filter(filter.of_customer()).filter(filter.of_link())
}

/// The customers of links that are of a page.
fn customers_beside_links() -> JoinedTable {
    JoinedTable {
        table: customer::Entity.table_name(),
        columns: customer::Column::iter().map(|column| column.as_str()).collect(),
        id: customer_operator::Column::CustomerId.as_str(),
    }
}

/// The links of an operator alone; the customers are joined only where the filter asks for a value of theirs.
fn links_with(operator: OperatorId, filter: &CustomerFilter) -> Select<customer_operator::Entity> {
    let links = customer_operator::Entity::find()
        .filter(customer_operator::Column::OperatorId.eq(operator))
        .filter(filter.of_link())
        .apply_if(filter.search.as_ref(), |links, search| links.filter(search::is_found(operator, search)));
    let of_customer = filter.of_customer();
    if of_customer.is_empty() { links } else { links.inner_join(customer::Entity).filter(of_customer) }
}

/// All customers of the platform. They have no link in this list, so nothing of a link can be asked for.
fn all(filter: &CustomerFilter) -> Select<customer::Entity> {
    customer::Entity::find().filter(filter.of_customer())
}

impl CustomerFilter {
    fn of_customer(&self) -> Condition {
        let missing = self.missing.iter().map(|field| match field {
            // Every customer has one.
            CustomerField::Email => Expr::val(1).eq(0),
            CustomerField::FirstName => customer::Column::FirstName.is_null(),
            CustomerField::LastName => customer::Column::LastName.is_null(),
            CustomerField::Phone => customer::Column::Phone.is_null(),
            CustomerField::Address => customer::Column::Address.is_null(),
        });
        missing.fold(
            Condition::all()
                .add_option(self.email.clone().map(|email| customer::Column::Email.eq(email)))
                .add_option(self.phone.clone().map(|phone| customer::Column::Phone.eq(phone)))
                .add_option(self.created_at.from.map(|from| customer::Column::CreatedAt.gte(from)))
                .add_option(self.created_at.before.map(|before| customer::Column::CreatedAt.lt(before))),
            Condition::add,
        )
    }

    fn of_link(&self) -> Condition {
        let id = self.external_customer_id.clone();
        Condition::all()
            .add_option(id.map(|id| customer_operator::Column::ExternalCustomerId.eq(id)))
            .add_option(self.connected_at.from.map(|from| customer_operator::Column::ConnectedAt.gte(from)))
            .add_option(self.connected_at.before.map(|before| customer_operator::Column::ConnectedAt.lt(before)))
    }
}
