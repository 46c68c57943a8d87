//! `vivamo backup`: copies a SQLite database.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use uuid::Uuid;

use super::print;
use crate::database::{self, describe};
use crate::fatal_error::FatalError;

/// Copies the database into a new file. Fails for PostgreSQL with a message that says how to copy a PostgreSQL
/// database.
pub async fn run(url: &str, copy: &Path) -> Result<(), FatalError> {
    let Some(file) = database::sqlite_file(url) else {
        return Err(FatalError::Other(
            "PostgreSQL has its own tools for backups. BACKUP_URL must be the URL of the database without the password (see \
             \"Backup and restore\" in docs/operations.md). For a backup in the file vivamo.dump, run: pg_dump \
             --format=custom --file=vivamo.dump \"${BACKUP_URL:?}\""
                .to_owned(),
        ));
    };
    if !file.exists() {
        return Err(FatalError::NoDatabase(file));
    }
    let cannot_create =
        |cause: std::io::Error| FatalError::Other(format!("Cannot create {}: {cause}.", copy.display()));
    // Also true for a symbolic link whose target does not exist.
    if copy.symlink_metadata().is_ok() {
        return Err(cannot_create(ErrorKind::AlreadyExists.into()));
    }
    let path = std::path::absolute(copy).map_err(cannot_create)?;
    let Some(path) = path.to_str() else {
        return Err(FatalError::Other(format!("Cannot create {}: its path is not valid UTF-8.", copy.display())));
    };
    // An interrupted copy keeps this other name, so that nobody takes it for a backup.
    let partial = format!("{path}.{}.partial", Uuid::now_v7().simple());
    // SQLite fills an empty file and keeps its permissions.
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial).map_err(cannot_create)?;
    let copied = copy_database(url, &partial, &created, copy).await;
    if copied.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    copied.map_err(|cause| {
        FatalError::Other(format!("Cannot copy {} to {}: {cause}.", file.display(), copy.display()))
    })?;
    print::text(&format!("Copied {} to {}.\n", file.display(), copy.display()))
}

/// Copies the database to `partial`, which is an absolute path and is open as `created`. Renames the complete copy to
/// `copy`.
async fn copy_database(url: &str, partial: &str, created: &File, copy: &Path) -> Result<(), String> {
    database::backup(url, partial).await.map_err(|cause| describe(&cause))?;
    let stored = created.sync_all().and_then(|()| rename_to_new(Path::new(partial), copy));
    stored.map_err(|cause| cause.to_string())
}

/// Renames a file, and does not replace a file that was created in the meantime.
fn rename_to_new(from: &Path, to: &Path) -> std::io::Result<()> {
    match std::fs::hard_link(from, to) {
        Ok(()) => std::fs::remove_file(from)?,
        Err(cause) if cause.kind() == ErrorKind::AlreadyExists => return Err(cause),
        // The file system has no hard links.
        Err(_) => std::fs::rename(from, to)?,
    }
    // The new name survives a power failure too, if the folder can be read.
    if let Some(Ok(folder)) = from.parent().map(File::open) {
        let _ = folder.sync_all();
    }
    Ok(())
}
