//! `vivamo backup`: copies a SQLite database.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::print;
use crate::database::{self, explain_connect_error};
use crate::failure::Failure;

/// Copies the database into a new file. Fails for PostgreSQL with a message that says how to copy a PostgreSQL
/// database.
pub async fn run(url: &str, copy: &Path) -> Result<(), Failure> {
    let Some(file) = database::sqlite_file(url) else {
        return Err(Failure::Other(format!(
            "PostgreSQL has its own tools for backups. Run: pg_dump --format=custom --file={} \"$DATABASE_URL\"",
            copy.display()
        )));
    };
    if !file.exists() {
        return Err(Failure::NoDatabase(file));
    }
    let cannot_create = |cause: std::io::Error| Failure::Other(format!("Cannot create {}: {cause}.", copy.display()));
    let path = std::path::absolute(copy).map_err(cannot_create)?;
    let Some(path) = path.to_str() else {
        return Err(Failure::Other(format!("Cannot create {}: its path is not valid UTF-8.", copy.display())));
    };
    // SQLite fills an empty file and keeps its permissions.
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(copy).map_err(cannot_create)?;
    let copied = database::backup(url, path).await.map_err(|error| Failure::Other(explain_connect_error(url, &error)));
    let copied = copied.and_then(|()| created.sync_all().map_err(cannot_create));
    if copied.is_err() {
        let _ = std::fs::remove_file(copy);
    }
    copied?;
    print::text(&format!("Copied {} to {}.\n", file.display(), copy.display()))
}
