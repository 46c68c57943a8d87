//! The filter and the order of a list of customers.

use async_graphql::indexmap::IndexSet;
use async_graphql::{Enum, InputObject};
use chrono::{SubsecRound, TimeDelta};
use entity::value::{OperatorId, SearchQuery};

use super::violations::Violations;
use crate::database::pages::SortOrder;
use crate::error::{Error, ErrorCode, InputField};
use crate::graphql::time::Time;
use crate::service::customers::{
    CustomerField, CustomerFilter, CustomerList, CustomerOrder, CustomerOrderField, TimeRange,
};

/// Conditions for a list of customers. A customer must match all conditions.
#[derive(Default, InputObject)]
#[graphql(name = "CustomerFilter")]
pub struct CustomerFilterInput {
    /// Word-prefix search, for example `ada love` or `415 555`. Each word of the search must be a prefix of a word in
    /// the customer's names, email, `externalCustomerId` or phone. Ignores case, accents and apostrophes; there are no
    /// wildcards. Phones match with or without the country code, and by their last four digits. Adjacent groups of
    /// digits count as one number: `415 555` is `415555`.
    ///
    /// At most 255 characters, and at most 8 words unless the string is an email address. A string without letters and
    /// digits matches no customer, so omit `search` if the user has typed nothing. Cannot be combined with `orderBy`.
    /// Not available in the platform's list of all customers.
    ///
    /// Results are ordered by customer id, but these come first: the customer whose email is the search string, or, if
    /// the search has two different words and neither is a number, the customers that have one of the words in the
    /// first name and the other in the last name, both as whole words. If each word matches very many customers (with
    /// several words more than 10,000), a page may be short, as for `missing`.
    search: Option<String>,
    /// Email address, in any spelling that `createCustomer` accepts. Matches the whole address.
    email: Option<String>,
    /// Phone number, in any spelling that `createCustomer` accepts. Matches the whole number.
    phone: Option<String>,
    /// The operator's own id for the customer. Matches the whole id. Not available in the platform's list of all
    /// customers.
    external_customer_id: Option<String>,
    /// Matches customers for which all of these fields are empty. This condition has no index, so the service checks at
    /// most 10,000 customers per page (20,000 if `search` has one or two words). A page can therefore have fewer items
    /// than requested, or none, although more customers match: continue with `endCursor` while `hasNextPage` is true.
    missing: Option<Vec<CustomerField>>,
    /// True: customers whose `emailVerifiedAt` is not null. False: customers whose `emailVerifiedAt` is null. This
    /// condition has no index (see `missing`).
    email_verified: Option<bool>,
    /// True: customers whose `phoneVerifiedAt` is not null. False: customers whose `phoneVerifiedAt` is null, including
    /// customers without a phone. This condition has no index (see `missing`).
    phone_verified: Option<bool>,
    /// Time range in which the record was created, by any operator. This condition has no index (see `missing`).
    created_at: Option<DateTimeRange>,
    /// Time range in which the customer was connected to the operator. This condition uses an index only if the list is
    /// ordered by `CONNECTED_AT`. Otherwise a page may be short, as for `missing`. Not available in the platform's list
    /// of all customers.
    connected_at: Option<DateTimeRange>,
}

/// A time range. Both ends are optional.
#[derive(Default, InputObject)]
struct DateTimeRange {
    /// Start of the range, inclusive, for example `2026-11-23T00:00:00Z`.
    from: Option<Time>,
    /// End of the range, exclusive.
    before: Option<Time>,
}

/// Sort order of a list of customers.
#[derive(InputObject)]
#[graphql(name = "CustomerOrder")]
pub struct CustomerOrderInput {
    /// Field to sort by.
    field: CustomerOrderField,
    /// Sort direction.
    direction: OrderDirection,
}

/// Sort direction.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
enum OrderDirection {
    /// Ascending: oldest or smallest first.
    Asc,
    /// Descending: newest or largest first.
    Desc,
}

impl DateTimeRange {
    fn parse(self, [from, before]: [InputField; 2], violations: &mut Violations) -> TimeRange {
        /// Rounds up to a microsecond, the precision of the stored times. A stored time is before the rounded time if
        /// and only if it is before `time`.
        fn rounded_up(Time(time): Time) -> Time {
            let rounded_down = time.trunc_subsecs(6);
            Time(if rounded_down == time { time } else { rounded_down + TimeDelta::microseconds(1) })
        }
        TimeRange {
            from: violations.time(from, self.from.map(rounded_up)),
            before: violations.time(before, self.before.map(rounded_up)),
        }
    }
}

impl CustomerFilterInput {
    /// Returns a list of customers with this filter and order: the operator's customers, or all customers if `operator`
    /// is `None`. If it fails, also reports the violations that `add_others` adds.
    pub fn parse(
        self,
        operator: Option<OperatorId>,
        order: Option<CustomerOrderInput>,
        add_others: impl FnOnce(&mut Violations),
    ) -> Result<CustomerList, Error> {
        let mut violations = Violations::default();
        self.check_list(operator.is_none(), order.is_some(), &mut violations);
        let filter = CustomerFilter {
            search: self.search.and_then(|text| {
                violations.value(ErrorCode::InvalidArgument, InputField::FilterSearch, SearchQuery::parse(&text))
            }),
            email: self.email.and_then(|text| violations.email(InputField::FilterEmail, &text)),
            phone: self.phone.and_then(|text| violations.phone(InputField::FilterPhone, &text)),
            external_customer_id: self
                .external_customer_id
                .and_then(|text| violations.external_customer_id(InputField::FilterExternalCustomerId, &text)),
            // Repeated fields are removed, because they would lengthen the statement.
            missing: self.missing.into_iter().flatten().collect::<IndexSet<_>>().into_iter().collect(),
            email_verified: self.email_verified,
            phone_verified: self.phone_verified,
            created_at: self
                .created_at
                .unwrap_or_default()
                .parse([InputField::FilterCreatedAtFrom, InputField::FilterCreatedAtBefore], &mut violations),
            connected_at: self
                .connected_at
                .unwrap_or_default()
                .parse([InputField::FilterConnectedAtFrom, InputField::FilterConnectedAtBefore], &mut violations),
        };
        if !violations.is_empty() {
            add_others(&mut violations);
        }
        let filter = violations.finish(filter)?;
        let order = order.map(|CustomerOrderInput { field, direction }| CustomerOrder {
            field,
            direction: match direction {
                OrderDirection::Asc => SortOrder::Ascending,
                OrderDirection::Desc => SortOrder::Descending,
            },
        });
        Ok(CustomerList { operator, filter, order: order.unwrap_or_default() })
    }

    /// Rejects conditions and orders that the list of all customers does not support. In every list, also rejects an
    /// order if there is a search.
    fn check_list(&self, is_all: bool, has_order: bool, violations: &mut Violations) {
        let has_external_id = self.external_customer_id.is_some();
        for (is_violated, field, note) in [
            (is_all && self.search.is_some(), InputField::FilterSearch, OPERATOR_LIST_ONLY_SEARCH),
            (is_all && self.connected_at.is_some(), InputField::FilterConnectedAt, OPERATOR_LIST_ONLY_CONNECTED_AT),
            (is_all && has_external_id, InputField::FilterExternalCustomerId, OPERATOR_LIST_ONLY_EXTERNAL_ID),
            (is_all && has_order, InputField::OrderBy, OPERATOR_LIST_ONLY_ORDER),
            (!is_all && has_order && self.search.is_some(), InputField::OrderBy, NO_ORDER_WITH_SEARCH),
        ] {
            if is_violated {
                violations.argument(field, note);
            }
        }
    }
}

const OPERATOR_LIST_ONLY_SEARCH: &str =
    "`search` can only be used on one operator's list: operator(id: …) { customers(filter: …) }";
const OPERATOR_LIST_ONLY_CONNECTED_AT: &str =
    "`connectedAt` can only be used on one operator's list: operator(id: …) { customers(filter: …) }";
const OPERATOR_LIST_ONLY_EXTERNAL_ID: &str =
    "`externalCustomerId` can only be used on one operator's list: operator(id: …) { customers(filter: …) }";
const OPERATOR_LIST_ONLY_ORDER: &str =
    "`orderBy` can only be used on one operator's list: operator(id: …) { customers(orderBy: …) }";
const NO_ORDER_WITH_SEARCH: &str =
    "`orderBy` cannot be combined with `search`, whose results have an order of their own.";
