//! The rows that a change of a customer writes: the customer, its links, the search words, the history entry and the
//! rows of the feed. There is one function for each kind of change. It returns the rows in an order that gives the same
//! result on both databases. `time` is the time of the change, which is the same in all its rows.

use std::slice;

use chrono::{DateTime, Utc};
use entity::customer_event::{DisconnectReason, EventType, Model as Entry, VerifiableField};
use entity::{customer, customer_operator};
use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{ColumnTrait, IdenStatic, Iterable};

use super::field::{CustomerField, set_verified_at};
use super::row_reads::Link;
use super::{feed_rows, history, words};
use crate::database::{WriteSet, WriteStatement, delete_in_cte, row_values, update_from_cte};
use crate::service::{Origin, feed_positions, now};

/// The rows of a new customer with its first link.
pub(super) fn created(origin: &Origin, customer: &customer::Model, link: &Link) -> WriteSet {
    let entry = history::entry_of_values(origin, EventType::Created, None, customer, customer.created_at);
    Rows { customer: CustomerRow::Inserted(customer), links: LinkRows::Inserted(link), entries: vec![entry] }
        .into_writes(origin)
}

/// The rows of a new link of an existing customer. `after` is the [next row](next_row) of the customer, in which empty
/// fields may have been filled in.
pub(super) fn connected(origin: &Origin, before: &customer::Model, after: &customer::Model, link: &Link) -> WriteSet {
    let entry = history::entry_of_values(origin, EventType::Connected, Some(before), after, link.connected_at);
    let customer = CustomerRow::Replaced { before, after };
    Rows { customer, links: LinkRows::Inserted(link), entries: vec![entry] }.into_writes(origin)
}

/// The rows of an update. `after` is the [next row](next_row) of the customer. `links` has the link of the caller
/// before and after, if its external id changes.
pub(super) fn updated(
    origin: &Origin,
    before: &customer::Model,
    after: &customer::Model,
    links: Option<(&Link, &Link)>,
    time: DateTime<Utc>,
) -> WriteSet {
    let of_values = CustomerField::any_differs(before, after)
        .then(|| history::entry_of_values(origin, EventType::Updated, Some(before), after, time));
    let of_id = links.map(|(old, new)| history::entry_of_external_id(origin, after, old, new, time));
    let links = links.map_or(LinkRows::Unchanged, |(before, after)| LinkRows::ExternalIdReplaced { before, after });
    let customer = CustomerRow::Replaced { before, after };
    Rows { customer, links, entries: of_values.into_iter().chain(of_id).collect() }.into_writes(origin)
}

/// The rows of the verification of `field`. `after` is the [next row](next_row) of the customer, with the time of the
/// verification.
pub(super) fn verified(
    origin: &Origin,
    field: VerifiableField,
    before: &customer::Model,
    after: &customer::Model,
    time: DateTime<Utc>,
) -> WriteSet {
    let entry = history::entry_of_values(origin, EventType::Verified, Some(before), after, time);
    let entry = Entry { verified_field: Some(field), ..entry };
    let customer = CustomerRow::Replaced { before, after };
    Rows { customer, links: LinkRows::Unchanged, entries: vec![entry] }.into_writes(origin)
}

/// The rows of the removal of a link. `current` is the customer, whose values stay the same.
pub(super) fn disconnected(
    origin: &Origin,
    current: &customer::Model,
    link: &Link,
    reason: DisconnectReason,
) -> WriteSet {
    // The customer gets its next revision: concurrent writers may have read the link, and then fail with a conflict.
    let time = now();
    let after = next_row(current, current.clone(), time);
    let entry = history::entry_of_disconnect(origin, &after, link, reason, time);
    let customer = CustomerRow::Replaced { before: current, after: &after };
    Rows { customer, links: LinkRows::Deleted(slice::from_ref(link)), entries: vec![entry] }.into_writes(origin)
}

/// The rows of an erasure, except those that `erase` adds: the receipt, the redacted history and feed, and the deleted
/// carrier lookups. `links` are all links of the customer.
pub(super) fn erased(
    origin: &Origin,
    customer: &customer::Model,
    erased_at: DateTime<Utc>,
    links: &[Link],
) -> WriteSet {
    let entry = history::entry_without_values(origin, EventType::Erased, customer, erased_at);
    Rows { customer: CustomerRow::Deleted(customer), links: LinkRows::Deleted(links), entries: vec![entry] }
        .into_writes(origin)
}

/// Returns the row that replaces `current` if its values become those of `changed`.
///
/// The row has the next revision. If a value differs, the row also has the next version. If the email or the phone
/// differs, the time of its verification is null.
pub(super) fn next_row(
    current: &customer::Model,
    mut changed: customer::Model,
    time: DateTime<Utc>,
) -> customer::Model {
    for field in VerifiableField::iter() {
        if CustomerField::from(field).differs(current, &changed) {
            set_verified_at(&mut changed, field, None);
        }
    }
    if CustomerField::any_differs(current, &changed) {
        changed.version = current.version + 1;
        changed.updated_at = time;
    }
    changed.revision = current.revision + 1;
    changed
}

/// Adds the next row of a customer whose values stay the same, so that concurrent writers that have read the current
/// row fail with a conflict.
pub(super) fn raise_revision(writes: &mut WriteSet, current: &customer::Model) {
    CustomerRow::Replaced { before: current, after: &next_row(current, current.clone(), now()) }.write(writes);
}

/// The row of a customer. A change of a customer or of its links always writes this row, because concurrent writers
/// notice each other only by its revision.
#[derive(Clone, Copy)]
enum CustomerRow<'c> {
    Inserted(&'c customer::Model),
    /// The write fails with a conflict if `before` is outdated.
    Replaced {
        before: &'c customer::Model,
        after: &'c customer::Model,
    },
    /// The write fails with a conflict if the row is outdated.
    Deleted(&'c customer::Model),
}

/// The links that a change writes.
#[derive(Clone, Copy)]
enum LinkRows<'c> {
    Unchanged,
    Inserted(&'c Link),
    ExternalIdReplaced { before: &'c Link, after: &'c Link },
    Deleted(&'c [Link]),
}

/// The rows of a change. The rows of the feed and the search words are derived from these rows.
struct Rows<'c> {
    customer: CustomerRow<'c>,
    links: LinkRows<'c>,
    entries: Vec<Entry>,
}

impl Rows<'_> {
    /// Collects all rows in a write set. On PostgreSQL, no statement of the set sees the rows of another one. On
    /// SQLite, a statement sees the rows of the earlier ones. In this order the result is the same on both:
    ///
    /// - The statements for the words of the customer and for the feed write rows for each stored link. They run before
    ///   the links are written, so that they see the links as they were before the change. The words and the row in the
    ///   feed of a new link are written separately.
    /// - Links refer to the customer, which is therefore inserted first or deleted last.
    fn into_writes(self, origin: &Origin) -> WriteSet {
        let Self { customer, links, entries } = self;
        let mut writes = WriteSet::new(origin.owner(), customer.values().id);
        if !matches!(customer, CustomerRow::Deleted(_)) {
            customer.write(&mut writes);
        }
        for entry in entries {
            let links_of_entry = if history::is_about_links(entry.r#type) { links.as_slice() } else { &[] };
            feed_rows::add(&mut writes, &entry, links_of_entry, history::type_for_others(&entry));
            writes.insert([entry]);
        }
        links.write(&mut writes, customer);
        if matches!(customer, CustomerRow::Deleted(_)) {
            customer.write(&mut writes);
        }
        writes
    }
}

impl CustomerRow<'_> {
    /// The values of the customer after the change, or before its deletion.
    fn values(&self) -> &customer::Model {
        match self {
            Self::Inserted(customer) | Self::Replaced { after: customer, .. } | Self::Deleted(customer) => customer,
        }
    }

    /// Adds the row. If searchable values differ, also adds the changed words of all stored links.
    fn write(&self, writes: &mut WriteSet) {
        match self {
            Self::Inserted(customer) => writes.insert([(*customer).clone()]),
            Self::Replaced { before, after } => {
                debug_assert_eq!(after.revision, before.revision + 1, "`after` must be the next row of `before`");
                writes.push(REPLACE, vec![row_values(*after)]);
                words::change(writes, before, after);
            }
            Self::Deleted(customer) => {
                writes.push(DELETE, vec![vec![customer.id.into(), customer.revision.into()]]);
            }
        }
    }
}

impl<'c> LinkRows<'c> {
    /// The links that are new, or that were changed or deleted.
    fn as_slice(&self) -> &'c [Link] {
        match self {
            Self::Unchanged => &[],
            Self::Inserted(link) | Self::ExternalIdReplaced { after: link, .. } => slice::from_ref(link),
            Self::Deleted(links) => links,
        }
    }

    /// Adds the links and their words.
    fn write(&self, writes: &mut WriteSet, customer: CustomerRow<'_>) {
        match self {
            Self::Unchanged => {}
            Self::Inserted(link) => {
                writes.insert([(*link).clone()]);
                words::add(writes, link, customer.values());
            }
            Self::ExternalIdReplaced { before, after } => {
                let id = after.external_customer_id.clone();
                let row = vec![after.operator_id.into(), after.customer_id.into(), id.into()];
                writes.push(REPLACE_EXTERNAL_ID, vec![row]);
                words::change_external_id(writes, before, after);
            }
            Self::Deleted(links) => {
                let key = |link: &Link| vec![link.operator_id.into(), link.customer_id.into()];
                writes.push(DELETE_LINKS, links.iter().map(key).collect());
                words::remove(writes, links);
            }
        }
    }
}

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

/// Deletes a customer if its stored revision is the given one, and if the change feed stays in the order of the
/// versions.
const DELETE: WriteStatement = WriteStatement {
    name: "erase customers",
    columns: || vec![customer::Column::Id.as_str(), customer::Column::Revision.as_str()],
    build: |new, backend| {
        use customer::Column::{Id, Revision};
        let mut delete = delete_in_cte::<customer::Entity>(new, &[Id, Revision]);
        delete.and_where_option(feed_positions::keeps_version_order(backend, "customer"));
        Box::new(delete)
    },
    must_write_all: true,
};

const LINK_KEY: [customer_operator::Column; 2] =
    [customer_operator::Column::OperatorId, customer_operator::Column::CustomerId];

/// Replaces the external ids of links. Aborts if a link does not exist.
const REPLACE_EXTERNAL_ID: WriteStatement = WriteStatement {
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

/// Deletes links. Aborts if a link does not exist.
const DELETE_LINKS: WriteStatement = WriteStatement {
    name: "remove links",
    columns: || LINK_KEY.map(|column| column.as_str()).to_vec(),
    build: |new, _| Box::new(delete_in_cte::<customer_operator::Entity>(new, &LINK_KEY)),
    must_write_all: true,
};
