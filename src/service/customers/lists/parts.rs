//! The parts of a list of customers, which the database reads as one list.

use entity::value::{EmailAddress, OperatorId, SearchQuery};
use entity::{customer, customer_operator};
use sea_orm::sea_query::{Alias, Expr, ExprTrait, SelectStatement};
use sea_orm::{
    ColumnTrait, Condition, EntityName, EntityTrait, IdenStatic, QueryFilter, QuerySelect, QueryTrait, Select,
    SelectTwo,
};

use super::filter::{CustomerFilter, TimeRange};
use super::search::{self, SearchPlan};
use super::sections::FirstSection;
use super::{CustomerList, CustomerOrderField};
use crate::database::pages::{BRANCH_ROWS, JoinedTable, ListPart, SCAN, Scan};
use crate::service::customers::row_reads::of_operator;

impl CustomerList {
    /// The first section of the list. Each row has the same columns as those of the [other
    /// parts](Self::parts_of_others).
    pub(super) fn part_of_first_section(&self, operator: OperatorId) -> Option<ListPart> {
        Some(match self.first_section()? {
            FirstSection::WithEmail(email) => {
                let query = of_operator(operator).filter(self.filter.on_own_customer(operator, Some(email)));
                self.part(query.into_query())
            }
            FirstSection::WithNamePair(pair) => {
                let customers = search::customers_with_stored_word(operator, pair);
                self.scanned_part(customers, Scan::default(), self.conditions_of_scan(operator))
            }
        })
    }

    /// The search, if it needs a [`SearchPlan`].
    pub(super) fn search_with_plan(&self) -> Option<&SearchQuery> {
        self.filter.search.as_ref().filter(|_| !self.filter.matches_at_most_one())
    }

    /// The list of all customers.
    pub(super) fn part_of_all(&self) -> ListPart {
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

    /// The parts of an operator's list, without its first section. Each row has the columns of a link, then the columns
    /// of the link's customer.
    pub(super) fn parts_of_others(&self, operator: OperatorId, plan: Option<&SearchPlan>) -> Vec<ListPart> {
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
        // Names all fields, so that the compiler reports a new condition on links.
        let CustomerFilter {
            connected_at,
            search: _,
            email: _,
            phone: _,
            external_customer_id: _,
            missing: _,
            email_verified: _,
            phone_verified: _,
            created_at: _,
        } = &self.filter;
        *connected_at == TimeRange::default() || self.order.field == CustomerOrderField::ConnectedAt
    }

    /// The list as one part, without a scan, because an index has [all conditions](Self::is_in_order_index).
    fn part_in_order_index(&self, operator: OperatorId) -> ListPart {
        // The `LIMIT` applies before the join, so customers are joined only to the rows of the page.
        let joined = vec![join_customers(BRANCH_ROWS)];
        ListPart { joined, ..self.part(links(operator, &self.filter).into_query()) }
    }

    /// The parts of a list with a scan: a search, or conditions that no index has.
    fn scanned_parts(&self, operator: OperatorId, plan: Option<&SearchPlan>) -> Vec<ListPart> {
        let conditions = self.conditions_of_scan(operator);
        let scans = self.scans(operator, plan).into_iter();
        scans.map(|(query, scan)| self.scanned_part(query, scan, conditions.clone())).collect()
    }

    /// A part whose customers are checked one by one. `query` selects the columns of a position and the id of the
    /// operator.
    fn scanned_part(&self, query: SelectStatement, mut scan: Scan, conditions: Option<SelectStatement>) -> ListPart {
        scan.filters.extend(conditions);
        let links = [customer_operator::Column::OperatorId, self.key_of_scan()];
        let links = links.map(|column| (column, BRANCH_ROWS, column.as_str()));
        let links = JoinedTable::new::<customer_operator::Entity>(&links);
        let joined = vec![links, join_customers(customer_operator::Entity.table_name())];
        ListPart { joined, scan: Some(scan), ..self.part(query) }
    }

    /// The conditions of the list except the words of its search, as a filter of a scan. The filter also leaves out the
    /// customer whose email was searched. `None` if it is not necessary: building a statement takes as long as reading
    /// several rows.
    fn conditions_of_scan(&self, operator: OperatorId) -> Option<SelectStatement> {
        let is_necessary = self.filter.has_conditions() || self.searched_email().is_some();
        is_necessary.then(|| {
            let key = self.key_of_scan();
            let is_scanned = key.into_expr().equals((Alias::new(SCAN), key));
            scan_filter(self.own_customers(operator).filter(is_scanned))
        })
    }

    /// The column of a scan that identifies a customer of the list.
    fn key_of_scan(&self) -> customer_operator::Column {
        self.position_column_ids().last().copied().unwrap_or(customer_operator::Column::CustomerId)
    }

    /// The queries for the rows that the scans of the list check. Each query selects the columns of a position and the
    /// id of the operator.
    fn scans(&self, operator: OperatorId, plan: Option<&SearchPlan>) -> Vec<(SelectStatement, Scan)> {
        if let Some(search) = &self.filter.search {
            return search::scans(operator, search, plan.unwrap_or(&SearchPlan::CheckAll));
        }
        let links = if self.has_link_columns_in_order_index() {
            links(operator, &self.filter)
        } else {
            links(operator, &CustomerFilter::default())
        };
        let columns = self.position_column_ids().iter().copied().chain([customer_operator::Column::OperatorId]);
        vec![(links.select_only().columns(columns).into_query(), Scan::default())]
    }

    /// The email, if the search is an email.
    fn searched_email(&self) -> Option<&EmailAddress> {
        self.filter.search.as_ref()?.email()
    }

    /// Selects the operator's customers that meet all conditions except the words of the search. Leaves out the
    /// customer whose email was searched.
    fn own_customers(&self, operator: OperatorId) -> SelectTwo<customer_operator::Entity, customer::Entity> {
        of_operator(operator)
            .filter(self.filter.on_own_customer(operator, None))
            .apply_if(self.searched_email(), |own, email| own.filter(customer::Column::Email.ne(email.clone())))
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

/// Selects an operator's links that match the conditions on links.
fn links(operator: OperatorId, filter: &CustomerFilter) -> Select<customer_operator::Entity> {
    customer_operator::Entity::find()
        .filter(customer_operator::Column::OperatorId.eq(operator))
        .filter(filter.on_link())
}
