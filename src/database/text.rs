//! The texts of statements that are sent again and again.

use std::sync::OnceLock;

use sea_orm::sea_query::{SelectStatement, Value, Values};
use sea_orm::{DbBackend, Statement};

/// The text of a statement that differs in its values alone: it takes longer to build than to send.
#[derive(Default)]
pub struct Text(OnceLock<String>);

impl Text {
    /// The statement with these values, in the order in which they stand in it.
    pub fn with<const N: usize>(
        &self,
        backend: DbBackend,
        values: [Value; N],
        build: impl FnOnce() -> SelectStatement,
    ) -> Statement {
        let sql = self.0.get_or_init(|| backend.build(&build()).sql).clone();
        Statement { sql, values: Some(Values(values.into())), db_backend: backend }
    }
}
