//! Arguments and pages of lists, which the Relay specification calls connections.

use std::borrow::Cow;
use std::sync::Arc;

use async_graphql::connection::EmptyFields;
use async_graphql::resolver_utils::ContainerType;
use async_graphql::{InputObject, Object, ObjectType, OutputType, SimpleObject, TypeName};

use super::cursor::{Cursor, Cursors};
use super::inputs::Violations;
use super::items::Items;
use super::json_writer::{CannotWriteJson, FieldWriter, SelectedField, WriteJson};
use crate::database::pages::{Count, Direction, Page, PageEnds, PageRequest, Position};
use crate::error::{Error, InputField};
use crate::service::feed_positions::FeedPosition;

const MIN_PAGE_SIZE: i32 = 1;
pub const MAX_PAGE_SIZE: i32 = 100;
const DEFAULT_PAGE_SIZE: usize = 20;

const INVALID_PAGE_SIZE: &str = "The size of a page must be 1 to 100.";

/// The arguments that every connection has.
#[derive(InputObject)]
pub struct PageArguments {
    pub first: Option<i32>,
    pub after: Option<String>,
    pub last: Option<i32>,
    pub before: Option<String>,
}

impl PageArguments {
    /// Adds the violations of `first` and `last`.
    pub fn check_sizes(&self, violations: &mut Violations) {
        let is_invalid = |size: Option<i32>| size.is_some_and(|size| !(MIN_PAGE_SIZE..=MAX_PAGE_SIZE).contains(&size));
        if is_invalid(self.first) {
            violations.argument(InputField::First, INVALID_PAGE_SIZE);
        }
        if is_invalid(self.last) {
            violations.argument(InputField::Last, INVALID_PAGE_SIZE);
        } else if self.first.is_some() && self.last.is_some() {
            violations.argument(InputField::Last, "`first` and `last` cannot be combined.");
        }
    }

    /// Checks the arguments against the list that the cursors belong to. If the list is not known, rejects every
    /// cursor, because a cursor is valid for one list only.
    pub fn parse(&self, cursors: Option<&Cursors>) -> Result<PageRequest, Error> {
        let mut violations = Violations::default();
        self.check_sizes(&mut violations);
        let mut position = |field, cursor: &Option<String>| {
            let cursor = cursor.as_ref()?;
            let note = "The cursor is not valid for this list. A cursor is valid only with the same operator, filter and \
                        order. Start with the first page.";
            violations.require(cursors.and_then(|cursors| cursors.decode(cursor)), field, note)
        };
        let after = position(InputField::After, &self.after);
        let before = position(InputField::Before, &self.before);
        let (direction, size) = match (self.first, self.last) {
            (None, Some(last)) => (Direction::Backward, Some(last)),
            (first, _) => (Direction::Forward, first),
        };
        let size = size.map_or(DEFAULT_PAGE_SIZE, |size| size.unsigned_abs() as usize);
        violations.finish(PageRequest { direction, size, after, before })
    }
}

/// Checks the arguments of the change feed. Returns the size of the page and the position of the cursor.
pub fn feed_arguments(
    first: i32,
    after: Option<&str>,
    cursors: &Cursors,
) -> Result<(usize, Option<FeedPosition>), Error> {
    let mut violations = Violations::default();
    if !(MIN_PAGE_SIZE..=MAX_PAGE_SIZE).contains(&first) {
        violations.argument(InputField::First, INVALID_PAGE_SIZE);
    }
    let note = "The cursor is not valid for the caller's `changes` feed, or is no longer valid. Read `viewer.changesCursor`, \
                read all customers, and continue from that cursor.";
    let position =
        after.and_then(|cursor| violations.require(cursors.decode_feed_position(cursor), InputField::After, note));
    violations.finish((first.unsigned_abs() as usize, position))
}

/// Information about the current page.
#[derive(SimpleObject)]
pub struct PageInfo {
    /// Paging backwards: true if there are, or may be, more items before this page. Paging forwards: true if `after`
    /// was given.
    has_previous_page: bool,
    /// Paging forwards: true if there are, or may be, more items after this page. Paging backwards: true if `before`
    /// was given.
    has_next_page: bool,
    /// Cursor to pass as `before` for the previous page. Usually the cursor of the first item, or null if the page is
    /// empty. If a filter ended a backward page early, the cursor of the last customer that was checked.
    start_cursor: Option<Cursor>,
    /// Cursor to pass as `after` for the next page. Usually the cursor of the last item, or null if the page is empty.
    /// If a filter ended a forward page early, the cursor of the last customer that was checked.
    end_cursor: Option<Cursor>,
}

impl WriteJson for PageInfo {}

impl PageInfo {
    pub fn new<T>(page: &Page<T>, cursors: &Arc<Cursors>, position: impl Fn(&T) -> Position) -> Self {
        let PageEnds { start, end } = page.ends(position);
        Self {
            has_previous_page: page.has_previous,
            has_next_page: page.has_next,
            start_cursor: start.map(|position| cursors.at(position)),
            end_cursor: end.map(|position| cursors.at(position)),
        }
    }
}

/// An item of a page with its cursor.
pub trait Edge: ContainerType + Sized + 'static {
    type Node: WriteJson;

    fn node(&self) -> &Self::Node;

    /// Returns the writer of a selected field other than `node`.
    fn field_writer<'q>(field: &SelectedField<'q>) -> Result<FieldWriter<'q, Self>, CannotWriteJson> {
        field.resolver()
    }
}

impl<E: Edge> WriteJson for E {
    fn field_writer<'q>(field: &SelectedField<'q>) -> Result<FieldWriter<'q, Self>, CannotWriteJson> {
        match field.name() {
            "node" => field.object(E::node),
            _ => <E as Edge>::field_writer(field),
        }
    }
}

/// A page of a list. `X` has the fields that only some lists have.
pub struct Connection<E, X = EmptyFields> {
    pub edges: Vec<E>,
    pub page_info: PageInfo,
    pub extra: X,
}

impl<E, X> Connection<E, X> {
    /// Makes the page of these rows. `edge` makes the edge of a row.
    pub fn new<T>(
        page: Page<T>,
        cursors: &Arc<Cursors>,
        position: impl Fn(&T) -> Position,
        extra: X,
        edge: impl Fn(Cursor, T) -> E,
    ) -> Self {
        let page_info = PageInfo::new(&page, cursors, &position);
        let edges = page.rows.into_iter().map(|row| edge(cursors.at(position(&row)), row)).collect();
        Self { edges, page_info, extra }
    }
}

impl<E: OutputType, X: ObjectType> TypeName for Connection<E, X> {
    fn type_name() -> Cow<'static, str> {
        E::type_name().replace("Edge", "Connection").into()
    }
}

/// A page of a list.
#[Object(name_type)]
impl<E: Edge, X: ObjectType> Connection<E, X> {
    /// Items of this page with their cursors.
    async fn edges(&self) -> Items<E, &E> {
        self.edges.iter().collect()
    }

    /// Items of this page, without cursors.
    async fn nodes(&self) -> Items<E::Node, &E::Node> {
        self.edges.iter().map(E::node).collect()
    }

    /// Information about the current page.
    async fn page_info(&self) -> &PageInfo {
        &self.page_info
    }

    #[graphql(flatten)]
    async fn extra(&self) -> &X {
        &self.extra
    }
}

impl<E: Edge, X: ObjectType + 'static> WriteJson for Connection<E, X> {
    fn field_writer<'q>(field: &SelectedField<'q>) -> Result<FieldWriter<'q, Self>, CannotWriteJson> {
        Ok(match field.name() {
            "edges" => {
                let writer = field.object_writer::<E>()?;
                Box::new(move |connection, json| writer.write_list(&connection.edges, json))
            }
            "nodes" => {
                let writer = field.object_writer::<E::Node>()?;
                Box::new(move |connection, json| writer.write_list(connection.edges.iter().map(E::node), json))
            }
            "pageInfo" => field.object(|connection: &Self| &connection.page_info)?,
            _ => return Err(CannotWriteJson::MustResolve),
        })
    }
}

/// Converts a count to the value of a `totalCount` field. Returns `None`, which becomes null, if the count is not exact
/// or does not fit in GraphQL's 32-bit integers.
pub fn total_count(count: Result<Count, Error>) -> Option<Result<i32, Error>> {
    let exact = |count| match count {
        Count::Exactly(count) => i32::try_from(count).ok(),
        Count::AtLeast(_) => None,
    };
    count.map(exact).transpose()
}

/// The arguments that the complexity of a list depends on.
pub const PAGE_SIZE_ARGUMENTS: [&str; 2] = ["first", "last"];

/// The complexity of a list without its items. Even an empty list takes memory: for its page information, or for the
/// error if it cannot be read.
const LIST_COMPLEXITY: usize = 5;

/// Returns the complexity of a list: about the number of fields in the response if the page is full. An item counts
/// even if the list selects only `__typename`, which has no complexity, because its row is read.
pub fn list_complexity(first: Option<i32>, last: Option<i32>, fields_per_item: usize) -> usize {
    page_size(first.or(last)) * fields_per_item.max(1) + LIST_COMPLEXITY
}

/// Returns the size of a page: the given size, limited to 1 to 100, or the default size if no size is given.
pub fn page_size(size: Option<i32>) -> usize {
    let clamped = |size: i32| size.clamp(MIN_PAGE_SIZE, MAX_PAGE_SIZE).unsigned_abs() as usize;
    size.map_or(DEFAULT_PAGE_SIZE, clamped)
}
