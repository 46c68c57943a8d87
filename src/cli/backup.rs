//! `vivamo backup`: copies a SQLite database.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::print;
use crate::database::{self, describe};
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
    if copy.exists() {
        return Err(cannot_create(std::io::ErrorKind::AlreadyExists.into()));
    }
    let path = std::path::absolute(copy).map_err(cannot_create)?;
    let Some(path) = path.to_str() else {
        return Err(Failure::Other(format!("Cannot create {}: its path is not valid UTF-8.", copy.display())));
    };
    // An interrupted copy keeps this other name, so that nobody takes it for a backup.
    let partial = format!("{path}.{}.partial", std::process::id());
    let copied = copy_database(url, &partial, copy).await;
    if copied.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    copied
        .map_err(|cause| Failure::Other(format!("Cannot copy {} to {}: {cause}.", file.display(), copy.display())))?;
    print::text(&format!("Copied {} to {}.\n", file.display(), copy.display()))
}

/// Copies the database to `partial`, an absolute path, and renames the complete copy to `copy`.
async fn copy_database(url: &str, partial: &str, copy: &Path) -> Result<(), String> {
    // SQLite fills an empty file and keeps its permissions.
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(partial);
    let created = created.map_err(|cause| cause.to_string())?;
    database::backup(url, partial).await.map_err(|cause| describe(&cause))?;
    let stored = || {
        created.sync_all()?;
        std::fs::rename(partial, copy)?;
        // The new name survives a power failure too.
        Path::new(partial).parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    stored().map_err(|cause: std::io::Error| cause.to_string())
}
