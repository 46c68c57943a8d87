//! Reads a list of the API page by page.

use serde_json::Value;

/// A direction in which a list is read: the names of the arguments, and of the fields in `pageInfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Direction {
    /// The argument with the size of a page.
    pub size: &'static str,
    /// The argument with the cursor of the previous page.
    pub bound: &'static str,
    /// The field with the cursor for the next page.
    pub cursor: &'static str,
    /// True if there is another page in this direction.
    pub has_more: &'static str,
    /// True if there is another page in the other direction.
    pub has_less: &'static str,
}

pub const FORWARDS: Direction = Direction {
    size: "first",
    bound: "after",
    cursor: "endCursor",
    has_more: "hasNextPage",
    has_less: "hasPreviousPage",
};
pub const BACKWARDS: Direction = Direction {
    size: "last",
    bound: "before",
    cursor: "startCursor",
    has_more: "hasPreviousPage",
    has_less: "hasNextPage",
};

impl Direction {
    /// Reads a list to its end. `read` returns the page after a cursor, with its `pageInfo`. The first cursor is null.
    /// Returns the pages in the order of the list.
    pub async fn read_pages(self, read: impl AsyncFn(Value) -> Value) -> Vec<Value> {
        const MAX_PAGES: usize = 1000;
        let (mut pages, mut cursor) = (Vec::new(), Value::Null);
        while pages.len() < MAX_PAGES {
            let page = read(cursor).await;
            cursor = page["pageInfo"][self.cursor].clone();
            let is_last = page["pageInfo"][self.has_more] == false;
            assert!(is_last || cursor.is_string(), "{page}");
            pages.push(page);
            if is_last {
                if self == BACKWARDS {
                    pages.reverse();
                }
                return pages;
            }
        }
        panic!("the list has more than {MAX_PAGES} pages")
    }
}
