//! Sizes of rows, which count for the size of a response.

use sea_orm::sqlx::postgres::PgRow;
use sea_orm::sqlx::sqlite::SqliteRow;
use sea_orm::sqlx::{Decode, Row, Sqlite, TypeInfo, ValueRef};

/// Returns the number of bytes of the values of a row.
pub(super) fn postgres_row_size(row: &PgRow) -> usize {
    let value = |column| row.try_get_raw(column).ok()?.as_bytes().ok();
    let columns = 0..row.len();
    // The values are in memory one after the other. The first and the last value that are not null therefore give the
    // size of the row without a lookup for each column.
    match (columns.clone().find_map(value), columns.rev().find_map(value)) {
        (Some(first), Some(last)) => last.as_ptr_range().end.addr().abs_diff(first.as_ptr().addr()),
        _ => 0,
    }
}

/// Returns the number of bytes of the texts and blobs of a row. Other values are short, and reading their bytes would
/// convert them.
pub(super) fn sqlite_row_size(row: &SqliteRow) -> usize {
    let size_of = |column| {
        let value = row.try_get_raw(column).ok()?;
        let is_bytes = matches!(value.type_info().name(), "TEXT" | "BLOB");
        is_bytes.then(|| <&[u8] as Decode<Sqlite>>::decode(value).map_or(0, <[u8]>::len))
    };
    (0..row.len()).filter_map(size_of).sum()
}
