//! Lists of customers and of the links of a customer: orders, pages and counts.

use std::borrow::Cow;
use std::iter::{self, zip};
use std::sync::Arc;

use async_graphql::Enum;
use entity::value::{CustomerId, EmailAddress, OperatorId, SearchQuery};
use entity::{customer, customer_operator};
use sea_orm::sea_query::{Alias, Expr, ExprTrait, SelectStatement, SimpleExpr};
use sea_orm::{
    ColumnTrait, Condition, DbErr, EntityName, EntityTrait, IdenStatic, QueryFilter, QueryResult, QuerySelect,
    QueryTrait, Select, SelectTwo,
};

use super::filter::{CustomerFilter, TimeRange};
use super::row_reads::{Link, customer_at, link_at, of_operator, own_customer_at};
use super::search::{self, PlannedSearch, SearchPlan};
use super::{CustomerView, Customers};
use crate::database::pages::{
    self, BRANCH_ROWS, Count, HasPosition, JoinedTable, ListPage, ListPart, Page, PageRequest, Position, SCAN, Scan,
    SortKey, SortOrder,
};
use crate::error::Error;
use crate::service::Caller;

/// The order of an operator's list. A cursor has the sort key and the id of a customer, so it stays valid even if the
/// sort key of the customer changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CustomerOrder {
    pub field: CustomerOrderField,
    pub direction: SortOrder,
}

/// A field to order customers by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Enum)]
pub enum CustomerOrderField {
    /// Time at which the customer was connected to the operator.
    #[default]
    ConnectedAt,
    /// The operator's own id for the customer, compared byte by byte.
    ExternalCustomerId,
}

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

/// A request for a page of a list of an operator's customers.
#[derive(Clone, Copy)]
struct OwnPageRequest<'r> {
    operator: OperatorId,
    request: &'r CustomerPageRequest,
}

/// A page to read of a list of an operator's customers.
struct PlannedPage<'r> {
    operator: OperatorId,
    request: &'r CustomerPageRequest,
    /// The plan of the list's search. `None` if the list needs no plan.
    plan: Option<SearchPlan>,
}

impl<'r> OwnPageRequest<'r> {
    /// The search of the list, if it needs a plan.
    fn search(&self) -> Option<PlannedSearch<'r>> {
        Some((self.operator, self.request.list.planned_search()?))
    }

    fn with_plan(&self, plan: Option<SearchPlan>) -> PlannedPage<'r> {
        PlannedPage { operator: self.operator, request: self.request, plan }
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
        let requests = requests.iter().filter_map(|request| {
            let operator = request.list.operator_for(caller)?;
            Some(OwnPageRequest { operator, request })
        });
        let requests: Vec<_> = requests.collect();
        let searches: Vec<_> = requests.iter().map(OwnPageRequest::search).collect();
        let plans = search::plans(self.database.reader(), &searches).await?;
        let planned = zip(&requests, plans).map(|(request, plan)| request.with_plan(plan));
        let mut pages = self.planned_pages(planned.collect()).await?;
        self.read_short_pages_again(&requests, &mut pages).await?;
        Ok(pages)
    }

    /// Reads those pages a second time that a search has not filled, if a better plan is found for the search.
    ///
    /// A search that checked customers one by one and did not fill its page probably matches few customers. If another
    /// plan can sort these customers, the page is read with that plan, which fills the page unless the list ends. This
    /// does not hold with further conditions: the second page could be short too.
    async fn read_short_pages_again(
        &self,
        requests: &[OwnPageRequest<'_>],
        pages: &mut [CustomerPage],
    ) -> Result<(), DbErr> {
        let is_short = |page: &CustomerPage, list: &CustomerList| {
            let CustomerPage { customers, plan } = page;
            *plan == Some(SearchPlan::ScanInIdOrder) && customers.scanned_to.is_some() && !list.filter.has_conditions()
        };
        let searches: Vec<_> = zip(requests, &*pages)
            .map(|(own, page)| own.search().filter(|_| is_short(page, &own.request.list)))
            .collect();
        if searches.iter().all(Option::is_none) {
            return Ok(());
        }
        let plans = search::plans_to_sort(self.database.reader(), &searches).await?;
        let (short, planned): (Vec<_>, Vec<_>) = zip(zip(requests, pages), plans)
            .filter_map(|((own, page), plan)| Some((page, own.with_plan(Some(plan?)))))
            .unzip();
        for (short, sorted) in zip(short, self.planned_pages(planned).await?) {
            *short = sorted;
        }
        Ok(())
    }

    /// Loads pages of lists of the customers of an operator.
    async fn planned_pages(&self, planned: Vec<PlannedPage<'_>>) -> Result<Vec<CustomerPage>, DbErr> {
        let pages = planned.iter().flat_map(|PlannedPage { operator, request, plan }| {
            let CustomerPageRequest { list, page, .. } = request;
            let whole = PageRequest { after: None, before: None, ..page.clone() };
            let first = list.searched_customer(*operator).map(|first| (ListPage::new(first, whole), list));
            let page = ListPage { parts: list.parts(*operator, plan.as_ref()), request: page.clone() };
            iter::once((page, list)).chain(first)
        });
        let (pages, customer_lists): (Vec<_>, Vec<_>) = pages.unzip();
        let read = |row: &QueryResult| Ok(Arc::new(CustomerView::from(own_customer_at(row, pages::ROW)?)));
        let position = |index: usize, view: &Arc<CustomerView>| customer_lists[index].position(view);
        let mut found = pages::pages(self.database.reader(), pages, read, position).await?.into_iter();
        let found_page = |PlannedPage { operator: _, request, plan }: PlannedPage<'_>| {
            let CustomerPageRequest { list, page, .. } = request;
            let mut customers = found.next()?;
            let first = list.searched_email().and_then(|_| found.next()?.rows.into_iter().next());
            if let Some(row) = first {
                page.add_first(&mut customers, list.position(&row), row);
            }
            Some(CustomerPage { customers, plan })
        };
        Ok(planned.into_iter().filter_map(found_page).collect())
    }

    /// Adds a page of links to each customer in `pages`. Skips the customers of pages whose requests do not ask for
    /// links.
    async fn add_links(
        &self,
        caller: &Caller,
        requests: &[CustomerPageRequest],
        pages: &mut [CustomerPage],
    ) -> Result<(), Error> {
        let mut owners = Vec::new();
        for (request, page) in requests.iter().zip(&*pages) {
            if let Some(links) = &request.links {
                owners.extend(page.customers.rows.iter().map(|view| (view.customer.id, links.clone())));
            }
        }
        let mut found = self.link_pages(caller, &owners).await?.into_iter();
        for (request, page) in requests.iter().zip(pages) {
            let Some(links) = &request.links else { continue };
            for view in &mut page.customers.rows {
                // Not copied, because nothing else refers to the view yet.
                Arc::make_mut(view).links = found.next().map(|page| (links.clone(), page));
            }
        }
        Ok(())
    }

    /// Counts the customers of each list. With the plan that the page of a list used, the count reads the same rows as
    /// the page. An operator sees only its own customers.
    pub async fn counts(
        &self,
        caller: &Caller,
        lists: &[(Arc<CustomerList>, Option<SearchPlan>)],
    ) -> Result<Vec<Count>, Error> {
        let lists = lists.iter().map(|(list, plan)| match list.operator_for(caller) {
            None => vec![list.list_of_all()],
            Some(operator) => {
                let parts = list.parts(operator, plan.as_ref());
                parts.into_iter().chain(list.searched_customer(operator)).collect()
            }
        });
        Ok(pages::list_counts(self.database.reader(), lists.collect()).await?)
    }

    /// Returns pages of the links of customers, oldest first. An operator sees only its own link.
    pub async fn link_pages(
        &self,
        caller: &Caller,
        requests: &[(CustomerId, PageRequest)],
    ) -> Result<Vec<Page<Arc<Link>>>, Error> {
        use customer_operator::Column;
        let links = |owner: Condition| {
            let links = customer_operator::Entity::find()
                .filter(owner)
                .apply_if(caller.operator(), |links, own| links.filter(Column::OperatorId.eq(own)));
            ListPart::new(links.into_query(), vec![Column::ConnectedAt.into_expr(), Column::OperatorId.into_expr()])
        };
        let read = |row: &QueryResult| {
            let link = link_at(row, pages::ROW)?;
            Ok((link.customer_id, Arc::new(link)))
        };
        Ok(pages::pages_by_owner(self.database.reader(), requests, Column::CustomerId, links, read).await?)
    }
}

impl CustomerView {
    /// Returns a page of [`Customers::link_pages`] for this customer if the links were read together with the customer.
    pub fn links_in_memory(&self, caller: &Caller, request: &PageRequest) -> Option<Cow<'_, Page<Arc<Link>>>> {
        if let (Some(link), Some(_)) = (&self.link, caller.operator()) {
            // An operator sees only its own link.
            return Some(Cow::Owned(request.of_one(Arc::new(link.clone()))));
        }
        self.links.as_ref().filter(|(read, _)| read == request).map(|(_, page)| Cow::Borrowed(page))
    }
}

impl CustomerList {
    /// The operator whose customers the caller sees in this list. `None` for all customers.
    fn operator_for(&self, caller: &Caller) -> Option<OperatorId> {
        caller.operator().or(self.operator)
    }

    /// The customer's position in the list.
    pub fn position(&self, view: &CustomerView) -> Position {
        let sort_key = match (&view.link, &self.filter.search, self.order.field) {
            (Some(_), Some(search), _) if search.email() == Some(&view.customer.email) => SortKey::First,
            (None, _, _) | (_, Some(_), _) => SortKey::None,
            (Some(link), None, CustomerOrderField::ConnectedAt) => SortKey::Time(link.connected_at),
            (Some(link), None, CustomerOrderField::ExternalCustomerId) => {
                SortKey::Text(link.external_customer_id.as_str().to_owned())
            }
        };
        Position { sort_key, id: *view.customer.id.as_uuid() }
    }

    /// The columns of the [`position`](Self::position) in an operator's list. The last column is unique in the list.
    fn position_columns(&self) -> Vec<SimpleExpr> {
        let column = |column| Expr::col(column);
        self.position_by().iter().copied().map(column).collect()
    }

    fn position_by(&self) -> &'static [customer_operator::Column] {
        use customer_operator::Column::{ConnectedAt, CustomerId, ExternalCustomerId};
        match (&self.filter.search, self.order.field) {
            (Some(_), _) => &[CustomerId],
            (None, CustomerOrderField::ConnectedAt) => &[ConnectedAt, CustomerId],
            (None, CustomerOrderField::ExternalCustomerId) => &[ExternalCustomerId],
        }
    }

    /// The email, if the search is an email.
    fn searched_email(&self) -> Option<&EmailAddress> {
        self.filter.search.as_ref()?.email()
    }

    /// The customer with the searched email. It comes first in the list, even if some words of the email are not
    /// stored. It is read as a separate list, so that the other customers stay in the order of their ids.
    fn searched_customer(&self, operator: OperatorId) -> Option<ListPart> {
        let email = self.searched_email()?;
        let query = of_operator(operator).filter(self.filter.on_own_customer(operator, Some(email)));
        Some(ListPart::new(query.into_query(), self.position_columns()))
    }

    /// The search, if it needs a [`SearchPlan`].
    fn planned_search(&self) -> Option<&SearchQuery> {
        self.filter.search.as_ref().filter(|_| !self.filter.matches_at_most_one())
    }

    /// The list of all customers.
    fn list_of_all(&self) -> ListPart {
        use customer::Column::Id;
        debug_assert!(
            self.filter.search.is_none() && self.filter.on_link().is_empty(),
            "the list of all customers has no search and no condition on links"
        );
        let customers = customer::Entity::find();
        let filter = self.filter.on_customer();
        if self.filter.matches_at_most_one() || filter.is_empty() {
            return ListPart::new(customers.filter(filter).into_query(), vec![Id.into_expr()]);
        }
        let is_scanned = Id.into_expr().equals((Alias::new(SCAN), Id));
        let filters = vec![scan_filter(customers.clone().filter(is_scanned).filter(filter))];
        let query = customers.select_only().column(Id).into_query();
        let joined = vec![JoinedTable::new::<customer::Entity>(&[(Id, BRANCH_ROWS, Id.as_str())])];
        ListPart {
            joined,
            scan: Some(Scan { filters, ..Scan::default() }),
            ..ListPart::new(query, vec![Id.into_expr()])
        }
    }

    /// The parts of an operator's list. Each row has the columns of a link, then the columns of the link's customer.
    /// Leaves out the [`searched_customer`](Self::searched_customer).
    fn parts(&self, operator: OperatorId, plan: Option<&SearchPlan>) -> Vec<ListPart> {
        if self.filter.matches_at_most_one() {
            vec![self.part_of_at_most_one(operator)]
        } else if self.is_in_order_index() {
            vec![self.part_in_order_index(operator)]
        } else {
            self.scanned_parts(operator, plan)
        }
    }

    /// The list as one part, without a scan, because at most one customer matches.
    fn part_of_at_most_one(&self, operator: OperatorId) -> ListPart {
        let is_found = self.filter.search.as_ref().map(|search| search::is_found(operator, search));
        self.part(self.own_customers(operator).filter(Condition::all().add_option(is_found)).into_query())
    }

    /// Returns true if the index that gives the order of the list also has the columns of all conditions.
    fn is_in_order_index(&self) -> bool {
        self.filter.search.is_none() && self.has_link_columns_in_order_index() && self.filter.on_customer().is_empty()
    }

    /// Returns true if the index that gives the order of the list also has the columns of the conditions on links.
    fn has_link_columns_in_order_index(&self) -> bool {
        self.filter.connected_at == TimeRange::default() || self.order.field == CustomerOrderField::ConnectedAt
    }

    /// The list as one part, without a scan, because an index has [all conditions](Self::is_in_order_index).
    fn part_in_order_index(&self, operator: OperatorId) -> ListPart {
        // The `LIMIT` applies before the join, so customers are joined only to the rows of the page.
        let joined = vec![join_customers(BRANCH_ROWS)];
        ListPart { joined, ..self.part(links(operator, &self.filter).into_query()) }
    }

    /// The parts of a list with a scan: a search, or conditions that no index has.
    fn scanned_parts(&self, operator: OperatorId, plan: Option<&SearchPlan>) -> Vec<ListPart> {
        use customer_operator::Column::{CustomerId, OperatorId};
        let scans = self.scans(operator, plan);
        let key = *self.position_by().last().unwrap_or(&CustomerId);
        let has_conditions = self.filter.has_conditions() || self.searched_email().is_some();
        // Built only if there are conditions: building a statement takes as long as reading several rows.
        let conditions = has_conditions.then(|| {
            let is_scanned = key.into_expr().equals((Alias::new(SCAN), key));
            scan_filter(self.own_customers(operator).filter(is_scanned))
        });
        let links = [OperatorId, key].map(|column| (column, BRANCH_ROWS, column.as_str()));
        let part = |(query, mut scan): (_, Scan)| {
            scan.filters.extend(conditions.clone());
            let links = JoinedTable::new::<customer_operator::Entity>(&links);
            let joined = vec![links, join_customers(customer_operator::Entity.table_name())];
            ListPart { joined, scan: Some(scan), ..self.part(query) }
        };
        scans.into_iter().map(part).collect()
    }

    /// The queries for the rows that the scans of the list check. Each query selects the columns of a position and the
    /// id of the operator.
    fn scans(&self, operator: OperatorId, plan: Option<&SearchPlan>) -> Vec<(SelectStatement, Scan)> {
        if let Some(search) = &self.filter.search {
            return search::scans(operator, search, plan.unwrap_or(&SearchPlan::ScanInIdOrder));
        }
        let links = if self.has_link_columns_in_order_index() {
            links(operator, &self.filter)
        } else {
            links(operator, &CustomerFilter::default())
        };
        let columns = self.position_by().iter().copied().chain([customer_operator::Column::OperatorId]);
        vec![(links.select_only().columns(columns).into_query(), Scan::default())]
    }

    /// Selects the operator's customers that meet all conditions except the words of the search. Leaves out the
    /// [`searched_customer`](Self::searched_customer).
    fn own_customers(&self, operator: OperatorId) -> SelectTwo<customer_operator::Entity, customer::Entity> {
        of_operator(operator)
            .filter(self.filter.on_own_customer(operator, None))
            .apply_if(self.searched_email().cloned(), |own, email| own.filter(customer::Column::Email.ne(email)))
    }

    /// A part in the order of the list.
    fn part(&self, query: SelectStatement) -> ListPart {
        ListPart { order: self.order.direction, ..ListPart::new(query, self.position_columns()) }
    }
}

/// Joins the customers to the links in the table `links`.
fn join_customers(links: &str) -> JoinedTable {
    let customer_id = customer_operator::Column::CustomerId.as_str();
    JoinedTable::new::<customer::Entity>(&[(customer::Column::Id, links, customer_id)])
}

/// Turns a query for at most one row into a subquery for the filters of a [`Scan`]. The subquery is null if there is no
/// row.
fn scan_filter(query: impl QueryTrait<QueryStatement = SelectStatement>) -> SelectStatement {
    query.into_query().clear_selects().expr(Expr::cust("1")).take()
}

impl HasPosition for Link {
    /// The link's position among the links of its customer.
    fn position(&self) -> Position {
        Position { sort_key: SortKey::Time(self.connected_at), id: *self.operator_id.as_uuid() }
    }
}

/// Selects an operator's links that match the conditions on links.
fn links(operator: OperatorId, filter: &CustomerFilter) -> Select<customer_operator::Entity> {
    customer_operator::Entity::find()
        .filter(customer_operator::Column::OperatorId.eq(operator))
        .filter(filter.on_link())
}
