//! Writes changed customers and links together with their search words.

use chrono::{DateTime, Utc};
use entity::customer_event::VerifiableField;
use entity::{customer, customer_operator};
use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{ColumnTrait, IdenStatic, Iterable};

use super::field::{CustomerField, set_verified_at};
use super::row_reads::Link;
use super::words;
use crate::database::{WriteSet, WriteStatement, delete_in_cte, row_values, update_from_cte};
use crate::service::{feed_positions, now};

/// Replaces a customer if two conditions hold. The stored revision must be one less than the revision of the new row,
/// and the change feed must stay in the order of the versions (see `service::feed_positions`).
const REPLACE: WriteStatement = WriteStatement {
    name: "replace customers",
    columns: || customer::Column::iter().map(|column| column.as_str()).collect(),
    build: |new, backend| {
        use customer::Column::{Id, Revision};
        let columns = customer::Column::iter().filter(|column| !matches!(column, Id));
        let is_next = Revision.into_expr().eq(Expr::col((new.clone(), Revision)).sub(1));
        let mut replace = update_from_cte::<customer::Entity>(new, &[Id], columns);
        replace.and_where(is_next).and_where_option(feed_positions::keeps_version_order(backend, "customer"));
        Box::new(replace)
    },
    must_write_all: true,
};

/// Writes the customer with the next revision and the same values, so that concurrent writers that have read the old
/// revision fail with a conflict. Returns the row as it is written.
pub(super) fn raise_revision(writes: &mut WriteSet, current: &customer::Model) -> customer::Model {
    replace(writes, current, current.clone())
}

/// Replaces `current` by `changed` and returns the row as it is written.
///
/// If a value differs, the row gets a new version and the customer's search words are updated. If no value differs,
/// only the revision is incremented. In both cases, concurrent writers that have read the old revision fail with a
/// conflict. The write fails if `current` is outdated. If the email or the phone differs, the time of its verification
/// becomes null.
pub(super) fn replace(writes: &mut WriteSet, current: &customer::Model, changed: customer::Model) -> customer::Model {
    replace_verified(writes, current, changed, None)
}

/// Like [`replace`], but also marks a field as verified. `proof` is the verified field, and the time of the
/// verification to store.
pub(super) fn replace_verified(
    writes: &mut WriteSet,
    current: &customer::Model,
    mut changed: customer::Model,
    proof: Option<(VerifiableField, DateTime<Utc>)>,
) -> customer::Model {
    let is_changed = CustomerField::any_differs(current, &changed);
    for field in VerifiableField::iter() {
        if CustomerField::from(field).differs(current, &changed) {
            set_verified_at(&mut changed, field, None);
        }
    }
    if let Some((field, time)) = proof {
        set_verified_at(&mut changed, field, Some(time));
    }
    if is_changed {
        changed.version = current.version + 1;
        changed.updated_at = now();
    }
    changed.revision = current.revision + 1;
    writes.push(REPLACE, vec![row_values(&changed)]);
    if is_changed {
        words::change(writes, current, &changed);
    }
    changed
}

/// Deletes links. Aborts if a link does not exist.
const REMOVE_LINK: WriteStatement = WriteStatement {
    name: "remove links",
    columns: || LINK_KEY.map(|column| column.as_str()).to_vec(),
    build: |new, _| Box::new(delete_in_cte::<customer_operator::Entity>(new, &LINK_KEY)),
    must_write_all: true,
};

const LINK_KEY: [customer_operator::Column; 2] =
    [customer_operator::Column::OperatorId, customer_operator::Column::CustomerId];

/// Deletes links and their search words. The customer must be [replaced](replace) or deleted in the same writes, so
/// that concurrent writers that have read the links fail with a conflict.
pub(super) fn remove_links(writes: &mut WriteSet, links: &[Link]) {
    let key = |link: &Link| vec![link.operator_id.into(), link.customer_id.into()];
    writes.push(REMOVE_LINK, links.iter().map(key).collect());
    words::remove(writes, links);
}

/// Changes the external ids of links. Aborts if a link does not exist.
const CHANGE_EXTERNAL_ID: WriteStatement = WriteStatement {
    name: "change external ids",
    columns: || {
        let columns = LINK_KEY.into_iter().chain([customer_operator::Column::ExternalCustomerId]);
        columns.map(|column| column.as_str()).collect()
    },
    build: |new, _| {
        let columns = [customer_operator::Column::ExternalCustomerId];
        Box::new(update_from_cte::<customer_operator::Entity>(new, &LINK_KEY, columns))
    },
    must_write_all: true,
};

/// Changes the external id of a link, and the search words of the external id. The customer must be [replaced](replace)
/// in the same writes.
pub(super) fn change_external_id(writes: &mut WriteSet, link: &Link, new_link: &Link) {
    let id = new_link.external_customer_id.clone();
    writes.push(CHANGE_EXTERNAL_ID, vec![vec![link.operator_id.into(), link.customer_id.into(), id.into()]]);
    words::change_external_id(writes, link, new_link);
}
