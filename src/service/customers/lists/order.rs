//! The order of a list of customers: the positions of its customers, and the columns that have the positions.

use async_graphql::Enum;
use entity::customer_operator;
use sea_orm::sea_query::{Expr, SimpleExpr};

use super::CustomerList;
use crate::database::pages::{Position, Section, SortKey, SortOrder};
use crate::service::customers::CustomerView;

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

impl CustomerList {
    /// The position of a customer in a section of the list. In a list with one section, all customers are in
    /// [`Section::Others`].
    pub(super) fn position(&self, view: &CustomerView, section: Section) -> Position {
        let sort_key = match (&view.link, &self.filter.search, self.order.field) {
            _ if section == Section::First => SortKey::First,
            (None, _, _) | (_, Some(_), _) => SortKey::OnlyId,
            (Some(link), None, CustomerOrderField::ConnectedAt) => SortKey::Time(link.connected_at),
            (Some(link), None, CustomerOrderField::ExternalCustomerId) => {
                SortKey::Text(link.external_customer_id.as_str().to_owned())
            }
        };
        Position { sort_key, id: *view.customer.id.as_uuid() }
    }

    /// The columns of the [`position`](Self::position) in an operator's list. The last column is unique in the list.
    pub(super) fn position_columns(&self) -> Vec<SimpleExpr> {
        let column = |column| Expr::col(column);
        self.position_column_ids().iter().copied().map(column).collect()
    }

    pub(super) fn position_column_ids(&self) -> &'static [customer_operator::Column] {
        use customer_operator::Column::{ConnectedAt, CustomerId, ExternalCustomerId};
        match (&self.filter.search, self.order.field) {
            (Some(_), _) => &[CustomerId],
            (None, CustomerOrderField::ConnectedAt) => &[ConnectedAt, CustomerId],
            (None, CustomerOrderField::ExternalCustomerId) => &[ExternalCustomerId],
        }
    }
}
